"""Pods packed onto shared GPUs, in plain Python with exact fractions: `lepton_rl.simulator.packing` must agree.

Written from the protocol's text, node by node and pod by pod, with nothing remembered between arrivals.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

GPU = 1000


@dataclass(frozen=True)
class Pod:
    cpu: int
    gpus: int
    milli: int  # of each GPU
    models: frozenset[str] = frozenset()
    memory: int = 0


@dataclass
class Node:
    cpu: int
    left: list[int]  # of each GPU
    model: str = ""
    memory: int = 0

    def suits(self, pod: Pod) -> bool:
        """Whether the pod fits, memory aside."""
        right_model = pod.gpus == 0 or not pod.models or self.model in pod.models
        return right_model and self.cpu >= pod.cpu and sum(left >= pod.milli for left in self.left) >= pod.gpus

    def with_pod(self, pod: Pod, gpu: int | None) -> "Node":
        """The node once it holds the pod: its share on `gpu`, or whole GPUs, the lowest free ones."""
        left = list(self.left)
        whole = [index for index, milli in enumerate(left) if milli == GPU]
        for index in whole[: pod.gpus] if gpu is None else [gpu]:
            left[index] -= pod.milli
        return Node(self.cpu - pod.cpu, left, self.model, self.memory - pod.memory)


Typical = list[tuple[Pod, Fraction]]


def typical_pods(pods: Sequence[Pod]) -> Typical:
    counts = Counter(Pod(pod.cpu, pod.gpus, pod.milli, pod.models if pod.gpus else frozenset()) for pod in pods)
    largest = sorted(
        counts, key=lambda pod: (counts[pod], pod.cpu, pod.milli, pod.gpus, sorted(pod.models)), reverse=True
    )
    chosen: list[Pod] = []
    while sum(counts[pod] for pod in chosen) < Fraction(95, 100) * len(pods):
        chosen.append(largest[len(chosen)])
    total = sum(counts[pod] for pod in chosen)
    return [(pod, Fraction(counts[pod], total)) for pod in chosen]


def fragmentation(node: Node, typical: Typical) -> Fraction:
    """Expected idle milli-GPU that a typical pod cannot use."""
    expected = Fraction(0)
    for pod, frequency in typical:
        usable = [left for left in node.left if left >= pod.milli] if pod.gpus and node.suits(pod) else []
        expected += frequency * (sum(node.left) - sum(usable))
    return expected


def _fgd_score(node: Node, pod: Pod, gpu: int | None, typical: Typical) -> int:
    drop = fragmentation(node, typical) - fragmentation(node.with_pod(pod, gpu), typical)
    return math.floor(100 / (1 + math.exp(-float(drop) / GPU)))


def _best_fit_score(node: Node, pod: Pod) -> int:
    cpu, gpu = node.cpu - pod.cpu, sum(node.left) - pod.gpus * pod.milli
    return math.floor(100 * (1 - Fraction(cpu, 2 * 128_000) - Fraction(gpu, 2 * 8 * GPU)))


def _nth(candidates: Sequence[int], draw: float) -> int:
    return candidates[math.floor(draw * len(candidates))]


@dataclass
class Packer:
    """The cluster on its way through the arrivals; nodes are in the order in which ties go."""

    nodes: list[Node]
    typical: Typical
    policy: str
    ties: str = "order"
    share_gpu: str = "own"

    def place(self, pod: Pod, node_draw: float, gpu_draw: float) -> int | None:
        """Place one pod and return its node, or None where it is dropped."""
        fitting = [index for index, node in enumerate(self.nodes) if node.suits(pod) and node.memory >= pod.memory]
        if not fitting:
            return None
        scores = [self._score(self.nodes[index], pod) for index in fitting]
        best = [index for index, score in zip(fitting, scores, strict=True) if score == max(scores)]
        chosen = _nth(best, node_draw) if self.policy == "random" or self.ties == "anew" else best[0]
        node = self.nodes[chosen]
        gpu = self._gpu(node, pod, gpu_draw) if pod.gpus == 1 and pod.milli < GPU else None
        self.nodes[chosen] = node.with_pod(pod, gpu)
        return chosen

    def _score(self, node: Node, pod: Pod) -> int:
        if self.policy == "random":
            return 0
        if self.policy == "best-fit":
            return _best_fit_score(node, pod)
        gpus = self._gpus_with_room(node, pod) if pod.gpus == 1 and pod.milli < GPU else [None]
        return max(_fgd_score(node, pod, gpu, self.typical) for gpu in gpus)

    def _gpus_with_room(self, node: Node, pod: Pod) -> list[int | None]:
        return [gpu for gpu, left in enumerate(node.left) if left >= pod.milli]

    def _gpu(self, node: Node, pod: Pod, draw: float) -> int:
        gpus = [gpu for gpu in self._gpus_with_room(node, pod) if gpu is not None]
        own = {"random": "any", "best-fit": "tightest"}.get(self.policy, "scored")
        rule = own if self.share_gpu == "own" or self.policy == "fgd" else self.share_gpu
        if rule == "any":
            return _nth(gpus, draw)
        if rule == "tightest":
            return min(gpus, key=lambda gpu: node.left[gpu])
        if rule == "lowest":
            return gpus[0]
        return max(gpus, key=lambda gpu: _fgd_score(node, pod, gpu, self.typical))
