"""Least-loaded spread, worked out by hand."""

from lepton_rl.agents import LeastLoaded
from lepton_rl.core import ClusterSpec, Start
from lepton_rl.core.cluster import NodeGroup
from tests.agents.node_groups import first_decision, job, plain_decision
from tests.simulator.detailed_cases import PLAIN


def test_each_job_goes_to_the_least_loaded_node() -> None:
    # Two nodes of 4, 1 GPU of node 0 held. Job 1 to node 1 (load 0); then 1/4 against 2/4: job 2 to node 0; then 2/4
    # each: the lower.
    cluster = ClusterSpec(nodes=2, gpus_per_node=4)
    actions = plain_decision(LeastLoaded(), cluster, [1.0, 2.0, 1.0, 1.0], [Start(0, (0,))])
    assert actions == [Start(1, (4, 5)), Start(2, (1,)), Start(3, (2,))]


def test_load_is_a_part_of_the_node() -> None:
    # 2 of 8 GPUs are held on node 0, 1 of 2 on node 1: node 0 is less loaded though more of it is held.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 8, PLAIN), NodeGroup(1, 2, PLAIN)))
    jobs = [job(0, 2.0), job(1, 1.0), job(2, 1.0)]
    held = [Start(0, (0, 1)), Start(1, (8,))]
    assert first_decision(LeastLoaded(), cluster, jobs, held) == [Start(2, (2,))]


def test_a_gang_stays_together_where_a_node_holds_it() -> None:
    # Nodes have 4, 2 and 3 free GPUs: 4 go to node 0, 3 to node 2; the last 2 to node 1.
    cluster = ClusterSpec(nodes=3, gpus_per_node=4)
    held = [Start(0, (4, 5)), Start(1, (8,))]
    actions = plain_decision(LeastLoaded(), cluster, [2.0, 1.0, 4.0, 3.0, 2.0], held)
    assert actions == [Start(2, (0, 1, 2, 3)), Start(3, (9, 10, 11)), Start(4, (6, 7))]


def test_a_gang_that_no_node_holds_takes_what_nodes_offer_most_first() -> None:
    cluster = ClusterSpec(nodes=3, gpus_per_node=4)
    held = [Start(0, (0,)), Start(1, (4, 5))]
    assert plain_decision(LeastLoaded(), cluster, [1.0, 2.0, 8.0], held) == [Start(2, (8, 9, 10, 11, 1, 2, 3, 6))]


def test_a_share_takes_the_freest_gpu() -> None:
    # One node of 2: GPU 0, GPU 1 (free), then GPU 1 again (0.7 free against 0.5).
    actions = plain_decision(LeastLoaded(), ClusterSpec(nodes=1, gpus_per_node=2), [0.5, 0.3, 0.3])
    assert actions == [Start(0, (0,)), Start(1, (1,)), Start(2, (1,))]
