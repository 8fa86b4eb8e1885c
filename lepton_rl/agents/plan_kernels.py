"""What a plan costs, and how it is improved: compiled functions over the arrays of a `Horizon`.

A plan is an order of starts and a choice of GPUs (`plan_choices`) for each job of the window (0 is the window's
first). What starts now is placed on the real GPUs; later starts are planned by counting GPUs, of each kind where
nodes differ, shares summed, as conservative backfilling does.
"""

import numpy as np

from lepton_rl.agents.plan_choices import (
    Kinds,
    added_kwh,
    choices,
    count_chosen,
    note_held,
    place_chosen,
    take_counted,
)
from lepton_rl.core import layout as L
from lepton_rl.core.allocation import held_gpus, release
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.geometry import milli_up, node_of
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit, njit_allocating
from lepton_rl.core.placement import fewest_nodes
from lepton_rl.core.progress import seconds_for
from lepton_rl.core.slowdown import SLOWDOWN_FLOOR
from lepton_rl.core.units import SECONDS_PER_HOUR
from lepton_rl.simulator.ends import pop_end, push_end
from lepton_rl.simulator.scores import margin, score

# options: float64 (OPTION_COLUMNS,)
NOW = 0
JCT_WEIGHT = 1  # cost of an hour of completion time, in bounded slowdowns
NODE_WEIGHT = 2  # cost of each node beyond the fewest of a gang that starts now, in bounded slowdowns
SLOWDOWN_WEIGHT = 3  # cost of a bounded slowdown
ENERGY_WEIGHT = 4  # cost of a kWh, in bounded slowdowns; 0 where no choice changes it, on equal nodes
OPTION_COLUMNS = 5

# planned: float64 (PLANNED_ROWS, running + window), scratch
BEGIN = 0  # when each job of the window starts, seconds
END = 1  # when it ends
PLANNED_ROWS = 2


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


@inlined
def _rewind(running: int, run_end: Floats, run_job: Ints32, kinds: Kinds) -> None:
    """Go back to now: the running jobs' ends, and what is free of each kind."""
    for index in range(running):
        run_end[0, index] = run_end[1, index]
        run_job[0, index] = run_job[1, index]
    if kinds is not None:
        for kind in range(kinds.free.shape[1]):
            kinds.free[0, kind] = kinds.free[1, kind]


@inlined
def _seconds_by_count(choice: int, jobs: Floats, row: int, now: float, free: float, kinds: Kinds) -> float:
    """How long the job would run on GPUs that are free at a later time, by counting; -1 where they are too few."""
    if kinds is None:
        return float(jobs[row, L.PREDICTED]) if free >= jobs[row, L.GPUS] else -1.0
    rate = count_chosen(choice, jobs, row, now, kinds)
    return float(jobs[row, L.PREDICTED] / rate) if rate > 0.0 else -1.0


@inlined
def _place_now(
    choice: int, jobs: Floats, row: int, now: float, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64,
    hw: Hardware, kinds: Kinds,
) -> float:  # fmt: skip
    """Hold the job's GPUs; return how long it would run on them, -1 where they are not free."""
    if not place_chosen(choice, jobs, row, now, gpus, nodes, bits, totals, hw, kinds):
        return -1.0
    if kinds is not None:
        note_held(jobs, row, gpus, nodes, kinds)
    return seconds_for(jobs[row, L.PREDICTED], jobs, row, hw)


@inlined
def _next_end(jobs: Floats, run_end: Floats, run_job: Ints32, size: int, kinds: Kinds) -> tuple[float, int, float]:
    """Let the jobs finish that end next; return (when, how many are left running, GPUs given back in thousandths)."""
    now = run_end[0, 0]
    freed = 0.0
    while size > 0 and run_end[0, 0] <= now:
        row = pop_end(run_end, run_job, size)
        size -= 1
        freed += jobs[row, L.GPUS]
        if kinds is not None:
            take_counted(row, kinds, -1)
    return now, size, freed


@njit
def plan_cost(
    orders: Ints64, chosen: Ints64, plan: int, jobs: Floats, running: int, placing: bool, run_end: Floats,
    run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, kinds: Kinds,
    planned: Floats, seen: Ints64, options: Floats, bound: float,
) -> float:  # fmt: skip
    """Return the cost of starting the window strictly in the order of one plan; write its times to `planned`.

    Row `plan` of `orders` and `chosen` holds it. The cost is SLOWDOWN_WEIGHT x bounded slowdowns plus
    JCT_WEIGHT x hours of completion time plus ENERGY_WEIGHT x kWh plus NODE_WEIGHT x extra nodes, summed over the
    window. Stops early, with infinity, once the cost passes `bound`. GPUs are given back in the end: the four arrays
    of the cluster stay as they are.
    """
    _rewind(running, run_end, run_job, kinds)
    for node in range(seen.shape[0]):
        seen[node] = -1
    free = float(milli_up(gpus, totals, hw) - totals[L.HELD])
    now = options[NOW]
    size = running
    placed = 0
    cost = 0.0
    for index in range(orders.shape[1]):
        job = orders[plan, index]
        row = running + job
        choice = chosen[plan, job]
        if placing and now == options[NOW]:
            seconds = -1.0
            if free >= jobs[row, L.GPUS]:
                seconds = _place_now(choice, jobs, row, now, gpus, nodes, bits, totals, hw, kinds)
            if seconds >= 0.0:
                placed += 1
                if jobs[row, L.GPUS] > L.MILLI:
                    cost += options[NODE_WEIGHT] * _extra_nodes(jobs, row, gpus, nodes, hw, seen)
        else:
            seconds = _seconds_by_count(choice, jobs, row, now, free, kinds)
        while seconds < 0.0 and size > 0:
            now, size, freed = _next_end(jobs, run_end, run_job, size, kinds)
            free += freed
            seconds = _seconds_by_count(choice, jobs, row, now, free, kinds)
        if seconds < 0.0:  # never
            cost = np.inf
            break
        free -= jobs[row, L.GPUS]
        if kinds is not None:
            take_counted(row, kinds, 1)
            if options[ENERGY_WEIGHT] > 0.0:
                cost += options[ENERGY_WEIGHT] * added_kwh(row, seconds, kinds)
        planned[BEGIN, row] = now
        planned[END, row] = now + seconds
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
    order_rule: int, skip: bool, chosen: Ints64, settings: Floats, jobs: Floats, running: int, run_end: Floats,
    run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, kinds: Kinds, now: float,
    sequence: Ints64,
) -> None:  # fmt: skip
    """Write the order in which a heuristic starts the window's jobs, with no job arriving, to `sequence`.

    Scores are those of now. Where nodes differ, starts of now are placed as chosen, for kinds of GPU decide what
    starts when; elsewhere the number of GPUs does.
    """
    _rewind(running, run_end, run_job, kinds)
    waiting = jobs.shape[0] - running
    scores = np.empty(waiting)
    done = np.zeros(waiting, np.bool_)
    for index in range(waiting):
        scores[index] = score(order_rule, settings, jobs, running + index, now)
    ranked = np.argsort(scores, kind="mergesort")
    free = float(milli_up(gpus, totals, hw) - totals[L.HELD])
    size = running
    count = 0
    placed = 0
    time = now
    while count < waiting:
        for index in ranked:
            if done[index]:
                continue
            row = running + index
            room = max(margin(settings, jobs, row, gpus.shape[0]), 0.0)
            seconds = -1.0
            if jobs[row, L.GPUS] + room <= free:
                if kinds is not None and time == now:
                    seconds = _place_now(chosen[index], jobs, row, now, gpus, nodes, bits, totals, hw, kinds)
                else:
                    seconds = _seconds_by_count(chosen[index], jobs, row, time, free, kinds)
            if seconds >= 0.0:
                done[index] = True
                sequence[count] = index
                count += 1
                if time == now:
                    placed = count
                free -= jobs[row, L.GPUS]
                if kinds is not None:
                    take_counted(row, kinds, 1)
                push_end(run_end, run_job, size, time + seconds, row)
                size += 1
            elif not skip:
                break
        if count < waiting and size == 0:  # what is left never starts: behind the others, in order
            for index in ranked:
                if not done[index]:
                    sequence[count] = index
                    count += 1
        elif count < waiting:
            time, size, freed = _next_end(jobs, run_end, run_job, size, kinds)
            free += freed
    if kinds is not None:
        for index in range(placed):
            release(jobs, running + sequence[index], gpus, gpus, nodes, bits, totals, hw)


@njit_allocating
def starts_of_rules(
    rules: Ints64, settings: Floats, chosen: Ints64, jobs: Floats, running: int, run_end: Floats, run_job: Ints32,
    gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, kinds: Kinds, now: float,
    sequences: Ints64,
) -> None:  # fmt: skip
    """Write `starts_of_rule` of each rule, without and with skip, for each row of `chosen`, one a row."""
    row = 0
    for plan in range(chosen.shape[0]):
        for rule in range(rules.shape[0]):
            for skip in (False, True):
                starts_of_rule(
                    rules[rule], skip, chosen[plan], settings[rule], jobs, running, run_end, run_job, gpus, nodes,
                    bits, totals, hw, kinds, now, sequences[row],
                )  # fmt: skip
                row += 1


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
    orders: Ints64, chosen: Ints64, costs: Floats, moves: int, replacing: bool, state: Words, jobs: Floats,
    running: int, placing: bool, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals:
    Ints64, hw: Hardware, kinds: Kinds, planned: Floats, seen: Ints64, options: Floats,
) -> None:  # fmt: skip
    """Cost each plan (one a row), then try `moves` small changes on it and keep those that do not cost more.

    A change takes one job to another place of the order or, one time in eight where `replacing`, gives it
    another choice of GPUs.
    """
    waiting = orders.shape[1]
    for plan in range(orders.shape[0]):
        best = np.inf
        for trial in range(moves + 1):
            source = _draw(state, waiting)
            target = _draw(state, waiting)
            replace = replacing and _draw(state, 8) == 0
            former = chosen[plan, source]
            if trial == 0:  # the plan as it came
                replace = False
                target = source
            elif replace:
                chosen[plan, source] = _draw(state, choices(kinds))
            else:
                _move(orders, plan, source, target)
            cost = plan_cost(
                orders, chosen, plan, jobs, running, placing, run_end, run_job, gpus, nodes, bits, totals, hw, kinds,
                planned, seen, options, best,
            )  # fmt: skip
            if cost <= best:
                best = cost
            elif replace:
                chosen[plan, source] = former
            else:
                _move(orders, plan, target, source)
        costs[plan] = best


@njit_allocating
def place_now(
    rows: Ints64, chosen: Ints64, now: float, jobs: Floats, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64,
    hw: Hardware, kinds: Kinds, started: Ints64, held: Ints64,
) -> int:  # fmt: skip
    """List the rows that fit now, one after the other, and their GPUs; return how many. None stays held."""
    count = 0
    offset = 0
    for index in range(rows.shape[0]):
        row = rows[index]
        if place_chosen(chosen[index], jobs, row, now, gpus, nodes, bits, totals, hw, kinds):
            offset += held_gpus(jobs, row, gpus, held[offset:])
            started[count] = row
            count += 1
    for index in range(count):
        release(jobs, started[index], gpus, gpus, nodes, bits, totals, hw)
    return count
