"""Where GPUs lie: nodes, their GPUs and memory, read from the packed arrays of clusters of either kind."""

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Ints32, Ints64
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined


@inlined
def node_of(gpu: int, gpus: Ints32, nodes: Ints32, hw: Hardware) -> int:
    """Node of a GPU."""
    if hw is None:
        return int(gpu // (gpus.shape[0] // nodes.shape[0]))
    return int(gpus[gpu, L.NODE])


@inlined
def first_gpu(node: int, gpus: Ints32, nodes: Ints32, hw: Hardware) -> int:
    """First GPU of a node."""
    if hw is None:
        return int(node * (gpus.shape[0] // nodes.shape[0]))
    return int(nodes[node, L.FIRST])


@inlined
def gpus_on(node: int, gpus: Ints32, nodes: Ints32, hw: Hardware) -> int:
    """Number of a node's GPUs."""
    if hw is None:
        return int(gpus.shape[0] // nodes.shape[0])
    return int(nodes[node, L.COUNT])


@inlined
def gpu_memory(node: int, nodes: Ints32, totals: Ints64, hw: Hardware) -> int:
    """MiB of each GPU of a node."""
    if hw is None:
        return int(totals[L.GPU_MEMORY])
    return int(nodes[node, L.MEMORY_EACH])


@inlined
def capacity_of(node: int, gpus: Ints32, nodes: Ints32, hw: Hardware) -> int:
    """Milli-GPU of a node's GPUs that are up."""
    count = gpus_on(node, gpus, nodes, hw)
    if hw is not None:
        count -= int(nodes[node, L.GPUS_DOWN])
    return L.MILLI * count


@inlined
def milli_up(gpus: Ints32, totals: Ints64, hw: Hardware) -> int:
    """Milli-GPU of all GPUs that are up."""
    if hw is None:
        return int(L.MILLI * gpus.shape[0])
    return int(L.MILLI * gpus.shape[0] - totals[L.LOST_GPUS])
