"""What must hold whatever the jobs and the rule, and small schedules worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec, Placement, Preempt, Snapshot, Start
from lepton_rl.errors import ConfigError, IllegalAction, TraceError
from lepton_rl.simulator import Blocking, Order, Rule, SimulatedCluster, Timing, decide, run_trace
from lepton_rl.workloads import Trace
from tests.reference import simulator as reference
from tests.reference.simulator import Job
from tests.simulator.cases import (
    BLOCKINGS,
    ORDERS,
    PLACEMENTS,
    PREEMPTIVE,
    Case,
    cases,
    rule_of,
    same_schedule,
    trace_of,
)


def check_gpus(snapshot: Snapshot) -> None:
    """Hold load and memory of each GPU to the jobs that say they hold it."""
    spec = snapshot.cluster
    load = np.zeros(spec.gpus)
    memory = np.zeros(spec.gpus)
    for place, job in enumerate(snapshot.running):
        gpus = snapshot.gpus_of(job)
        demand = float(snapshot.running.gpus[place])
        assert len(set(gpus)) == len(gpus) == max(demand, 1)
        for gpu in gpus:
            load[gpu] += min(demand, 1)
            part = float(snapshot.running.gpu_memory_gib[place]) or demand * spec.gpu_memory_gib
            memory[gpu] += spec.gpu_memory_gib if demand >= 1 else part
    assert (load <= 1 + 1e-9).all()
    assert (memory <= spec.gpu_memory_gib + 1e-9).all()
    assert snapshot.gpu_load == pytest.approx(load)
    assert snapshot.gpu_memory_free_gib == pytest.approx(spec.gpu_memory_gib - memory)
    assert snapshot.free_gpus == (load == 0).sum()


@settings(max_examples=150)
@given(
    case=cases(),
    order=st.sampled_from([*ORDERS, *PREEMPTIVE, *PREEMPTIVE, *PREEMPTIVE]),
    blocking=st.sampled_from(BLOCKINGS),
    placement=st.sampled_from(PLACEMENTS),
    timing=st.builds(Timing, st.sampled_from([0.0, 1.5]), st.sampled_from([0.0, 2.0])),
)
def test_no_gpu_is_held_twice_and_work_is_conserved(
    case: Case,
    order: str,
    blocking: reference.Blocking,
    placement: reference.Placement,
    timing: Timing,
) -> None:
    rule = rule_of(order, "skip" if order in PREEMPTIVE else blocking, placement)
    cluster = SimulatedCluster(case.trace, case.cluster, rule.placement, timing)
    began: dict[int, float] = {}
    held = np.zeros(len(case.jobs))  # seconds on GPUs
    last = -1.0
    while cluster.advance():
        assert cluster.time > last  # all events of an instant are one decision point
        last = cluster.time
        check_gpus(cluster.snapshot())
        for action in decide(cluster.snapshot(), rule):
            cluster.apply(action)
            if isinstance(action, Start):
                assert cluster.gpus_of(action.job) == action.gpus
                began[action.job] = cluster.time
            elif isinstance(action, Preempt):
                held[action.job] += cluster.time - began.pop(action.job)
            check_gpus(cluster.snapshot())
    outcome = cluster.outcome()
    for job, since in began.items():
        held[job] += outcome.finish[job] - since
    owed = outcome.run + outcome.preemptions * timing.preemption_cost
    assert held == pytest.approx(owed, rel=1e-12)
    assert outcome.busy_gpu_seconds == pytest.approx((held * outcome.gpus).sum(), rel=1e-12)
    assert (outcome.first_start >= outcome.submit).all()
    assert outcome.metrics()["utilization"] <= 1 + 1e-12
    assert outcome.metrics()["fragmentation"] <= 1 - outcome.metrics()["utilization"] + 1e-12


@pytest.mark.parametrize("blocking", ["head", "conservative"])
@settings(max_examples=100)
@given(case=cases(exact=True, whole=True, clairvoyant=True), last=st.integers(1, 11))
def test_later_jobs_delay_no_earlier_one(case: Case, blocking: reference.Blocking, last: int) -> None:
    """In order of submission with true requested times; EASY keeps this promise to the head only."""
    alone = Case(case.jobs[:last], case.cluster)
    among = case.found("fcfs", blocking).finish[:last]
    assert among.tolist() == alone.found("fcfs", blocking).finish.tolist()


@settings(max_examples=60)
@given(case=cases(), placement=st.sampled_from(PLACEMENTS), order=st.sampled_from([*ORDERS, *PREEMPTIVE]))
def test_the_same_run_twice(case: Case, placement: reference.Placement, order: str) -> None:
    first, second = (case.found(order, "skip", placement, 1.5) for _ in range(2))
    assert same_schedule(first, second)


def test_random_order_is_a_matter_of_its_seed() -> None:
    trace = trace_of([Job(number, 0, 1 + number % 3, 5, 1) for number in range(40)])
    runs = [run_trace(trace, ClusterSpec.pool(2), Rule(Order.RANDOM, weights=(seed,))) for seed in (1, 1, 2)]
    assert same_schedule(runs[0], runs[1])
    assert not np.array_equal(runs[0].first_start, runs[2].first_start)


def test_energy_by_hand() -> None:
    """Two nodes of two GPUs, idle 100 W, 300 W under load.

    Job 0 (2 GPUs, 10 s) and job 1 (half a GPU, 6 s) run from 0; job 2 (3 GPUs, 4 s) waits until 10.
    Busy GPU-seconds: 20 + 3 + 12 = 35. Makespan 14 s: idle 4 x 100 x 14 = 5,600 J, load 200 x 35 = 7,000 J.
    While a part of a node is held, the rest of it is stranded: node 1 has 1.5 GPUs free from 0 to 6, and 1
    from 10 to 14: 9 + 4 = 13 GPU-seconds.
    """
    spec = ClusterSpec(2, 2, idle_power_w=100.0, max_power_w=300.0)
    trace = trace_of([Job(0, 0, 10, 10, 2), Job(1, 0, 6, 6, 0.5), Job(2, 1, 4, 4, 3)])
    outcome = run_trace(trace, spec, Rule())
    assert outcome.finish.tolist() == [10, 6, 14]
    assert outcome.busy_gpu_seconds == 35
    assert outcome.stranded_gpu_seconds == 13
    assert outcome.energy_joules == 12_600
    metrics = outcome.metrics()
    assert metrics["energy_kwh"] == 12_600 / 3.6e6
    assert metrics["mean_power_w"] == 900
    assert metrics["utilization"] == 35 / 56
    assert metrics["fragmentation"] == 13 / 56


def test_preemption_by_hand() -> None:
    """One GPU, cost 2 s. Job 0 has had 3 of 10 s when job 1 (4 s) comes, and ends at 3 + 4 + 7 + 2 = 16."""
    trace = trace_of([Job(0, 0, 10, 10, 1), Job(1, 3, 4, 4, 1)])
    outcome = run_trace(trace, ClusterSpec.pool(1), Rule(Order.SRTF), Timing(preemption_cost=2.0))
    assert outcome.finish.tolist() == [16, 7]
    assert outcome.preemptions.tolist() == [1, 0]
    assert outcome.wait.tolist() == [6, 0]
    assert outcome.busy_gpu_seconds == 16
    # With a quantum of 4 s job 0 is too young at 3, and its end comes before another decision.
    kept = run_trace(trace, ClusterSpec.pool(1), Rule(Order.SRTF), Timing(2.0, quantum=4.0))
    assert kept.finish.tolist() == [10, 14]


def test_a_timer_brings_more_decisions() -> None:
    # Ten seconds old at the timer's 12, job 0 gives way to job 1, which came at 1 and found it too young.
    trace = trace_of([Job(0, 0, 30, 30, 1), Job(1, 1, 5, 5, 1)])
    pool = ClusterSpec.pool(1)
    without = run_trace(trace, pool, Rule(Order.SRTF), Timing(quantum=10.0))
    assert without.finish.tolist() == [30, 35]
    timed = run_trace(trace, pool, Rule(Order.SRTF), Timing(quantum=10.0, timer=6.0))
    assert timed.finish.tolist() == [35, 17]
    cluster = SimulatedCluster(trace, pool, timing=Timing(timer=6.0))
    times = []
    while cluster.advance():
        times.append(cluster.time)
        if cluster.snapshot().free_gpus and len(cluster.snapshot().queue):
            cluster.apply(Start(next(iter(cluster.snapshot().queue))))
    assert times == [0, 1, 6, 12, 18, 24, 30, 35]


@pytest.mark.parametrize("gib", [16.1, 79.65, 80.0])
def test_a_job_that_asks_for_all_memory_of_a_gpu_runs(gib: float) -> None:
    trace = trace_of([Job(0, 0, 5, 5, 0.5, memory_gib=gib), Job(1, 0, 5, 5, 0.5), Job(2, 0, 5, 5, 1, gib)])
    spec = ClusterSpec(1, 1, gpu_memory_gib=gib)
    assert run_trace(trace, spec, Rule()).finish.tolist() == [5, 10, 15]
    cluster = SimulatedCluster(trace, spec)
    cluster.advance()
    cluster.apply(Start(0))
    assert cluster.gpus_of(0) == (0,)
    assert cluster.snapshot().gpu_memory_free_gib.tolist() == [0]


def test_a_policy_that_starts_nothing_is_told() -> None:
    cluster = SimulatedCluster(trace_of([Job(0, 0, 5, 5, 1), Job(1, 3, 5, 5, 1)]), ClusterSpec.pool(1))
    assert cluster.advance()
    assert cluster.advance()
    with pytest.raises(IllegalAction, match="leaves 2 jobs waiting for ever on an idle cluster"):
        cluster.advance()


def test_a_finished_cluster_stays_finished() -> None:
    cluster = SimulatedCluster(trace_of([Job(0, 2, 5, 5, 1)]), ClusterSpec.pool(1))
    assert cluster.time == 2
    assert cluster.advance()
    cluster.apply(Start(0))
    assert cluster.advance()
    assert [cluster.advance(), cluster.advance()] == [False, False]
    assert cluster.time == 7
    assert decide(cluster.snapshot(), Rule()) == []


@pytest.mark.parametrize("order", [Order.SRTF, Order.LAS])
@pytest.mark.parametrize("blocking", [Blocking.EASY, Blocking.CONSERVATIVE])
def test_preemption_and_backfilling_do_not_combine(order: Order, blocking: Blocking) -> None:
    sentence = f"{order.name.lower()} is preemptive and cannot be combined with {blocking.name.lower()}"
    with pytest.raises(ConfigError, match=sentence):
        Rule(order, blocking)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (Rule(Order.SJF), "^sjf needs requested times and trace has none"),
        (Rule(blocking=Blocking.EASY), "^fcfs with easy blocking needs requested times"),
        (Rule(Order.SRTF), "^srtf needs"),
    ],
)
def test_rules_that_need_requested_times_say_so(rule: Rule, sentence: str) -> None:
    trace = Trace.from_columns({"submit_time": [0.0], "run_time": [1.0], "gpus": [1.0]}, requested="absent")
    with pytest.raises(TraceError, match=sentence):
        run_trace(trace, ClusterSpec.pool(1), rule)
    for order in (Order.FCFS, Order.SMALLEST, Order.LAS, Order.WEIGHTED, Order.RANDOM):
        assert run_trace(trace, ClusterSpec.pool(1), Rule(order)).finish.tolist() == [1]


def test_jobs_that_can_never_run_are_named() -> None:
    with pytest.raises(TraceError, match="job 4 asks for 3 GPUs, the cluster has 2"):
        run_trace(trace_of([Job(4, 0, 1, 1, 3)]), ClusterSpec.pool(2), Rule())
    with pytest.raises(TraceError, match="job 0 asks for 81 GiB of GPU memory, a GPU has 80"):
        SimulatedCluster(trace_of([Job(0, 0, 1, 1, 0.5, memory_gib=81)]), ClusterSpec.pool(2))


@pytest.mark.parametrize("name", ["preemption_cost", "quantum", "timer"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_impossible_timing_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be 0 or more seconds"):
        Timing(**{name: value})


def test_placements_of_the_reference_are_the_placements() -> None:
    assert [placement.name.lower() for placement in Placement] == list(PLACEMENTS)
    assert [blocking.name.lower() for blocking in Blocking] == list(BLOCKINGS)
