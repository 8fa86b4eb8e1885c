"""Least rent, worked out by hand."""

import pytest

from lepton_rl.agents import Cheapest
from lepton_rl.core import ClusterSpec, Start
from lepton_rl.core.cluster import MAX_TYPES, NodeGroup
from lepton_rl.errors import ConfigError
from tests.agents.node_groups import first_decision, job, plain_decision
from tests.simulator.detailed_cases import FAST, PLAIN, SLOW


def rented(*groups: tuple[object, float | None]) -> ClusterSpec:
    """One node of one GPU for each type and rent."""
    nodes = tuple(NodeGroup(1, 1, gpu, rent_usd_per_hour=rent) for gpu, rent in groups)  # type: ignore[arg-type]
    return ClusterSpec.of_groups(nodes, PLAIN)


def test_rent_counts_for_as_long_as_the_job_takes() -> None:
    # An hour of service: plain 1 h x 3 USD, fast half an hour x 5 = 2.5, slow 2 h x 1.4 = 2.8.
    cluster = rented((PLAIN, 3.0), (FAST, 5.0), (SLOW, 1.4))
    jobs = [job(number, 1.0, 3600.0) for number in range(3)]
    assert first_decision(Cheapest(), cluster, jobs) == [Start(0, (1,)), Start(1, (2,)), Start(2, (0,))]


def test_groups_of_one_type_differ_by_rent() -> None:
    cluster = rented((PLAIN, 3.0), (PLAIN, 2.0), (FAST, 9.0))
    assert first_decision(Cheapest(), cluster, [job(0, 1.0), job(1, 0.5)]) == [Start(0, (1,)), Start(1, (0,))]


def test_the_types_that_a_job_asks_for_bind() -> None:
    cluster = rented((PLAIN, 3.0), (PLAIN, 2.0), (FAST, 0.1))
    assert first_decision(Cheapest(), cluster, [job(0, 1.0, types=("plain",))]) == [Start(0, (1,))]
    assert first_decision(Cheapest(), cluster, [job(0, 3.0)]) == [Start(0, (0, 1, 2))]


def test_unknown_rents_come_last() -> None:
    cluster = rented((PLAIN, None), (SLOW, None), (FAST, 99.0))
    jobs = [job(number, 1.0) for number in range(3)]
    assert first_decision(Cheapest(), cluster, jobs) == [Start(0, (2,)), Start(1, (0,)), Start(2, (1,))]


def test_equal_gpus_are_packed() -> None:
    held = [Start(0, (4,))]
    assert plain_decision(Cheapest(), ClusterSpec(nodes=2, gpus_per_node=4), [1.0, 3.0], held) == [Start(1, (5, 6, 7))]


def test_more_rents_than_can_be_told_apart_are_refused() -> None:
    cluster = rented(*((PLAIN, float(rent)) for rent in range(MAX_TYPES + 1)))
    with pytest.raises(ConfigError, match="at most 50 pairs of GPU type and rent, the cluster has 51"):
        first_decision(Cheapest(), cluster, [job(0, 1.0)])
