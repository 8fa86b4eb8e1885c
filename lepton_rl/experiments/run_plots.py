"""The pictures of a recorded run: heat maps of GPUs over time, and the lines of queue, power, cost, fragmentation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_rl.core.units import JOULES_PER_KWH, JOULES_PER_MWH
from lepton_rl.experiments import heat, timelines
from lepton_rl.experiments.drawing import GRID, MUTED, bare, new_figure, time_unit
from lepton_rl.experiments.draws import inlet_c
from lepton_rl.experiments.recording import Floats, Recording
from lepton_rl.experiments.timelines import Steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_STEPS = 1500
"""A line with more steps is drawn as means of equal spans of time, in a band from the least to the greatest value."""
_BINS = 500
_ORIGIN = "the first submission"


TIMELINES_NOTE = (
    "Drawn event by event; where events are too many, means of equal spans of time, in a band from the least to the "
    "greatest value. Power and energy are those of all GPUs, idle ones included."
)


@dataclass(frozen=True, eq=False)
class Run:
    """A recorded run in a picture: its label and the look of its lines (`drawing.line_style`)."""

    label: str
    recording: Recording
    style: dict[str, Any]


def heat_figure(recording: Recording) -> "Figure":
    """Draw utilisation, power and, where the GPUs' types are known, temperature: GPUs downwards, time to the right."""
    grid = heat.grid_of(recording)
    # light is low, dark is high, and colour-blind readers can tell the steps
    maps = [
        ("utilisation", heat.utilization(recording, grid), "share held by jobs", "Blues", (0.0, 1.0)),
        ("power", heat.power_w(recording, grid), "W per GPU", "Purples", None),
    ]
    if heat.knows_temperature(recording.cluster):
        maps.append(("temperature", heat.temperature_c(recording, grid), "°C", "Oranges", None))
    picture = new_figure(10.4, 0.5 + 2.3 * len(maps))
    unit, name = time_unit(recording.ended - recording.begun)
    extent = (0.0, (recording.ended - recording.begun) / unit, float(len(grid.gpus) * grid.together), 0.0)
    rows = picture.subplots(len(maps), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, cells, label, colours, limits) in zip(rows, maps, strict=True):
        least, most = limits or (float(cells.min()), float(cells.max()))
        image = axes.imshow(
            cells, aspect="auto", extent=extent, cmap=colours, vmin=least, vmax=most, interpolation="nearest"
        )
        bar = picture.colorbar(image, ax=axes, pad=0.01, aspect=14)
        bar.set_label(label, fontsize=9)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize=9)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_ylabel(grid.unit)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(length=0, labelsize=9)
        for side in axes.spines.values():
            side.set_visible(False)
        _separate_groups(axes, recording, grid)
    rows[-1].set_xlabel(f"{name} after {_ORIGIN}")
    return picture


def heat_note(recording: Recording) -> str:
    """Return what a reader of the heat maps should know."""
    grid, groups = heat.grid_of(recording), recording.cluster.groups
    rows = f"each {grid.unit}" if grid.together == 1 else f"{grid.together} {grid.unit}s"
    said = [f"A row for {rows}; each cell is a mean over its GPUs and its span of time. Light is low, dark high."]
    if len(groups) > 1:
        said.append(f"Lines part the groups, from the top: {', '.join(map(str, groups))}.")
    if heat.knows_temperature(recording.cluster):
        said.append(
            "The temperature follows the power with each type's thermal resistance and time constant, from an idle "
            f"GPU in inlet air of {inlet_c(recording.cluster):g} °C."
        )
    return " ".join(said)


def lines_figure(runs: Sequence[Run]) -> "Figure":
    """Draw what runs on one cluster were like over time, each in its own colour, one panel for each figure."""
    panels = _panels(runs[0].recording)
    picture = new_figure(10.4, 0.45 + 2.15 * ((len(panels) + 1) // 2))
    grid = picture.subplots((len(panels) + 1) // 2, 2, sharex=True, squeeze=False)
    begun = min(run.recording.begun for run in runs)
    ended = max(run.recording.ended for run in runs)
    unit, name = time_unit(ended - begun)
    for axes, (label, draw) in zip(grid.ravel(), panels, strict=False):
        for run in runs:
            draw(axes, run, begun, unit)
        axes.set_title(label, loc="left", fontsize=10)
        axes.set_xlim(0, (ended - begun) / unit)
        _set_range(axes)
        axes.locator_params(axis="y", nbins=6, integer=axes is grid[0, 0])  # jobs are whole
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.grid(color=GRID)
        bare(axes)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_visible(False)
    for axes in grid.ravel()[len(panels) - 2 : len(panels)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(f"{name} after {_ORIGIN}")
    if len(runs) > 1:
        handles, labels = grid[0, 0].get_legend_handles_labels()
        picture.legend(handles, labels, loc="outside upper right", ncols=min(len(runs), 6), frameon=False, fontsize=9)
    return picture


Panel = tuple[str, Callable[["Axes", Run, float, float], None]]


def _panels(first: Recording) -> list[Panel]:
    """Return a title and a painter for each figure that the cluster has."""
    panels: list[Panel] = [
        ("queue length, jobs", _stepped(timelines.queue_length)),
        ("power of all GPUs, kW", _stepped(timelines.power_w, 1e-3)),
        ("energy since the start, kWh", _summed(lambda power, until: timelines.energy_kwh(power, until))),
    ]
    tariffs = first.cluster.tariffs
    if (price := tariffs.electricity) is not None:
        panels.append((
            "electricity cost since the start, USD",
            _summed(lambda power, until: timelines.cost(power, price, until, JOULES_PER_MWH)),
        ))  # fmt: skip
    if (carbon := tariffs.carbon) is not None:
        panels.append((
            "carbon since the start, kg CO2eq",
            _summed(lambda power, until: timelines.cost(power, carbon, until, JOULES_PER_KWH) / 1000.0),
        ))  # fmt: skip
    if first.cluster.nodes > 1:
        panels.append(
            ("fragmentation: free on partly used nodes, % of all GPUs", _stepped(timelines.fragmentation, 100.0))
        )
    return panels


def _stepped(series: Callable[[Recording], Steps], factor: float = 1.0) -> Callable[["Axes", Run, float, float], None]:
    def draw(axes: "Axes", run: Run, begun: float, unit: float) -> None:
        steps = series(run.recording)
        if len(steps.values) <= _MOST_STEPS:
            values = np.append(steps.values, steps.values[-1]) * factor
            axes.step((steps.times - begun) / unit, values, where="post", label=run.label, **_thin(run.style))
            return
        edges = np.linspace(steps.times[0], steps.times[-1], _BINS + 1)
        mean, least, most = (values * factor for values in steps.binned(edges))
        x = (edges - begun) / unit
        colour = run.style["color"]
        axes.fill_between(x, _closed(least), _closed(most), step="post", color=colour, alpha=0.18, linewidth=0)
        axes.step(x, _closed(mean), where="post", label=run.label, **_thin(run.style))

    return draw


def _summed(series: Callable[[Steps, Floats], Floats]) -> Callable[["Axes", Run, float, float], None]:
    def draw(axes: "Axes", run: Run, begun: float, unit: float) -> None:
        power = timelines.power_w(run.recording)
        until = np.linspace(power.times[0], power.times[-1], _BINS + 1)
        axes.plot((until - begun) / unit, series(power, until), label=run.label, **_thin(run.style))

    return draw


def _set_range(axes: "Axes") -> None:
    """Let the values stand on 0, unless they go below, and give those that are 0 throughout a scale."""
    least, most = axes.dataLim.intervaly
    axes.set_ylim(least * 1.05 if least < 0 else 0.0, most * 1.05 if most > 0 else float(least == 0.0))


def _thin(style: dict[str, Any]) -> dict[str, Any]:
    """Return the look of a line that hides no other one: these have many steps."""
    return {**style, "linewidth": 1.3}


def _closed(values: Floats) -> Floats:
    """Return the values with the last once more: a step needs its end."""
    return np.append(values, values[-1])


def _separate_groups(axes: "Axes", recording: Recording, grid: heat.Grid) -> None:
    """Draw a line between the groups of a cluster."""
    for gpu in np.cumsum([group.gpus for group in recording.cluster.groups])[:-1]:
        axes.axhline(float(grid.row[gpu] * grid.together), color=MUTED, linewidth=0.8)
