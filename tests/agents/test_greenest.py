"""Least carbon, worked out by hand."""

from lepton_rl.agents import Energy, Greenest
from lepton_rl.core import ClusterSpec, Start
from lepton_rl.core.cluster import NodeGroup, Tariffs
from lepton_rl.core.hardware.tariffs import HourlySeries
from tests.agents.node_groups import first_decision, job, plain_decision
from tests.simulator.detailed_cases import FAST, PLAIN, SLOW

GROUPS = (NodeGroup(1, 1, SLOW), NodeGroup(1, 1, FAST))


def cluster(*intensities: float) -> ClusterSpec:
    """A slow GPU 0 (62 W, speed 0.5) and a fast GPU 1 (349.75 W, speed 2) where carbon has these g/kWh by the hour."""
    tariffs = Tariffs(carbon=HourlySeries.of(intensities) if intensities else None)
    return ClusterSpec.of_groups(GROUPS, PLAIN, tariffs=tariffs)


def test_a_fast_gpu_is_done_before_the_dirty_hour() -> None:
    # 2 h of service. Slow: 4 h at 62 W: 62 Wh in each hour; fast: 1 h at 349.75 W. At 100 g/kWh throughout 24.8 g
    # against 35.0; with 900 g/kWh from hour 1 on 6.2 + 3 x 55.8 = 173.6 g against 35.0.
    two_hours = [job(0, 1.0, 7200.0)]
    assert first_decision(Greenest(), cluster(100, 100, 100, 100), two_hours) == [Start(0, (0,))]
    assert first_decision(Greenest(), cluster(100, 900, 900, 900), two_hours) == [Start(0, (1,))]
    assert first_decision(Energy(), cluster(100, 900, 900, 900), two_hours) == [Start(0, (0,))]


def test_the_last_hour_of_the_series_goes_on() -> None:
    assert first_decision(Greenest(), cluster(100, 900), [job(0, 1.0, 7200.0)]) == [Start(0, (1,))]


def test_without_a_series_it_is_energy() -> None:
    assert first_decision(Greenest(), cluster(), [job(0, 1.0), job(1, 0.5)]) == [Start(0, (0,)), Start(1, (1,))]
    policy = Greenest()
    assert policy.report == ""
    first_decision(policy, cluster(), [job(0, 1.0)])
    assert policy.report == "greenest: the cluster has no carbon series (carbon in its file): it decided as energy does"
    first_decision(policy, cluster(100), [job(0, 1.0)])
    assert policy.report == ""


def test_equal_gpus_are_packed() -> None:
    held = [Start(0, (4,))]
    assert plain_decision(Greenest(), ClusterSpec(nodes=2, gpus_per_node=4), [1.0, 3.0], held) == [Start(1, (5, 6, 7))]
