"""The pictures of a benchmark: intervals, completion times, a learning curve; one look for a policy in all of them."""

import csv
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.experiments.drawing import (
    GRID,
    HEURISTIC,
    LEARNED,
    bare,
    line_style,
    new_figure,
)
from lepton_rl.experiments.pareto import Point
from lepton_rl.experiments.runner import Contender
from lepton_rl.experiments.summary import METRICS, WorkloadSummary
from lepton_rl.workloads import duration_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MODES = ((LEARNED, "-"), ("#009e73", "--"))  # of a training's evaluations: greedy, sampled
_LABEL_WIDTH = 27  # characters of a label beside the short axis of a learning curve
_DURATIONS = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0, 365 * 86400.0)


def intervals_figure(summary: WorkloadSummary, metric: str) -> "Figure":
    """Draw each policy's mean with its interval, best first."""
    figure = new_figure(5.4, 0.9 + 0.29 * len(summary.contenders))
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
    axes.grid(axis="x", color=GRID)
    bare(axes)
    return figure


def cdf_figure(summary: WorkloadSummary, edges: NDArray[np.float64]) -> "Figure":
    """Draw how completion times of all windows' jobs are distributed, and the tail on a log scale."""
    figure = new_figure(10.4, 3.9)
    whole, tail = figure.subplots(1, 2)
    least, most, jobs = np.inf, 0.0, 1
    styles = line_styles(summary)
    for contender in summary.contenders:
        counts = summary.jct_counts[contender]
        jobs = max(jobs, int(counts.sum()))
        share = np.cumsum(counts) / counts.sum()
        used = np.flatnonzero(counts)
        least, most = min(least, edges[used[0]]), max(most, edges[used[-1] + 1])
        whole.step(edges[1:], share, where="post", label=contender.label, **styles[contender])
        left = np.where(share < 1.0, 1.0 - share, np.nan)
        tail.step(edges[1:], left, where="post", **styles[contender])
    ticks = [value for value in _DURATIONS if least <= value <= most]
    for axes in (whole, tail):
        axes.set(xscale="log", xlim=(least, most), xlabel="job completion time (log scale)")
        axes.set_xticks(ticks, [duration_text(value) for value in ticks])
        axes.minorticks_off()
        axes.grid(color=GRID)
        bare(axes)
    whole.set(ylim=(0, 1.01), ylabel="share of jobs done by then")
    tail.set(yscale="log", ylim=(max(1.0 / jobs, 1e-4), 1.1), ylabel="share of jobs not done by then")
    figure.legend(loc="outside right center", frameon=False, fontsize=8.5)
    return figure


def line_styles(summary: WorkloadSummary) -> dict[Contender, dict[str, Any]]:
    """Return the colour and dash that each policy has in all pictures of a workload."""
    ranks = {True: 0, False: 0}
    styles = {}
    for contender in summary.contenders:
        learned = contender in summary.learned
        styles[contender] = line_style(ranks[learned], learned)
        ranks[learned] += 1
    return styles


def pareto_points(summary: WorkloadSummary, across: str, up: str) -> list[Point]:
    """Return each policy's means of two metrics, with their intervals; a yardstick is no rival."""
    styles = line_styles(summary)
    return [
        Point(
            contender.label, styles[contender], summary.estimate(contender, across), summary.estimate(contender, up),
            competes=contender in summary.policies,
        )
        for contender in summary.contenders
    ]  # fmt: skip


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
    figure = new_figure(4.6 * len(names), 3.2)
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
        axes.grid(color=GRID)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=9)
        bare(axes)
    figure.suptitle(f"{label}: held-out windows during training", x=0.01, ha="left", fontsize=10)
    return figure
