"""Best fit, worked out by hand and against a reference of the published evaluation."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.agents import BestFit
from lepton_rl.core import ClusterSpec, Start
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace
from tests.agents.node_groups import first_decision, job, plain_decision
from tests.reference.packing import GPU, Node, Packer, Pod
from tests.simulator.detailed_cases import PLAIN


def node_of(gpus: int, cores: float) -> NodeGroup:
    return NodeGroup(1, gpus, PLAIN, (("cpu_cores", cores),))


def test_cpu_counts_as_much_as_gpus() -> None:
    # The most are 8 GPUs and 64 cores. Job 0, 1 GPU and 8 cores, leaves 3/8 + 56/64 of node 0 and 7/8 + 8/64 of node 1.
    # Job 1, 1 GPU without cores, leaves 3/8 + 64/64 there and, as job 0 is here, 6/8 + 8/64 here.
    cluster = ClusterSpec.of_groups((node_of(4, 64.0), node_of(8, 16.0)))
    jobs = [job(0, 1.0, asks={"cpu_cores": 8.0}), job(1, 1.0)]
    assert first_decision(BestFit(), cluster, jobs) == [Start(0, (4,)), Start(1, (5,))]


def test_gpus_that_are_down_are_not_left_over() -> None:
    # Three of node 0's four GPUs are down: a job of one GPU leaves nothing there, three GPUs on node 1.
    faults = Faults(schedule=(Fault(0.0, 1, 3, True), Fault(1e6, 1, 3, False)))
    cluster = ClusterSpec.of_groups((NodeGroup(2, 4, PLAIN),)).with_dynamics(Dynamics(faults=faults))
    trace = Trace.from_columns({"submit_time": [0.0, 5.0], "run_time": [9.0, 9.0], "gpus": [2.0, 1.0]}, origin=0.0)
    simulated = SimulatedCluster(trace, cluster)
    simulated.advance()
    simulated.apply(Start(0, (4, 5)))
    simulated.advance()
    assert BestFit().decide(simulated.snapshot()) == [Start(1, (0,))]


def test_what_a_node_does_not_count_is_wholly_free_there() -> None:
    # Job 0 leaves 1/2 + 1 of node 0, 1/2 + 4/8 of node 1.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 2, PLAIN), node_of(2, 8.0)))
    assert first_decision(BestFit(), cluster, [job(0, 1.0, asks={"cpu_cores": 4.0})]) == [Start(0, (2,))]


def test_the_fuller_node_before_the_tighter_gpu() -> None:
    # Two nodes of 2 GPUs: half of GPU 0 is held, and two times 0.4 on node 1. A quarter leaves 1.25 of node 0 and 0.95
    # of node 1, where both GPUs are freer than GPU 0.
    held = [Start(0, (0,)), Start(1, (2,)), Start(2, (3,))]
    cluster = ClusterSpec(nodes=2, gpus_per_node=2)
    assert plain_decision(BestFit(), cluster, [0.5, 0.4, 0.4, 0.25], held) == [Start(3, (2,))]


def test_a_gang_fills_the_node_that_it_fits_best_or_spans_several() -> None:
    cluster = ClusterSpec.of_groups((NodeGroup(1, 8, PLAIN), NodeGroup(1, 2, PLAIN), NodeGroup(1, 4, PLAIN)))
    jobs = [job(0, 2.0), job(1, 3.0), job(2, 9.0)]
    assert first_decision(BestFit(), cluster, jobs) == [
        Start(0, (8, 9)), Start(1, (10, 11, 12)), Start(2, (0, 1, 2, 3, 4, 5, 6, 7, 13)),
    ]  # fmt: skip


PODS = st.tuples(st.sampled_from([0.2, 0.25, 0.5, 0.7, 1.0, 2.0, 4.0, 8.0]), st.sampled_from([0.0, 1.0, 3.5, 12.0]))
NODES = st.lists(st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([8.0, 32.0, 96.0])), max_size=3)


@settings(max_examples=60)
@given(nodes=NODES, pods=st.lists(PODS, min_size=1, max_size=10))
def test_a_node_that_the_published_rules_score_highest(
    nodes: list[tuple[int, float]], pods: list[tuple[float, float]]
) -> None:
    """Rounded as there, no node beats the one chosen; the largest node is that of the published cluster."""
    sizes = [(8, 128.0), *nodes]
    cluster = ClusterSpec.of_groups(tuple(node_of(*size) for size in sizes))
    jobs = [job(row, gpus, memory_gib=0.5, asks={"cpu_cores": cores}) for row, (gpus, cores) in enumerate(pods)]
    started = {
        action.job: action.gpus for action in first_decision(BestFit(), cluster, jobs) if isinstance(action, Start)
    }
    home = [(node, place) for node, (gpus, _) in enumerate(sizes) for place in range(gpus)]
    state = [Node(round(cores * 1000), [GPU] * gpus) for gpus, cores in sizes]
    for row, (gpus, cores) in enumerate(pods):
        count = max(int(gpus), 1)
        pod = Pod(round(cores * 1000) * count, count, round(min(gpus, 1.0) * GPU))
        held = [home[gpu] for gpu in started.get(row) or ()]
        chosen = {node for node, _ in held}
        assert (len(chosen) == 1) == any(node.suits(pod) for node in state)
        if len(chosen) == 1:
            order = [*chosen, *(node for node in range(len(state)) if node not in chosen)]
            packer = Packer([state[node] for node in order], [], "best-fit")
            assert packer.place(pod, 0.0, 0.0) == 0  # the first of the highest
            expected = packer.nodes[0].left
        for node, place in held:
            state[node].left[place] -= pod.milli
            state[node].cpu -= round(cores * 1000)
        if len(chosen) == 1:
            assert state[order[0]].left == expected
