"""The exact optimum of a small workload, as a yardstick: CP-SAT of OR-tools on a model of gangs and release times.

It knows every run time and every arrival from the start, which no policy does; without preemption. Finding it is
NP-hard (Du and Leung, SIAM J. Discrete Mathematics 1989): a second for 9 jobs, minutes for some workloads of 12.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lepton_rl.agents.priority import Priority
from lepton_rl.agents.run import run_on, run_policy
from lepton_rl.core import Action, ClusterSpec, Outcome, Snapshot, Start
from lepton_rl.core.slowdown import SLOWDOWN_FLOOR
from lepton_rl.errors import ConfigError, TraceError, missing_extra
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace

Objective = Literal["mean_jct", "mean_bounded_slowdown", "makespan"]
MOST_JOBS = 12
"""Above that a proof would take hours."""
STEPS_PER_SECOND = (1, 1_000, 1_000_000)
"""The solver counts time in the coarsest of these steps in which none is rounded, else in the finest."""
_LONGEST = 2**45  # steps; products with GPUs and weights stay within 64 bits
_LARGEST_SUM = 2**60  # of a weighted objective, in steps
_WEIGHT_STEPS = 1e6  # least weight of a slowdown, so that rounding weights changes none by more than 5e-7

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Optimum:
    """An optimal schedule.

    Attributes:
        order: rows of the trace in the order of their starts.
        outcome: what the simulator makes of that order.
        resolution_s: step in which the solver counted time, seconds.
        is_rounded: whether times were rounded to that step (by half of one each, at most).
    """

    order: tuple[int, ...]
    outcome: Outcome
    resolution_s: float
    is_rounded: bool


@dataclass(frozen=True, eq=False)
class _Instance:
    """A workload in whole steps, from its first submission; one entry for each job."""

    release: Ints
    run: Ints
    gpus: Ints
    floor: Ints  # run time, at least SLOWDOWN_FLOOR
    capacity: int
    resolution_s: float
    is_rounded: bool

    @property
    def horizon(self) -> int:
        """Steps within which an optimal schedule ends."""
        return int(self.release.max() + self.run.sum())


def optimum(trace: Trace, cluster: ClusterSpec, objective: Objective = "mean_jct", limit_s: float = 300.0) -> Optimum:
    """Return a schedule that no other beats in `objective`, without preemption, all run times and arrivals known.

    Gangs hold whole GPUs wherever they are free, so that only their number counts. Slowdowns are weighed to six
    digits. The same workload gives the same schedule.

    Args:
        trace: at most MOST_JOBS jobs.
        cluster: where they run.
        objective: what is least.
        limit_s: seconds of search after which to give up.

    Raises:
        TraceError: the trace has too many jobs, dependencies, shares of a GPU, or a job larger than the cluster.
        ConfigError: the proof was not found in time, or the cluster has groups.
        MissingExtra: OR-tools is not installed.
    """
    check_solvable(trace)
    if cluster.groups:
        raise ConfigError("the optimum is for identical GPUs, not for a cluster of groups")
    instance = _instance(trace, cluster)
    known = trace.with_requested("exact")
    outcomes = [run_policy(heuristic, known, cluster) for heuristic in _heuristics()]
    best = min(outcomes, key=lambda outcome: outcome.metrics()[objective])
    begin = np.rint((best.first_start - trace.submit_time[0]) / instance.resolution_s).astype(np.int64)
    starts = _solved(instance, objective, begin, limit_s, trace.name)
    order = tuple(np.lexsort((np.arange(len(trace)), starts)).tolist())
    simulated = SimulatedCluster(trace, cluster)
    run_on(simulated, _InOrder(order))
    return Optimum(order, simulated.outcome(), instance.resolution_s, instance.is_rounded)


def solver() -> Any:
    """Return OR-tools' CP-SAT.

    Raises:
        MissingExtra: OR-tools is not installed.
    """
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise missing_extra("ortools", "solve") from None
    return cp_model


def check_solvable(trace: Trace) -> None:
    """Refuse a workload that the solver does not take.

    Raises:
        TraceError: says why.
    """
    if len(trace) > MOST_JOBS:
        raise TraceError(f"{trace.name}: the optimum is for {MOST_JOBS} jobs or fewer, not {len(trace)}")
    if len(trace.after):
        raise TraceError(f"{trace.name}: the optimum is for jobs that do not wait for one another")
    shares = np.flatnonzero(trace.gpus < 1)
    if len(shares):
        row = shares[0]
        raise TraceError(
            f"{trace.name}: the optimum is for whole GPUs; job {trace.job_id[row]} asks for {trace.gpus[row]:g} of one"
        )


class _InOrder:
    """Starts jobs strictly in a given order, each as soon as it is there and fits.

    No job of a schedule starts later when its jobs are started so in the order of its starts.
    """

    name = "optimum"

    def __init__(self, order: Sequence[int]) -> None:
        self._left = list(order)

    def decide(self, snapshot: Snapshot) -> list[Action]:
        queue, free = snapshot.queue, snapshot.free_gpus
        gpus_of = dict(zip(queue.id.tolist(), queue.gpus.tolist(), strict=True))
        actions: list[Action] = []
        while self._left and gpus_of.get(self._left[0], np.inf) <= free:
            job = self._left.pop(0)
            free -= gpus_of[job]
            actions.append(Start(job))
        return actions


def _heuristics() -> list[Priority]:
    return [Priority(score=score, blocking="skip") for score in ("fcfs", "sjf", "ljf", "saf", "smallest")]


def steps_per_second(trace: Trace) -> tuple[int, bool]:
    """Return the steps in which the solver counts this workload's time, and whether times are rounded to them."""
    release = trace.submit_time - trace.submit_time[0]
    times = np.concatenate((release, trace.run_time))
    longest = float(release.max() + trace.run_time.sum())
    rates = [rate for rate in STEPS_PER_SECOND if longest * rate < _LONGEST]
    whole = [rate for rate in rates if (np.rint(times * rate) / rate == times).all()]
    return (whole or rates[-1:])[0], not whole


def _instance(trace: Trace, cluster: ClusterSpec) -> _Instance:
    rate, is_rounded = steps_per_second(trace)
    release = trace.submit_time - trace.submit_time[0]
    run = np.maximum(np.rint(trace.run_time * rate), 1).astype(np.int64)
    return _Instance(
        release=np.rint(release * rate).astype(np.int64),
        run=run,
        gpus=trace.gpus.astype(np.int64),
        floor=np.maximum(run, round(SLOWDOWN_FLOOR * rate)),
        capacity=cluster.gpus,
        resolution_s=1.0 / rate,
        is_rounded=is_rounded,
    )


def _solved(instance: _Instance, objective: Objective, begin: Ints, limit_s: float, name: str) -> Ints:
    """Return optimal starts, in steps; `begin` is a feasible schedule to begin from."""
    cp_model = solver()
    model = cp_model.CpModel()
    release, run = instance.release.tolist(), instance.run.tolist()
    starts = [
        model.new_int_var(first, instance.horizon - length, "") for first, length in zip(release, run, strict=True)
    ]
    intervals = [model.new_fixed_size_interval_var(start, run[job], "") for job, start in enumerate(starts)]
    model.add_cumulative(intervals, instance.gpus.tolist(), instance.capacity)
    for first, second in combinations(range(len(run)), 2):  # rows are in the order of submission
        if run[first] == run[second] and instance.gpus[first] == instance.gpus[second]:
            model.add(starts[first] <= starts[second])  # of equal jobs the earlier submitted may go first
    for start, hint in zip(starts, begin.tolist(), strict=True):
        model.add_hint(start, hint)
    model.minimize(_cost(model, instance, objective, starts))
    search = cp_model.CpSolver()
    search.parameters.num_workers = 1  # one worker: the same search each time
    search.parameters.random_seed = 0
    search.parameters.max_time_in_seconds = limit_s
    if search.status_name(search.solve(model)) != "OPTIMAL":
        raise ConfigError(
            f"{name}: no proof of the optimal {objective} of {len(run)} jobs was found within {limit_s:g} s; "
            "take fewer jobs, or a larger limit_s"
        )
    return np.array([search.value(start) for start in starts], np.int64)


def _cost(model: Any, instance: _Instance, objective: Objective, starts: list[Any]) -> Any:
    """Return the expression to minimise: the objective but for a constant and a factor."""
    if objective == "mean_jct":
        return sum(starts)
    jobs = range(len(starts))
    if objective == "makespan":
        end = model.new_int_var(0, instance.horizon, "")
        for job in jobs:
            model.add(end >= starts[job] + int(instance.run[job]))
        return end
    most = _LARGEST_SUM / (instance.horizon * float((1.0 / instance.floor).sum()))
    scale = min(_WEIGHT_STEPS * float(instance.floor.max()), most)
    terms = []
    for job in jobs:
        beyond = model.new_int_var(0, instance.horizon, "")  # steps of completion time above the floor
        model.add(beyond >= starts[job] + int(instance.run[job] - instance.release[job] - instance.floor[job]))
        terms.append(max(round(scale / float(instance.floor[job])), 1) * beyond)
    return sum(terms)
