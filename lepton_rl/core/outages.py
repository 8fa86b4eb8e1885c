"""GPUs that go down and come back: what that does to the packed arrays."""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import count_free, mark_held
from lepton_rl.core.arrays import Ints32, Ints64, Words
from lepton_rl.core.geometry import first_gpu, gpu_memory
from lepton_rl.core.hardware.tables import IDLE_MW, Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.marks import change_draw, stir, touch


@inlined
def _change_up(gpu: int, node: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, change: int) -> None:
    """Book that a GPU on which nothing runs is up (1) or down (-1) from now on."""
    if hw is None:
        return
    if nodes[node, L.BUSY] > 0:
        totals[L.STRANDED] += L.MILLI * change
    nodes[node, L.GPUS_DOWN] -= change
    totals[L.LOST_GPUS] -= L.MILLI * change
    change_draw(node, totals, int(hw.power_mw[nodes[node, L.TYPE], IDLE_MW]) * 1000 * change)
    touch(node, totals)
    stir(gpu, gpus, totals)


@njit
def take_down(gpu: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware) -> None:
    """One more failure keeps down a GPU on which nothing runs."""
    if hw is None:
        return
    gpus[gpu, L.DOWN] += 1
    if gpus[gpu, L.DOWN] > 1:
        return
    node = int(gpus[gpu, L.NODE])
    mark_held(gpu, gpus, nodes, bits, totals, hw, node)
    gpus[gpu, L.FREE] = 0
    gpus[gpu, L.MEMORY_FREE] = 0
    _change_up(gpu, node, gpus, nodes, totals, hw, -1)


@njit
def bring_back(gpu: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware) -> bool:
    """One of the failures that keep a GPU down is over; return whether it is up now."""
    if hw is None:
        return False
    gpus[gpu, L.DOWN] -= 1
    if gpus[gpu, L.DOWN] > 0:
        return False
    node = int(gpus[gpu, L.NODE])
    place_in_node = gpu - first_gpu(node, gpus, nodes, hw)
    bits[node, place_in_node >> 6] |= np.uint64(1) << np.uint64(place_in_node & 63)
    gpus[gpu, L.FREE] = L.MILLI
    gpus[gpu, L.MEMORY_FREE] = np.int32(gpu_memory(node, nodes, totals, hw))
    count_free(nodes, totals, node, 1)
    _change_up(gpu, node, gpus, nodes, totals, hw, 1)
    return True
