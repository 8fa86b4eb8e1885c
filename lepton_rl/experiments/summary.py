"""From measurements to tables: means with intervals, and every policy against the strongest heuristic."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.metrics import DESCRIPTIONS
from lepton_rl.experiments.runner import Contender, Measurement
from lepton_rl.experiments.statistics import (
    Comparison,
    Estimate,
    compare,
    estimate,
    estimate_interquartile_mean,
)
from lepton_rl.experiments.windows import HIGHER_IS_BETTER
from lepton_rl.workloads import Dropped

HEADLINES = ("mean_bounded_slowdown", "mean_jct")
"""The metrics that policies are ranked by."""
OPTIMUM_GAP = "optimum_gap"
"""Derived from the others, where a benchmark has the optimum."""
METRICS = {
    **DESCRIPTIONS,
    "p50_bounded_slowdown": "median bounded slowdown",
    OPTIMUM_GAP: "a window's figure over the optimum's, less 1, mean over windows",
}


@dataclass(frozen=True, eq=False)
class WorkloadSummary:
    """One workload's results.

    Attributes:
        workload: its name.
        cluster: in words.
        windows: in words.
        notes: what a reader should know.
        dropped: jobs larger than the cluster.
        left_out: those, and the rows that were dropped in reading.
        contenders: in the order of the experiment file.
        learned: those of them that were trained.
        samples: by contender and metric, one figure for each window.
        jct_counts: by contender, completion times of all windows on the log grid.
        block: windows resampled together; None for no interval.
        optimum: the yardstick, which is no policy, and the metric in which it is optimal; None where there is none.
    """

    workload: str
    cluster: str
    windows: str
    notes: tuple[str, ...]
    dropped: int
    left_out: tuple[Dropped, ...]
    contenders: tuple[Contender, ...]
    learned: frozenset[Contender]
    samples: Mapping[Contender, Mapping[str, NDArray[np.float64]]]
    jct_counts: Mapping[Contender, NDArray[np.int64]]
    block: int | None
    optimum: tuple[Contender, str] | None = None

    @property
    def policies(self) -> tuple[Contender, ...]:
        """The contenders without the yardstick."""
        return tuple(one for one in self.contenders if self.optimum is None or one != self.optimum[0])

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that were measured."""
        first = self.samples[self.contenders[0]]
        return tuple(name for name in METRICS if name in first)

    def estimate(self, contender: Contender, metric: str) -> Estimate:
        """Return the mean over the windows, with its interval."""
        return estimate(self.samples[contender][metric], self.block)

    def strongest(self, metric: str) -> Contender | None:
        """Return the heuristic with the best mean; None where all policies are learned."""
        sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0
        heuristics = [contender for contender in self.policies if contender not in self.learned]
        means = [sign * float(self.samples[contender][metric].mean()) for contender in heuristics]
        return heuristics[int(np.argmin(means))] if heuristics else None

    def comparison(self, contender: Contender, metric: str) -> Comparison | None:
        """Return the paired difference to the strongest heuristic; None for that one itself."""
        rival = self.strongest(metric)
        if rival is None or rival == contender:
            return None
        ours, theirs = self.samples[contender][metric], self.samples[rival][metric]
        return compare(ours, theirs, metric in HIGHER_IS_BETTER, self.block)

    def rows(self) -> list[dict[str, Any]]:
        """Return one plain row for each contender and metric, unrounded."""
        return [
            {
                **_who(contender),
                "workload": self.workload,
                "metric": metric,
                **asdict(self.estimate(contender, metric)),
                "dropped": self.dropped,
            }
            for contender in self.contenders
            for metric in self.metrics
        ]

    def details(self) -> dict[str, Any]:
        """Return everything about the headline metrics that the rows do not say."""
        headlines = [metric for metric in HEADLINES if metric in self.metrics]
        return {
            "workload": self.workload,
            "cluster": self.cluster,
            "windows": self.windows,
            "notes": list(self.notes),
            "left_out": [asdict(entry) for entry in self.left_out],
            "strongest_heuristic": {
                metric: _who(strongest) for metric in headlines if (strongest := self.strongest(metric))
            },
            "against_the_strongest": [
                {
                    **_who(contender),
                    "metric": metric,
                    "interquartile_mean": asdict(
                        estimate_interquartile_mean(self.samples[contender][metric], self.block)
                    ),
                    **_comparison_row(self.comparison(contender, metric)),
                }
                for contender in self.contenders
                for metric in headlines
            ],
        }


def summarize(
    measurements: Sequence[Measurement],
    workload: str,
    *,
    cluster: str,
    windows: str,
    notes: Sequence[str] = (),
    dropped: int = 0,
    left_out: Sequence[Dropped] = (),
    learned: frozenset[str] = frozenset(),
    block: int | None = 1,
    seeds_share_windows: bool = False,
    optimum: tuple[str, str] | None = None,
) -> WorkloadSummary:
    """Return one workload's results.

    Args:
        measurements: of all workloads; every contender on the same windows.
        workload: which to take.
        cluster: in words.
        windows: in words.
        notes: what a reader should know.
        dropped: jobs larger than the cluster.
        left_out: those, and the rows that were dropped in reading.
        learned: labels of trained policies.
        block: see `statistics.estimate`.
        seeds_share_windows: the windows are the same for every seed: its figures are averaged first.
        optimum: label of the yardstick and the metric in which it is optimal.
    """
    units: dict[Contender, dict[tuple[int, ...], list[Measurement]]] = {}
    for measurement in measurements:
        task = measurement.task
        if task.workload == workload:
            unit = (task.window,) if seeds_share_windows else (task.seed, task.window)
            units.setdefault(task.contender, {}).setdefault(unit, []).append(measurement)
    samples: dict[Contender, dict[str, NDArray[np.float64]]] = {}
    counts: dict[Contender, NDArray[np.int64]] = {}
    for contender, by_unit in units.items():
        every = [by_unit[unit] for unit in sorted(by_unit)]
        names = every[0][0].metrics
        samples[contender] = {
            name: np.array([np.mean([one.metrics[name] for one in unit]) for unit in every]) for name in names
        }
        counts[contender] = np.sum([one.jct_counts for unit in every for one in unit], axis=0, dtype=np.int64)
    known = frozenset(contender for contender in units if contender.label in learned)
    yardstick = None
    if optimum is not None:
        yardstick = (next(contender for contender in units if contender.label == optimum[0]), optimum[1])
        least = samples[yardstick[0]][yardstick[1]]
        for figures in samples.values():
            figures[OPTIMUM_GAP] = figures[yardstick[1]] / least - 1.0
    return WorkloadSummary(
        workload, cluster, windows, tuple(notes), dropped, tuple(left_out), tuple(units), known, samples, counts,
        block, yardstick,
    )  # fmt: skip


def _who(contender: Contender) -> dict[str, Any]:
    """Return what names a contender in results; the label, which joins it, is for readers of tables."""
    return {name: value for name, value in asdict(contender).items() if name != "label"}


def _comparison_row(comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return {"difference": None, "wins": None, "losses": None, "ties": None}
    return asdict(comparison)
