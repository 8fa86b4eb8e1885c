"""Policies written in Python on clusters whose nodes differ: legal actions only, and nothing is left behind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.agents import GavelMaxMin, GavelMaxThroughput, Genetic, Greedy, make_policy, run_policy
from lepton_rl.agents.planning import predicted_ends
from lepton_rl.core import ClusterSpec, Placement, Policy, Start
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.simulator import SimulatedCluster
from tests.reference.detailed import DetailedJob
from tests.simulator.detailed_cases import (
    FAST,
    PLAIN,
    SLOW,
    DetailedCase,
    detailed_cases,
    detailed_trace,
    reference_cluster,
)
from tests.simulator.test_detailed import check_holdings

POLICIES: dict[str, Policy] = {
    "greedy": Greedy(),
    "greedy spread": Greedy(placement="worst"),
    "genetic": Genetic(window=4),
    "genetic for energy": Genetic(window=4, energy_weight=300.0),
    "genetic consolidated": Genetic(placement="consolidated"),
    "max-min": GavelMaxMin(),
    "max-min head": GavelMaxMin(blocking="head"),
    "max-min in turns": GavelMaxMin(preempt=True, round_time=2.0),
    "max-min consolidated": GavelMaxMin(placement="consolidated", blocking="head"),
    "max-throughput": GavelMaxThroughput(),
    "max-throughput in turns": GavelMaxThroughput(preempt=True, round_time=2.0, blocking="head"),
}
PLACING = (
    "least_loaded", "energy", "cheapest", "greenest", "best_fit", "dotprod", "gpu_packing",
    "gpu_clustering", "fgd", "weighted_placement",
)  # fmt: skip
POLICIES |= {name: make_policy(name) for name in PLACING}


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=40)
@given(case=detailed_cases(), placement=st.sampled_from(list(Placement)))
def test_decisions_are_legal_and_leave_nothing_behind(case: DetailedCase, name: str, placement: Placement) -> None:
    cluster = SimulatedCluster(case.trace, case.cluster, placement)
    while cluster.advance():
        for action in POLICIES[name].decide(cluster.snapshot()):
            cluster.apply(action)
        check_holdings(case, cluster.snapshot())
    assert not np.isnan(cluster.outcome().finish).any()


@pytest.mark.parametrize("name", ["greedy", *PLACING])
@settings(max_examples=40)
@given(case=detailed_cases())
def test_no_job_that_fits_is_left(case: DetailedCase, name: str) -> None:
    cluster = SimulatedCluster(case.trace, case.cluster)
    while cluster.advance():
        for action in POLICIES[name].decide(cluster.snapshot()):
            cluster.apply(action)
        snapshot = cluster.snapshot()
        room = reference_cluster(case.cluster)
        for number in snapshot.running:
            room.take(case.jobs[number], list(snapshot.gpus_of(number)))
        assert all(room.find(case.jobs[number]) is None for number in snapshot.queue)


@pytest.mark.parametrize("name", PLACING)
@settings(max_examples=20)
@given(case=detailed_cases())
def test_the_same_decisions_again(case: DetailedCase, name: str) -> None:
    """At every instant, from a policy that has decided before and from a new one; and on a run of its own."""
    cluster, policy = SimulatedCluster(case.trace, case.cluster), make_policy(name)
    while cluster.advance():
        actions = policy.decide(cluster.snapshot())
        assert policy.decide(cluster.snapshot()) == actions
        for action in actions:
            cluster.apply(action)
    again = run_policy(make_policy(name), case.trace, case.cluster)
    assert again.finish.tolist() == cluster.outcome().finish.tolist()


@pytest.mark.parametrize("name", PLACING)
@settings(max_examples=20)
@given(case=detailed_cases())
def test_head_starts_jobs_in_order(case: DetailedCase, name: str) -> None:
    outcome = run_policy(make_policy(name, blocking="head"), case.trace, case.cluster)
    assert (np.diff(outcome.first_start) >= 0).all()


def test_a_plan_knows_when_running_jobs_end_and_how_fast_the_next_are() -> None:
    # One fast GPU (speed 2) for times on the plain type. Job 0 (100 s of service) ends at 50; job 1 (60 s) follows
    # from there to 80; job 2 (200 s) from 80 to 180.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, FAST),), PLAIN)
    times = (100.0, 60.0, 200.0)
    jobs = [DetailedJob(number, 0.0, time, time, 1.0) for number, time in enumerate(times)]
    simulated = SimulatedCluster(detailed_trace(jobs), cluster)
    simulated.advance()
    simulated.apply(Start(0))
    snapshot = simulated.snapshot()
    assert predicted_ends(snapshot.running.table, 0.0, snapshot.hw).tolist() == [50.0]
    plan = Genetic().plan(snapshot)
    assert dict(zip(plan.jobs, plan.start_times, strict=True)) == {1: 50.0, 2: 80.0}


def test_a_plan_for_one_node_knows_its_cpu() -> None:
    # Four GPUs, four cores: two jobs of two cores run at a time, though four GPUs are free. Shortest first.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 4, SLOW, (("cpu_cores", 4.0),)),))
    jobs = [DetailedJob(number, 0.0, 100.0, 100.0, 1.0, asks={"cpu_cores": 2.0}) for number in range(3)]
    simulated = SimulatedCluster(detailed_trace(jobs), cluster)
    simulated.advance()
    plan = Genetic().plan(simulated.snapshot())
    assert sorted(plan.start_times) == [0.0, 0.0, 100.0]
    assert sorted(run_policy(Genetic(), detailed_trace(jobs), cluster).finish) == [100.0, 100.0, 200.0]
