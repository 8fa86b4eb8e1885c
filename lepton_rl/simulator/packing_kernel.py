"""Compiled: pods placed one by one on nodes with shared GPUs; `packing` has the rules."""

from typing import Any

import numpy as np

from lepton_rl.core.arrays import Bools, Floats, Ints32, Ints64
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.layout import MILLI
from lepton_rl.simulator.fragmentation import (
    COUNT,
    CPU,
    CPU_LEFT,
    FIRST_GPU,
    FRAGMENTED,
    GPU_MILLI,
    GPUS,
    MEMORY_LEFT,
    MODEL,
    fragmentation,
)

RANDOM, BEST_FIT, FGD = range(3)
ANY, TIGHTEST, LOWEST, SCORED = range(4)
"""GPU for a part of one."""
NODE, ALLOCATED, FRAGMENTED_IN_ALL = range(3)
"""Columns of the history: where the pod went (-1: dropped), then what is so of the cluster after it."""
UNKNOWN, UNFIT = -(2**31), -(2**31) + 1
"""Scores: not yet computed; the pod does not fit."""
_LARGEST_CPU_MILLI, _LARGEST_GPU_MILLI = 128_000, 8_000  # of a node, as best-fit has it


@inlined
def _fits(requests: Ints64, allowed: Bools, kind: int, nodes: Ints64, node: int) -> bool:
    if requests[kind, CPU] > nodes[node, CPU_LEFT]:
        return False
    if requests[kind, GPUS] == 0:
        return True
    if not allowed[kind, nodes[node, MODEL]]:
        return False
    large_enough = 0
    for gpu in range(FIRST_GPU, nodes.shape[1]):
        if nodes[node, gpu] >= requests[kind, GPU_MILLI]:
            large_enough += 1
    return large_enough >= requests[kind, GPUS]


@inlined
def _take(requests: Ints64, kind: int, nodes: Ints64, node: int, gpu: int) -> None:
    """Take what the pod asks for: of `gpu`, or of the lowest GPUs with room where `gpu` is -1."""
    nodes[node, CPU_LEFT] -= requests[kind, CPU]
    if gpu >= 0:
        nodes[node, gpu] -= requests[kind, GPU_MILLI]
        return
    missing = requests[kind, GPUS]
    for other in range(FIRST_GPU, nodes.shape[1]):
        if missing > 0 and nodes[node, other] >= requests[kind, GPU_MILLI]:
            nodes[node, other] -= requests[kind, GPU_MILLI]
            missing -= 1


@inlined
def _is_share(requests: Ints64, kind: int) -> bool:
    return requests[kind, GPUS] == 1 and requests[kind, GPU_MILLI] < MILLI


@njit
def _score_after(
    requests: Ints64, allowed: Bools, typical: Ints64, pods: int, kind: int, nodes: Ints64, node: int, gpu: int
) -> int:
    """FGD's score of a node, or of one of its GPUs."""
    trial = nodes.shape[0] - 1
    for column in range(nodes.shape[1]):
        nodes[trial, column] = nodes[node, column]
    _take(requests, kind, nodes, trial, gpu)
    drop = nodes[node, FRAGMENTED] - fragmentation(typical, allowed, nodes, trial)
    return int(100.0 * (1.0 / (1.0 + np.exp(-drop / (1000.0 * pods)))))


@njit
def _best_gpu(
    requests: Ints64, allowed: Bools, typical: Ints64, pods: int, kind: int, nodes: Ints64, node: int
) -> tuple[int, int]:
    """FGD's score of a node, and its GPU for a pod that takes a part of one (else -1)."""
    if not _is_share(requests, kind):
        return _score_after(requests, allowed, typical, pods, kind, nodes, node, -1), -1
    best, chosen = -1, -1
    for gpu in range(FIRST_GPU, nodes.shape[1]):
        left = nodes[node, gpu]
        if left < requests[kind, GPU_MILLI]:
            continue
        seen = False
        for other in range(FIRST_GPU, gpu):
            seen = seen or nodes[node, other] == left
        if not seen:
            score = _score_after(requests, allowed, typical, pods, kind, nodes, node, gpu)
            if score > best:
                best, chosen = score, gpu
    return best, chosen


@inlined
def _best_fit_score(requests: Ints64, kind: int, nodes: Ints64, node: int) -> int:
    """100 (1 - cpu / 2 max_cpu - gpu / 2 max_gpu), rounded down; in whole numbers, where floats miss some by one."""
    gpu: Any = -requests[kind, GPU_MILLI] * requests[kind, GPUS]
    for column in range(FIRST_GPU, nodes.shape[1]):
        gpu += nodes[node, column]
    cpu = nodes[node, CPU_LEFT] - requests[kind, CPU]
    scale = 2 * _LARGEST_CPU_MILLI * _LARGEST_GPU_MILLI
    return (100 * (scale - cpu * _LARGEST_GPU_MILLI - gpu * _LARGEST_CPU_MILLI)) // scale


@inlined
def _nth_with(score: int, scores: Ints32, kind: int, memory_mib: int, nodes: Ints64, n: int) -> int:
    for node in range(scores.shape[1]):
        if scores[kind, node] == score and nodes[node, MEMORY_LEFT] >= memory_mib:
            if n == 0:
                return node
            n -= 1
    return -1


@njit
def _choose_node(
    policy: int, anew: bool, draw: float, requests: Ints64, allowed: Bools, typical: Ints64, pods: int, kind: int,
    memory_mib: int, nodes: Ints64, scores: Ints32,
) -> int:  # fmt: skip
    """Node with the highest score; -1 where the pod fits nowhere."""
    chosen = -1
    equals = 0
    best: Any = np.int32(UNFIT)
    for node in range(scores.shape[1]):
        if nodes[node, MEMORY_LEFT] < memory_mib:
            continue
        if scores[kind, node] == UNKNOWN:
            score: Any = UNFIT
            if _fits(requests, allowed, kind, nodes, node):
                score = 0
                if policy == BEST_FIT:
                    score = _best_fit_score(requests, kind, nodes, node)
                elif policy == FGD:
                    score = _best_gpu(requests, allowed, typical, pods, kind, nodes, node)[0]
            scores[kind, node] = score
        if scores[kind, node] > best:
            best = scores[kind, node]
            chosen = node
            equals = 0
        if chosen >= 0 and scores[kind, node] == best:
            equals += 1
    if anew and equals > 1:
        return _nth_with(best, scores, kind, memory_mib, nodes, int(draw * equals))
    return chosen


@inlined
def _share_gpu(rule: int, requests: Ints64, kind: int, nodes: Ints64, node: int, draw: float) -> int:
    """GPU for a part of one, by a rule without scores."""
    chosen = -1
    fitting = 0
    for gpu in range(FIRST_GPU, nodes.shape[1]):
        if nodes[node, gpu] >= requests[kind, GPU_MILLI]:
            fitting += 1
            if chosen < 0 or (rule == TIGHTEST and nodes[node, gpu] < nodes[node, chosen]):
                chosen = gpu
    if rule != ANY:
        return chosen
    n = int(draw * fitting)
    for gpu in range(FIRST_GPU, nodes.shape[1]):
        if nodes[node, gpu] >= requests[kind, GPU_MILLI]:
            if n == 0:
                return gpu
            n -= 1
    return -1


@njit
def place_all(
    policy: int, anew: bool, share_gpu: int, kinds: Ints64, memory_mib: Ints64, draws: Floats, requests: Ints64,
    allowed: Bools, typical: Ints64, nodes: Ints64, scores: Ints32, history: Ints64,
) -> None:  # fmt: skip
    """Place every arrival; a score stays known until its node changes."""
    pods: Any = np.int64(0)
    for row in range(typical.shape[0]):
        pods += typical[row, COUNT]
    fragmented: Any = np.int64(0)
    for node in range(scores.shape[1]):
        nodes[node, FRAGMENTED] = fragmentation(typical, allowed, nodes, node)
        fragmented += nodes[node, FRAGMENTED]
    allocated: Any = np.int64(0)
    for arrival in range(kinds.shape[0]):
        kind = kinds[arrival]
        node = _choose_node(
            policy, anew, draws[arrival, 0], requests, allowed, typical, pods, kind, memory_mib[arrival], nodes, scores
        )
        if node >= 0:
            gpu = -1
            if _is_share(requests, kind) and share_gpu == SCORED:
                gpu = _best_gpu(requests, allowed, typical, pods, kind, nodes, node)[1]
            elif _is_share(requests, kind):
                gpu = _share_gpu(share_gpu, requests, kind, nodes, node, draws[arrival, 1])
            _take(requests, kind, nodes, node, gpu)
            nodes[node, MEMORY_LEFT] -= memory_mib[arrival]
            fragmented -= nodes[node, FRAGMENTED]
            nodes[node, FRAGMENTED] = fragmentation(typical, allowed, nodes, node)
            fragmented += nodes[node, FRAGMENTED]
            allocated += requests[kind, GPU_MILLI] * requests[kind, GPUS]
            scores[:, node] = UNKNOWN
        history[arrival, NODE] = node
        history[arrival, ALLOCATED] = allocated
        history[arrival, FRAGMENTED_IN_ALL] = fragmented
