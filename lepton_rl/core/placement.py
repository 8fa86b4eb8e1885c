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

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import hold_share, share_memory, take_from_node
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.progress import planned_seconds
from lepton_rl.core.rates import set_rate


class Placement(IntEnum):
    """Rule that chooses the GPUs of a job."""

    FIRST = 0
    BEST = 1
    WORST = 2
    CONSOLIDATED = 3


_FIRST, _BEST, _WORST, CONSOLIDATED = (int(rule) for rule in Placement)


@inlined
def takes_type(jobs: Floats, job: int, node: int, nodes: Ints32, hw: Hardware) -> bool:
    """Whether the job may run on the node's type of GPU: it is among those asked for, and has the memory."""
    if hw is None:
        return True
    return bool((int(jobs[job, L.TYPES]) >> int(nodes[node, L.TYPE])) & 1)


@inlined
def _room_for(jobs: Floats, job: int, node: int, nodes: Ints32, most: int) -> int:
    """GPUs of a node, at most `most`, beside which there is all that the job asks for (CPU, RAM, accelerators)."""
    for resource in range(nodes.shape[1] - L.ROOM):
        ask = int(jobs[job, L.ASKS + resource])
        room = int(nodes[node, L.ROOM + resource])
        if ask > 0 and room != L.UNCOUNTED:
            most = min(most, room // ask)
    return most


@inlined
def lasts_for(jobs: Floats, job: int, node: int, nodes: Ints32, hw: Hardware) -> bool:
    """Whether the job is planned to end before the node is reserved."""
    if hw is None or nodes[node, L.LASTS] == L.UNCOUNTED:
        return True
    if nodes[node, L.LASTS] == L.RESERVED:
        return False
    left = int(nodes[node, L.LASTS]) - int(nodes[0, L.CLOCK])
    return bool(planned_seconds(jobs, job, hw) <= left)  # not without a requested time


@inlined
def takes_share(jobs: Floats, job: int, node: int, nodes: Ints32, hw: Hardware) -> bool:
    """Whether a share may go to the node: its type of GPU will do, and it has what the job asks for beside the GPU."""
    if hw is None:
        return True
    if not (takes_type(jobs, job, node, nodes, hw) and lasts_for(jobs, job, node, nodes, hw)):
        return False
    return bool(_room_for(jobs, job, node, nodes, 1) == 1)


@inlined
def available(jobs: Floats, job: int, node: int, nodes: Ints32, hw: Hardware) -> int:
    """Wholly free GPUs that a gang could take on a node."""
    free = int(nodes[node, L.WHOLE])
    if hw is not None:
        if free > 0 and not (takes_type(jobs, job, node, nodes, hw) and lasts_for(jobs, job, node, nodes, hw)):
            free = 0
        if free > 0:
            free = _room_for(jobs, job, node, nodes, free)
    return free


@inlined
def _tightest_node(jobs: Floats, job: int, nodes: Ints32, hw: Hardware, count: int) -> int:
    """Node with the fewest free GPUs among those that offer at least `count`, or -1."""
    chosen = -1
    fewest = 2147483647
    for node in range(nodes.shape[0]):
        free = int(nodes[node, L.WHOLE])
        if free >= count and free < fewest and available(jobs, job, node, nodes, hw) >= count:
            fewest = free
            chosen = node
            if free == count:
                break
    return chosen


@inlined
def _freest_node(jobs: Floats, job: int, nodes: Ints32, hw: Hardware) -> int:
    """Node that offers the most free GPUs."""
    chosen = 0
    most = available(jobs, job, 0, nodes, hw)
    for node in range(1, nodes.shape[0]):
        if nodes[node, L.WHOLE] > most:
            free = available(jobs, job, node, nodes, hw)
            if free > most:
                most = free
                chosen = node
    return chosen


@njit
def nodes_needed(jobs: Floats, job: int, nodes: Ints32, hw: Hardware, count: int) -> int:
    """Fewest nodes that hold `count` GPUs now; the number of nodes plus one where none do."""
    total = nodes.shape[0]
    left = count
    used = 0
    ceiling = 2147483647  # nodes are visited by free GPUs downward, whole groups of equals at a time
    while used < total:
        best = 0
        equals = 0
        for node in range(total):
            free = available(jobs, job, node, nodes, hw)
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


@inlined
def seconds_to_reservation(nodes: Ints32, hw: Hardware) -> float:
    """Seconds until the first node with a free GPU is reserved, -infinity where one is; infinity where none will be.

    A job that has outrun its requested time is planned to take less than no time, and finds no room there either.
    """
    soonest = np.inf
    if hw is not None and hw.reservations.shape[0] > 0:
        few = hw.reservations.shape[0] < nodes.shape[0]
        for place in range(hw.reservations.shape[0] if few else nodes.shape[0]):
            node = int(hw.reservations[place, 2]) if few else place  # behind begin and end
            lasts = nodes[node, L.LASTS]
            if lasts != L.UNCOUNTED and nodes[node, L.WHOLE] > 0:
                soonest = min(soonest, -np.inf if lasts == L.RESERVED else float(lasts - nodes[0, L.CLOCK]))
    return soonest


@njit
def _offers(jobs: Floats, job: int, nodes: Ints32, totals: Ints64, hw: Hardware, count: int) -> bool:
    """Whether the nodes together offer a gang's GPUs."""
    left = count
    for node in range(totals[L.HINT], nodes.shape[0]):
        left -= available(jobs, job, node, nodes, hw)
        if left <= 0:
            return True
    return False


@njit
def _gpu_for_share(rule: int, jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware) -> int:
    """GPU that a share goes to, or -1 when none has room."""
    demand = int(jobs[job, L.GPUS])
    memory = share_memory(jobs, job, 0, nodes, totals, hw)
    node = -1
    node_takes = True
    chosen = -1
    for gpu in range(gpus.shape[0]):
        if hw is not None and gpus[gpu, L.NODE] != node:
            node = int(gpus[gpu, L.NODE])
            memory = share_memory(jobs, job, node, nodes, totals, hw)
            node_takes = takes_share(jobs, job, node, nodes, hw)
        free = gpus[gpu, L.FREE]
        if free < demand or gpus[gpu, L.MEMORY_FREE] < memory or not node_takes:
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
def fewest_nodes(jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, hw: Hardware, count: int) -> int:
    """Fewest nodes that hold a gang on the empty cluster."""
    if hw is None:
        per_node = gpus.shape[0] // nodes.shape[0]
        return (count + per_node - 1) // per_node
    return int(jobs[job, L.FEWEST])


@inlined
def fits(rule: int, jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware) -> bool:
    """Return whether the job could be placed now."""
    demand = int(jobs[job, L.GPUS])
    if demand >= L.MILLI:
        count = demand // L.MILLI
        if totals[L.FREE_WHOLE] < count:
            return False
        if rule == CONSOLIDATED:
            fewest = fewest_nodes(jobs, job, gpus, nodes, hw, count)
            needed = nodes_needed(jobs, job, nodes, hw, count)
            return needed <= fewest and needed <= nodes.shape[0]
        if hw is None:
            return True
        return _offers(jobs, job, nodes, totals, hw, count)
    if hw is None and totals[L.FREE_WHOLE] > 0:
        return True
    return _gpu_for_share(_FIRST, jobs, job, gpus, nodes, totals, hw) >= 0


@inlined
def _place_gang(
    rule: int, jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware
) -> None:
    """Hold the GPUs of a gang that fits."""
    left = int(jobs[job, L.GPUS]) // L.MILLI
    tail = -1
    if rule == _FIRST:
        all_full = True  # no node before has a free GPU, of whatever type
        for node in range(int(totals[L.HINT]), nodes.shape[0]):
            if nodes[node, L.WHOLE] == 0:
                continue
            count = min(available(jobs, job, node, nodes, hw), left)
            if hw is not None and count == 0:
                all_full = False
                continue
            tail = take_from_node(jobs, job, gpus, nodes, bits, totals, hw, node, count, tail)
            left -= count
            if all_full:
                totals[L.HINT] = node
            if left == 0:
                break
            if hw is not None and nodes[node, L.WHOLE] > 0:
                all_full = False
    elif rule == _WORST:
        while left > 0:
            node = _freest_node(jobs, job, nodes, hw)
            tail = take_from_node(jobs, job, gpus, nodes, bits, totals, hw, node, 1, tail)
            left -= 1
    else:
        while left > 0:
            node = _tightest_node(jobs, job, nodes, hw, left)
            count = left
            if node < 0:
                node = _freest_node(jobs, job, nodes, hw)
                count = available(jobs, job, node, nodes, hw)
            tail = take_from_node(jobs, job, gpus, nodes, bits, totals, hw, node, count, tail)
            left -= count


@inlined
def place_fitting(
    rule: int, jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware
) -> None:
    """Choose and hold the GPUs of a job that fits."""
    if jobs[job, L.GPUS] < L.MILLI:
        chosen = _gpu_for_share(rule, jobs, job, gpus, nodes, totals, hw)
        hold_share(jobs, job, gpus, nodes, bits, totals, hw, chosen)
    else:
        _place_gang(rule, jobs, job, gpus, nodes, bits, totals, hw)
    set_rate(jobs, job, gpus, nodes, hw)


@njit
def place(
    rule: int, jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware
) -> bool:
    """Choose and hold the job's GPUs; return False, with nothing changed, when it does not fit."""
    if not fits(rule, jobs, job, gpus, nodes, totals, hw):
        return False
    place_fitting(rule, jobs, job, gpus, nodes, bits, totals, hw)
    return True
