"""The compiled simulator, on each of its faces, against the plain-Python reference and published figures."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import Action, ClusterSpec, Placement, Snapshot, Start, schedule
from lepton_rl.simulator import Blocking, Order, Rule, SimulatedCluster, Timing, decide, run_trace
from lepton_rl.simulator.rlscheduler import start_indices
from lepton_rl.workloads import Trace, read_philly, read_swf
from tests.reference import simulator as reference
from tests.reference.traces import data_file
from tests.simulator.cases import (
    BLOCKINGS,
    ORDERS,
    PLACEMENTS,
    PREEMPTIVE,
    Case,
    assert_matches,
    cases,
    rule_of,
    same_schedule,
)

every_blocking = pytest.mark.parametrize("blocking", BLOCKINGS)
every_placement = pytest.mark.parametrize("placement", PLACEMENTS)


class Decides:
    """A compiled rule behind `Policy`; remembers on which GPUs it last started each job."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.allocation: dict[int, tuple[int, ...]] = {}

    def decide(self, snapshot: Snapshot) -> list[Action]:
        actions = decide(snapshot, self.rule)
        for action in actions:
            if isinstance(action, Start):
                assert action.gpus is not None
                self.allocation[action.job] = action.gpus
        return actions


def assert_agree(
    case: Case,
    order: str,
    blocking: reference.Blocking,
    placement: reference.Placement,
    cost: float = 0.0,
    quantum: float = 0.0,
) -> None:
    """The whole-trace run and the loop of decisions against the reference."""
    expected = case.expected(order, blocking, placement, cost, quantum)
    found = case.found(order, blocking, placement, cost, quantum)
    assert_matches(found, expected, order)

    cluster = SimulatedCluster(case.trace, case.cluster, Placement[placement.upper()], Timing(cost, quantum))
    policy = Decides(rule_of(order, blocking, placement))
    schedule(policy, cluster)
    assert same_schedule(cluster.outcome(), found), order
    allocation = [sorted(policy.allocation[number]) for number in range(len(case.jobs))]
    assert allocation == expected.allocation, order


@every_blocking
@every_placement
@settings(max_examples=25)
@given(case=cases())
def test_every_order(case: Case, blocking: reference.Blocking, placement: reference.Placement) -> None:
    for order in ORDERS:
        assert_agree(case, order, blocking, placement)


@pytest.mark.parametrize("order", PREEMPTIVE)
@pytest.mark.parametrize("blocking", ["head", "skip"])
@every_placement
@settings(max_examples=40)
@given(
    case=cases(exact=True),
    cost=st.sampled_from([0.0, 0.0, 1.5, 4.0]),
    quantum=st.sampled_from([0.0, 0.0, 2.0, 5.5]),
)
def test_every_preemptive_order(
    case: Case,
    order: str,
    blocking: reference.Blocking,
    placement: reference.Placement,
    cost: float,
    quantum: float,
) -> None:
    assert_agree(case, order, blocking, placement, cost, quantum)


@pytest.mark.parametrize("order", PREEMPTIVE)
@settings(max_examples=60)
@given(case=cases(), cost=st.sampled_from([0.0, 0.1, 3.7]))
def test_preemption_at_times_that_round(case: Case, order: str, cost: float) -> None:
    # Sums of rounded times may break ties otherwise than the reference; the two faces still agree to the bit.
    found = case.found(order, "skip", "first", cost, 0.3)
    cluster = SimulatedCluster(case.trace, case.cluster, timing=Timing(cost, 0.3))
    schedule(Decides(rule_of(order, "skip")), cluster)
    assert same_schedule(cluster.outcome(), found)


# Orders that the reference does not have: reserve keeps room beside long jobs (rho, shortest, longest).
OWN_RULES = {
    "random": (Order.RANDOM, (3.0,)),
    "power": (Order.POWER, (0.7, 1.3)),
    "reserve": (Order.SAF, (0.0, 0.0, 0.0, 0.0, 0.7, 2.0, 30.0)),
}


@every_blocking
@pytest.mark.parametrize("name", [*ORDERS, *OWN_RULES])
@settings(max_examples=25)
@given(case=cases(), placement=st.sampled_from(list(Placement)), timer=st.sampled_from([0.0, 0.7, 3.0]))
def test_what_a_pass_remembers_changes_nothing(
    case: Case, blocking: reference.Blocking, name: str, placement: Placement, timer: float
) -> None:
    """A whole run skips what it saw before; decisions on snapshots see all anew, at ticks of a timer too."""
    order, weights = OWN_RULES[name] if name in OWN_RULES else (ORDERS[name], reference.PRIORITY_WEIGHTS)
    rule = Rule(order, Blocking[blocking.upper()], placement, weights)
    timing = Timing(timer=timer)
    cluster = SimulatedCluster(case.trace, case.cluster, placement, timing)
    schedule(Decides(rule), cluster)
    assert same_schedule(cluster.outcome(), run_trace(case.trace, case.cluster, rule, timing))


@every_blocking
@pytest.mark.parametrize("seed", range(6))
def test_busier_workloads(blocking: reference.Blocking, seed: int) -> None:
    """Long queues of narrow jobs: room to backfill, and passes that saw the same queue before."""
    rng = np.random.default_rng(seed)
    count = 40 if blocking == "conservative" else 120  # the reference plans every job at every event
    submit = np.cumsum(rng.choice([0, 0, 1, 2, 3], count))
    jobs = []
    for number in range(count):
        run = float(rng.integers(1, 15))
        requested = run if rng.random() < 0.7 else float(rng.integers(1, 25))
        gpus = float(rng.choice([1, 1, 1, 2, 2, 3, 5, 8, 12]))
        jobs.append(reference.Job(number, float(submit[number]), run, requested, gpus))
    for order in ORDERS:
        assert_agree(Case(jobs, ClusterSpec(3, 4)), order, blocking, "first")
        assert_agree(Case(jobs, ClusterSpec(3, 4)), order, blocking, "consolidated")


@pytest.mark.parametrize("order", PREEMPTIVE)
def test_a_longer_workload_preempted(order: str) -> None:
    rng = np.random.default_rng(6)
    submit = np.cumsum(rng.integers(0, 5, 200)).astype(float)
    jobs = [
        reference.Job(
            number,
            submit[number],
            float(rng.integers(1, 60)),
            requested=float(rng.integers(1, 80)),
            gpus=float(rng.choice([0.25, 0.5, 1, 2, 4])),
        )
        for number in range(200)
    ]
    for blocking in ("head", "skip"):
        assert_agree(Case(jobs, ClusterSpec(2, 4)), order, blocking, "best", 2.0, 3.0)


# Published figures.


@pytest.fixture(scope="module")
def philly() -> Trace:
    return read_philly(data_file("philly/philly.csv.gz"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("blocking", "mean_jct", "mean_wait", "p99_jct"),
    [
        (Blocking.HEAD, "213047.7820", "179649.7578", "1125387.70"),
        (Blocking.SKIP, "88986.8272", "55588.8030", "1042581.15"),
        (Blocking.EASY, "164546.2794", "131148.2552", "1106722.24"),
    ],
)
def test_philly_pool_to_the_printed_digits(
    philly: Trace, blocking: Blocking, mean_jct: str, mean_wait: str, p99_jct: str
) -> None:
    metrics = run_trace(philly[:5000], ClusterSpec.pool(512), Rule(blocking=blocking)).metrics()
    assert f"{metrics['mean_jct']:.4f}" == mean_jct
    assert f"{metrics['mean_wait']:.4f}" == mean_wait
    assert f"{metrics['p99_jct']:.2f}" == p99_jct
    assert metrics["makespan"] == 5_944_538


@pytest.mark.data
@pytest.mark.parametrize("order", [*ORDERS, *PREEMPTIVE])
def test_the_first_philly_jobs_never_queue(philly: Trace, order: str) -> None:
    first = philly[:1000]
    for blocking in BLOCKINGS[:2] if order in PREEMPTIVE else BLOCKINGS:
        metrics = run_trace(first, ClusterSpec.pool(512), rule_of(order, blocking)).metrics()
        assert f"{metrics['mean_jct']:.2f}" == "103997.61"
        assert metrics["mean_wait"] == 0.0
        assert metrics["preemptions"] == 0


@pytest.mark.data
@pytest.mark.parametrize(
    ("order", "bounded_slowdown"),
    [("fcfs", "7273.77"), ("sjf", "47.16"), ("f1", "34.53"), ("saf", "26.95")],
)
def test_lublin_row_re_picked(order: str, bounded_slowdown: str) -> None:
    trace = read_swf(data_file("hpc_swf/lublin_256.swf.gz"))
    # F1 reads the logarithm of the submit time as it stands in the file.
    raw = replace(trace, submit_time=trace.submit_time + trace.origin, origin=0.0)
    means = [
        run_trace(raw.window(start, 1024), ClusterSpec.pool(256), rule_of(order, "head")).bounded_slowdown().mean()
        for start in start_indices(1, len(raw))
    ]
    assert f"{np.mean(means):.2f}" == bounded_slowdown
