"""When running jobs end: a heap by true end, and a list in order of predicted end for backfilling."""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.memory import move


@inlined
def push_end(run_end: Floats, run_job: Ints32, size: int, end: float, job: int) -> None:
    """Add a job to the heap of true ends, which holds `size` jobs."""
    place = size
    while place > 0:
        parent = (place - 1) >> 1
        if run_end[L.TRUE_ENDS, parent] <= end:
            break
        run_end[L.TRUE_ENDS, place] = run_end[L.TRUE_ENDS, parent]
        run_job[L.TRUE_ENDS, place] = run_job[L.TRUE_ENDS, parent]
        place = parent
    run_end[L.TRUE_ENDS, place] = end
    run_job[L.TRUE_ENDS, place] = job


@inlined
def _sift_down(run_end: Floats, run_job: Ints32, size: int, place: int, end: float, job: int) -> None:
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and run_end[L.TRUE_ENDS, child + 1] < run_end[L.TRUE_ENDS, child]:
            child += 1
        if run_end[L.TRUE_ENDS, child] >= end:
            break
        run_end[L.TRUE_ENDS, place] = run_end[L.TRUE_ENDS, child]
        run_job[L.TRUE_ENDS, place] = run_job[L.TRUE_ENDS, child]
        place = child
    run_end[L.TRUE_ENDS, place] = end
    run_job[L.TRUE_ENDS, place] = job


@inlined
def pop_end(run_end: Floats, run_job: Ints32, size: int) -> int:
    """Remove the job that ends first from the heap of `size` jobs and return it.

    The hole sinks to a leaf without a look at the last job, which then rises from there: it seldom rises far, and no
    step down depends on a comparison that the machine would have to guess.
    """
    first = run_job[L.TRUE_ENDS, 0]
    last = size - 1
    end = run_end[L.TRUE_ENDS, last]
    job = run_job[L.TRUE_ENDS, last]
    run_end[L.TRUE_ENDS, last] = np.inf  # so that every parent has two children
    place = 0
    child = 1
    while child < last:
        child += int(run_end[L.TRUE_ENDS, child + 1] < run_end[L.TRUE_ENDS, child])
        run_end[L.TRUE_ENDS, place] = run_end[L.TRUE_ENDS, child]
        run_job[L.TRUE_ENDS, place] = run_job[L.TRUE_ENDS, child]
        place = child
        child = 2 * place + 1
    push_end(run_end, run_job, place, end, job)
    return int(first)


@njit
def remove_end(run_end: Floats, run_job: Ints32, size: int, job: int) -> None:
    """Remove a job from the middle of the heap of `size` jobs (a preemption)."""
    place = 0
    while run_job[L.TRUE_ENDS, place] != job:
        place += 1
    last = size - 1
    if place == last:
        return
    end = run_end[L.TRUE_ENDS, last]
    moved = run_job[L.TRUE_ENDS, last]
    while place > 0 and run_end[L.TRUE_ENDS, (place - 1) >> 1] > end:
        parent = (place - 1) >> 1
        run_end[L.TRUE_ENDS, place] = run_end[L.TRUE_ENDS, parent]
        run_job[L.TRUE_ENDS, place] = run_job[L.TRUE_ENDS, parent]
        place = parent
    _sift_down(run_end, run_job, last, place, end, moved)


@njit
def move_end(run_end: Floats, run_job: Ints32, size: int, end: float, job: int) -> None:
    """Give a job in the heap of `size` jobs another true end."""
    place = 0
    while run_job[L.TRUE_ENDS, place] != job:
        place += 1
    if place > 0 and run_end[L.TRUE_ENDS, (place - 1) >> 1] > end:
        push_end(run_end, run_job, place, end, job)
    else:
        _sift_down(run_end, run_job, size, place, end, job)


@inlined
def _first_not_before(ends: Floats, size: int, end: float) -> int:
    """First of `size` ascending ends that is not before `end`."""
    low = 0
    high = size
    while low < high:
        middle = (low + high) >> 1
        if ends[middle] < end:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def _move_predictions(run_end: Floats, run_job: Ints32, to: int, start: int, count: int) -> None:
    move(run_end[L.PREDICTED_ENDS], to, start, count)
    move(run_job[L.PREDICTED_ENDS], to, start, count)
    move(run_job[L.PREDICTED_DEMAND], to, start, count)


@inlined
def add_prediction(jobs: Floats, run_end: Floats, run_job: Ints32, size: int, end: float, job: int) -> None:
    """Add a job to the list of predicted ends, which holds `size` jobs; behind those of the same end."""
    place = _first_not_before(run_end[L.PREDICTED_ENDS], size, end)
    while place < size and run_end[L.PREDICTED_ENDS, place] == end:
        place += 1
    _move_predictions(run_end, run_job, place + 1, place, size - place)
    run_end[L.PREDICTED_ENDS, place] = end
    run_job[L.PREDICTED_ENDS, place] = job
    run_job[L.PREDICTED_DEMAND, place] = int(jobs[job, L.GPUS])


@inlined
def drop_prediction(run_end: Floats, run_job: Ints32, size: int, end: float, job: int) -> None:
    """Remove a job, added with this predicted end, from the list of `size` jobs."""
    place = _first_not_before(run_end[L.PREDICTED_ENDS], size, end)
    while run_job[L.PREDICTED_ENDS, place] != job:
        place += 1
    _move_predictions(run_end, run_job, place, place + 1, size - 1 - place)
