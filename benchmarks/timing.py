"""Clocks: CPU seconds where one thread works (a busy machine disturbs them less), wall seconds elsewhere."""

import resource
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def cpu_seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """Return the least CPU seconds of this process that `work` took."""
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def children_cpu_seconds() -> float:
    """Return user + system seconds of all processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def latencies(work: Callable[[int], object], count: int, clock: Callable[[], float]) -> NDArray[np.float64]:
    """Return the seconds of `work(0)`, `work(1)`, ..., one after the other, by this clock."""
    seconds = np.empty(count)
    for index in range(count):
        began = clock()
        work(index)
        seconds[index] = clock() - began
    return seconds
