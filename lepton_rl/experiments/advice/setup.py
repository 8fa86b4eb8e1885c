"""What is compared: a policy on a cluster on windows of jobs, and the figures that it is judged by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lepton_rl.agents import run_policy
from lepton_rl.core import ClusterSpec, Outcome, Policy
from lepton_rl.core.arrays import Floats
from lepton_rl.core.hardware.tariffs import carbon_grams, energy_cost_usd
from lepton_rl.core.units import SECONDS_PER_HOUR
from lepton_rl.errors import TraceError, counted
from lepton_rl.simulator import Timing
from lepton_rl.workloads import Trace
from lepton_rl.workloads.job_table import fit_to_cluster

PARTS = 8
"""In so many parts of equally many jobs the mean JCT is compared, for its interval, where windows are fewer."""
FEWEST_JOBS_OF_A_PART = 50
FEWEST_JOBS_OF_A_WINDOW = 250
"""A shorter window is mostly its own beginning and end."""
NUMBERS_OF_WINDOWS = (8, 4, 2, 1)
"""Of these the first is taken whose windows show QUEUE_SHOWN of the mean JCT of one run over all the jobs."""
QUEUE_SHOWN = 0.8
"""A window begins without the queue that the jobs before it leave."""

FIGURES = {
    "mean_jct": "mean JCT",
    "p99_wait": "p99 wait",
    "energy_kwh": "energy",
    "electricity_usd": "electricity",
    "carbon_kg": "carbon",
    "rent_usd": "rent",
    "gpus": "GPUs",
}
"""What a change is judged by, with the words for it; of each less is better."""


@dataclass(frozen=True, eq=False)
class Setup:
    """One way to run the workload.

    Attributes:
        make_policy: makes the policy anew, for it may learn while it runs.
        cluster: what it runs on.
        windows: consecutive jobs, each run on an empty cluster.
        timing: what preemption costs.
    """

    make_policy: Callable[[], Policy]
    cluster: ClusterSpec
    windows: tuple[Trace, ...]
    timing: Timing = field(default_factory=Timing)

    def with_policy(self, make_policy: Callable[[], Policy]) -> "Setup":
        """Return the set-up under another policy."""
        return replace(self, make_policy=make_policy)

    def on(self, cluster: ClusterSpec) -> "Setup":
        """Return the set-up on another cluster."""
        return replace(self, cluster=cluster)

    def with_traces(self, change: Callable[[Trace], Trace]) -> "Setup":
        """Return the set-up with other jobs in each window."""
        return replace(self, windows=tuple(map(change, self.windows)))

    def outcomes(self) -> tuple[Outcome, ...]:
        """Run every window.

        Raises:
            TraceError: a job of a window can never run on this cluster.
            LeptonError: as `run_policy`.
        """
        return tuple(self._run(window) for window in self.windows)

    def _run(self, window: Trace) -> Outcome:
        fitting = fit_to_cluster(window, self.cluster, strict=True)
        return run_policy(self.make_policy(), fitting, self.cluster, self.timing)


def ends_of(outcomes: Sequence[Outcome]) -> Floats:
    """Return the last finish of each window, seconds, shape (windows,)."""
    return np.array([outcome.finish.max() for outcome in outcomes])


def figures_of(outcomes: Sequence[Outcome], ends: Floats) -> dict[str, Floats]:
    """Return what is known of the figures, by the names of FIGURES: shape (windows,), of the mean JCT (parts,).

    Args:
        outcomes: of each window.
        ends: until when each window's GPUs draw power and cost rent, seconds; at or after the last finish.
    """
    rows = [_figures(outcome, end) for outcome, end in zip(outcomes, ends.tolist(), strict=True)]
    figures = {name: np.array([row[name] for row in rows]) for name in FIGURES if name in rows[0]}
    return figures | {"mean_jct": np.concatenate([_by_parts(outcome.jct, len(outcomes)) for outcome in outcomes])}


def _by_parts(jct: Floats, windows: int) -> Floats:
    """Return the sums of parts of a window's jobs, so scaled that their mean is the mean of all, shape (parts,)."""
    parts = max(min(-(-PARTS // windows), len(jct) // FEWEST_JOBS_OF_A_PART), 1)
    sums = [float(part.sum()) for part in np.array_split(jct, parts)]
    return np.array(sums) * parts / len(jct)


def _figures(outcome: Outcome, end: float) -> dict[str, float]:
    metrics = outcome.metrics() | {"gpus": float(outcome.cluster.gpus)}
    idle = _idle_until(end, outcome)
    return {name: value + idle.get(name, 0.0) for name, value in metrics.items() if name in FIGURES}


def _idle_until(end: float, outcome: Outcome) -> dict[str, float]:
    """Return what the idle GPUs draw and cost from the last finish to `end`."""
    cluster, begin = outcome.cluster, float(outcome.finish.max())
    watts, hours = cluster.idle_power_w * cluster.gpus, (end - begin) / SECONDS_PER_HOUR
    prices, carbon = cluster.tariffs.electricity, cluster.tariffs.carbon
    return {
        "energy_kwh": watts * hours / 1000,
        "electricity_usd": energy_cost_usd(watts, begin, end, prices) if prices else 0.0,
        "carbon_kg": carbon_grams(watts, begin, end, carbon) / 1000 if carbon else 0.0,
        "rent_usd": (cluster.rent_usd_per_hour or 0.0) * hours,
    }


def cut_windows(trace: Trace, jobs: int, first: int | None, count: int) -> tuple[tuple[Trace, ...], str]:
    """Return windows of consecutive jobs, and which they are, as the end of a sentence.

    Args:
        trace: what to cut them from.
        jobs: in all windows together; fewer where the trace has fewer.
        first: number of the first job, from 1; the last jobs of the trace if None.
        count: number of windows; fewer where one would hold less than FEWEST_JOBS_OF_A_WINDOW.

    Raises:
        TraceError: the trace has no such job.
    """
    if first is not None and first > len(trace):
        raise TraceError(
            f"{trace.name}: there is no job {first:,}: {counted(len(trace), 'job')} can run on the cluster"
        )
    begin = max(len(trace) - jobs, 0) if first is None else first - 1
    used = min(jobs, len(trace) - begin)
    count = max(min(count, used // FEWEST_JOBS_OF_A_WINDOW), 1)
    size = used // count
    windows = tuple(trace.windows(size, range(begin, begin + size * count, size)))
    where = f"jobs {begin + 1:,} to {begin + size * count:,}"
    return windows, where if count == 1 else f"{where} in {count} windows of {size:,}"
