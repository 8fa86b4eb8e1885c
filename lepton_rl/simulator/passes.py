"""One scheduling pass: which waiting jobs start now, under an order, a blocking rule and a placement.

A pass knows only what a scheduler can know (never true run times), so the same functions serve the simulator's
whole-trace run and a policy's `decide` on a snapshot. It holds GPUs, moves jobs out of the queue and lists them in
`started` and `preempted`; the driver then does the simulator's own part (true ends).

| blocking | rule |
|---|---|
| head | start in order up to the first job that does not fit |
| skip | walk the whole order and start each job that fits |
| easy | heads as above; then any later job that does not delay the predicted start of the first blocked one |
| conservative | every job gets a reservation in order; those whose reservation is now start |

Nothing is decided for later: what a pass remembers (`HEAD`, `SHADOW`, `EXTRA`, `TESTED`, `RELEASED`) only saves it
from testing again jobs that cannot have become startable.
"""

from enum import IntEnum

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.jit import inlined, njit, njit_allocating
from lepton_rl.core.placement import copy_allocation, copy_gpus, fits, place, release
from lepton_rl.simulator.ends import add_prediction, drop_prediction
from lepton_rl.simulator.scores import running_score, score
from lepton_rl.simulator.waiting import find, insert, remove, reorder


class Blocking(IntEnum):
    """What happens behind a job that does not fit."""

    HEAD = 0
    SKIP = 1
    EASY = 2
    CONSERVATIVE = 3


_HEAD, _SKIP, _EASY, _CONSERVATIVE = (int(rule) for rule in Blocking)


@inlined
def _begin(
    jobs: Floats,
    job: int,
    run_end: Floats,
    run_job: Ints32,
    started: Ints32,
    clock: Floats,
    counts: Ints64,
    rules: Ints64,
) -> None:
    """Book a job whose GPUs are held as started now."""
    jobs[job, L.START] = clock[L.NOW]
    if rules[L.PREDICTS]:
        add_prediction(jobs, run_end, run_job, counts[L.RUNNING], clock[L.NOW] + jobs[job, L.PREDICTED], job)
    counts[L.RUNNING] += 1
    started[counts[L.STARTED]] = job
    counts[L.STARTED] += 1


@inlined
def _has_room(jobs: Floats, job: int, totals: Ints64, gpus: Ints32) -> bool:
    """Whether the margin that the order wants beside the job stays free."""
    margin = jobs[job, L.MARGIN]
    return margin <= 0.0 or jobs[job, L.GPUS] + margin <= L.MILLI * gpus.shape[0] - totals[L.HELD]


@inlined
def _only_new_jobs(counts: Ints64, rules: Ints64) -> bool:
    """Whether jobs that the last pass could not start are sure not to start now."""
    return counts[L.RELEASED] == 0 and rules[L.DYNAMIC] == 0 and counts[L.ARRIVED] - counts[L.TESTED] <= 1


@njit
def _start_heads(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, started: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
) -> bool:  # fmt: skip
    """Start jobs in order up to the first that does not fit; return whether any started."""
    any_started = False
    while counts[L.FRONT] < counts[L.BACK]:
        job = queue[counts[L.FRONT]]
        if not _has_room(jobs, job, totals, gpus):
            break
        if not place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals):
            break
        counts[L.FRONT] += 1
        _begin(jobs, job, run_end, run_job, started, clock, counts, rules)
        any_started = True
    return any_started


@njit
def _start_any(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, started: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Start every job that fits, in order."""
    capacity = L.MILLI * gpus.shape[0]
    position = counts[L.FRONT]
    end = counts[L.BACK]
    if _only_new_jobs(counts, rules):
        if counts[L.ARRIVED] == counts[L.TESTED]:
            return
        position = find(jobs, queue, counts, counts[L.ARRIVED] - 1)
        end = position + 1
    while position < end and totals[L.HELD] < capacity:
        job = queue[position]
        if _has_room(jobs, job, totals, gpus) and place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals):
            _begin(jobs, job, run_end, run_job, started, clock, counts, rules)
            front = counts[L.FRONT]
            remove(queue, counts, position)
            if counts[L.FRONT] > front:  # the shorter side moved: the next job is one place further
                position += 1
            else:
                end -= 1
        else:
            position += 1


@njit
def _find_shadow(
    jobs: Floats, head: int, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, ahead_gpus: Ints32, ahead_nodes: Ints32, ahead_bits: Words, ahead_totals: Ints64, clock: Floats,
    counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Predict when the blocked head can start (SHADOW) and what is left over then (EXTRA).

    Where counting does not decide, layer 1 of the cluster becomes the cluster as it will be at the shadow.
    A job that has outrun its requested time is predicted to end now.
    """
    ends = run_end[L.PREDICTED_ENDS]
    running = run_job[L.PREDICTED_ENDS]
    now = clock[L.NOW]
    counted = rules[L.COUNTED] == 1
    free = L.MILLI * totals[L.FREE_WHOLE]
    if not counted:
        copy_allocation(gpus, nodes, bits, totals, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals)
    shadow = np.inf
    for index in range(counts[L.RUNNING]):
        end = max(ends[index], now)
        if end > shadow:
            break
        job = running[index]
        if counted:
            free += int(jobs[job, L.GPUS])
            if free >= jobs[head, L.GPUS]:
                shadow = end
        else:
            release(jobs, job, gpus, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals)
            if shadow == np.inf and fits(rules[L.PLACEMENT], jobs, head, ahead_gpus, ahead_nodes, ahead_totals):
                shadow = end
    clock[L.SHADOW] = shadow
    clock[L.EXTRA] = free - jobs[head, L.GPUS]


@inlined
def _stays_behind_head(
    jobs: Floats, job: int, head: int, chain: Ints32, ahead_gpus: Ints32, ahead_nodes: Ints32, ahead_bits: Words,
    ahead_totals: Ints64, rules: Ints64,
) -> bool:  # fmt: skip
    """Hold, in the cluster of the shadow, the GPUs that the job was just given; undo it if the head no longer fits."""
    copy_gpus(jobs, job, chain, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals)
    if fits(rules[L.PLACEMENT], jobs, head, ahead_gpus, ahead_nodes, ahead_totals):
        return True
    release(jobs, job, chain, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals)
    return False


@njit
def _backfill_easy(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, ahead_gpus: Ints32, ahead_nodes: Ints32, ahead_bits: Words, ahead_totals: Ints64,
    started: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Start later jobs that do not delay the blocked head."""
    capacity = L.MILLI * gpus.shape[0]
    counted = rules[L.COUNTED] == 1
    head = queue[counts[L.FRONT]]
    now = clock[L.NOW]
    position = counts[L.FRONT] + 1
    end = counts[L.BACK]
    if counted and counts[L.HEAD] == head and _only_new_jobs(counts, rules) and now <= clock[L.SHADOW]:
        if counts[L.ARRIVED] == counts[L.TESTED]:
            return
        position = find(jobs, queue, counts, counts[L.ARRIVED] - 1)
        end = position + 1
    elif position == end or totals[L.HELD] == capacity:
        counts[L.HEAD] = -1
        return
    else:
        _find_shadow(
            jobs, head, run_end, run_job, gpus, nodes, bits, totals, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals,
            clock, counts, rules,
        )  # fmt: skip
        counts[L.HEAD] = head
    shadow = clock[L.SHADOW]
    while position < end and totals[L.HELD] < capacity:
        job = queue[position]
        harmless = now + jobs[job, L.PREDICTED] <= shadow
        start = False
        if not counted:
            start = place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals)
            if (
                start
                and not harmless
                and not _stays_behind_head(
                    jobs, job, head, gpus, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals, rules
                )
            ):
                release(jobs, job, gpus, gpus, nodes, bits, totals)
                start = False
        elif harmless or jobs[job, L.GPUS] <= clock[L.EXTRA]:
            start = place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals)
            if start and not harmless:
                clock[L.EXTRA] -= jobs[job, L.GPUS]
        if start:
            _begin(jobs, job, run_end, run_job, started, clock, counts, rules)
            front = counts[L.FRONT]
            remove(queue, counts, position)
            if counts[L.FRONT] > front:
                position += 1
            else:
                end -= 1
        else:
            position += 1


@njit
def _earliest(times: Floats, free: Floats, size: int, demand: float, length: float) -> int:
    """First step of the profile from which `demand` stays free for `length` seconds (the last step is endless)."""
    first = 0
    while first < size - 1:
        step = first
        end = times[first] + length
        while step < size and free[step] >= demand:
            step += 1
            if step == size or times[step] >= end:
                return first
        first = step + 1
    return size - 1


@njit
def _split_profile(times: Floats, free: Floats, size: int, time: float) -> int:
    """Make `time` a step of the profile; return the profile's new size."""
    step = size
    while step > 0 and times[step - 1] > time:
        step -= 1
    if step > 0 and times[step - 1] == time:
        return size
    for place_in_profile in range(size, step, -1):
        times[place_in_profile] = times[place_in_profile - 1]
        free[place_in_profile] = free[place_in_profile - 1]
    times[step] = time
    free[step] = free[step - 1]
    return size + 1


@njit_allocating
def _start_reserved(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, started: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Plan every waiting job in order at its earliest time and start those planned for now.

    The plan counts GPUs (shares summed). A job planned for now that cannot be placed now keeps its reservation.
    """
    now = clock[L.NOW]
    waiting = counts[L.BACK] - counts[L.FRONT]
    running = counts[L.RUNNING]
    times = np.empty(running + 2 * waiting + 2)
    free = np.empty(running + 2 * waiting + 2)
    times[0] = now
    free[0] = L.MILLI * gpus.shape[0] - totals[L.HELD]
    size = 1
    for index in range(running):
        end = max(run_end[L.PREDICTED_ENDS, index], now)
        demand = jobs[run_job[L.PREDICTED_ENDS, index], L.GPUS]
        if end == times[size - 1]:
            free[size - 1] += demand
        else:
            times[size] = end
            free[size] = free[size - 1] + demand
            size += 1
    position = counts[L.FRONT]
    while position < counts[L.BACK] and free[0] > 0:  # later plans cannot start now and nothing is kept of them
        job = queue[position]
        demand = jobs[job, L.GPUS]
        length = jobs[job, L.PREDICTED]
        step = _earliest(times, free, size, demand, length)
        begin = times[step]
        size = _split_profile(times, free, size, begin + length)
        while step < size and times[step] < begin + length:
            free[step] -= demand
            step += 1
        if begin == now and place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals):
            _begin(jobs, job, run_end, run_job, started, clock, counts, rules)
            front = counts[L.FRONT]
            remove(queue, counts, position)
            if counts[L.FRONT] > front:
                position += 1
        else:
            position += 1


@njit
def _stop(
    jobs: Floats, job: int, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, preempted: Ints32, clock: Floats, counts: Ints64, rules: Ints64, settings: Floats,
) -> None:  # fmt: skip
    """Take a running job off its GPUs; it waits again and keeps its progress."""
    served = clock[L.NOW] - jobs[job, L.START]
    if rules[L.PREDICTS]:
        drop_prediction(run_end, run_job, counts[L.RUNNING], jobs[job, L.START] + jobs[job, L.PREDICTED], job)
    release(jobs, job, gpus, gpus, nodes, bits, totals)
    jobs[job, L.FIRST_GPU] = -1
    jobs[job, L.ATTAINED] += served
    jobs[job, L.PREDICTED] += settings[L.PREEMPTION_COST] - served
    jobs[job, L.SCORE] = score(rules[L.ORDER], settings, jobs, job, clock[L.NOW])
    counts[L.RUNNING] -= 1
    counts[L.RELEASED] = 1
    preempted[counts[L.PREEMPTED]] = job
    counts[L.PREEMPTED] += 1


@njit_allocating
def _fill_anew(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, started: Ints32, preempted: Ints32, clock: Floats, counts: Ints64, rules: Ints64, settings: Floats,
) -> None:  # fmt: skip
    """Choose by count, from an empty cluster, among running and waiting jobs; preempt and start what follows.

    Runs younger than the quantum go before all others. Chosen running jobs keep their GPUs.
    """
    now = clock[L.NOW]
    order = rules[L.ORDER]
    front = counts[L.FRONT]
    waiting = counts[L.BACK] - front
    running = counts[L.RUNNING]
    left = L.MILLI * gpus.shape[0]
    candidates = np.empty(waiting + running, np.int64)
    scores = np.empty(waiting + running)
    for index in range(waiting):
        candidates[index] = queue[front + index]
    for index in range(running):
        candidates[waiting + index] = run_job[L.TRUE_ENDS, index]
    candidates.sort()
    for index in range(waiting + running):
        job = candidates[index]
        if jobs[job, L.FIRST_GPU] < 0:
            scores[index] = jobs[job, L.SCORE]
        elif now - jobs[job, L.START] < settings[L.QUANTUM]:
            scores[index] = -np.inf
        else:
            scores[index] = running_score(order, jobs, job, now)
    ranked = np.argsort(scores, kind="mergesort")
    chosen = 0
    full = False
    for index in ranked:
        job = candidates[index]
        if not full and jobs[job, L.GPUS] <= left:
            left -= int(jobs[job, L.GPUS])
            if jobs[job, L.FIRST_GPU] < 0:
                candidates[index] = -1 - job
                chosen += 1
        else:
            full = full or rules[L.BLOCKING] == _HEAD
            if jobs[job, L.FIRST_GPU] >= 0:
                _stop(
                    jobs,
                    job,
                    queue,
                    run_end,
                    run_job,
                    gpus,
                    nodes,
                    bits,
                    totals,
                    preempted,
                    clock,
                    counts,
                    rules,
                    settings,
                )
    if chosen == 0 and counts[L.PREEMPTED] == 0:
        return
    open_to_start = True
    for index in ranked:
        if candidates[index] < 0 and open_to_start:
            job = -1 - candidates[index]
            if place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals):
                position = find(jobs, queue, counts, job)
                remove(queue, counts, position)
                _begin(jobs, job, run_end, run_job, started, clock, counts, rules)
            elif rules[L.BLOCKING] == _HEAD:
                open_to_start = False
    for index in range(counts[L.PREEMPTED]):
        insert(jobs, queue, counts, preempted[index])


@njit
def scheduling_pass(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, ahead_gpus: Ints32, ahead_nodes: Ints32, ahead_bits: Words, ahead_totals: Ints64,
    started: Ints32, preempted: Ints32, clock: Floats, counts: Ints64, rules: Ints64, settings: Floats,
) -> None:  # fmt: skip
    """Decide once, now: fill `started` and `preempted` (counts[STARTED], counts[PREEMPTED]).

    The four `ahead_` arrays are room for the cluster as it will be when a blocked head can start.
    """
    counts[L.STARTED] = 0
    counts[L.PREEMPTED] = 0
    if counts[L.FRONT] < counts[L.BACK]:
        if rules[L.PREEMPTIVE]:
            _fill_anew(
                jobs,
                queue,
                run_end,
                run_job,
                gpus,
                nodes,
                bits,
                totals,
                started,
                preempted,
                clock,
                counts,
                rules,
                settings,
            )
        else:
            if rules[L.DYNAMIC]:
                for position in range(counts[L.FRONT], counts[L.BACK]):
                    job = queue[position]
                    jobs[job, L.SCORE] = score(rules[L.ORDER], settings, jobs, job, clock[L.NOW])
                reorder(jobs, queue, counts)
            if rules[L.BLOCKING] == _SKIP:
                _start_any(jobs, queue, run_end, run_job, gpus, nodes, bits, totals, started, clock, counts, rules)
            elif rules[L.BLOCKING] == _CONSERVATIVE:
                _start_reserved(jobs, queue, run_end, run_job, gpus, nodes, bits, totals, started, clock, counts, rules)
            else:
                if _start_heads(
                    jobs, queue, run_end, run_job, gpus, nodes, bits, totals, started, clock, counts, rules
                ):
                    counts[L.HEAD] = -1
                if rules[L.BLOCKING] == _EASY and counts[L.FRONT] < counts[L.BACK]:
                    _backfill_easy(
                        jobs, queue, run_end, run_job, gpus, nodes, bits, totals, ahead_gpus, ahead_nodes, ahead_bits,
                        ahead_totals, started, clock, counts, rules,
                    )  # fmt: skip
    counts[L.TESTED] = counts[L.ARRIVED]
    counts[L.RELEASED] = 0
