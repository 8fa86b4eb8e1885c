"""Pictures of Pareto fronts: of policies by two metrics with their intervals, and of single runs or plans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_rl.agents.plan_front import non_dominated
from lepton_rl.core.metrics import DESCRIPTIONS
from lepton_rl.experiments.drawing import GRID, HEURISTIC, LEARNED, bare, in_thousands, marker_of, new_figure
from lepton_rl.experiments.fronts import FrontPoint
from lepton_rl.experiments.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS, UP = "mean_jct", "energy_kwh"
FRONT_NOTE = (
    "Further down and to the left is better. The line joins the policies, in bold, that no other one dominates: as "
    "good in both, and better in one."
)
ON_FRONT, DOMINATED = LEARNED, HEURISTIC
_LABEL = (0.2, 0.035)
"""Width and height of a label, in parts of the picture."""


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
    front = non_dominated(means, twins=True)
    axes.plot(*means[front].T, color="#111827", linewidth=1.2, zorder=2)
    axes.set(xlabel=DESCRIPTIONS[across], ylabel=DESCRIPTIONS[up])
    axes.locator_params(nbins=7)
    in_thousands(axes)
    axes.grid(color=GRID)
    bare(axes)
    legend = figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
    for text, point in zip(legend.get_texts(), points, strict=True):
        text.set_fontweight("bold" if any(point is rivals[row] for row in front) else "normal")
    return figure


def _arms(estimate: Estimate) -> list[list[float]] | None:
    """Return how far an interval reaches to both sides of its mean."""
    if estimate.low is None or estimate.high is None:
        return None
    return [[max(estimate.mean - estimate.low, 0.0)], [max(estimate.high - estimate.mean, 0.0)]]


def front_figure(points: Sequence[FrontPoint], title: str) -> "Figure":
    """Draw the points, those of the front in another colour and joined: what no other beats in both lies below it."""
    figure = new_figure(7.2, 4.4)
    axes = figure.subplots()
    front = [point for point in points if point.on_front]
    axes.step([point.mean_jct for point in front], [point.added_kwh for point in front], where="post",
              color=ON_FRONT, linewidth=1.4, alpha=0.6)  # fmt: skip
    for point in points:
        axes.plot(point.mean_jct, point.added_kwh, "o", color=_colour([point]), markersize=6 if len(front) < 24 else 4)
    for group in _close_together(points) if len(front) < 24 else []:
        axes.annotate(" · ".join(point.label for point in group), (group[0].mean_jct, group[0].added_kwh), (6, 4),
                      textcoords="offset points", fontsize=8.5, color=_colour(group))  # fmt: skip
    axes.margins(0.12)
    axes.set(xlabel="mean job completion time, s", ylabel="energy above idle draw, kWh")
    in_thousands(axes)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10.5)
    return figure


def _colour(points: Sequence[FrontPoint]) -> str:
    return ON_FRONT if any(point.on_front for point in points) else DOMINATED


def _close_together(points: Sequence[FrontPoint]) -> list[list[FrontPoint]]:
    """Return the points in groups whose labels would cover each other."""
    places = np.array([(point.mean_jct, point.added_kwh) for point in points])
    places = (places - places.min(axis=0)) / np.maximum(np.ptp(places, axis=0), 1e-300)
    groups: list[list[int]] = []
    for row in range(len(points)):
        near = (group for group in groups if (np.abs(places[group[0]] - places[row]) < _LABEL).all())
        found = next(near, None)
        if found is None:
            groups.append([row])
        else:
            found.append(row)
    return [[points[row] for row in group] for group in groups]
