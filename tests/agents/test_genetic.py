"""The planner: never worse on its horizon than the heuristics it starts from; one seed, one plan."""

import logging
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_rl.agents import Genetic, Greedy, run_policy
from lepton_rl.agents.first_plans import SEEDS
from lepton_rl.agents.genetic import Plan
from lepton_rl.agents.optimum import optimum
from lepton_rl.agents.planning import predicted_ends
from lepton_rl.core import ClusterSpec, Outcome, Placement, Policy, Snapshot, Start, schedule
from lepton_rl.core import layout as L
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults, Reservation
from lepton_rl.errors import MissingExtra
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace, lublin
from tests.agents.cases import CLUSTERS, plain_trace, traces
from tests.reference.simulator import Job, simulate

HYPOTHESIS = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
JCT_WEIGHT = 2.5


def measured_cost(outcome: Outcome) -> float:
    return float(outcome.bounded_slowdown().sum() + JCT_WEIGHT * outcome.jct.sum() / 3600)


def plan_at_start(policy: Genetic, trace: Trace, cluster: ClusterSpec) -> Plan:
    simulated = SimulatedCluster(trace, cluster)
    assert simulated.advance()
    return policy.plan(simulated.snapshot())


@HYPOTHESIS
@given(traces(shares=False, burst=True), CLUSTERS)
def test_never_worse_than_the_heuristics_when_the_horizon_is_everything(trace: Trace, cluster: ClusterSpec) -> None:
    # Every job is there at 0 and runs as long as requested: the simulator itself measures the heuristics.
    plan = plan_at_start(Genetic(node_weight=0.0), trace, cluster)
    heuristics: list[Policy] = [Greedy()] if cluster.nodes == 1 else []
    for seed in SEEDS:
        if seed.name not in (
            "wfp3",
            "unicep",
        ):  # their order changes as they go: the plan starts from the first
            heuristics += [seed.model_copy(update={"blocking": rule}) for rule in ("head", "skip")]
    for heuristic in heuristics:
        assert plan.cost <= measured_cost(run_policy(heuristic, trace, cluster)) + 1e-9


@HYPOTHESIS
@given(traces(shares=False, burst=True), CLUSTERS)
def test_a_plan_is_what_the_reference_simulator_makes_of_its_order(trace: Trace, cluster: ClusterSpec) -> None:
    plan = plan_at_start(Genetic(placement="best", node_weight=0.0), trace, cluster)
    rank = {job: place for place, job in enumerate(plan.jobs)}
    memory = [None if np.isnan(value) else float(value) for value in trace.gpu_memory_gib]
    jobs = [
        Job(i, 0.0, float(trace.run_time[i]), float(trace.requested_time[i]), float(trace.gpus[i]), memory[i])
        for i in range(len(trace))
    ]
    result = simulate(
        jobs,
        nodes=cluster.nodes,
        gpus_per_node=cluster.gpus_per_node,
        order=lambda job, now: float(rank[job.id]),
        blocking="head",
        placement="best",
    )
    assert [result.start[job] for job in plan.jobs] == list(plan.start_times)
    jct = np.array(result.finish)
    slowdown = np.maximum(1.0, jct / np.maximum(trace.run_time, 10.0))
    assert plan.cost == pytest.approx(slowdown.sum() + JCT_WEIGHT * jct.sum() / 3600)


def planned_by_counting(snapshot: Snapshot, order: list[int], skip: bool) -> float:
    """Cost of starting the queue (positions in `order`) with no arrivals, counting GPUs; plain Python."""
    queue = snapshot.queue
    free = snapshot.free_gpus
    ends = [
        (end, gpus)
        for end, gpus in zip(predicted_ends(snapshot.running.table, snapshot.time), snapshot.running.gpus, strict=True)
    ]
    now, waiting, cost = snapshot.time, list(order), 0.0
    while waiting:
        for job in list(waiting):
            if queue.gpus[job] <= free:
                free -= queue.gpus[job]
                ends.append((now + queue.predicted_time[job], queue.gpus[job]))
                waiting.remove(job)
                jct = now + queue.predicted_time[job] - queue.submit_time[job]
                cost += max(1.0, jct / max(queue.requested_time[job], 10.0)) + JCT_WEIGHT * jct / 3600
            elif not skip:
                break
        if waiting:
            now = min(end for end, _ in ends)
            free += sum(gpus for end, gpus in ends if end <= now)
            ends = [(end, gpus) for end, gpus in ends if end > now]
    return cost


class Watcher:
    """Lets the planner decide, and compares each of its plans with the heuristics on the same horizon."""

    def __init__(self) -> None:
        self.policy = Genetic(generations=1, moves=8)
        self.plans = 0

    def decide(self, snapshot: Snapshot) -> list[object]:
        queue = snapshot.queue
        if len(queue):
            plan = self.policy.plan(snapshot)
            scores = (
                queue.submit_time,
                queue.requested_time,
                -queue.requested_time,
                queue.gpus,
                queue.gpus * queue.requested_time,
            )
            for score in scores:
                order = np.argsort(score, kind="stable").tolist()
                for skip in (False, True):
                    assert plan.cost <= planned_by_counting(snapshot, order, skip) + 1e-9
            assert plan.cost <= plan.seed_cost + 1e-9
            self.plans += 1
        return list(self.policy.decide(snapshot))


@HYPOTHESIS
@given(traces(shares=False))
def test_never_worse_with_running_jobs_and_wrong_predictions(trace: Trace) -> None:
    simulated = SimulatedCluster(trace, ClusterSpec.pool(6))
    watcher = Watcher()
    schedule(watcher, simulated)  # type: ignore[arg-type]
    assert watcher.plans > 0


@HYPOTHESIS
@given(traces(), CLUSTERS, st.sampled_from([None, "first", "consolidated"]))
def test_decisions_are_legal_and_leave_nothing_behind(
    trace: Trace, cluster: ClusterSpec, placement: str | None
) -> None:
    policy = Genetic.model_validate({"placement": placement, "generations": 1, "moves": 8})
    assert np.isfinite(run_policy(policy, trace, cluster).finish).all()


def crowd(count: int = 80) -> Trace:
    generator = np.random.default_rng(1)
    return plain_trace(
        run_time=np.exp(generator.normal(6, 1.5, count)).round() + 10,
        gpus=generator.choice([1.0, 2.0, 4.0, 8.0], count),
    ).with_requested("exact")


def test_decide_starts_what_the_plan_starts_now() -> None:
    cluster = ClusterSpec(nodes=2, gpus_per_node=4)
    simulated = SimulatedCluster(crowd(), cluster)
    assert simulated.advance()
    snapshot = simulated.snapshot()
    plan = Genetic().plan(snapshot)
    due = [job for job, start in zip(plan.jobs, plan.start_times, strict=True) if start == 0.0]
    assert [action.job for action in Genetic().decide(snapshot) if isinstance(action, Start)] == due
    assert len(plan.jobs) == 32
    assert list(plan.start_times) == sorted(plan.start_times)


def test_a_window_that_fits_whole_leaves_no_gpu_idle() -> None:
    cluster = ClusterSpec.pool(64)
    simulated = SimulatedCluster(plain_trace(run_time=[100.0] * 60, gpus=[1.0] * 60), cluster)
    assert simulated.advance()
    assert len(Genetic(window=8).decide(simulated.snapshot())) == 60


def test_planning_beats_its_seeds_on_a_crowd() -> None:
    plan = plan_at_start(Genetic(), crowd(), ClusterSpec.pool(8))
    assert plan.cost < plan.seed_cost


@HYPOTHESIS
@given(traces(shares=False, burst=True, most=6), CLUSTERS)
def test_without_slowdowns_only_completion_times_count(trace: Trace, cluster: ClusterSpec) -> None:
    plan = plan_at_start(Genetic(node_weight=0.0, slowdown_weight=0.0, jct_weight=3600.0), trace, cluster)
    run_time = trace.run_time[list(plan.jobs)]
    assert plan.cost == pytest.approx(float((np.array(plan.start_times) + run_time).sum()))


def test_same_seed_same_schedule() -> None:
    cluster = ClusterSpec(nodes=2, gpus_per_node=4)
    one, again = (run_policy(Genetic(), crowd(), cluster).finish.tolist() for _ in range(2))
    assert one == again


def test_gangs_are_kept_together_where_it_costs_nothing() -> None:
    # Two nodes of 2; spreading placement is the cluster's own, so the heuristics' plans cost an extra node.
    trace = plain_trace(run_time=[100.0, 100.0, 100.0], gpus=[2.0, 2.0, 2.0])
    simulated = SimulatedCluster(trace, ClusterSpec(nodes=2, gpus_per_node=2), Placement.WORST)
    assert simulated.advance()
    actions = Genetic().decide(simulated.snapshot())
    assert [action.gpus for action in actions if isinstance(action, Start)] == [(0, 1), (2, 3)]


def test_a_plan_that_runs_out_of_time_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    policy = Genetic(budget_ms=1e-6)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            plan_at_start(policy, crowd(), ClusterSpec.pool(8))
    assert policy.plans_cut_short == 2
    assert len(caplog.records) == 1
    assert Genetic().plans_cut_short == 0


def test_outrun_predictions_double() -> None:
    running = np.zeros((4, L.JOB_COLUMNS))
    running[:, L.PREDICTED] = 100.0
    running[:, L.START] = [950.0, 900.0, 850.0, 400.0]  # served 50, 100, 150, 600 s
    assert predicted_ends(running, 1000.0).tolist() == [1050.0, 1100.0, 1050.0, 1200.0]


def test_without_pymoo_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lepton_rl.agents.evolution", raising=False)
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.soo.nonconvex.ga", None)
    with pytest.raises(MissingExtra, match=r"lepton-rl\[solve\]"):
        plan_at_start(Genetic(), crowd(), ClusterSpec.pool(8))


def test_close_to_the_optimum() -> None:
    pytest.importorskip("ortools")
    gaps = []
    for seed in range(10):
        trace = lublin(7, 8, seed, 2.0)
        trace = replace(trace, submit_time=np.zeros(len(trace)))
        planned = run_policy(Genetic(slowdown_weight=0.0), trace.with_requested("exact"), ClusterSpec.pool(8))
        gaps.append(planned.jct.mean() / optimum(trace, ClusterSpec.pool(8)).outcome.jct.mean() - 1)
    assert min(gaps) > -1e-9
    assert np.mean(gaps) < 0.02


def test_it_plans_around_failures_and_reservations() -> None:
    dynamics = Dynamics(
        faults=Faults(schedule=(Fault(0.0, 0, 4, True), Fault(500.0, 0, 4, False))),
        reservations=(Reservation(100, 400, (1,)),),
    )
    cluster = ClusterSpec(nodes=2, gpus_per_node=4).with_dynamics(dynamics)
    trace = plain_trace(run_time=[50.0, 200.0, 300.0, 60.0, 80.0], gpus=[2.0, 2.0, 8.0, 4.0, 1.0])
    outcome = run_policy(Genetic(), trace, cluster)
    assert np.isfinite(outcome.finish).all()
    assert outcome.first_start[2] >= 500.0  # a gang of all GPUs waits for the repair


def test_jobs_that_outran_their_times_before_a_failure_are_planned() -> None:
    # A node of 2 GPUs is down from 50 to 60 s. Jobs 0 and 1 asked for 10 s each, have run 50 by then and keep them;
    # two of the three jobs start again at once.
    faults = Faults(schedule=(Fault(50.0, 0, 2, True), Fault(60.0, 0, 2, False)), checkpoint_interval_s=1.0)
    spec = ClusterSpec(nodes=1, gpus_per_node=2).with_dynamics(Dynamics(faults=faults))
    trace = plain_trace(run_time=[100.0] * 3, requested_time=[10.0] * 3, gpus=[1.0] * 3)
    outcome = run_policy(Genetic(), trace, spec)
    assert sorted(outcome.finish.tolist()) == [110.0, 160.0, 160.0]
