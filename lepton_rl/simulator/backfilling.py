"""Backfilling: later jobs start where that does not delay the reservations of earlier ones."""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import copy_allocation, copy_gpus, held_on, release
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.geometry import milli_up
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit, njit_allocating
from lepton_rl.core.memory import move
from lepton_rl.core.placement import fits, place
from lepton_rl.core.progress import planned_seconds, seconds_for
from lepton_rl.simulator.reservations import BEGIN as RESERVED_FROM
from lepton_rl.simulator.reservations import END as RESERVED_UNTIL
from lepton_rl.simulator.reservations import NODE as RESERVED_NODE
from lepton_rl.simulator.reservations import has_reservations, next_end, reservations, reserve
from lepton_rl.simulator.starting import begin_at, only_new_jobs
from lepton_rl.simulator.waiting import find


@njit
def _find_shadow_between(
    after: float, before: float, jobs: Floats, head: int, ahead_gpus: Ints32, ahead_nodes: Ints32,
    ahead_totals: Ints64, hw: Hardware, rules: Ints64,
) -> float:  # fmt: skip
    """First end of a reservation after one time and before another at which the head fits; infinity for none."""
    time = next_end(hw, after)
    while time < before:
        reserve(ahead_nodes, hw, time)
        if fits(rules[L.PLACEMENT], jobs, head, ahead_gpus, ahead_nodes, ahead_totals, hw):
            return time
        time = next_end(hw, time)
    return np.inf


@njit
def _find_shadow(
    jobs: Floats, head: int, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, ahead_gpus: Ints32, ahead_nodes: Ints32, ahead_bits: Words, ahead_totals: Ints64,
    clock: Floats, counts: Ints64, rules: Ints64,
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
        copy_allocation(L.GPU_COLUMNS, gpus, nodes, bits, totals, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals)
    shadow = np.inf
    last = now
    for index in range(counts[L.RUNNING]):
        end = max(ends[index], now)
        if has_reservations(hw) and shadow == np.inf:
            shadow = _find_shadow_between(last, end, jobs, head, ahead_gpus, ahead_nodes, ahead_totals, hw, rules)
            last = end
        if end > shadow:
            break
        job = running[index]
        if counted:
            free += int(jobs[job, L.GPUS])
            if free >= jobs[head, L.GPUS]:
                shadow = end
        else:
            release(jobs, job, gpus, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals, hw)
            if has_reservations(hw) and shadow == np.inf:
                reserve(ahead_nodes, hw, end)
            if shadow == np.inf and fits(rules[L.PLACEMENT], jobs, head, ahead_gpus, ahead_nodes, ahead_totals, hw):
                shadow = end
    if has_reservations(hw) and shadow == np.inf:
        shadow = _find_shadow_between(last, np.inf, jobs, head, ahead_gpus, ahead_nodes, ahead_totals, hw, rules)
    clock[L.SHADOW] = shadow
    clock[L.EXTRA] = free - jobs[head, L.GPUS]


@inlined
def _stays_behind_head(
    jobs: Floats, job: int, head: int, chain: Ints32, ahead_gpus: Ints32, ahead_nodes: Ints32, ahead_bits: Words,
    ahead_totals: Ints64, hw: Hardware, rules: Ints64,
) -> bool:  # fmt: skip
    """Hold, in the cluster of the shadow, the GPUs that the job was just given; undo it if the head no longer fits."""
    copy_gpus(jobs, job, chain, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals, hw)
    if fits(rules[L.PLACEMENT], jobs, head, ahead_gpus, ahead_nodes, ahead_totals, hw):
        return True
    release(jobs, job, chain, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals, hw)
    return False


@njit
def backfill_easy(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, ahead_gpus: Ints32, ahead_nodes: Ints32, ahead_bits: Words, ahead_totals: Ints64,
    started: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Start later jobs that do not delay the blocked head."""
    capacity = L.MILLI * gpus.shape[0]
    counted = rules[L.COUNTED] == 1
    head = queue[counts[L.FRONT]]
    now = clock[L.NOW]
    position = counts[L.FRONT] + 1
    left = counts[L.BACK] - position
    if counted and counts[L.HEAD] == head and only_new_jobs(counts, rules) and now <= clock[L.SHADOW]:
        if counts[L.ARRIVED] == counts[L.TESTED]:
            return
        position = find(jobs, queue, counts, counts[L.ARRIVED] - 1)
        left = 1
    elif left == 0 or totals[L.HELD] == capacity:
        counts[L.HEAD] = -1
        return
    else:
        _find_shadow(
            jobs, head, run_end, run_job, gpus, nodes, bits, totals, hw, ahead_gpus, ahead_nodes, ahead_bits,
            ahead_totals, clock, counts, rules,
        )  # fmt: skip
        counts[L.HEAD] = head
    shadow = clock[L.SHADOW]
    while left > 0 and totals[L.HELD] < capacity:
        left -= 1
        job = queue[position]
        harmless = now + jobs[job, L.PREDICTED] <= shadow
        start = False
        if not counted:
            start = place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals, hw)
            harmless = now + seconds_for(jobs[job, L.PREDICTED], jobs, job, hw) <= shadow  # its GPUs are known now
            if (
                start
                and not harmless
                and not _stays_behind_head(
                    jobs, job, head, gpus, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals, hw, rules
                )
            ):
                release(jobs, job, gpus, gpus, nodes, bits, totals, hw)
                start = False
        elif harmless or jobs[job, L.GPUS] <= clock[L.EXTRA]:
            start = place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals, hw)
            if start and not harmless:
                clock[L.EXTRA] -= jobs[job, L.GPUS]
        if start:
            position = begin_at(position, jobs, queue, hw, run_end, run_job, started, clock, counts, rules)
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
    move(times, step + 1, step, size - step)
    move(free, step + 1, step, size - step)
    times[step] = time
    free[step] = free[step - 1]
    return size + 1


@njit
def _take_reserved(
    times: Floats, free: Floats, size: int, jobs: Floats, run_end: Floats, run_job: Ints32, running: int,
    gpus: Ints32, nodes: Ints32, hw: Hardware,
) -> int:  # fmt: skip
    """Take reserved nodes out of the profile, but not twice what running jobs hold there; return its new size."""
    if hw is None:
        return size
    now = times[0]
    for row in range(hw.reservations.shape[0]):
        end = hw.reservations[row, RESERVED_UNTIL]
        if end <= now:
            continue
        begin = max(hw.reservations[row, RESERVED_FROM], now)
        node = int(hw.reservations[row, RESERVED_NODE])
        size = _split_profile(times, free, size, begin)
        size = _split_profile(times, free, size, end)
        for step in range(size):
            if begin <= times[step] < end:
                free[step] -= L.MILLI * (nodes[node, L.COUNT] - nodes[node, L.GPUS_DOWN])
        for index in range(running):
            left = min(run_end[L.PREDICTED_ENDS, index], end)
            held = held_on(jobs, run_job[L.PREDICTED_ENDS, index], gpus, node) if left > begin else 0
            for step in range(size):
                if held > 0 and begin <= times[step] < left:
                    free[step] += held
    return size


@njit_allocating
def start_reserved(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, started: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Plan every waiting job in order at its earliest time and start those planned for now.

    The plan counts GPUs (shares summed). A job planned for now that cannot be placed now keeps its reservation.
    """
    now = clock[L.NOW]
    waiting = counts[L.BACK] - counts[L.FRONT]
    running = counts[L.RUNNING]
    reserved = reservations(hw)
    times = np.empty(running + 2 * waiting + 2 * reserved + 2)
    free = np.empty(running + 2 * waiting + 2 * reserved + 2)
    times[0] = now
    free[0] = milli_up(gpus, totals, hw) - totals[L.HELD]
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
    size = _take_reserved(times, free, size, jobs, run_end, run_job, running, gpus, nodes, hw)
    position = counts[L.FRONT]
    while position < counts[L.BACK] and free[0] > 0:  # later plans cannot start now and nothing is kept of them
        job = queue[position]
        demand = jobs[job, L.GPUS]
        length = max(planned_seconds(jobs, job, hw), 0.0)  # a struck job may have outrun its requested time
        step = _earliest(times, free, size, demand, length)
        if free[size - 1] < demand:  # more than is up: there is nothing to reserve
            position += 1
            continue
        begin = times[step]
        size = _split_profile(times, free, size, begin + length)
        while step < size and times[step] < begin + length:
            free[step] -= demand
            step += 1
        if begin == now and place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals, hw):
            position = begin_at(position, jobs, queue, hw, run_end, run_job, started, clock, counts, rules)
        else:
            position += 1
