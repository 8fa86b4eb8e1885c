"""Reading ahead over environments: what the next ones will touch begins to load while this one is stepped.

The arrays of many environments do not fit the fast caches, and a step reads a few dozen scattered lines of them. In
three stages, each of which reads what the one before has brought: the environments one, two and three ahead.
"""

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.jit import inlined
from lepton_rl.core.memory import fetch


@inlined
def _chosen_position(env: int, actions: Ints64, queue: Ints32, counts: Ints64, window: int) -> int:
    """Position in the queue that the action means; some valid one where it means none."""
    place = min(max(actions[env], 0), window - 1)
    return int(min(counts[env, L.FRONT] + place, queue.shape[1] - 1))


@inlined
def _fetch_numbers(env: int, position: int, queue: Ints32, run_end: Floats, run_job: Ints32) -> None:
    """Stage 1: the numbers of the jobs that start, end and arrive next."""
    fetch(queue, env, position)
    fetch(run_end[env], L.TRUE_ENDS, 0)
    fetch(run_job[env], L.TRUE_ENDS, 0)


@inlined
def _fetch_job(env: int, job: int, jobs: Floats, truth: Floats) -> None:
    fetch(jobs[env], job, L.ID)
    fetch(jobs[env], job, L.PREDICTED)
    fetch(truth[env], job, L.RUN)
    if jobs.shape[2] > L.ASKS:  # a detailed cluster
        fetch(jobs[env], job, L.QUEUE)
        fetch(jobs[env], job, L.SINCE)
        fetch(jobs[env], job, jobs.shape[2] - 1)
        fetch(truth[env], job, L.CHANGED)


@inlined
def _fetch_rows(
    env: int, position: int, jobs: Floats, truth: Floats, prices: Floats, queue: Ints32, run_job: Ints32,
    nodes: Ints32, bits: Words, totals: Ints64, counts: Ints64,
) -> None:  # fmt: skip
    """Stage 2: the rows of those jobs."""
    starting = queue[env, position]
    _fetch_job(env, starting, jobs, truth)
    fetch(prices[env], starting, 0)
    _fetch_job(env, run_job[env, L.TRUE_ENDS, 0], jobs, truth)
    arriving = min(counts[env, L.ARRIVED], jobs.shape[1] - 1)
    fetch(jobs[env], arriving, L.ID)
    fetch(jobs[env], arriving, L.PREDICTED)
    fetch(prices[env], arriving, 0)
    node = min(totals[env, L.HINT], nodes.shape[1] - 1)
    fetch(nodes[env], node, 0)
    fetch(bits[env], node, 0)


@inlined
def _fetch_gpus(
    env: int, jobs: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64
) -> None:
    """Stage 3: the GPUs of the job that ends next, and the first that are free."""
    per_node = gpus.shape[1] // nodes.shape[1]
    node = min(totals[env, L.HINT], nodes.shape[1] - 1)
    fetch(gpus[env], node * per_node, 0)
    first = max(int(jobs[env, run_job[env, L.TRUE_ENDS, 0], L.FIRST_GPU]), 0)
    fetch(gpus[env], first, 0)
    fetch(nodes[env], first // per_node, 0)
    fetch(bits[env], first // per_node, 0)


@inlined
def look_ahead(
    env: int, actions: Ints64, jobs: Floats, truth: Floats, prices: Floats, queue: Ints32, run_end: Floats,
    run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, counts: Ints64, window: int,
) -> None:  # fmt: skip
    """Begin to load what the environments behind `env` will touch."""
    last = actions.shape[0] - 1
    if env + 3 <= last:
        position = _chosen_position(env + 3, actions, queue, counts, window)
        _fetch_numbers(env + 3, position, queue, run_end, run_job)
    if env + 2 <= last:
        position = _chosen_position(env + 2, actions, queue, counts, window)
        _fetch_rows(env + 2, position, jobs, truth, prices, queue, run_job, nodes, bits, totals, counts)
    if env + 1 <= last:
        _fetch_gpus(env + 1, jobs, run_job, gpus, nodes, bits, totals)
