"""Fewest joules, worked out by hand."""

import pytest

from lepton_rl.agents import Energy, RuleNames, rule_names, run_policy
from lepton_rl.core import ClusterSpec, Start
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import Locality, SpreadCurve
from tests.agents.node_groups import first_decision, job, plain_decision
from tests.simulator.detailed_cases import FAST, PLAIN, SLOW, detailed_trace

# Added watts: slow 62, plain 225, fast 349.75. Speeds 0.5, 1, 2 (vision 0.25, 1, 2). Joules of a second of service:
# slow 124 (vision 248), plain 225, fast 174.875.
ONE_EACH = ClusterSpec.of_groups((NodeGroup(1, 1, PLAIN), NodeGroup(1, 1, FAST), NodeGroup(1, 1, SLOW)), PLAIN)


def test_each_job_goes_where_it_takes_the_fewest_joules() -> None:
    # GPUs: 0 plain, 1 fast, 2 slow. The vision job finds fast best; the next slow; plain is left for the last.
    jobs = [job(0, 1.0, job_class="vision"), job(1, 1.0), job(2, 1.0)]
    assert first_decision(Energy(), ONE_EACH, jobs) == [Start(0, (1,)), Start(1, (2,)), Start(2, (0,))]


def test_the_types_that_a_job_asks_for_bind() -> None:
    assert first_decision(Energy(), ONE_EACH, [job(0, 0.5, types=("plain",))]) == [Start(0, (0,))]


def test_joules_are_those_of_the_run() -> None:
    # 100 s of service on the slow GPU: 200 s at 62 W, and three idle GPUs of 8 + 25 + 50.5 W.
    outcome = run_policy(Energy(), detailed_trace([job(0, 1.0)]), ONE_EACH)
    assert outcome.energy_joules == pytest.approx(200 * (62 + 83.5))


def test_a_gang_that_no_type_holds_alone_is_mixed() -> None:
    assert first_decision(Energy(), ONE_EACH, [job(0, 3.0)]) == [Start(0, (0, 1, 2))]
    assert first_decision(Energy(), ONE_EACH, [job(0, 2.0)]) == [Start(0, (0, 1))]  # tightest node: all alike


def test_spreading_costs_joules_too() -> None:
    # Slow: two nodes of one GPU; spread over them a gang is three times as slow, 124 x 2 x 3 J a second of service
    # against 174.875 x 2 on the fast node.
    groups = (NodeGroup(2, 1, SLOW), NodeGroup(1, 2, FAST))
    near = ClusterSpec.of_groups(groups, PLAIN)
    far = ClusterSpec.of_groups(groups, PLAIN, Locality(SpreadCurve((1, 2), (1.0, 3.0)), SpreadCurve()))
    assert first_decision(Energy(), near, [job(0, 2.0)]) == [Start(0, (0, 1))]
    assert first_decision(Energy(), far, [job(0, 2.0)]) == [Start(0, (2, 3))]


def test_equal_gpus_are_packed() -> None:
    # Two nodes of 4; 2 GPUs of node 0 are held: best puts 2 more there, and 3 on node 1.
    cluster = ClusterSpec(nodes=2, gpus_per_node=4)
    held = [Start(0, (0, 1))]
    assert plain_decision(Energy(), cluster, [2.0, 3.0, 2.0], held) == [Start(1, (4, 5, 6)), Start(2, (2, 3))]


def test_order_and_blocking() -> None:
    # A pool of 4 with 1 held: the gang of 4 does not fit; head stops there, skip starts the next two, shortest first
    # with sjf.
    pool = ClusterSpec.pool(4)
    gpus, held = [1.0, 4.0, 2.0, 2.0], [Start(0, (0,))]
    times = {"run_time": [9.0, 1.0, 7.0, 3.0]}
    assert plain_decision(Energy(blocking="head"), pool, gpus, held, **times) == []
    assert plain_decision(Energy(), pool, gpus, held, **times) == [Start(2, (1, 2))]
    assert plain_decision(Energy(order="sjf"), pool, gpus, held, **times) == [Start(3, (1, 2))]
    assert not Energy().needs_requested_times
    assert Energy(order="sjf").needs_requested_times


def test_without_requested_times_a_second_of_service_is_compared() -> None:
    trace = detailed_trace([job(0, 1.0)]).with_requested("absent")
    assert run_policy(Energy(), trace, ONE_EACH).finish.tolist() == [200.0]  # the slow GPU


def test_no_placement_is_named_as_in_force() -> None:
    assert rule_names(Energy(blocking="head")) == RuleNames("head", None)
