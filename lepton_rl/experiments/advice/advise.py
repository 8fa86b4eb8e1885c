"""From a workload and the way it is run now to what simulation says would change it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from lepton_rl.agents import make_policy
from lepton_rl.core import ClusterSpec, Policy
from lepton_rl.core.arrays import Floats
from lepton_rl.errors import ConfigError, LeptonError, counted
from lepton_rl.experiments.advice.candidate import Advice, Candidate, Change, changes_between, ranked
from lepton_rl.experiments.advice.capacity import other_capacity
from lepton_rl.experiments.advice.deferring import cheaper_hours
from lepton_rl.experiments.advice.demands import exact_times, smaller_memory
from lepton_rl.experiments.advice.gpu_use import fewer_gpus
from lepton_rl.experiments.advice.ordering import another_policy
from lepton_rl.experiments.advice.placing import another_placement
from lepton_rl.experiments.advice.power import power_limits
from lepton_rl.experiments.advice.setup import (
    FEWEST_JOBS_OF_A_WINDOW,
    NUMBERS_OF_WINDOWS,
    QUEUE_SHOWN,
    Setup,
    cut_windows,
    ends_of,
    figures_of,
)
from lepton_rl.experiments.advice.study import MOST_JOBS_IN_PYTHON, Idea, LeftOut, Study, is_compiled
from lepton_rl.experiments.simulate import notes_of
from lepton_rl.simulator import Timing
from lepton_rl.workloads import Trace
from lepton_rl.workloads.job_table import fit_to_cluster
from lepton_rl.workloads.requested import CLAIRVOYANT

IDEAS: tuple[Callable[[Study], Idea], ...] = (
    another_policy, another_placement, power_limits, smaller_memory, fewer_gpus, exact_times, other_capacity,
    cheaper_hours,
)  # fmt: skip
"""In the order in which a report speaks of them."""

MOST_JOBS = 20_000
"""Simulated unless more are wanted, under a policy that is a compiled rule."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is simulated, and what may be tried.

    Attributes:
        jobs: in all windows; None is MOST_JOBS, or MOST_JOBS_IN_PYTHON where the present policy decides in Python.
        first: number of the first of them, from 1; None takes the last jobs of the trace.
        windows: into which they are cut, each run on an empty cluster; None is as many, up to 8, as still show the
            queue of one run.
        preemption_cost: seconds that a preemption adds; None tries no policy that preempts.
        quantum: seconds before a run may be preempted.
        defer_hours: how long jobs that can wait may be held back.
        strict: refuse a trace with a job that the cluster could never run.
    """

    jobs: int | None = None
    first: int | None = None
    windows: int | None = None
    preemption_cost: float | None = None
    quantum: float = 0.0
    defer_hours: int = 12
    strict: bool = False


@dataclass(frozen=True, eq=False)
class Report:
    """What was found.

    Attributes:
        trace: the jobs that the cluster can run.
        cluster: the present one.
        present: the present policy with its rules.
        simulated: which jobs, as the end of a sentence.
        load: offered load of the simulated jobs on the cluster.
        now: the figures of the present set-up by window, shape (windows,) each.
        one_run_jct: mean JCT, s, of the present set-up in one run over all the jobs, which windows interrupt.
        advice: every change that was simulated: of each kind the best first.
        left_out: what was not tried, and why.
        notes: as those of a simulation.
    """

    trace: Trace
    cluster: ClusterSpec
    present: str
    simulated: str
    load: float
    now: dict[str, Floats]
    one_run_jct: float
    advice: tuple[Advice, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, unrounded; times in seconds."""
        windows = len(self.now["p99_wait"])
        return {
            "trace": self.trace.name,
            "requested": self.trace.requested,
            "cluster": str(self.cluster),
            "policy": self.present,
            "simulated": self.simulated,
            "windows": windows,
            "offered_load": self.load,
            "one_run_mean_jct": self.one_run_jct,
            "now": {name: float(values.mean()) for name, values in self.now.items()},
            "advice": [advice.to_dict() for advice in self.advice],
            "not_tried": [{"what": entry.what, "why": entry.why} for entry in self.left_out],
        }


def default_policy(trace: Trace) -> Policy:
    """Return what a cluster without a scheduler of its own mostly runs: first come, first served.

    With EASY backfilling where users gave requested times; else behind a job that does not fit, any that fits starts.
    """
    given = trace.requested != "absent" and CLAIRVOYANT not in trace.notes
    return make_policy("fcfs", blocking="easy" if given else "skip")


def advise(
    trace: Trace, cluster: ClusterSpec, make: Callable[[], Policy] | None = None, assumed: Assumptions | None = None
) -> Report:
    """Simulate what might help a workload beside how it is run now.

    Args:
        trace: the workload; jobs that the cluster could never run are left out.
        cluster: the present one.
        make: makes the present policy; `default_policy` if None.
        assumed: what is simulated, and what may be tried.

    Raises:
        LeptonError: the present set-up cannot be simulated. A change that cannot is left out, with the reason.
    """
    assumed = assumed or Assumptions()
    fitting = fit_to_cluster(trace, cluster, assumed.strict)
    make = make or (lambda: default_policy(fitting))
    usual = MOST_JOBS if is_compiled(make()) else MOST_JOBS_IN_PYTHON
    timing = Timing(assumed.preemption_cost or 0.0, assumed.quantum)
    cut = partial(cut_windows, fitting, assumed.jobs or usual, assumed.first)
    one = Setup(make, cluster, cut(1)[0], timing)
    load, one_run = one.windows[0].offered_load(cluster.gpus), _mean_jct(one)
    windows, simulated = cut(assumed.windows) if assumed.windows else _most_windows(one, one_run, cut)
    if assumed.windows and len(windows) < assumed.windows:
        raise ConfigError(
            f"--windows: {counted(len(one.windows[0]), 'job')} can be cut into {counted(len(windows), 'window')} of "
            f"{FEWEST_JOBS_OF_A_WINDOW} or more, not {assumed.windows}"
        )
    setup = replace(one, windows=windows)
    study = Study(setup, setup.outcomes(), load, assumed.preemption_cost is not None, assumed.defer_hours)
    now = figures_of(study.outcomes, ends_of(study.outcomes))
    advice, left_out = _simulated(study)
    return Report(
        trace=fitting,
        cluster=cluster,
        present=study.present,
        simulated=simulated,
        load=load,
        now=now,
        one_run_jct=one_run,
        advice=tuple(advice),
        left_out=tuple(left_out),
        notes=notes_of(fitting, study.outcomes[-1]),
    )


def _most_windows(
    one: Setup, one_run: float, cut: Callable[[int], tuple[tuple[Trace, ...], str]]
) -> tuple[tuple[Trace, ...], str]:
    """Return as many windows as show the queue of one run of mean JCT `one_run`, and which they are."""
    for count in NUMBERS_OF_WINDOWS:
        windows, simulated = cut(count)
        if len(windows) == 1 or _mean_jct(replace(one, windows=windows)) >= QUEUE_SHOWN * one_run:
            break
    return windows, simulated


def _mean_jct(setup: Setup) -> float:
    return float(np.mean([outcome.jct.mean() for outcome in setup.outcomes()]))


def _simulated(study: Study) -> tuple[list[Advice], list[LeftOut]]:
    kinds: dict[str, list[tuple[Candidate, dict[str, Change]]]] = {}
    left_out: list[LeftOut] = []
    for idea in IDEAS:
        for found in idea(study):
            if isinstance(found, LeftOut):
                left_out.append(found)
                continue
            try:
                outcomes = found.after.outcomes()
            except LeptonError as error:
                left_out.append(LeftOut(f"{found.kind}: {found.title}", str(error)))
                continue
            known = changes_between(study.outcomes, outcomes)
            changes = {name: change for name, change in known.items() if name not in found.unsaid}
            kinds.setdefault(found.kind, []).append((found, changes))
    return [advice for tried in kinds.values() for advice in ranked(tried)], left_out
