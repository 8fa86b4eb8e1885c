"""Which GPUs a job gets: compiled functions over the packed arrays of `layout`.

A gang of whole GPUs may span nodes. A share (below one GPU) goes to one GPU that has that much free, memory too.

| placement | gang of whole GPUs | share |
|---|---|---|
| first | nodes in index order | lowest GPU with room |
| best | tightest node that holds it, else freest nodes first and the tightest for the rest | tightest GPU |
| worst | one GPU at a time from the freest node (spread) | freest GPU |
| consolidated | as best, but only on the fewest nodes that could ever hold it; otherwise it does not fit | as best |

Ties go to the lowest index; within a node the lowest free GPU is taken first (`allocation`).
"""

from enum import IntEnum
from typing import Any

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import hold_share, share_memory, take_from_node
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.jit import inlined, njit


class Placement(IntEnum):
    """Rule that chooses the GPUs of a job."""

    FIRST = 0
    BEST = 1
    WORST = 2
    CONSOLIDATED = 3


_FIRST, _BEST, _WORST, _CONSOLIDATED = (int(rule) for rule in Placement)


@inlined
def _tightest_node(nodes: Ints32, count: int) -> int:
    """Node with the fewest free GPUs among those with at least `count`, or -1."""
    chosen = -1
    fewest = np.int32(2147483647)
    for node in range(nodes.shape[0]):
        free = nodes[node, L.WHOLE]
        if free >= count and free < fewest:
            fewest = free
            chosen = node
            if free == count:
                break
    return chosen


@inlined
def _freest_node(nodes: Ints32) -> int:
    chosen = 0
    for node in range(1, nodes.shape[0]):
        if nodes[node, L.WHOLE] > nodes[chosen, L.WHOLE]:
            chosen = node
    return chosen


@njit
def _nodes_needed(nodes: Ints32, count: int) -> int:
    """Fewest nodes that hold `count` GPUs now; the number of nodes plus one where none do."""
    total = nodes.shape[0]
    left = count
    used = 0
    ceiling = np.int32(2147483647)  # nodes are visited by free GPUs downward, whole groups of equals at a time
    while used < total:
        best: Any = np.int32(0)
        equals = 0
        for node in range(total):
            free = nodes[node, L.WHOLE]
            if free < ceiling:
                if free > best:
                    best = free
                    equals = 1
                elif free == best:
                    equals += 1
        if best == 0:
            break
        wanted = (left + best - 1) // best
        if wanted <= equals:
            return int(used + wanted)
        used += equals
        left -= equals * best
        ceiling = best
    return total + 1


@njit
def _gpu_for_share(rule: int, gpus: Ints32, demand: int, memory: int) -> int:
    """GPU that a share goes to, or -1 when none has room."""
    chosen = -1
    for gpu in range(gpus.shape[0]):
        free = gpus[gpu, L.FREE]
        if free < demand or gpus[gpu, L.MEMORY_FREE] < memory:
            continue
        if rule == _FIRST:
            return gpu
        if chosen < 0:
            chosen = gpu
        elif rule == _WORST:
            if free > gpus[chosen, L.FREE]:
                chosen = gpu
        elif free < gpus[chosen, L.FREE]:
            chosen = gpu
    return chosen


@inlined
def fits(rule: int, jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, totals: Ints64) -> bool:
    """Return whether the job could be placed now."""
    demand = int(jobs[job, L.GPUS])
    if demand >= L.MILLI:
        count = demand // L.MILLI
        if totals[L.FREE_WHOLE] < count:
            return False
        if rule != _CONSOLIDATED:
            return True
        per_node = gpus.shape[0] // nodes.shape[0]
        return _nodes_needed(nodes, count) <= (count + per_node - 1) // per_node
    if totals[L.FREE_WHOLE] > 0:
        return True
    return _gpu_for_share(_FIRST, gpus, demand, share_memory(jobs, job, totals)) >= 0


@njit
def place(rule: int, jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64) -> bool:
    """Choose and hold the job's GPUs; return False, with nothing changed, when it does not fit."""
    if not fits(rule, jobs, job, gpus, nodes, totals):
        return False
    demand = int(jobs[job, L.GPUS])
    if demand < L.MILLI:
        chosen = _gpu_for_share(rule, gpus, demand, share_memory(jobs, job, totals))
        hold_share(jobs, job, gpus, nodes, bits, totals, chosen)
        return True
    left = demand // L.MILLI
    tail = -1
    if rule == _FIRST:
        for node in range(int(totals[L.HINT]), nodes.shape[0]):
            free = nodes[node, L.WHOLE]
            if free == 0:
                continue
            count = min(int(free), left)
            tail = take_from_node(jobs, job, gpus, nodes, bits, totals, node, count, tail)
            left -= count
            if left == 0:
                totals[L.HINT] = node
                break
    elif rule == _WORST:
        while left > 0:
            tail = take_from_node(jobs, job, gpus, nodes, bits, totals, _freest_node(nodes), 1, tail)
            left -= 1
    else:
        while left > 0:
            node = _tightest_node(nodes, left)
            count = left
            if node < 0:
                node = _freest_node(nodes)
                count = int(nodes[node, L.WHOLE])
            tail = take_from_node(jobs, job, gpus, nodes, bits, totals, node, count, tail)
            left -= count
    return True
