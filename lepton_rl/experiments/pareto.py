"""Two metrics against each other, and the policies that no other one dominates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.metrics import DESCRIPTIONS
from lepton_rl.experiments.drawing import GRID, bare, marker_of, new_figure
from lepton_rl.experiments.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS, UP = "mean_jct", "energy_kwh"
FRONT_NOTE = (
    "Further down and to the left is better. The line joins the policies, in bold, that no other one dominates: as "
    "good in both, and better in one."
)


@dataclass(frozen=True, eq=False)
class Point:
    """A policy's figures in two metrics, both better when lower; one that does not compete dominates nobody."""

    label: str
    style: dict[str, Any]  # from drawing.line_style
    across: Estimate
    up: Estimate
    competes: bool = True


def pareto_figure(points: Sequence[Point], across: str = ACROSS, up: str = UP) -> "Figure":
    """Draw points with their intervals, and a line through those that no other one dominates."""
    figure = new_figure(10.4, max(4.2, 0.6 + 0.21 * len(points)))
    axes = figure.subplots()
    for point in points:
        axes.errorbar(
            point.across.mean, point.up.mean, xerr=_arms(point.across), yerr=_arms(point.up),
            fmt=marker_of(point.style), color=point.style["color"], markersize=7, elinewidth=1.1, capsize=0,
            label=point.label, zorder=point.style.get("zorder", 3),
        )  # fmt: skip
    rivals = [point for point in points if point.competes]
    means = np.array([[point.across.mean, point.up.mean] for point in rivals])
    front = non_dominated(means)
    axes.plot(*means[front].T, color="#111827", linewidth=1.2, zorder=2)
    axes.set(xlabel=DESCRIPTIONS[across], ylabel=DESCRIPTIONS[up])
    axes.locator_params(nbins=7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.grid(color=GRID)
    bare(axes)
    legend = figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
    for text, point in zip(legend.get_texts(), points, strict=True):
        text.set_fontweight("bold" if any(point is rivals[row] for row in front) else "normal")
    return figure


def non_dominated(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows of (points, metrics) that no other row is as low as in all and lower than in one, by the first.

    Of equal rows each counts.
    """
    as_low = (points[:, None, :] <= points[None, :, :]).all(axis=2)
    lower = (points[:, None, :] < points[None, :, :]).any(axis=2)
    free = np.flatnonzero(~(as_low & lower).any(axis=0))
    return free[np.lexsort(points[free].T[::-1])].astype(np.int64)


def _arms(estimate: Estimate) -> list[list[float]] | None:
    """Return how far an interval reaches to both sides of its mean."""
    if estimate.low is None or estimate.high is None:
        return None
    return [[max(estimate.mean - estimate.low, 0.0)], [max(estimate.high - estimate.mean, 0.0)]]
