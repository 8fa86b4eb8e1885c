"""Who holds which GPU: compiled functions over the packed arrays of `layout`.

The arrays `gpus`, `nodes`, `bits` (one bit per wholly free GPU, 64 to a word) and `totals` change together and only
here. Within a node the lowest free GPU is taken first; a gang's GPUs are a chain in the order taken.
"""

from typing import Any

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.geometry import capacity_of, first_gpu, gpu_memory, gpus_on, node_of
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.marks import change_draw, stir, touch


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
def _change_room(jobs: Floats, job: int, nodes: Ints32, hw: Hardware, node: int, gpus_held: int) -> None:
    """Take what the job asks for beside so many GPUs of a node; a negative number gives it back."""
    if hw is not None:
        for resource in range(nodes.shape[1] - L.ROOM):
            if nodes[node, L.ROOM + resource] != L.UNCOUNTED:
                nodes[node, L.ROOM + resource] -= int(jobs[job, L.ASKS + resource]) * gpus_held


@inlined
def _change_load(
    jobs: Floats, job: int, gpu: int, gpus: Ints32, totals: Ints64, hw: Hardware, milli: int, shares: int
) -> None:
    """Book what a change of its load, in milli-GPU, does to a GPU's draw and to the jobs on it.

    `shares` is 1 where a share begins, -1 where one ends, 0 for a gang.
    """
    if hw is not None:
        change_draw(int(gpus[gpu, L.NODE]), totals, int(gpus[gpu, L.LOAD]) * milli)
        if gpus.shape[1] > L.MATES and shares != 0:
            gpus[gpu, L.MATES + int(jobs[job, L.CLASS])] += shares
        if hw.heat.shape[0] > 0 or (shares != 0 and (hw.interference > 0.0 or hw.pairs.shape[0] > 0)):
            stir(gpu, gpus, totals)


@inlined
def _change_busy(gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, node: int, change: int) -> None:
    """Book milli-GPU held or given back on a node."""
    capacity = capacity_of(node, gpus, nodes, hw)
    before = nodes[node, L.BUSY]
    after = before + change
    if before > 0:
        totals[L.STRANDED] -= capacity - before
    if after > 0:
        totals[L.STRANDED] += capacity - after
    nodes[node, L.BUSY] = after
    totals[L.HELD] += change
    touch(node, totals)


@inlined
def whole_memory(jobs: Floats, job: int, node: int, nodes: Ints32, totals: Ints64, hw: Hardware) -> int:
    """MiB that a gang's job is counted with on each of its GPUs of a node: its figure, or the whole GPU."""
    figure = int(jobs[job, L.MEMORY])
    return figure if figure > 0 else gpu_memory(node, nodes, totals, hw)


@inlined
def share_memory(jobs: Floats, job: int, node: int, nodes: Ints32, totals: Ints64, hw: Hardware) -> int:
    """MiB that a share needs on a GPU of a node: its figure, or its part of the GPU's memory."""
    figure = int(jobs[job, L.MEMORY])
    return figure if figure > 0 else gpu_memory(node, nodes, totals, hw) * int(jobs[job, L.GPUS]) // L.MILLI


@inlined
def _link(jobs: Floats, job: int, gpus: Ints32, tail: int, gpu: int) -> None:
    if tail < 0:
        jobs[job, L.FIRST_GPU] = gpu
    else:
        gpus[tail, L.NEXT] = gpu
    gpus[gpu, L.NEXT] = -1


@inlined
def mark_held(gpu: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, node: int) -> None:
    """Take one wholly free GPU out of the free sets."""
    place = gpu - first_gpu(node, gpus, nodes, hw)
    bits[node, place >> 6] &= ~(np.uint64(1) << np.uint64(place & 63))
    nodes[node, L.WHOLE] -= 1
    totals[L.FREE_WHOLE] -= 1


@inlined
def take_from_node(
    jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, node: int,
    count: int, tail: int,
) -> int:  # fmt: skip
    """Hold the `count` lowest free GPUs of a node; return the gang's new last GPU."""
    first = first_gpu(node, gpus, nodes, hw)
    memory = whole_memory(jobs, job, node, nodes, totals, hw)
    left = count
    for word_index in range(bits.shape[1]):
        word = bits[node, word_index]
        while word != np.uint64(0) and left > 0:
            gpu = first + word_index * 64 + _lowest_bit(word)
            word &= word - np.uint64(1)
            gpus[gpu, L.FREE] = 0
            gpus[gpu, L.MEMORY_FREE] = 0
            _change_load(jobs, job, gpu, gpus, totals, hw, L.MILLI, 0)
            _link(jobs, job, gpus, tail, gpu)
            tail = gpu
            left -= 1
        bits[node, word_index] = word
        if left == 0:
            break
    nodes[node, L.WHOLE] -= count
    nodes[node, L.MEMORY_USED] += memory * count
    totals[L.FREE_WHOLE] -= count
    _change_busy(gpus, nodes, totals, hw, node, L.MILLI * count)
    _change_room(jobs, job, nodes, hw, node, count)
    return tail


@inlined
def hold_share(
    jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, gpu: int
) -> None:
    """Give the share to one GPU that has room for it."""
    demand = int(jobs[job, L.GPUS])
    node = node_of(gpu, gpus, nodes, hw)
    memory = share_memory(jobs, job, node, nodes, totals, hw)
    if gpus[gpu, L.FREE] == L.MILLI:
        mark_held(gpu, gpus, nodes, bits, totals, hw, node)
    gpus[gpu, L.FREE] -= demand
    gpus[gpu, L.MEMORY_FREE] -= memory
    nodes[node, L.MEMORY_USED] += memory
    _change_load(jobs, job, gpu, gpus, totals, hw, demand, 1)
    _change_busy(gpus, nodes, totals, hw, node, demand)
    _change_room(jobs, job, nodes, hw, node, 1)
    jobs[job, L.FIRST_GPU] = gpu


@njit
def hold_gpu(
    jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, tail: int, gpu: int
) -> None:
    """Hold one wholly free GPU for a gang after its GPU `tail` (-1 for the first)."""
    node = node_of(gpu, gpus, nodes, hw)
    mark_held(gpu, gpus, nodes, bits, totals, hw, node)
    gpus[gpu, L.FREE] = 0
    gpus[gpu, L.MEMORY_FREE] = 0
    _change_load(jobs, job, gpu, gpus, totals, hw, L.MILLI, 0)
    nodes[node, L.MEMORY_USED] += whole_memory(jobs, job, node, nodes, totals, hw)
    _change_busy(gpus, nodes, totals, hw, node, L.MILLI)
    _change_room(jobs, job, nodes, hw, node, 1)
    _link(jobs, job, gpus, tail, gpu)


@inlined
def count_free(nodes: Ints32, totals: Ints64, node: int, count: int) -> None:
    """Book GPUs of a node as wholly free again."""
    nodes[node, L.WHOLE] += count
    totals[L.FREE_WHOLE] += count
    if node < totals[L.HINT]:
        totals[L.HINT] = node


@inlined
def release(
    jobs: Floats, job: int, chain: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware
) -> None:
    """Give the job's GPUs back; the NEXT links of `chain` (`gpus` itself, or what it was copied from) name them."""
    demand = int(jobs[job, L.GPUS])
    gpu = int(jobs[job, L.FIRST_GPU])
    if demand < L.MILLI:
        node = node_of(gpu, gpus, nodes, hw)
        memory = share_memory(jobs, job, node, nodes, totals, hw)
        gpus[gpu, L.FREE] += demand
        gpus[gpu, L.MEMORY_FREE] += memory
        nodes[node, L.MEMORY_USED] -= memory
        _change_load(jobs, job, gpu, gpus, totals, hw, -demand, -1)
        _change_busy(gpus, nodes, totals, hw, node, -demand)
        _change_room(jobs, job, nodes, hw, node, -1)
        if gpus[gpu, L.FREE] == L.MILLI:
            place_in_node = gpu - first_gpu(node, gpus, nodes, hw)
            bits[node, place_in_node >> 6] |= np.uint64(1) << np.uint64(place_in_node & 63)
            count_free(nodes, totals, node, 1)
        return
    while gpu >= 0:
        node = node_of(gpu, gpus, nodes, hw)
        memory = whole_memory(jobs, job, node, nodes, totals, hw)
        capacity = np.int32(gpu_memory(node, nodes, totals, hw))
        first = first_gpu(node, gpus, nodes, hw)
        behind = first + gpus_on(node, gpus, nodes, hw)
        count = 0
        while gpu >= first and gpu < behind:
            following = int(chain[gpu, L.NEXT])
            gpus[gpu, L.FREE] = L.MILLI
            gpus[gpu, L.MEMORY_FREE] = capacity
            _change_load(jobs, job, gpu, gpus, totals, hw, -L.MILLI, 0)
            bits[node, (gpu - first) >> 6] |= np.uint64(1) << np.uint64((gpu - first) & 63)
            count += 1
            gpu = following
        nodes[node, L.MEMORY_USED] -= memory * count
        _change_busy(gpus, nodes, totals, hw, node, -L.MILLI * count)
        _change_room(jobs, job, nodes, hw, node, -count)
        count_free(nodes, totals, node, count)


@inlined
def holds(jobs: Floats, job: int, gpus: Ints32, first: int, count: int) -> bool:
    """Whether a running job holds any of `count` GPUs from `first` on."""
    gpu = int(jobs[job, L.FIRST_GPU])
    share = jobs[job, L.GPUS] < L.MILLI
    while gpu >= 0:
        if first <= gpu < first + count:
            return True
        gpu = -1 if share else int(gpus[gpu, L.NEXT])
    return False


@njit
def held_on(jobs: Floats, job: int, gpus: Ints32, node: int) -> int:
    """Milli-GPU that a running job holds on a node of a detailed cluster."""
    gpu = int(jobs[job, L.FIRST_GPU])
    if jobs[job, L.GPUS] < L.MILLI:
        return int(jobs[job, L.GPUS]) if gpus[gpu, L.NODE] == node else 0
    milli = 0
    while gpu >= 0:
        if gpus[gpu, L.NODE] == node:
            milli += L.MILLI
        gpu = int(gpus[gpu, L.NEXT])
    return milli


@inlined
def copy_allocation(
    columns: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64,
    to_gpus: Ints32, to_nodes: Ints32, to_bits: Words, to_totals: Ints64,
) -> None:  # fmt: skip
    """Copy one allocation over another, element by element (whole-array copies would allocate).

    Of each GPU the first `columns`: L.GPU_COLUMNS of them are what placements change.
    """
    for gpu in range(gpus.shape[0]):
        for column in range(columns):
            to_gpus[gpu, column] = gpus[gpu, column]
    for node in range(nodes.shape[0]):
        for column in range(nodes.shape[1]):
            to_nodes[node, column] = nodes[node, column]
        for word in range(bits.shape[1]):
            to_bits[node, word] = bits[node, word]
    for column in range(totals.shape[0]):
        to_totals[column] = totals[column]


@njit
def copy_gpus(
    jobs: Floats, job: int, chain: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware
) -> None:
    """Hold in one layer the GPUs that the job holds in another."""
    from_gpu = int(jobs[job, L.FIRST_GPU])
    if jobs[job, L.GPUS] < L.MILLI:
        hold_share(jobs, job, gpus, nodes, bits, totals, hw, from_gpu)
        return
    tail = -1
    while from_gpu >= 0:
        following = int(chain[from_gpu, L.NEXT])
        hold_gpu(jobs, job, gpus, nodes, bits, totals, hw, tail, from_gpu)
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
