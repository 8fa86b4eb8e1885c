"""Pods packed one by one onto nodes with shared GPUs: the published evaluation of FGD, kept apart from our own rules.

Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC
2023; the rules are those of the authors' program (hkust-adsl/kubernetes-scheduler-simulator). A figure from here may be
compared with that paper and with nothing else.

- Pods arrive one after the other and stay; one that fits nowhere is dropped. CPU, GPUs and the GPU model bind, and
  memory on request. A pod for a part of a GPU uses one GPU; whole GPUs are on one node, the lowest free ones.
- Every node that can hold the pod is scored, and the highest score wins. Scores are whole numbers from 0 to 100,
  rounded down, so that many nodes tie.
- Ties. "order": the nodes are shuffled once, and the first of equals wins for the whole run (the program writes a
  random number before each node's name and takes the lowest name). The same node wins tie after tie, which packs.
  "anew", a draw at each tie as in Kubernetes itself, is here to show what that is worth.

| policy | score | GPU for a part of one |
|---|---|---|
| random | none, and ties anew: any node that fits | any that fits |
| best-fit | 100 x (1 - idle cores / 256 - idle GPUs / 16), once the pod is there | the tightest |
| fgd | 100 x sigmoid(drop of the node's fragmentation, in GPUs) | the highest score by the same formula |

"Any" means all alike likely; among equal GPUs the lowest wins. `fragmentation` says what is fragmented. 128 cores and 8
GPUs are the most that a node of the published cluster has. The policies `best_fit` and `fgd` (`agents`) have the same
scores unrounded, on jobs that come and go and on clusters of any kind; their docstrings say what else is different.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from lepton_rl.core.arrays import Bools, Floats, Ints64
from lepton_rl.core.layout import MILLI
from lepton_rl.errors import ConfigError, nearest
from lepton_rl.simulator.fragmentation import (
    COUNT,
    CPU_LEFT,
    FIRST_GPU,
    GPU_MILLI,
    GPUS,
    MEMORY_LEFT,
    MODEL,
    typical_pods,
)
from lepton_rl.simulator.packing_kernel import (
    ALLOCATED,
    ANY,
    FRAGMENTED_IN_ALL,
    LOWEST,
    NODE,
    SCORED,
    TIGHTEST,
    UNKNOWN,
    place_all,
)
from lepton_rl.workloads.openb import Nodes, Pods

PackingPolicy = Literal["random", "best-fit", "fgd"]
Ties = Literal["order", "anew"]
ShareGpu = Literal["own", "any", "tightest", "lowest"]

PACKING_POLICIES: Final[tuple[str, ...]] = get_args(PackingPolicy)
_OWN_GPU = {"random": ANY, "best-fit": TIGHTEST, "fgd": SCORED}
_NAMED_GPU = {"any": ANY, "tightest": TIGHTEST, "lowest": LOWEST}


@dataclass(frozen=True, slots=True)
class PackingRules:
    """What the paper leaves open; the defaults are those of the published evaluation.

    Attributes:
        ties: which of equal nodes wins.
        share_gpu: GPU for a part of one, the policy's own choice or another; fgd always takes its own.
        memory: whether a pod goes only where its memory is free.
    """

    ties: Ties = "order"
    share_gpu: ShareGpu = "own"
    memory: bool = False


PUBLISHED: Final = PackingRules()


@dataclass(frozen=True, eq=False)
class PackingProblem:
    """A pod list on a cluster, as arrays.

    Attributes:
        requests: the distinct requests.
        allowed: the models that will do for each.
        kinds: row of `requests` for each pod.
        memory_mib: what each pod asks for.
        typical: `fragmentation.typical_pods` of the list.
        nodes: the empty nodes.
    """

    requests: Ints64  # (types, 3)
    allowed: Bools  # (types, models)
    kinds: Ints64  # (pods,)
    memory_mib: Ints64  # (pods,)
    typical: Ints64  # (typical, 5)
    nodes: Ints64  # (nodes, 4 + GPUs)

    @property
    def gpu_milli(self) -> int:
        """GPUs of the cluster, in thousandths."""
        return int(self.nodes[:, FIRST_GPU:].sum())

    @property
    def demands(self) -> Ints64:
        """(pods,) thousandths of a GPU that each pod asks for in all."""
        total: Ints64 = (self.requests[:, GPU_MILLI] * self.requests[:, GPUS])[self.kinds]
        return total


@dataclass(frozen=True, eq=False)
class PackingHistory:
    """The cluster after each arrival."""

    node: Ints64  # (arrivals,) that the pod went to; -1 where it was dropped
    arrived_gpu_milli: Ints64  # (arrivals,) asked for until now, dropped pods included
    allocated_gpu_milli: Ints64  # (arrivals,)
    fragmented_gpu_milli: Floats  # (arrivals,) sum of F over the nodes


def packing_problem(nodes: Nodes, pods: Pods) -> PackingProblem:
    """Return the arrays."""
    models = sorted(set(nodes.models))
    columns = zip(pods.cpu_milli.tolist(), pods.gpu_milli.tolist(), pods.gpus.tolist(), pods.models, strict=True)
    keys = [(cpu, milli, gpus, wanted if gpus else frozenset()) for cpu, milli, gpus, wanted in columns]
    rows = {key: row for row, key in enumerate(sorted(set(keys), key=lambda key: (key[:3], sorted(key[3]))))}
    requests = np.array([key[:3] for key in rows], dtype=np.int64)
    allowed = np.array([[not key[3] or model in key[3] for model in models] for key in rows])
    kinds = np.array([rows[key] for key in keys], dtype=np.int64)
    typical = typical_pods(requests, np.bincount(kinds))
    empty = np.zeros((len(nodes.gpus), FIRST_GPU + int(nodes.gpus.max())), dtype=np.int64)
    empty[:, MODEL] = [models.index(model) for model in nodes.models]
    empty[:, CPU_LEFT] = nodes.cpu_milli
    empty[:, MEMORY_LEFT] = nodes.memory_mib
    empty[:, FIRST_GPU:] = MILLI * (np.arange(empty.shape[1] - FIRST_GPU) < nodes.gpus[:, None])
    return PackingProblem(requests, allowed, kinds, pods.memory_mib, typical, empty)


def inflated_arrivals(problem: PackingProblem, percent: int, rng: np.random.Generator) -> Ints64:
    """Return the list in a random order, then random copies, until the pods ask for that much of the cluster's GPUs.

    Args:
        problem: the list.
        percent: of the cluster's GPUs that are asked for in the end.
        rng: draws order and copies.

    Returns:
        (arrivals,) pods. A list that asks for more is cut short, at the first pod that reaches the load.
    """
    pods = len(problem.kinds)
    arrivals = rng.permutation(pods)
    while True:
        asked = np.cumsum(problem.demands[arrivals])
        enough = 1 + int(np.searchsorted(100 * asked, percent * problem.gpu_milli))
        if enough <= len(arrivals):
            return arrivals[:enough]
        missing = percent * problem.gpu_milli / 100 - asked[-1]
        likely = 1 + int(missing / problem.demands.mean())
        arrivals = np.concatenate((arrivals, rng.integers(pods, size=likely)))


def pack(
    problem: PackingProblem,
    arrivals: Ints64,
    policy: str,
    rng: np.random.Generator,
    rules: PackingRules = PUBLISHED,
) -> PackingHistory:
    """Place pods on the empty cluster.

    Args:
        problem: the list and the cluster.
        arrivals: (arrivals,) pods in the order in which they come.
        policy: one of `PACKING_POLICIES`.
        rng: draws the order of the nodes, then two numbers for each arrival, the first for its node (the nodes that
            tie, in that order, have equal parts of [0, 1)), the second alike for its GPU.
        rules: for ties, GPUs and memory.
    """
    for name, known in (
        (policy, PACKING_POLICIES), (rules.ties, get_args(Ties)), (rules.share_gpu, get_args(ShareGpu)),
    ):  # fmt: skip
        if name not in known:
            raise ConfigError(f"packing: {name!r} is not one of {', '.join(known)}{nearest(name, known)}")
    order = rng.permutation(len(problem.nodes))
    scratch = problem.nodes[:1]  # the last row is no node: trials of FGD happen there
    nodes = np.concatenate((problem.nodes[order], scratch))
    scores = np.full((len(problem.requests), len(order)), UNKNOWN, dtype=np.int32)
    history = np.empty((len(arrivals), 3), dtype=np.int64)
    gpu = _OWN_GPU[policy] if policy == "fgd" else _NAMED_GPU.get(rules.share_gpu, _OWN_GPU[policy])
    place_all(
        PACKING_POLICIES.index(policy), policy == "random" or rules.ties == "anew", gpu,
        problem.kinds[arrivals], problem.memory_mib[arrivals] * rules.memory, rng.random((len(arrivals), 2)),
        problem.requests, problem.allowed, problem.typical, nodes, scores, history,
    )  # fmt: skip
    placed = history[:, NODE]
    return PackingHistory(
        np.where(placed >= 0, order[placed], -1),
        np.cumsum(problem.demands[arrivals]),
        history[:, ALLOCATED],
        history[:, FRAGMENTED_IN_ALL] / problem.typical[:, COUNT].sum(),
    )
