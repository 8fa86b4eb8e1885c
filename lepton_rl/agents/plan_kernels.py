"""What a plan costs, and how it is improved: compiled functions over the arrays of a `Horizon`.

A plan is an order of starts and a placement for each job of the window (0 is the window's first). What
starts now is placed on the real GPUs; later starts are planned by counting, shares summed, as conservative
backfilling does.
"""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import held_gpus, node_of, release
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit, njit_allocating
from lepton_rl.core.metrics import SECONDS_PER_HOUR, SLOWDOWN_FLOOR
from lepton_rl.core.placement import Placement, fewest_nodes, place
from lepton_rl.core.progress import planned_seconds, seconds_for
from lepton_rl.simulator.ends import pop_end, push_end
from lepton_rl.simulator.scores import margin, score

PLACEMENTS = len(Placement)

# options: float64 (OPTION_COLUMNS,)
NOW = 0
JCT_WEIGHT = 1  # cost of an hour of completion time, in bounded slowdowns
NODE_WEIGHT = 2  # cost of each node beyond the fewest of a gang that starts now, in bounded slowdowns
SLOWDOWN_WEIGHT = 3  # cost of a bounded slowdown
OPTION_COLUMNS = 4


@inlined
def _extra_nodes(jobs: Floats, row: int, gpus: Ints32, nodes: Ints32, hw: Hardware, seen: Ints64) -> int:
    """Nodes that a gang touches beyond the fewest for its size. `seen[node]` is the last gang that asked."""
    size = int(jobs[row, L.GPUS]) // L.MILLI
    touched = 0
    gpu = int(jobs[row, L.FIRST_GPU])
    while gpu >= 0:
        node = node_of(gpu, gpus, nodes, hw)
        if seen[node] != row:
            seen[node] = row
            touched += 1
        gpu = int(gpus[gpu, L.NEXT])
    return touched - fewest_nodes(jobs, row, gpus, nodes, hw, size)


@njit
def plan_cost(
    orders: Ints64, placements: Ints64, plan: int, jobs: Floats, running: int, placing: bool, run_end: Floats,
    run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, begin: Floats,
    seen: Ints64, options: Floats, bound: float,
) -> float:  # fmt: skip
    """Return the cost of starting the window strictly in the order of one plan; write the starts to `begin`.

    Row `plan` of `orders` and `placements` holds it. The cost is SLOWDOWN_WEIGHT x bounded slowdowns plus
    JCT_WEIGHT x hours of completion time plus NODE_WEIGHT x extra nodes, summed over the window. Stops early,
    with infinity, once the cost passes `bound`. GPUs are given back in the end: the four arrays of the cluster
    stay as they are.
    """
    for index in range(running):
        run_end[0, index] = run_end[1, index]
        run_job[0, index] = run_job[1, index]
    for node in range(seen.shape[0]):
        seen[node] = -1
    free = float(L.MILLI * gpus.shape[0] - totals[L.HELD])
    now = options[NOW]
    size = running
    placed = 0
    cost = 0.0
    for index in range(orders.shape[1]):
        job = orders[plan, index]
        row = running + job
        fits = free >= jobs[row, L.GPUS]
        seconds = planned_seconds(jobs, row, hw)
        if fits and placing and now == options[NOW]:
            fits = place(placements[plan, job], jobs, row, gpus, nodes, bits, totals, hw)
            if fits:
                placed += 1
                seconds = seconds_for(jobs[row, L.PREDICTED], jobs, row, hw)
                if jobs[row, L.GPUS] > L.MILLI:
                    cost += options[NODE_WEIGHT] * _extra_nodes(jobs, row, gpus, nodes, hw, seen)
        while not fits:
            now = run_end[0, 0]
            while size > 0 and run_end[0, 0] <= now:
                free += jobs[pop_end(run_end, run_job, size), L.GPUS]
                size -= 1
            fits = free >= jobs[row, L.GPUS]
        free -= jobs[row, L.GPUS]
        begin[row] = now
        push_end(run_end, run_job, size, now + seconds, row)
        size += 1
        jct = now + seconds - jobs[row, L.SUBMIT]
        cost += options[SLOWDOWN_WEIGHT] * max(1.0, jct / max(jobs[row, L.REQUESTED], SLOWDOWN_FLOOR))
        cost += options[JCT_WEIGHT] * jct / SECONDS_PER_HOUR
        if cost > bound:
            cost = np.inf
            break
    for index in range(placed):
        release(jobs, running + orders[plan, index], gpus, gpus, nodes, bits, totals, hw)
    return float(cost)


@njit_allocating
def starts_of_rule(
    order_rule: int, skip: bool, settings: Floats, jobs: Floats, running: int, run_end: Floats, run_job:
    Ints32, capacity: float, held: float, now: float, hw: Hardware, sequence: Ints64,
) -> None:  # fmt: skip
    """Write the order in which a heuristic starts the window's jobs, with no job arriving, to `sequence`.

    Scores are those of now; `capacity` and `held` are milli-GPU.
    """
    for index in range(running):
        run_end[0, index] = run_end[1, index]
        run_job[0, index] = run_job[1, index]
    waiting = jobs.shape[0] - running
    gpus = int(capacity) // L.MILLI
    scores = np.empty(waiting)
    done = np.zeros(waiting, np.bool_)
    for index in range(waiting):
        scores[index] = score(order_rule, settings, jobs, running + index, now)
    ranked = np.argsort(scores, kind="mergesort")
    free = capacity - held
    size = running
    count = 0
    time = now
    while count < waiting:
        for index in ranked:
            if done[index]:
                continue
            row = running + index
            room = max(margin(settings, jobs, row, gpus), 0.0)
            if jobs[row, L.GPUS] + room <= free:
                done[index] = True
                sequence[count] = index
                count += 1
                free -= jobs[row, L.GPUS]
                push_end(run_end, run_job, size, time + planned_seconds(jobs, row, hw), row)
                size += 1
            elif not skip:
                break
        if count < waiting:
            time = run_end[0, 0]
            while size > 0 and run_end[0, 0] <= time:
                free += jobs[pop_end(run_end, run_job, size), L.GPUS]
                size -= 1


@inlined
def _draw(state: Words, below: int) -> int:
    """A whole number below `below` (xorshift64*, Marsaglia 2003; Vigna 2016)."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return int((x * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(33)) % below


@inlined
def _move(orders: Ints64, plan: int, source: int, target: int) -> None:
    moved = orders[plan, source]
    step = 1 if source < target else -1
    position = source
    while position != target:
        orders[plan, position] = orders[plan, position + step]
        position += step
    orders[plan, target] = moved


@njit
def improve(
    orders: Ints64, placements: Ints64, costs: Floats, moves: int, replacing: bool, state: Words, jobs:
    Floats, running: int, placing: bool, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits:
    Words, totals: Ints64, hw: Hardware, begin: Floats, seen: Ints64, options: Floats,
) -> None:  # fmt: skip
    """Cost each plan (one a row), then try `moves` small changes on it and keep those that do not cost more.

    A change takes one job to another place of the order or, one time in eight where `replacing`, gives it
    another placement.
    """
    waiting = orders.shape[1]
    for plan in range(orders.shape[0]):
        best = np.inf
        for trial in range(moves + 1):
            source = _draw(state, waiting)
            target = _draw(state, waiting)
            replace = replacing and _draw(state, 8) == 0
            former = placements[plan, source]
            if trial == 0:  # the plan as it came
                replace = False
                target = source
            elif replace:
                placements[plan, source] = _draw(state, PLACEMENTS)
            else:
                _move(orders, plan, source, target)
            cost = plan_cost(
                orders, placements, plan, jobs, running, placing, run_end, run_job, gpus, nodes, bits, totals, hw,
                begin, seen, options, best,
            )  # fmt: skip
            if cost <= best:
                best = cost
            elif replace:
                placements[plan, source] = former
            else:
                _move(orders, plan, target, source)
        costs[plan] = best


@njit_allocating
def place_now(
    rows: Ints64, rules: Ints64, jobs: Floats, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware,
    started: Ints64, held: Ints64,
) -> int:  # fmt: skip
    """List the rows that fit now, one after the other, and their GPUs; return how many. None stays held."""
    count = 0
    offset = 0
    for index in range(rows.shape[0]):
        row = rows[index]
        if place(rules[index], jobs, row, gpus, nodes, bits, totals, hw):
            offset += held_gpus(jobs, row, gpus, held[offset:])
            started[count] = row
            count += 1
    for index in range(count):
        release(jobs, started[index], gpus, gpus, nodes, bits, totals, hw)
    return count
