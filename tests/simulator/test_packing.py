"""Packing on shared GPUs: cases by hand, and a plain-Python reference of the same rules."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.errors import ConfigError
from lepton_rl.simulator.packing import (
    PACKING_POLICIES,
    PUBLISHED,
    PackingHistory,
    PackingProblem,
    PackingRules,
    inflated_arrivals,
    pack,
    packing_problem,
)
from lepton_rl.workloads.openb import Nodes, Pods
from tests.reference import packing as reference
from tests.reference.packing import Node, Pod


def problem_of(nodes: Sequence[Node], pods: Sequence[Pod]) -> PackingProblem:
    def column(values: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(values, dtype=np.int64)

    return packing_problem(
        Nodes(
            column([node.cpu for node in nodes]), column([node.memory for node in nodes]),
            column([len(node.left) for node in nodes]), tuple(node.model for node in nodes),
        ),
        Pods(
            column([pod.cpu for pod in pods]), column([pod.memory for pod in pods]),
            column([pod.gpus for pod in pods]), column([pod.milli for pod in pods]),
            tuple(pod.models for pod in pods), lambda row: f"pod {row}",
        ),
    )  # fmt: skip


def run(
    nodes: Sequence[Node], pods: Sequence[Pod], policy: str, rules: PackingRules = PUBLISHED, seed: int = 0
) -> PackingHistory:
    """Let every pod of the list arrive once."""
    rng = np.random.default_rng(seed)
    return pack(problem_of(nodes, pods), np.arange(len(pods)), policy, rng, rules)


def test_fgd_fills_a_gpu_that_no_other_pod_could_use() -> None:
    # Two nodes with one GPU each; a pod of 0.6 and one of 0.4 are typical, half of the pods each. The first leaves 0.4,
    # of no use to its like: F = 0.4 / 2. There the second takes F back to 0 (100 sigmoid(0.2) = 54); on the empty
    # node F would stay 0 (50).
    history = run([Node(8000, [1000]), Node(8000, [1000])], [Pod(1000, 1, 600), Pod(1000, 1, 400)], "fgd")
    assert history.node[0] == history.node[1]
    assert history.fragmented_gpu_milli.tolist() == [200, 0]
    assert history.allocated_gpu_milli.tolist() == history.arrived_gpu_milli.tolist() == [600, 1000]


def test_fgd_chooses_the_gpu_too() -> None:
    # One node, pods of 0.7, 0.4 and 0.3, a third each. 0.3 and 0.6 are left when the last one comes. On the 0.3 it
    # leaves 0.6, of no use to the first: F = 0.6 / 3; on the 0.6 it would leave 0.3 twice, of no use to two of them.
    history = run([Node(8000, [1000, 1000])], [Pod(0, 1, 700), Pod(0, 1, 400), Pod(0, 1, 300)], "fgd")
    assert history.fragmented_gpu_milli.tolist() == [(300 + 300) / 3, (900 + 300) / 3, 600 / 3]


def test_what_no_pod_can_use_is_fragmented() -> None:
    # A pod without a GPU is typical too, and for it all that is idle counts; the CPU of the second node is too small
    # for the other pod, the model of the third is wrong.
    nodes = [Node(4000, [1000, 1000], "A"), Node(1000, [1000], "A"), Node(4000, [1000], "B")]
    pods = [Pod(1000, 0, 0), Pod(4000, 1, 1000, frozenset("A"))]
    history = run(nodes, pods, "best-fit")
    assert history.node.tolist() == [1, 0]
    for_the_first, for_the_second = 4000, 2000
    assert history.fragmented_gpu_milli[0] == (for_the_first + for_the_second) / 2
    assert history.fragmented_gpu_milli[1] == (3000 + 3000) / 2  # no CPU is left on node 0 now


def test_best_fit_leaves_the_least() -> None:
    # 100 (1 - 56/256 - 7/16) = 34.4 and 100 (1 - 24/256) = 90.6
    assert run([Node(64_000, [1000] * 8), Node(32_000, [1000])], [Pod(8000, 1, 1000)], "best-fit").node.tolist() == [1]


def test_scores_are_whole_numbers_and_ties_go_by_one_order() -> None:
    # 0.1 core is less than a hundredth of 256 cores: the nodes tie, and one and the same wins every time.
    nodes, pods = [Node(64_000, [1000] * 2) for _ in range(8)], [Pod(100, 0, 0)] * 20 + [Pod(0, 1, 1000)]
    for seed in range(5):
        assert len(set(run(nodes, pods, "best-fit", seed=seed).node.tolist())) == 1
        assert len(set(run(nodes, pods, "best-fit", PackingRules(ties="anew"), seed).node.tolist())) > 1
    assert len({int(run(nodes, pods, "best-fit", seed=seed).node[0]) for seed in range(20)}) > 1


def test_a_pod_that_fits_nowhere_is_dropped() -> None:
    pods = [Pod(0, 2, 1000), Pod(0, 1, 1000), Pod(0, 1, 500)]
    history = run([Node(1000, [1000, 1000])], pods, "random")
    assert history.node.tolist() == [0, -1, -1]
    assert history.arrived_gpu_milli.tolist() == [2000, 3000, 3500]
    assert history.allocated_gpu_milli.tolist() == [2000, 2000, 2000]


def test_memory_binds_on_request() -> None:
    nodes, pods = [Node(1000, [1000, 1000], memory=100)], [Pod(0, 1, 1000, memory=60)] * 2
    assert run(nodes, pods, "fgd").node.tolist() == [0, 0]
    assert run(nodes, pods, "fgd", PackingRules(memory=True)).node.tolist() == [0, -1]


def test_the_list_comes_once_and_then_copies_until_the_load_is_reached() -> None:
    problem = problem_of([Node(0, [1000] * 4)] * 25, [Pod(0, 1, 500)] * 50 + [Pod(0, 0, 0)] * 10)
    arrivals = inflated_arrivals(problem, 130, np.random.default_rng(0))
    assert sorted(arrivals[:60].tolist()) == list(range(60))
    asked = problem.demands[arrivals].sum()
    assert asked >= 130_000 > asked - problem.demands[arrivals[-1]]
    assert len(inflated_arrivals(problem, 10, np.random.default_rng(0))) < 60
    assert arrivals.tolist() != inflated_arrivals(problem, 130, np.random.default_rng(1)).tolist()


def test_unknown_names_are_refused() -> None:
    nodes, pods = [Node(0, [1000])], [Pod(0, 1, 1000)]
    with pytest.raises(ConfigError, match=r"'bestfit' is not one of random, .*did you mean 'best-fit'"):
        run(nodes, pods, "bestfit")
    with pytest.raises(ConfigError, match="'new' is not one of order, anew"):
        run(nodes, pods, "fgd", PackingRules(ties="new"))  # type: ignore[arg-type]


MODELS = st.sampled_from(["A", "B"])
NODES = st.builds(
    lambda cores, gpus, model, memory: Node(1000 * cores, [1000] * gpus, model if gpus else "", memory),
    st.integers(0, 16), st.integers(0, 3), MODELS, st.integers(0, 40),
)  # fmt: skip
PODS = st.builds(
    lambda cpu, request, models, memory: Pod(cpu, request[0], request[1], models, memory),
    st.sampled_from([0, 500, 1000, 4000, 9000]),
    st.sampled_from([(0, 0), (1, 250), (1, 333), (1, 500), (1, 750), (1, 1000), (2, 1000), (3, 1000)]),
    st.frozensets(MODELS, max_size=1), st.integers(0, 20),
)  # fmt: skip


@pytest.mark.parametrize("policy", PACKING_POLICIES)
@given(
    nodes=st.lists(NODES, min_size=1, max_size=5).filter(lambda nodes: any(node.left for node in nodes)),
    pods=st.lists(PODS, min_size=1, max_size=25),
    rules=st.builds(
        PackingRules,
        st.sampled_from(["order", "anew"]),
        st.sampled_from(["own", "any", "tightest", "lowest"]),
        st.booleans(),
    ),
    seed=st.integers(0, 9),
)
def test_agrees_with_the_reference(
    policy: str, nodes: list[Node], pods: list[Pod], rules: PackingRules, seed: int
) -> None:
    found = run(nodes, pods, policy, rules, seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(nodes))
    typical = reference.typical_pods(pods)
    packer = reference.Packer([nodes[node] for node in order], typical, policy, rules.ties, rules.share_gpu)
    allocated = 0
    for arrival, (pod, draws) in enumerate(zip(pods, rng.random((len(pods), 2)).tolist(), strict=True)):
        asked = pod if rules.memory else Pod(pod.cpu, pod.gpus, pod.milli, pod.models)
        node = packer.place(asked, *draws)
        allocated += 0 if node is None else pod.gpus * pod.milli
        assert found.node[arrival] == (-1 if node is None else order[node])
        assert found.allocated_gpu_milli[arrival] == allocated
        fragmented = sum(reference.fragmentation(each, typical) for each in packer.nodes)
        assert found.fragmented_gpu_milli[arrival] == pytest.approx(float(fragmented), rel=1e-12, abs=1e-9)
