"""Plans that choose types of GPU: what they promise, the energy that they save, and their front."""

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_rl.agents import Genetic, make_policy, run_policy
from lepton_rl.agents.first_plans import FURTHER_SEEDS, SEEDS
from lepton_rl.agents.plan_choices import ON_KIND
from lepton_rl.agents.plan_front import non_dominated
from lepton_rl.agents.planning import CostWeights, Horizon, plan_starts
from lepton_rl.core import ClusterSpec, Outcome, Policy, Snapshot, Start
from lepton_rl.core.cluster import MAX_TYPES, NodeGroup
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace
from tests.agents.cases import plain_trace
from tests.agents.node_groups import first_decision, job
from tests.reference.detailed import DetailedJob
from tests.simulator.detailed_cases import FAST, PLAIN, SLOW, detailed_trace

# Added watts: slow 62, plain 225, fast 349.75. Speeds 0.5, 1, 2 (vision 0.25, 1, 2).
ONE_EACH = ClusterSpec.of_groups((NodeGroup(1, 1, PLAIN), NodeGroup(1, 1, FAST), NodeGroup(1, 1, SLOW)), PLAIN)
PLAIN_GPU, FAST_GPU, SLOW_GPU = (0,), (1,), (2,)
WEIGHT = 500.0


def at_zero(trace: Trace, cluster: ClusterSpec) -> Snapshot:
    simulated = SimulatedCluster(trace, cluster)
    assert simulated.advance()
    return simulated.snapshot()


def added_kwh(outcome: Outcome) -> float:
    idle = outcome.cluster.idle_power_w * outcome.cluster.gpus
    return (outcome.energy_joules - idle * outcome.makespan) / 3.6e6


def measured_cost(outcome: Outcome) -> float:
    return float(outcome.bounded_slowdown().sum() + 2.5 * outcome.jct.sum() / 3600 + WEIGHT * added_kwh(outcome))


@st.composite
def single_gpu_cases(draw: st.DrawFn) -> tuple[Trace, ClusterSpec]:
    """Jobs of one GPU, all there at 0, on nodes of one GPU: a plan's counting by type is then exact."""
    kinds = draw(st.lists(st.sampled_from([SLOW, PLAIN, FAST]), min_size=1, max_size=3, unique_by=lambda k: k.name))
    groups = [
        NodeGroup(draw(st.integers(1, 2)), 1, kind, rent_usd_per_hour=draw(st.sampled_from([None, 0.5, 2.0])))
        for kind in kinds
    ]
    cluster = ClusterSpec.of_groups(tuple(groups), PLAIN)
    times = draw(st.lists(st.sampled_from([12.0, 60.0, 75.0, 300.0, 4000.0]), min_size=1, max_size=8))
    classes = st.sampled_from(["general", "vision", "language"])
    jobs = [job(number, 1.0, seconds, job_class=draw(classes)) for number, seconds in enumerate(times)]
    return detailed_trace(jobs), cluster


def heuristics() -> list[Policy]:
    """Those that a plan grows from and whose schedule it knows: scores that stand still, no room held back."""
    names = [
        seed.name for seed in (*SEEDS, *FURTHER_SEEDS)
        if seed.name not in ("wfp3", "unicep", "reserve", "reserve_slowdown", "power")
    ]  # fmt: skip
    rules = [make_policy(name, blocking=rule) for name in names for rule in ("head", "skip")]
    placing = [
        make_policy(name, order=order, blocking=rule)
        for name in ("least_loaded", "energy", "cheapest", "greenest")
        for order in ("fcfs", "sjf")
        for rule in ("head", "skip")
    ]
    return [*rules, *placing]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(single_gpu_cases())
def test_never_worse_than_the_heuristics_that_choose_types(case: tuple[Trace, ClusterSpec]) -> None:
    trace, cluster = case
    policy = Genetic(energy_weight=WEIGHT)
    snapshot = at_zero(trace, cluster)
    plan = policy.plan(snapshot)
    outcomes = [run_policy(heuristic, trace, cluster) for heuristic in heuristics()]
    assert plan.cost <= min(map(measured_cost, outcomes)) + 1e-6
    assert plan.cost <= plan.seed_cost
    front = policy.plan_front(snapshot, plans=8, generations=1)
    for outcome in outcomes:
        jct, energy = outcome.jct.mean() + 1e-6, added_kwh(outcome) + 1e-9
        assert any(one.mean_jct <= jct and one.energy_kwh <= energy for one in front)


def test_a_job_goes_where_the_weight_of_energy_says() -> None:
    # 100 s of service: 50 s and 17,487.5 J on fast, 200 s and 12,400 J on slow. The slow GPU costs one slowdown and
    # 150 s of completion time more, 1.104 in all, and saves 0.001413 kWh: from 781 a kWh on it is cheaper.
    jobs = [job(0, 1.0)]
    assert first_decision(Genetic(), ONE_EACH, jobs) == [Start(0, FAST_GPU)]
    assert first_decision(Genetic(energy_weight=770.0), ONE_EACH, jobs) == [Start(0, FAST_GPU)]
    assert first_decision(Genetic(energy_weight=790.0), ONE_EACH, jobs) == [Start(0, SLOW_GPU)]
    assert first_decision(Genetic(placement="first", energy_weight=790.0), ONE_EACH, jobs) == [Start(0, PLAIN_GPU)]


def test_a_job_waits_for_the_type_that_is_worth_it() -> None:
    # The fast GPU gives 10 s of service in 5 s; the slow one would take 20 s and the plain one 10 s.
    jobs = [job(0, 1.0, 10.0), job(1, 1.0, 3600.0), job(2, 1.0, 3600.0)]
    running = [Start(0, FAST_GPU), Start(1, PLAIN_GPU)]
    snapshot = SimulatedCluster(detailed_trace(jobs), ONE_EACH)
    assert snapshot.advance()
    for start in running:
        snapshot.apply(start)
    plan = Genetic().plan(snapshot.snapshot())
    assert (plan.jobs, plan.start_times, plan.mean_jct) == ((2,), (5.0,), 1805.0)
    assert first_decision(Genetic(), ONE_EACH, jobs, running) == []


def test_what_a_plan_promises_is_what_happens() -> None:
    jobs = [job(0, 1.0), job(1, 1.0, 40.0, job_class="vision")]
    policy = Genetic(energy_weight=WEIGHT)
    plan = policy.plan(at_zero(detailed_trace(jobs), ONE_EACH))
    outcome = run_policy(policy, detailed_trace(jobs), ONE_EACH)
    assert plan.start_times == (0.0, 20.0)  # both on the fast GPU
    assert plan.mean_jct == pytest.approx(outcome.jct.mean())
    assert plan.energy_kwh == pytest.approx(added_kwh(outcome))


def every_plan(snapshot: Snapshot) -> list[tuple[float, float]]:
    """Mean JCT and energy of each order of starts and each job's type of GPU."""
    horizon = Horizon.of(snapshot, 32, CostWeights(1.0, 0.0, 0.0, 0.0))
    types = range(ON_KIND, ON_KIND + len(snapshot.cluster.types))
    plans = (
        plan_starts(horizon, np.array(order), np.array(chosen))
        for order in permutations(range(horizon.waiting))
        for chosen in product(types, repeat=horizon.waiting)
    )
    return [(plan.mean_jct, plan.energy_kwh) for plan in plans]


def points(found: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The front of these points, rounded."""
    rounded = np.array([(round(jct, 6), round(energy, 12)) for jct, energy in found])
    return [(float(jct), float(energy)) for jct, energy in rounded[non_dominated(rounded)]]


def test_the_front_of_a_small_queue_is_found_whole() -> None:
    jobs = [job(0, 1.0, 600.0), job(1, 1.0, 100.0, job_class="vision"), job(2, 1.0, 300.0), job(3, 1.0, 900.0)]
    snapshot = at_zero(detailed_trace(jobs), ONE_EACH)
    front = Genetic().plan_front(snapshot)
    expected = points(every_plan(snapshot))
    assert len(expected) > 4
    assert points([(plan.mean_jct, plan.energy_kwh) for plan in front]) == expected
    assert [plan.mean_jct for plan in front] == sorted(plan.mean_jct for plan in front)


def test_on_equal_gpus_the_front_is_one_plan_and_the_weight_changes_nothing() -> None:
    cluster = ClusterSpec(nodes=2, gpus_per_node=2)
    trace = plain_trace(run_time=[100.0, 900.0, 50.0, 300.0, 20.0], gpus=[2.0, 1.0, 4.0, 0.5, 3.0])
    snapshot = at_zero(trace.with_requested("exact"), cluster)
    (plan,) = Genetic().plan_front(snapshot, plans=8, generations=2)
    assert plan.energy_kwh == pytest.approx(350.0 * (200 + 900 + 200 + 150 + 60) / 3.6e6)
    weighted, plain = (Genetic(energy_weight=weight).plan(snapshot) for weight in (1e6, 0.0))
    assert (weighted.jobs, weighted.start_times, weighted.cost) == (plain.jobs, plain.start_times, plain.cost)


def test_a_front_has_no_two_points_that_differ_by_rounding() -> None:
    costs = np.array([(3.0, 1.0 - 1e-12), (1.0, 1.0), (2.0, 0.5), (2.0, 0.5), (0.5, 7.0), (4.0, 0.6), (9.0, 0.0)])
    assert non_dominated(costs).tolist() == [4, 1, 2, 6]


def test_more_rents_than_kinds_can_be_told_apart() -> None:
    groups = tuple(NodeGroup(1, 1, PLAIN, rent_usd_per_hour=1.0 + index) for index in range(MAX_TYPES + 1))
    cluster = ClusterSpec.of_groups((*groups, NodeGroup(1, 1, FAST)))
    assert first_decision(Genetic(), cluster, [job(0, 1.0)]) == [Start(0, (MAX_TYPES + 1,))]


def test_names_of_choices() -> None:
    cheap = NodeGroup(1, 1, FAST, rent_usd_per_hour=0.5)
    dear = NodeGroup(1, 1, FAST, rent_usd_per_hour=2.0)
    cluster = ClusterSpec.of_groups((cheap, dear, NodeGroup(1, 1, SLOW)))
    known = {
        "first", "best", "worst", "consolidated", "least_loaded", "energy", "cheapest", "greenest",
        "only fast at 0.5 USD/h", "only fast at 2 USD/h", "only slow",
    }  # fmt: skip
    jobs = [DetailedJob(number, 0.0, 100.0, 100.0, 1.0) for number in range(6)]
    for plan in Genetic().plan_front(at_zero(detailed_trace(jobs), cluster)):
        assert set(plan.gpus) <= known
