"""Which GPUs a job gets: compiled functions over the packed arrays of `layout`.

A gang of whole GPUs may span nodes. A share (below one GPU) goes to one GPU that has that much free, memory too.

| placement | gang of whole GPUs | share |
|---|---|---|
| first | nodes in index order | lowest GPU with room |
| best | tightest node that holds it, else freest nodes first and the tightest for the rest | tightest GPU |
| worst | one GPU at a time from the freest node (spread) | freest GPU |
| consolidated | as best, but only on the fewest nodes that could ever hold it; otherwise it does not fit | as best |

Ties go to the lowest index; within a node the lowest free GPU is taken first. The arrays `gpus`, `nodes`, `bits`
(one bit per wholly free GPU, 64 to a word) and `totals` change together and only here.
"""

from enum import IntEnum
from typing import Any

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.jit import inlined, njit


class Placement(IntEnum):
    """Rule that chooses the GPUs of a job."""

    FIRST = 0
    BEST = 1
    WORST = 2
    CONSOLIDATED = 3


_FIRST, _BEST, _WORST, _CONSOLIDATED = (int(rule) for rule in Placement)


def empty_allocation(nodes: int, gpus_per_node: int, gpu_memory_mib: int) -> tuple[Ints32, Ints32, Words, Ints64]:
    """Return (gpus, nodes, bits, totals) of a cluster on which nothing runs."""
    gpus = np.empty((nodes * gpus_per_node, L.GPU_COLUMNS), np.int32)
    gpus[:] = (L.MILLI, gpu_memory_mib, -1)
    node_table = np.zeros((nodes, L.NODE_COLUMNS), np.int32)
    node_table[:, L.WHOLE] = gpus_per_node
    words = (gpus_per_node + 63) // 64
    bits = np.zeros((nodes, words), np.uint64)
    for word in range(words):
        used = min(64, gpus_per_node - 64 * word)
        bits[:, word] = np.uint64((1 << used) - 1)
    totals = np.zeros(L.TOTAL_COLUMNS, np.int64)
    totals[L.FREE_WHOLE] = nodes * gpus_per_node
    totals[L.GPU_MEMORY] = gpu_memory_mib
    return gpus, node_table, bits, totals


@inlined
def _lowest_bit(word: Any) -> int:
    """Position of the lowest set bit of a non-zero 64-bit word (binary search: compiles everywhere)."""
    position = 0
    if word & np.uint64(0xFFFFFFFF) == np.uint64(0):
        word >>= np.uint64(32)
        position += 32
    if word & np.uint64(0xFFFF) == np.uint64(0):
        word >>= np.uint64(16)
        position += 16
    if word & np.uint64(0xFF) == np.uint64(0):
        word >>= np.uint64(8)
        position += 8
    if word & np.uint64(0xF) == np.uint64(0):
        word >>= np.uint64(4)
        position += 4
    if word & np.uint64(0x3) == np.uint64(0):
        word >>= np.uint64(2)
        position += 2
    if word & np.uint64(0x1) == np.uint64(0):
        position += 1
    return position


@inlined
def _change_busy(nodes: Ints32, totals: Ints64, node: int, per_node: int, change: int) -> None:
    """Book milli-GPU held or given back on a node."""
    capacity = L.MILLI * per_node
    before = nodes[node, L.BUSY]
    after = before + change
    if before > 0:
        totals[L.STRANDED] -= capacity - before
    if after > 0:
        totals[L.STRANDED] += capacity - after
    nodes[node, L.BUSY] = after
    totals[L.HELD] += change
    touched = totals[L.TOUCHED]
    if touched == L.MAX_TOUCHED:
        totals[L.TOUCHED] = -1
    elif touched >= 0:
        totals[L.TOUCHED + 1 + touched] = node
        totals[L.TOUCHED] = touched + 1


@inlined
def whole_memory(jobs: Floats, job: int, totals: Ints64) -> int:
    """MiB that a gang's job is counted with on each of its GPUs: its figure, or the whole GPU."""
    figure = int(jobs[job, L.MEMORY])
    return figure if figure > 0 else int(totals[L.GPU_MEMORY])


@inlined
def share_memory(jobs: Floats, job: int, totals: Ints64) -> int:
    """MiB that a share needs: its figure, or its part of the GPU's memory."""
    figure = int(jobs[job, L.MEMORY])
    return figure if figure > 0 else int(totals[L.GPU_MEMORY] * int(jobs[job, L.GPUS]) // L.MILLI)


@inlined
def _link(jobs: Floats, job: int, gpus: Ints32, tail: int, gpu: int) -> None:
    if tail < 0:
        jobs[job, L.FIRST_GPU] = gpu
    else:
        gpus[tail, L.NEXT] = gpu
    gpus[gpu, L.NEXT] = -1


@inlined
def _mark_held(gpu: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, node: int, per_node: int) -> None:
    """Take one wholly free GPU out of the free sets."""
    place = gpu - node * per_node
    bits[node, place >> 6] &= ~(np.uint64(1) << np.uint64(place & 63))
    nodes[node, L.WHOLE] -= 1
    totals[L.FREE_WHOLE] -= 1


@inlined
def _take_from_node(
    jobs: Floats,
    job: int,
    gpus: Ints32,
    nodes: Ints32,
    bits: Words,
    totals: Ints64,
    node: int,
    count: int,
    tail: int,
) -> int:
    """Hold the `count` lowest free GPUs of a node; return the gang's new last GPU."""
    per_node = gpus.shape[0] // nodes.shape[0]
    memory = whole_memory(jobs, job, totals)
    left = count
    for word_index in range(bits.shape[1]):
        word = bits[node, word_index]
        while word != np.uint64(0) and left > 0:
            gpu = node * per_node + word_index * 64 + _lowest_bit(word)
            word &= word - np.uint64(1)
            gpus[gpu, L.FREE] = 0
            gpus[gpu, L.MEMORY_FREE] = 0
            _link(jobs, job, gpus, tail, gpu)
            tail = gpu
            left -= 1
        bits[node, word_index] = word
        if left == 0:
            break
    nodes[node, L.WHOLE] -= count
    nodes[node, L.MEMORY_USED] += memory * count
    totals[L.FREE_WHOLE] -= count
    _change_busy(nodes, totals, node, per_node, L.MILLI * count)
    return tail


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


@inlined
def hold_share(jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, gpu: int) -> None:
    """Give the share to one GPU that has room for it."""
    per_node = gpus.shape[0] // nodes.shape[0]
    demand = int(jobs[job, L.GPUS])
    memory = share_memory(jobs, job, totals)
    node = gpu // per_node
    if gpus[gpu, L.FREE] == L.MILLI:
        _mark_held(gpu, gpus, nodes, bits, totals, node, per_node)
    gpus[gpu, L.FREE] -= demand
    gpus[gpu, L.MEMORY_FREE] -= memory
    nodes[node, L.MEMORY_USED] += memory
    _change_busy(nodes, totals, node, per_node, demand)
    jobs[job, L.FIRST_GPU] = gpu


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
            tail = _take_from_node(jobs, job, gpus, nodes, bits, totals, node, count, tail)
            left -= count
            if left == 0:
                totals[L.HINT] = node
                break
    elif rule == _WORST:
        while left > 0:
            tail = _take_from_node(jobs, job, gpus, nodes, bits, totals, _freest_node(nodes), 1, tail)
            left -= 1
    else:
        while left > 0:
            node = _tightest_node(nodes, left)
            count = left
            if node < 0:
                node = _freest_node(nodes)
                count = int(nodes[node, L.WHOLE])
            tail = _take_from_node(jobs, job, gpus, nodes, bits, totals, node, count, tail)
            left -= count
    return True


@njit
def hold_gpu(
    jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, tail: int, gpu: int
) -> None:
    """Hold one wholly free GPU for a gang after its GPU `tail` (-1 for the first)."""
    per_node = gpus.shape[0] // nodes.shape[0]
    node = gpu // per_node
    _mark_held(gpu, gpus, nodes, bits, totals, node, per_node)
    gpus[gpu, L.FREE] = 0
    gpus[gpu, L.MEMORY_FREE] = 0
    nodes[node, L.MEMORY_USED] += whole_memory(jobs, job, totals)
    _change_busy(nodes, totals, node, per_node, L.MILLI)
    _link(jobs, job, gpus, tail, gpu)


@inlined
def _count_free(nodes: Ints32, totals: Ints64, node: int, count: int) -> None:
    """Book GPUs of a node as wholly free again."""
    nodes[node, L.WHOLE] += count
    totals[L.FREE_WHOLE] += count
    if node < totals[L.HINT]:
        totals[L.HINT] = node


@inlined
def release(jobs: Floats, job: int, chain: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64) -> None:
    """Give the job's GPUs back; the NEXT links of `chain` (`gpus` itself, or what it was copied from) name them."""
    per_node = gpus.shape[0] // nodes.shape[0]
    demand = int(jobs[job, L.GPUS])
    gpu = int(jobs[job, L.FIRST_GPU])
    if demand < L.MILLI:
        memory = share_memory(jobs, job, totals)
        node = gpu // per_node
        gpus[gpu, L.FREE] += demand
        gpus[gpu, L.MEMORY_FREE] += memory
        nodes[node, L.MEMORY_USED] -= memory
        _change_busy(nodes, totals, node, per_node, -demand)
        if gpus[gpu, L.FREE] == L.MILLI:
            place_in_node = gpu - node * per_node
            bits[node, place_in_node >> 6] |= np.uint64(1) << np.uint64(place_in_node & 63)
            _count_free(nodes, totals, node, 1)
        return
    memory = whole_memory(jobs, job, totals)
    capacity = np.int32(totals[L.GPU_MEMORY])
    while gpu >= 0:
        node = gpu // per_node
        first = node * per_node
        count = 0
        while gpu >= first and gpu < first + per_node:
            following = int(chain[gpu, L.NEXT])
            gpus[gpu, L.FREE] = L.MILLI
            gpus[gpu, L.MEMORY_FREE] = capacity
            bits[node, (gpu - first) >> 6] |= np.uint64(1) << np.uint64((gpu - first) & 63)
            count += 1
            gpu = following
        nodes[node, L.MEMORY_USED] -= memory * count
        _change_busy(nodes, totals, node, per_node, -L.MILLI * count)
        _count_free(nodes, totals, node, count)


@njit
def copy_allocation(
    gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64,
    to_gpus: Ints32, to_nodes: Ints32, to_bits: Words, to_totals: Ints64,
) -> None:  # fmt: skip
    """Copy one allocation over another, element by element (whole-array copies would allocate)."""
    for gpu in range(gpus.shape[0]):
        for column in range(gpus.shape[1]):
            to_gpus[gpu, column] = gpus[gpu, column]
    for node in range(nodes.shape[0]):
        for column in range(nodes.shape[1]):
            to_nodes[node, column] = nodes[node, column]
        for word in range(bits.shape[1]):
            to_bits[node, word] = bits[node, word]
    for column in range(totals.shape[0]):
        to_totals[column] = totals[column]


@njit
def copy_gpus(jobs: Floats, job: int, chain: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64) -> None:
    """Hold in one layer the GPUs that the job holds in another."""
    from_gpu = int(jobs[job, L.FIRST_GPU])
    if jobs[job, L.GPUS] < L.MILLI:
        hold_share(jobs, job, gpus, nodes, bits, totals, from_gpu)
        return
    tail = -1
    while from_gpu >= 0:
        following = int(chain[from_gpu, L.NEXT])
        hold_gpu(jobs, job, gpus, nodes, bits, totals, tail, from_gpu)
        tail = from_gpu
        from_gpu = following


@njit
def held_gpus(jobs: Floats, job: int, gpus: Ints32, out: Ints64) -> int:
    """Write the GPUs that the job holds into `out`, in the order taken; return how many."""
    gpu = int(jobs[job, L.FIRST_GPU])
    if jobs[job, L.GPUS] < L.MILLI:
        out[0] = gpu
        return 1
    count = 0
    while gpu >= 0:
        out[count] = gpu
        count += 1
        gpu = int(gpus[gpu, L.NEXT])
    return count
