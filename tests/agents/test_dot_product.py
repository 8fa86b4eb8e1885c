"""Dot product of demand and free resources, worked out by hand."""

from lepton_rl.agents import DotProduct
from lepton_rl.core import ClusterSpec, Start
from lepton_rl.core.cluster import NodeGroup
from tests.agents.node_groups import first_decision, job, plain_decision
from tests.simulator.detailed_cases import PLAIN


def test_the_node_with_the_least_of_what_the_job_asks_for() -> None:
    # Both nodes have 4 free GPUs. Node 0 has 16 cores, node 1 has 4: a job of 1 GPU and 1 core has 1/4 x 1 + 1/16 x 1
    # there, 1/4 x 1 + 1/16 x 1/4 here. Job 1 asks for no cores and goes to the tighter node, now node 1.
    groups = (NodeGroup(1, 4, PLAIN, (("cpu_cores", 16.0),)), NodeGroup(1, 4, PLAIN, (("cpu_cores", 4.0),)))
    cluster = ClusterSpec.of_groups(groups)
    jobs = [job(0, 1.0, asks={"cpu_cores": 1.0}), job(1, 1.0), job(2, 1.0, asks={"cpu_cores": 4.0})]
    assert first_decision(DotProduct(), cluster, jobs) == [Start(0, (4,)), Start(1, (5,)), Start(2, (0,))]


def test_what_a_group_does_not_count_is_free() -> None:
    groups = (NodeGroup(1, 2, PLAIN), NodeGroup(1, 2, PLAIN, (("cpu_cores", 8.0),)))
    jobs = [job(0, 1.0, asks={"cpu_cores": 8.0}), job(1, 1.0, asks={"cpu_cores": 4.0})]
    assert first_decision(DotProduct(), ClusterSpec.of_groups(groups), jobs) == [Start(0, (0,)), Start(1, (1,))]


def test_memory_counts_for_shares() -> None:
    # Two GPUs of 80 GiB, half held each; 60 GiB of GPU 0 are free and 20 of GPU 1. 0.25 of the compute, 8 GiB:
    # 0.25 x 0.5 + 0.1 x 0.75 there, 0.25 x 0.5 + 0.1 x 0.25 here. Job 3 asks for 40 GiB, which only GPU 0 has.
    actions = plain_decision(
        DotProduct(), ClusterSpec.pool(2), [0.5, 0.5, 0.25, 0.25], [Start(0, (0,)), Start(1, (1,))],
        gpu_memory_gib=[20.0, 60.0, 8.0, 40.0],
    )  # fmt: skip
    assert actions == [Start(2, (1,)), Start(3, (0,))]
