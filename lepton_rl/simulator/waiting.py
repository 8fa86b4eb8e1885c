"""The waiting jobs: an array ordered by (score, row), kept between two moving ends."""

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.memory import move


@inlined
def _before(jobs: Floats, left: int, right: int) -> bool:
    """Whether the job `left` goes before the job `right`."""
    a = jobs[left, L.SCORE]
    b = jobs[right, L.SCORE]
    return a < b or (a == b and left < right)


@inlined
def find(jobs: Floats, queue: Ints32, counts: Ints64, job: int) -> int:
    """First position whose job does not go before `job` (its own position when it waits)."""
    low = counts[L.FRONT]
    high = counts[L.BACK]
    while low < high:
        middle = (low + high) >> 1
        if _before(jobs, queue[middle], job):
            low = middle + 1
        else:
            high = middle
    return int(low)


@inlined
def insert(jobs: Floats, queue: Ints32, counts: Ints64, job: int) -> None:
    """Put the job at its place; scores of all waiting jobs must be current."""
    front = counts[L.FRONT]
    back = counts[L.BACK]
    if back == queue.shape[0]:
        move(queue, 0, front, back - front)
        back -= front
        front = 0
        counts[L.FRONT] = 0
        counts[L.BACK] = back
    place = back
    if back > front and not _before(jobs, queue[back - 1], job):
        place = find(jobs, queue, counts, job)
    if front > 0 and place - front < back - place:
        move(queue, front - 1, front, place - front)
        queue[place - 1] = job
        counts[L.FRONT] = front - 1
        return
    move(queue, place + 1, place, back - place)
    queue[place] = job
    counts[L.BACK] = back + 1


@inlined
def remove(queue: Ints32, counts: Ints64, position: int) -> None:
    """Take the job at this position out, moving the shorter side."""
    front = counts[L.FRONT]
    back = counts[L.BACK]
    if position - front <= back - 1 - position:
        move(queue, front + 1, front, position - front)
        counts[L.FRONT] = front + 1
    else:
        move(queue, position, position + 1, back - 1 - position)
        counts[L.BACK] = back - 1


@njit
def reorder(jobs: Floats, queue: Ints32, counts: Ints64) -> None:
    """Order the queue anew after its scores changed (insertion sort: successive orders differ little)."""
    front = counts[L.FRONT]
    for position in range(front + 1, counts[L.BACK]):
        job = queue[position]
        place = position
        while place > front and _before(jobs, job, queue[place - 1]):
            queue[place] = queue[place - 1]
            place -= 1
        queue[place] = job


@inlined
def fill(jobs: Floats, first: int, last: int, keys: Floats, queue: Ints32, counts: Ints64) -> None:
    """Fill an empty queue with the jobs from row `first` to before `last`, whose scores are current.

    `keys` is room for their scores in order: a search among neighbours is worth a second array to move.
    """
    front = counts[L.FRONT]
    waiting = queue[front:]
    for job in range(first, last):
        size = job - first
        key = jobs[job, L.SCORE]
        place = 0  # behind all that are not above the key
        left = size
        while left > 0:
            half = (left + 1) >> 1
            place += half if keys[place + half - 1] <= key else 0
            left -= half
        move(keys, place + 1, place, size - place)
        move(waiting, place + 1, place, size - place)
        keys[place] = key
        waiting[place] = job
    counts[L.BACK] = front + last - first
