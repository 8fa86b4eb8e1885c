"""The pictures of a benchmark: intervals, completion times, two schedules, a learning curve."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import missing_extra
from lepton_rl.experiments.gantt import Segment, raster
from lepton_rl.experiments.summary import METRICS, WorkloadSummary
from lepton_rl.workloads import duration_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEARNED = "#c2410c"
HEURISTIC = "#1e5a8a"
_GRID = "#e5e7eb"
_MUTED = "#6b7280"
# Okabe and Ito's colours, which colour-blind readers can tell apart, then the same as dashes.
_LINES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d31", "#000000", "#7f7f7f")
_MODES = ((LEARNED, "-"), ("#009e73", "--"))  # of a training's evaluations: greedy, sampled
_LABEL_WIDTH = 27  # characters of a label beside the short axis of a learning curve
_DURATIONS = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0, 365 * 86400.0)


@dataclass(frozen=True, eq=False)
class Schedule:
    """One policy's schedule for a Gantt chart."""

    title: str
    segments: Sequence[Segment]


def intervals_figure(summary: WorkloadSummary, metric: str) -> "Figure":
    """Draw each policy's mean with its interval, best first."""
    figure = _figure(5.4, 0.9 + 0.29 * len(summary.contenders))
    axes = figure.subplots()
    estimates = [(summary.estimate(contender, metric), contender) for contender in summary.contenders]
    estimates.sort(key=lambda pair: pair[0].mean, reverse=True)
    for row, (estimate, contender) in enumerate(estimates):
        colour = LEARNED if contender in summary.learned else HEURISTIC
        if estimate.low is not None and estimate.high is not None:
            axes.plot([estimate.low, estimate.high], [row, row], color=colour, linewidth=2.2, alpha=0.55)
        axes.plot(estimate.mean, row, "o", color=colour, markersize=5.5)
    axes.set_yticks(range(len(estimates)), [contender.label for _, contender in estimates])
    for label, (_, contender) in zip(axes.get_yticklabels(), estimates, strict=True):
        if contender in summary.learned:
            label.set(color=LEARNED, fontweight="bold")
    means = [estimate.mean for estimate, _ in estimates]
    if min(means) > 0 and max(means) / min(means) > 8:
        axes.set_xscale("log")
        axes.tick_params(axis="x", which="minor", labelbottom=False)  # over two decades they run into each other
    else:
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_ylim(-0.7, len(estimates) - 0.3)
    axes.set_xlabel(METRICS[metric])
    axes.grid(axis="x", color=_GRID)
    _bare(axes)
    return figure


def cdf_figure(summary: WorkloadSummary, edges: NDArray[np.float64]) -> "Figure":
    """Draw how completion times of all windows' jobs are distributed, and the tail on a log scale."""
    figure = _figure(10.4, 3.9)
    whole, tail = figure.subplots(1, 2)
    least, most, jobs = np.inf, 0.0, 1
    heuristics = 0
    for contender in summary.contenders:
        counts = summary.jct_counts[contender]
        jobs = max(jobs, int(counts.sum()))
        share = np.cumsum(counts) / counts.sum()
        used = np.flatnonzero(counts)
        least, most = min(least, edges[used[0]]), max(most, edges[used[-1] + 1])
        if contender in summary.learned:
            style: dict[str, Any] = {"color": LEARNED, "linewidth": 2.4, "zorder": 5}
        else:
            dashes = ("-", "--", ":")[heuristics // len(_LINES) % 3]
            style = {"color": _LINES[heuristics % len(_LINES)], "linewidth": 1.3, "linestyle": dashes}
            heuristics += 1
        whole.step(edges[1:], share, where="post", label=contender.label, **style)
        left = np.where(share < 1.0, 1.0 - share, np.nan)
        tail.step(edges[1:], left, where="post", **style)
    ticks = [value for value in _DURATIONS if least <= value <= most]
    for axes in (whole, tail):
        axes.set(xscale="log", xlim=(least, most), xlabel="job completion time (log scale)")
        axes.set_xticks(ticks, [duration_text(value) for value in ticks])
        axes.minorticks_off()
        axes.grid(color=_GRID)
        _bare(axes)
    whole.set(ylim=(0, 1.01), ylabel="share of jobs done by then")
    tail.set(yscale="log", ylim=(max(1.0 / jobs, 1e-4), 1.1), ylabel="share of jobs not done by then")
    figure.legend(loc="outside right center", frameon=False, fontsize=8.5)
    return figure


def gantt_figure(
    schedules: Sequence[Schedule], gpus: int, first_gpus: Sequence[int], begin: float, end: float
) -> "Figure":
    """Draw schedules under each other: GPUs downwards, a line above each node's first, time to the right.

    Each job has one colour.
    """
    figure = _figure(10.4, 0.7 + 2.5 * len(schedules))
    rows = figure.subplots(len(schedules), 1, sharex=True, squeeze=False)[:, 0]
    palette = _job_colours()
    unit, name = next(u for u in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (0.0, "seconds"))
                      if end - begin >= 3 * u[0])  # fmt: skip
    span = (end - begin) / (unit or 1.0)
    for axes, schedule in zip(rows, schedules, strict=True):
        picture = raster(schedule.segments, gpus, begin, end)
        colours = palette[picture % len(palette)]
        colours[picture < 0] = 0.965
        axes.imshow(colours, aspect="auto", extent=(0, span, gpus, 0), interpolation="nearest")
        if len(first_gpus) <= 64:
            for first in first_gpus[1:]:
                axes.axhline(first, color="white", linewidth=0.5)
        axes.set_ylabel("GPU")
        axes.set_title(schedule.title, loc="left", fontsize=10)
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
    rows[-1].set_xlabel(f"{name} after the first counted submission")
    return figure


def learning_curve_figure(file: Path, label: str, kept: tuple[int, str] | None = None) -> "Figure | None":
    """Draw the held-out metrics of a training run over its steps; None where the file has too few rows.

    Args:
        file: with one row for each evaluation and, where it has that column, mode.
        label: in the title.
        kept: steps and mode of the evaluation whose weights were kept; it gets a mark.
    """
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    names = [name for name in ("mean_bounded_slowdown", "mean_jct") if rows and name in rows[0]]
    if len(rows) < 2 or not names or "steps" not in rows[0]:
        return None
    modes = list(dict.fromkeys(row.get("mode", "") for row in rows))
    figure = _figure(4.6 * len(names), 3.2)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for index, mode in enumerate(modes):
            points = [(float(row["steps"]), float(row[name])) for row in rows if row.get("mode", "") == mode]
            colour, dash = _MODES[index % len(_MODES)]
            axes.plot(*zip(*points, strict=True), "o", linestyle=dash, color=colour, markersize=3, linewidth=1.4,
                      label=mode or None)  # fmt: skip
        best = [(row["steps"], row[name]) for row in rows if kept == (int(row["steps"]), row.get("mode"))]
        if best:
            axes.plot(*map(float, best[0]), "o", color="black", fillstyle="none", markersize=10, markeredgewidth=1.6,
                      linestyle="none", label="kept")  # fmt: skip
        values = [float(row[name]) for row in rows]
        if min(values) > 0 and max(values) / min(values) > 8:
            axes.set_yscale("log")
        axes.set(xlabel="environment steps", ylabel=fill(METRICS[name], _LABEL_WIDTH))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k")
        axes.grid(color=_GRID)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=9)
        _bare(axes)
    figure.suptitle(f"{label}: held-out windows during training", x=0.01, ha="left", fontsize=10)
    return figure


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_extra("matplotlib", "report") from None
    return Figure(figsize=(width, height), layout="constrained")


def _bare(axes: "Axes") -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.tick_params(length=0, labelsize=9)
    axes.set_axisbelow(True)


def _job_colours() -> NDArray[np.float64]:
    """Return colours far apart for neighbouring jobs: hues by the golden ratio, at three lightnesses."""
    from matplotlib.colors import hsv_to_rgb

    index = np.arange(233)
    hsv = np.stack((index * 0.6180339887 % 1.0, 0.42 + 0.16 * (index % 3), 0.92 - 0.13 * (index // 2 % 3)), axis=1)
    colours: NDArray[np.float64] = hsv_to_rgb(hsv)
    return colours
