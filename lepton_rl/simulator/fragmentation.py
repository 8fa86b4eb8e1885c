"""Expected fragmentation of GPUs under sharing: idle GPU that a pod drawn from the workload could not use.

Weng et al., "Beware of Fragmentation", USENIX ATC 2023, section 3. F(node) is the mean over typical pods, weighted by
how often they occur, of the idle GPU on the node that such a pod cannot use:

- the pod fits: what is left on GPUs with less than it asks of each;
- it does not fit (GPUs, CPU or model), or asks for no GPU: all that is idle.

Everything counts in whole thousandths of a GPU times whole numbers of pods, so that F is exact in any order of summing.
"""

from typing import Any

import numpy as np

from lepton_rl.core.arrays import Bools, Ints64
from lepton_rl.core.jit import inlined

CPU, GPU_MILLI, GPUS = range(3)
"""Columns of a request: thousandths of a core, thousandths of each GPU, GPUs."""
TYPE, COUNT = 3, 4
"""Further columns of a typical pod: its row among the requests, how many pods are like it."""
MODEL, CPU_LEFT, MEMORY_LEFT, FRAGMENTED, FIRST_GPU = range(5)
"""Columns of a node: model, idle thousandths of cores, idle MiB, F times the number of typical pods, then what is left
of each GPU; a node with fewer GPUs than others has nothing left on those that it lacks."""
TYPICAL_PERCENT = 95
"""Typical pods cover this many percent of all pods."""


def typical_pods(requests: Ints64, counts: Ints64) -> Ints64:
    """Return the most frequent requests that together cover 95 % of the pods, CPU-only ones included.

    Among equals in number the larger request comes first: by CPU, by what it asks of each GPU, by GPUs.

    Args:
        requests: (types, 3), distinct up to the models that they allow.
        counts: (types,) pods of each.

    Returns:
        (typical, 5), ordered by what they ask of each GPU.
    """
    by_size = tuple(requests[:, column] for column in (GPUS, GPU_MILLI, CPU))
    order = np.lexsort((*by_size, counts))[::-1]
    covered = np.cumsum(counts[order])
    chosen = order[: 1 + int(np.searchsorted(100 * covered, TYPICAL_PERCENT * covered[-1]))]
    chosen = chosen[np.argsort(requests[chosen, GPU_MILLI], kind="stable")]
    return np.column_stack((requests[chosen], chosen, counts[chosen])).astype(np.int64)


@inlined
def fragmentation(typical: Ints64, allowed: Bools, nodes: Ints64, node: int) -> int:
    """Return F(node) times the number of typical pods, in thousandths of a GPU.

    Args:
        typical: from `typical_pods`.
        allowed: (types, models).
        nodes: (nodes, 4 + GPUs).
        node: row of `nodes`.
    """
    idle: Any = np.int64(0)
    for gpu in range(FIRST_GPU, nodes.shape[1]):
        idle += nodes[node, gpu]
    if idle == 0:
        return idle
    total: Any = np.int64(0)
    too_small: Any = np.int64(0)
    large_enough = 0
    gpu_milli: Any = np.int64(-1)
    for pod in range(typical.shape[0]):
        if typical[pod, GPU_MILLI] != gpu_milli:
            gpu_milli = typical[pod, GPU_MILLI]
            too_small = np.int64(0)
            large_enough = 0
            for gpu in range(FIRST_GPU, nodes.shape[1]):
                if nodes[node, gpu] >= gpu_milli:
                    large_enough += 1
                else:
                    too_small += nodes[node, gpu]
        fits = (
            typical[pod, GPUS] > 0
            and typical[pod, GPUS] <= large_enough
            and typical[pod, CPU] <= nodes[node, CPU_LEFT]
            and allowed[typical[pod, TYPE], nodes[node, MODEL]]
        )
        total += typical[pod, COUNT] * (too_small if fits else idle)
    return total
