"""GPU packing, worked out by hand."""

from lepton_rl.agents import GpuPacking
from lepton_rl.core import ClusterSpec, Start
from lepton_rl.core.cluster import NodeGroup
from tests.agents.node_groups import first_decision, job, plain_decision
from tests.simulator.detailed_cases import PLAIN


def test_gpus_in_use_then_nodes_in_use_then_idle_nodes() -> None:
    # Two nodes of 2; half of GPU 2 is held. Job 1 fills it; job 2 takes GPU 3 of the node in use, though GPU 0 is
    # lower; jobs 3 and 4 open node 0.
    cluster = ClusterSpec(nodes=2, gpus_per_node=2)
    actions = plain_decision(GpuPacking(), cluster, [0.5, 0.5, 0.4, 0.7, 1.0], [Start(0, (2,))])
    assert actions == [Start(1, (2,)), Start(2, (3,)), Start(3, (0,)), Start(4, (1,))]


def test_the_tightest_of_the_gpus_in_use() -> None:
    actions = plain_decision(GpuPacking(), ClusterSpec.pool(3), [0.3, 0.6, 0.3], [Start(0, (0,)), Start(1, (1,))])
    assert actions == [Start(2, (1,))]


def test_a_gang_opens_no_idle_node_while_one_in_use_holds_it() -> None:
    # `best` would take the idle node of 2, the tightest; a node in use goes first.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 8, PLAIN), NodeGroup(1, 2, PLAIN)))
    held = [Start(0, (0,))]
    assert first_decision(GpuPacking(), cluster, [job(0, 1.0), job(1, 2.0)], held) == [Start(1, (1, 2))]


def test_the_smallest_of_idle_nodes() -> None:
    cluster = ClusterSpec.of_groups((NodeGroup(1, 8, PLAIN), NodeGroup(1, 2, PLAIN)))
    assert first_decision(GpuPacking(), cluster, [job(0, 2.0), job(1, 4.0)]) == [
        Start(0, (8, 9)),
        Start(1, (0, 1, 2, 3)),
    ]
