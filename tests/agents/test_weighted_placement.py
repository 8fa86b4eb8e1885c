"""Placement by weights, worked out by hand."""

import pytest

from lepton_rl.agents import WeightedPlacement, make_policy
from lepton_rl.core import ClusterSpec, Start
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.errors import ConfigError
from tests.agents.node_groups import first_decision, job, plain_decision
from tests.simulator.detailed_cases import FAST, PLAIN, SLOW


def test_load_alone_spreads() -> None:
    policy = WeightedPlacement(load=1, availability=0, energy=0)
    cluster = ClusterSpec(nodes=2, gpus_per_node=4)
    actions = plain_decision(policy, cluster, [1.0, 1.0, 1.0], [Start(0, (0,))])
    assert actions == [Start(1, (4,)), Start(2, (1,))]  # then 1/4 each: the lower


def test_energy_alone_picks_the_type() -> None:
    # As in the test of energy: slow 124 J a second of service, fast 174.875, plain 225.
    policy = WeightedPlacement(load=0, availability=0, energy=1)
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, PLAIN), NodeGroup(1, 1, FAST), NodeGroup(1, 1, SLOW)), PLAIN)
    jobs = [job(0, 1.0), job(1, 1.0, job_class="vision"), job(2, 0.5)]
    assert first_decision(policy, cluster, jobs) == [Start(0, (2,)), Start(1, (1,)), Start(2, (0,))]


def test_availability_keeps_a_gang_together() -> None:
    # Node 0 offers 2 GPUs, node 1 offers 4. Load with the job: 4/4 and 4/4. Availability 2/4 and 1.
    cluster = ClusterSpec(nodes=2, gpus_per_node=4)
    held = [Start(0, (0, 1))]
    apart = WeightedPlacement(load=1, availability=0, energy=0)
    together = WeightedPlacement(load=1, availability=1, energy=0)
    assert plain_decision(apart, cluster, [2.0, 4.0], held) == [Start(1, (2, 3, 4, 5))]  # a tie: the tighter node
    assert plain_decision(together, cluster, [2.0, 4.0], held) == [Start(1, (4, 5, 6, 7))]


def test_weights_decide_between_aims() -> None:
    # Node 0 (slow) has one of two GPUs held: load 1 with the job, energy 124/225. Node 1 (plain) is idle: load 1/2,
    # energy 1. Load first: node 1; energy at twice the weight: 1 + 1.10 against 0.5 + 2, node 0.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 2, SLOW), NodeGroup(1, 2, PLAIN)), PLAIN)
    jobs, held = [job(0, 1.0), job(1, 1.0)], [Start(0, (0,))]
    assert first_decision(WeightedPlacement(load=1, energy=1), cluster, jobs, held) == [Start(1, (2,))]
    assert first_decision(WeightedPlacement(load=1, energy=2), cluster, jobs, held) == [Start(1, (1,))]


def test_weights_that_say_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="load, availability and energy are all 0"):
        make_policy("weighted_placement", load=0, availability=0, energy=0)
