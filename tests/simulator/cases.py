"""Small random workloads, as the reference simulator reads them and as the package does."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec, Outcome, Placement
from lepton_rl.simulator import Blocking, Order, Rule, Timing, run_trace
from lepton_rl.workloads import Trace
from tests.reference import simulator as reference
from tests.reference.simulator import Job

ORDERS = {
    "fcfs": Order.FCFS,
    "sjf": Order.SJF,
    "ljf": Order.LJF,
    "smallest": Order.SMALLEST,
    "saf": Order.SAF,
    "f1": Order.F1,
    "f2": Order.F2,
    "f3": Order.F3,
    "f4": Order.F4,
    "wfp3": Order.WFP3,
    "unicep": Order.UNICEP,
    "heap_priority": Order.WEIGHTED,
}
PREEMPTIVE = {"srtf": Order.SRTF, "las": Order.LAS}
BLOCKINGS: tuple[reference.Blocking, ...] = ("head", "skip", "easy", "conservative")
PLACEMENTS: tuple[reference.Placement, ...] = ("first", "best", "worst", "consolidated")

# Multiples of 0.025: their part of 80 GiB is a whole number of MiB.
SHARES = (0.025, 0.1, 0.25, 0.3, 0.5, 0.7, 0.75)
FIGURES_GIB = (None, None, 5.0, 20.5, 40.0, 79.25)


def rule_of(order: str, blocking: reference.Blocking, placement: reference.Placement = "first") -> Rule:
    """The package's rule of the reference's names."""
    weights = reference.PRIORITY_WEIGHTS if order == "heap_priority" else ()
    return Rule((ORDERS | PREEMPTIVE)[order], Blocking[blocking.upper()], Placement[placement.upper()], weights)


def trace_of(jobs: Sequence[Job], **columns: Sequence[float]) -> Trace:
    """The jobs as a trace that keeps their submit times."""
    return Trace.from_columns(
        {
            "job_id": [job.id for job in jobs],
            "submit_time": [job.submit for job in jobs],
            "run_time": [job.run for job in jobs],
            "requested_time": [job.requested for job in jobs],
            "gpus": [job.gpus for job in jobs],
            "gpu_memory_gib": [math.nan if job.memory_gib is None else job.memory_gib for job in jobs],
            "compute_intensity": [job.compute for job in jobs],
            "time_sensitivity": [job.time_sensitivity for job in jobs],
            **columns,
        },
        origin=0.0,
    )


@dataclass(frozen=True)
class Case:
    """Jobs in the order of submission, and a cluster that holds each of them."""

    jobs: list[Job]
    cluster: ClusterSpec

    @property
    def trace(self) -> Trace:
        return trace_of(self.jobs)

    def expected(
        self,
        order: str,
        blocking: reference.Blocking,
        placement: reference.Placement = "first",
        cost: float = 0.0,
        quantum: float = 0.0,
    ) -> reference.Result:
        return reference.simulate(
            self.jobs,
            nodes=self.cluster.nodes,
            gpus_per_node=self.cluster.gpus_per_node,
            order=order,
            blocking=blocking,
            placement=placement,
            preemption_cost=cost,
            quantum=quantum,
            gpu_memory_gib=self.cluster.gpu_memory_gib,
            idle_w=self.cluster.idle_power_w,
            max_w=self.cluster.max_power_w,
        )

    def found(
        self,
        order: str,
        blocking: reference.Blocking,
        placement: reference.Placement = "first",
        cost: float = 0.0,
        quantum: float = 0.0,
    ) -> Outcome:
        return run_trace(self.trace, self.cluster, rule_of(order, blocking, placement), Timing(cost, quantum))


def seconds(exact: bool) -> st.SearchStrategy[float]:
    """Run and requested times. Exact ones add up without rounding, whatever the order of the sum."""
    small = [
        st.integers(1, 12).map(float),
        st.integers(1, 5).map(float),
        st.integers(1, 400).map(lambda n: n / 8),
    ]
    if not exact:
        small.append(st.integers(1, 400).map(lambda n: n / 10))
    return st.one_of(small)


@st.composite
def cases(draw: st.DrawFn, exact: bool = False, whole: bool = False, clairvoyant: bool = False) -> Case:
    """Up to 12 jobs on up to 4 nodes of 4 GPUs, or on a pool; events often fall together.

    Args:
        exact: times whose sums have no rounding error.
        whole: no shares of a GPU.
        clairvoyant: requested times are the run times.
    """
    if draw(st.booleans()):
        cluster = ClusterSpec(draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    else:
        cluster = ClusterSpec.pool(draw(st.integers(1, 16)))
    gangs: st.SearchStrategy[float] = st.integers(1, cluster.gpus).map(float)
    sizes = gangs if whole or draw(st.booleans()) else st.one_of(gangs, st.sampled_from(SHARES))
    times = seconds(exact)
    # Mostly at once or soon after: queues build up, and ends fall on the predicted start of a blocked head.
    gaps = st.sampled_from([0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 0.125 if exact else 0.3, 15.0])
    jobs = []
    now = draw(st.sampled_from([0.0, 0.0, 7.5]))
    for number in range(draw(st.integers(1, 12))):
        now += draw(gaps)
        run = draw(times)
        jobs.append(
            Job(
                number,
                now,
                run,
                requested=run if clairvoyant or draw(st.booleans()) else draw(times),
                gpus=draw(sizes),
                memory_gib=draw(st.sampled_from(FIGURES_GIB)),
                compute=draw(st.sampled_from([1.0, 2.0, 7.5])),
                time_sensitivity=draw(st.sampled_from([1.0, 0.1, 3.0])),
            )
        )
    return Case(jobs, cluster)


def assert_matches(found: Outcome, expected: reference.Result, order: str) -> None:
    """Hold a run to the reference: times and preemptions to the bit, energy to rounding."""
    assert found.finish.tolist() == expected.finish, order
    assert found.first_start.tolist() == expected.start, order
    assert found.preemptions.tolist() == expected.preemptions, order
    assert math.isclose(found.energy_joules, expected.energy_joules, rel_tol=1e-12), order


def same_schedule(left: Outcome, right: Outcome) -> bool:
    """Whether two outcomes are equal to the last bit."""
    return (
        np.array_equal(left.first_start, right.first_start)
        and np.array_equal(left.finish, right.finish)
        and np.array_equal(left.preemptions, right.preemptions)
        and left.busy_gpu_seconds == right.busy_gpu_seconds
        and left.stranded_gpu_seconds == right.stranded_gpu_seconds
    )
