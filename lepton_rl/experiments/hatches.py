"""What a Gantt chart hatches: GPUs that are down, reserved, or slowed by their heat."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lepton_rl.core import ClusterSpec
from lepton_rl.experiments.draws import throttled_draws
from lepton_rl.experiments.recording import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring GPUs for a time, seconds."""

    first_gpu: int
    gpus: int
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Hatch:
    """How one thing that happens to GPUs is drawn, and what a legend calls it; `ground` is the legend's own."""

    label: str
    pattern: str
    colour: str
    ground: str = "none"


RESERVED = Hatch("reserved", "////", "#1d4ed8")
THROTTLED = Hatch("throttled by heat", "\\\\\\", "#ffffffb0", "#9ca3af")  # light: jobs' names stand on it
DOWN = Hatch("down", "xxxx", "#b91c1c")
HATCHES = (RESERVED, THROTTLED, DOWN)
"""In the order in which they are drawn, one over the other."""


def draw_hatches(axes: "Axes", recording: Recording, begin: float, end: float, unit: float) -> list[Hatch]:
    """Hatch what happened to GPUs between two times, and return what there was.

    A job that outruns its time shows through a reservation. `unit` is that of the axis, seconds.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    found = []
    for hatch in HATCHES:
        boxes = []
        for span in spans_of(recording, hatch):
            left, right = max(span.begin, begin), min(span.end, end)
            if left < right:
                boxes.append(Rectangle(((left - begin) / unit, span.first_gpu), (right - left) / unit, span.gpus))
        if boxes:
            found.append(hatch)
            drawn = PatchCollection(boxes, facecolor="none", edgecolor=hatch.colour, hatch=hatch.pattern, linewidth=0)
            axes.add_collection(drawn, autolim=False)
    return found


def add_legend(chart: "Figure", found: Sequence[Hatch]) -> None:
    """Say above the chart what each hatch means; nothing where there is none."""
    from matplotlib.patches import Patch

    entries = [hatch for hatch in HATCHES if hatch in found]
    if entries:
        boxes = [
            Patch(facecolor=hatch.ground, edgecolor=hatch.colour, hatch=hatch.pattern, linewidth=0, label=hatch.label)
            for hatch in entries
        ]
        chart.legend(handles=boxes, loc="outside upper right", ncols=len(boxes), frameon=False, fontsize=9)


def spans_of(recording: Recording, hatch: Hatch) -> list[Span]:
    """Return where and when something happened to GPUs."""
    if hatch is THROTTLED:
        return throttled_spans(recording)
    return down_spans(recording.cluster) if hatch is DOWN else reserved_spans(recording.cluster)


def down_spans(cluster: ClusterSpec) -> list[Span]:
    """Return when failures kept GPUs down, until their repair; neighbours that were down together as one."""
    times, units = cluster.dynamics.faults.events(cluster.first_gpus, cluster.gpus)
    spans: list[Span] = []
    failures, since = np.zeros(cluster.gpus, np.int64), np.zeros(cluster.gpus)
    for time, (first, count, change) in zip(times.tolist(), units.tolist(), strict=True):
        struck = slice(first, first + count)
        before = failures[struck].copy()
        failures[struck] += change
        since[struck][(before == 0) & (failures[struck] > 0)] = time
        ended = first + np.flatnonzero((before > 0) & (failures[struck] == 0))
        for gpu in ended.tolist():
            last = spans[-1] if spans else None
            if last and (last.first_gpu + last.gpus, last.begin, last.end) == (gpu, since[gpu], time):
                spans[-1] = replace(last, gpus=last.gpus + 1)
            else:
                spans.append(Span(gpu, 1, float(since[gpu]), time))
    return spans


def reserved_spans(cluster: ClusterSpec) -> list[Span]:
    """Return the reservations of a cluster, node by node."""
    bounds = [*cluster.first_gpus, cluster.gpus]
    return [
        Span(bounds[node], bounds[node + 1] - bounds[node], spell.begin_s, spell.end_s)
        for spell in cluster.dynamics.reservations
        for node in spell.nodes
    ]


def throttled_spans(recording: Recording) -> list[Span]:
    """Return when GPUs drew less than their jobs wanted, for their temperature; neighbours that did so together as one.

    None where the cluster counts no heat.
    """
    held = throttled_draws(recording)
    order = np.lexsort((held.begin, held.gpu))
    alone: list[Span] = []
    for gpu, begin, end in zip(*(part[order].tolist() for part in (held.gpu, held.begin, held.end)), strict=True):
        last = alone[-1] if alone else None
        if last is not None and (last.first_gpu, last.end) == (gpu, begin):
            alone[-1] = replace(last, end=end)
        else:
            alone.append(Span(gpu, 1, begin, end))
    together: list[Span] = []
    for span in sorted(alone, key=lambda span: (span.begin, span.end, span.first_gpu)):
        last = together[-1] if together else None
        if last is not None and _at_once(last, span) and last.first_gpu + last.gpus == span.first_gpu:
            together[-1] = replace(last, gpus=last.gpus + 1)
        else:
            together.append(span)
    return together


def _at_once(span: Span, other: Span) -> bool:
    return (span.begin, span.end) == (other.begin, other.end)
