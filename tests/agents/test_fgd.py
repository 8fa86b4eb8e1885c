"""Fragmentation gradient descent on queued jobs, worked out by hand."""

from lepton_rl.agents import Fgd, run_policy
from lepton_rl.core import ClusterSpec, Start
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.simulator import SimulatedCluster
from tests.agents.cases import plain_trace
from tests.agents.node_groups import first_decision, job, plain_decision
from tests.simulator.detailed_cases import FAST, PLAIN


def test_a_share_goes_where_what_is_left_can_still_be_used() -> None:
    # GPU 0 has 0.6 free, GPU 1 has 1. Seen: 0.4 twice, 0.6 three times (one to come). A share of 0.4 on GPU 0 leaves
    # 0.2, of use to nobody, and takes the room of a 0.6; on GPU 1 it leaves 0.6. `best` would take GPU 0.
    cluster = ClusterSpec.pool(2)
    actions = plain_decision(Fgd(), cluster, [0.4, 0.4, 0.6, 0.6, 0.6], [Start(0, (0,))])
    assert actions == [Start(1, (1,)), Start(2, (0,)), Start(3, (1,))]


def test_gangs_keep_whole_nodes_for_gangs_like_them() -> None:
    # Two nodes of 4, two GPUs of node 1 held; gangs of 4 are typical. The pair goes to node 1.
    cluster = ClusterSpec(nodes=2, gpus_per_node=4)
    actions = plain_decision(Fgd(), cluster, [2.0, 2.0, 4.0, 4.0], [Start(0, (4, 5))])
    assert actions == [Start(1, (6, 7)), Start(2, (0, 1, 2, 3))]


def test_a_job_without_cores_takes_gpus_that_have_none() -> None:
    # Node 0: one GPU, 4 cores; node 1: two GPUs, no cores. Job 1 asks for 4 cores and can use node 0 alone. Job 0 on
    # node 0 would leave F as it is; on node 1 a GPU fewer is idle that job 1 could not use. `best` would take node 0.
    groups = (NodeGroup(1, 1, PLAIN, (("cpu_cores", 4.0),)), NodeGroup(1, 2, PLAIN, (("cpu_cores", 0.0),)))
    jobs = [job(0, 1.0), job(1, 1.0, asks={"cpu_cores": 4.0})]
    assert first_decision(Fgd(), ClusterSpec.of_groups(groups), jobs) == [Start(0, (1,)), Start(1, (0,))]


def test_a_type_that_the_picky_cannot_use_goes_to_the_others() -> None:
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, PLAIN), NodeGroup(1, 2, FAST)))
    jobs = [job(0, 0.5), job(1, 1.0, types=("plain",))]
    assert first_decision(Fgd(), cluster, jobs) == [Start(0, (1,)), Start(1, (0,))]


def test_what_was_seen_is_remembered_and_forgotten_with_the_run() -> None:
    # The first job teaches 0.5; at 10 s, when it has gone, the shares that come are still judged beside it.
    trace = plain_trace(submit_time=[0.0, 10.0, 10.0], run_time=[5.0, 50.0, 50.0], gpus=[0.5, 0.3, 0.5])
    policy, cluster = Fgd(), ClusterSpec.pool(2)
    first = run_policy(policy, trace, cluster)
    assert sum(policy._seen.values()) == 3
    assert run_policy(policy, trace, cluster).finish.tolist() == first.finish.tolist()
    assert sum(policy._seen.values()) == 3


def test_a_decision_can_be_asked_for_twice() -> None:
    simulated = SimulatedCluster(
        plain_trace(run_time=[10.0] * 6, gpus=[0.3, 0.7, 1.0, 2.0, 0.5, 0.1]), ClusterSpec.pool(4)
    )
    simulated.advance()
    policy, snapshot = Fgd(), simulated.snapshot()
    assert policy.decide(snapshot) == policy.decide(snapshot) == Fgd().decide(snapshot)


def test_only_the_most_frequent_demands_are_typical() -> None:
    # GPU 0 has 0.6 free. Seen: 0.4 and 0.6 twice, 0.2 three times. 0.4 on GPU 0 leaves 0.2, of no use to a 0.6; but if
    # 0.2 alone is typical, nothing is lost, and the tighter GPU wins.
    gpus, held = [0.4, 0.4, 0.6, 0.6, 0.2, 0.2, 0.2], [Start(0, (0,))]
    assert plain_decision(Fgd(), ClusterSpec.pool(2), gpus, held)[0] == Start(1, (1,))
    assert plain_decision(Fgd(most=1), ClusterSpec.pool(2), gpus, held)[0] == Start(1, (0,))
