"""Gantt charts: which job held which GPU when, and where it was preempted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import Outcome
from lepton_rl.errors import counted
from lepton_rl.experiments.drawing import new_figure, time_unit
from lepton_rl.experiments.hatches import Hatch, add_legend, draw_hatches
from lepton_rl.experiments.recording import Ints, Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_GPUS = 512
"""GPUs of which each has a row; of larger clusters as many, evenly spaced."""
_MOST_NAMED = 60  # stays; where there are more, their jobs' numbers do not fit
_MOST_LINES = 24  # between nodes; more hide the jobs
_MARK = "#111827"


@dataclass(frozen=True, eq=False)
class Schedule:
    """One policy's schedule for a Gantt chart; `names` are what the jobs are called in it."""

    title: str
    recording: Recording
    names: NDArray[Any] | None = None


def gantt_figure(schedules: Sequence[Schedule], begin: float, end: float, origin: str) -> "Figure":
    """Draw schedules of one cluster under each other: GPUs downwards, time to the right, from `begin` to `end`.

    Each job has one colour, in all of its stays; a dark line ends a stay that was preempted. What is down, reserved or
    throttled by its heat is hatched, and a legend says so where there is any. A light line stands above each node's
    first GPU. Where there are few stays, they are named. `origin` says what `begin` is.
    """
    chart = new_figure(10.4, 0.7 + 2.5 * len(schedules))
    rows = chart.subplots(len(schedules), 1, sharex=True, squeeze=False)[:, 0]
    palette = _job_colours()
    unit, name = time_unit(end - begin)
    cluster = schedules[0].recording.cluster
    hatched: list[Hatch] = []
    for axes, schedule in zip(rows, schedules, strict=True):
        picture = raster(schedule.recording, begin, end)
        colours = palette[picture % len(palette)]
        colours[picture < 0] = 0.965
        axes.imshow(colours, aspect="auto", extent=(0, (end - begin) / unit, cluster.gpus, 0), interpolation="nearest")
        if len(cluster.first_gpus) <= _MOST_LINES:
            for first in cluster.first_gpus[1:]:
                axes.axhline(first, color="white", linewidth=0.5)
        hatched += draw_hatches(axes, schedule.recording, begin, end, unit)
        _mark_preemptions(axes, schedule.recording, begin, end, unit)
        _name_stays(axes, schedule, begin, end, unit)
        axes.set_ylabel("GPU")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_title(schedule.title, loc="left", fontsize=10)
        axes.tick_params(length=0, labelsize=9)
        for side in axes.spines.values():
            side.set_visible(False)
    rows[-1].set_xlabel(f"{name} after {origin}")
    add_legend(chart, hatched)
    return chart


def raster(
    recording: Recording, begin: float, end: float, columns: int = 1400, most_rows: int = MOST_GPUS
) -> NDArray[np.int64]:
    """Return a picture of (GPUs, time) whose cells hold the running job, or -1.

    Large clusters are sampled down to `most_rows` evenly spaced GPUs. A stay shorter than a cell is drawn as
    one, under longer ones.
    """
    gpus = recording.cluster.gpus
    shown = np.unique(np.linspace(0, gpus - 1, min(gpus, most_rows)).round().astype(np.int64))
    row_of = np.full(gpus, -1, np.int64)
    row_of[shown] = np.arange(len(shown))
    picture = np.full((len(shown), columns), -1, np.int64)
    scale = columns / (end - begin)
    stays = _shown(recording, begin, end)
    for stay in stays[np.argsort(recording.end[stays] - recording.begin[stays], kind="stable")].tolist():
        rows = row_of[recording.gpus_of(stay)]
        first = max(0, int((recording.begin[stay] - begin) * scale))
        last = min(columns, max(first + 1, int(np.ceil((recording.end[stay] - begin) * scale))))
        picture[rows[rows >= 0], first:last] = recording.job[stay]
    return picture


def _shown(recording: Recording, begin: float, end: float) -> Ints:
    """Return the stays that a part of the time falls in."""
    return np.flatnonzero((recording.end > begin) & (recording.begin < end)).astype(np.int64)


def _mark_preemptions(axes: "Axes", recording: Recording, begin: float, end: float, unit: float) -> None:
    """Draw a line at the end of each interrupted stay, over its GPUs, and say what it is."""
    from matplotlib.collections import LineCollection

    inside = recording.interrupted & (recording.end >= begin) & (recording.end < end)
    held = np.flatnonzero(inside[recording.stay])
    if len(held) == 0:
        return
    x = (recording.end[recording.stay[held]] - begin) / unit
    top = recording.gpu[held].astype(np.float64)
    lines = np.stack((np.stack((x, top), 1), np.stack((x, top + 1.0), 1)), 1)
    width = 2.0 if inside.sum() <= 200 else 1.0
    axes.add_collection(LineCollection(list(lines), colors=_MARK, linewidths=width, capstyle="butt"))
    drawn, all_of_them = int(inside.sum()), int(recording.interrupted.sum())
    part = "" if drawn == all_of_them else f"{drawn:,} of "  # the time ends before the run does
    what = counted(all_of_them, _what_ended(recording.outcome))
    axes.set_title(f"▏ {part}{what}", loc="right", fontsize=9, color=_MARK)


def _what_ended(outcome: Outcome) -> str:
    """Return what cut stays short: preemptions, unless there were failures or migrations too."""
    others = 0 if outcome.disturbed is None else int(outcome.disturbed.strikes.sum())
    others += 0 if outcome.migrations is None else int(outcome.migrations.sum())
    return "interruption" if others else "preemption"


def _name_stays(axes: "Axes", schedule: Schedule, begin: float, end: float, unit: float) -> None:
    """Write each job's name in its stays, at the first GPUs that lie together, where it has room."""
    recording, names = schedule.recording, schedule.names
    stays = _shown(recording, begin, end)
    if names is None or len(stays) > _MOST_NAMED:
        return
    for stay in stays.tolist():
        gpus = np.sort(recording.gpus_of(stay))
        together = int(np.argmax(np.append(np.diff(gpus) != 1, True))) + 1
        left, right = max(recording.begin[stay], begin), min(recording.end[stay], end)
        name = str(names[recording.job[stay]])
        if right - left > 0.011 * len(name) * (end - begin):
            at = ((left + right) / 2 - begin) / unit, gpus[0] + together / 2
            axes.text(*at, name, ha="center", va="center", fontsize=8, color=_MARK, clip_on=True)


def _job_colours() -> NDArray[np.float64]:
    """Return colours far apart for neighbouring jobs: hues by the golden ratio, at three lightnesses."""
    from matplotlib.colors import hsv_to_rgb

    index = np.arange(233)
    hsv = np.stack((index * 0.6180339887 % 1.0, 0.42 + 0.16 * (index % 3), 0.92 - 0.13 * (index // 2 % 3)), axis=1)
    colours: NDArray[np.float64] = hsv_to_rgb(hsv)
    return colours
