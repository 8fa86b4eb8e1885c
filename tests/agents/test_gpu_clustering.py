"""GPU clustering, worked out by hand."""

from lepton_rl.agents import GpuClustering
from lepton_rl.core import ClusterSpec, Start
from tests.agents.node_groups import plain_decision


def test_like_demands_share_nodes() -> None:
    # Three nodes of 4. Job 0 (1 GPU) runs on node 1, job 1 (a share) on node 0. A single GPU goes to node 1, a share to
    # node 0 (its GPU first), a gang of 2 to idle node 2; the next singles fill node 1.
    cluster = ClusterSpec(nodes=3, gpus_per_node=4)
    held = [Start(0, (4,)), Start(1, (0,))]
    actions = plain_decision(GpuClustering(), cluster, [1.0, 0.5, 1.0, 0.4, 2.0, 1.0, 1.0], held)
    assert actions == [
        Start(2, (5,)), Start(3, (0,)), Start(4, (8, 9)), Start(5, (6,)), Start(6, (7,)),
    ]  # fmt: skip


def test_own_kind_alone_then_mixed_then_idle_then_others() -> None:
    # Node 0: a single and a pair; node 1: a pair; node 2: idle; node 3: a single. Node 0 has no room for a pair: they
    # go to node 1, then to node 2 (twice: it is theirs by then), and to node 3 only at the end. The single then has two
    # nodes where both kinds run, equally full.
    cluster = ClusterSpec(nodes=4, gpus_per_node=4)
    held = [Start(0, (0,)), Start(1, (1, 2)), Start(2, (4, 5)), Start(3, (12,))]
    actions = plain_decision(GpuClustering(), cluster, [1.0, 2.0, 2.0, 1.0, *[2.0] * 4, 1.0], held)
    assert actions == [
        Start(4, (6, 7)), Start(5, (8, 9)), Start(6, (10, 11)), Start(7, (13, 14)), Start(8, (3,)),
    ]  # fmt: skip


def test_sizes_are_alike_up_to_the_next_power_of_two() -> None:
    # Node 1 runs a gang of 3: a gang of 4 is of its kind and goes there, a gang of 2 is not.
    cluster = ClusterSpec(nodes=2, gpus_per_node=8)
    held = [Start(0, (8, 9, 10))]
    assert plain_decision(GpuClustering(), cluster, [3.0, 4.0], held) == [Start(1, (11, 12, 13, 14))]
    assert plain_decision(GpuClustering(), cluster, [3.0, 2.0], held) == [Start(1, (0, 1))]
