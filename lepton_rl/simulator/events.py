"""Simulated time: arrivals, completions, changes of capacity and timers, and the true end of every running job."""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import release
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import Hardware, hourly_integral
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.marks import list_job, unlist_job
from lepton_rl.core.progress import predicted_end, seconds_for, served
from lepton_rl.core.units import JOULES_PER_KWH, JOULES_PER_MWH
from lepton_rl.simulator.ends import drop_prediction, pop_end, push_end, remove_end
from lepton_rl.simulator.heat import heat_up
from lepton_rl.simulator.passes import scheduling_pass
from lepton_rl.simulator.rates import change_rates, forget_changes
from lepton_rl.simulator.reservations import has_reservations, next_change, reserve, set_second
from lepton_rl.simulator.scores import margin, score
from lepton_rl.simulator.stopping import fail_and_repair
from lepton_rl.simulator.waiting import insert


@inlined
def _enqueue(
    jobs: Floats, queue: Ints32, job: int, gpus: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
    settings: Floats,
) -> None:  # fmt: skip
    """Put a job that may start in the queue."""
    jobs[job, L.PREDICTED] = jobs[job, L.REQUESTED]
    jobs[job, L.SCORE] = score(rules[L.ORDER], settings, jobs, job, clock[L.NOW])
    jobs[job, L.MARGIN] = margin(settings, jobs, job, gpus.shape[0])
    insert(jobs, queue, counts, job)


@inlined
def submit(
    jobs: Floats, queue: Ints32, gpus: Ints32, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64,
    settings: Floats,
) -> None:  # fmt: skip
    """Put the next job of the trace in the queue, or let it wait for those that it comes after."""
    job = int(counts[L.ARRIVED])
    counts[L.ARRIVED] += 1
    if hw is not None and jobs[job, L.UNMET] > 0.0:
        counts[L.NOT_READY] += 1
        counts[L.RELEASED] = 1  # the last to arrive is not in the queue
        return
    _enqueue(jobs, queue, job, gpus, clock, counts, rules, settings)


@njit
def _let_follow(
    jobs: Floats, queue: Ints32, job: int, gpus: Ints32, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64,
    settings: Floats,
) -> None:  # fmt: skip
    """Put those in the queue that came after the finished job and after no other that is left."""
    if hw is None:
        return
    base = counts[L.BASE]
    for index in range(hw.followers_from[base + job], hw.followers_from[base + job + 1]):
        follower = int(hw.followers[index] - base)
        if 0 <= follower < jobs.shape[0]:
            jobs[follower, L.UNMET] -= 1.0
            if jobs[follower, L.UNMET] == 0.0 and follower < counts[L.ARRIVED]:
                counts[L.NOT_READY] -= 1
                _enqueue(jobs, queue, follower, gpus, clock, counts, rules, settings)


@inlined
def _complete(
    jobs: Floats, truth: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32,
    bits: Words, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64, settings: Floats,
) -> None:  # fmt: skip
    """Finish the running job whose true end is next."""
    job = pop_end(run_end, run_job, counts[L.RUNNING])
    if rules[L.PREDICTS]:
        drop_prediction(run_end, run_job, counts[L.RUNNING], predicted_end(jobs, job, hw), job)
    counts[L.RUNNING] -= 1
    counts[L.RELEASED] = 1
    unlist_job(jobs, job, gpus, hw)
    release(jobs, job, gpus, gpus, nodes, bits, totals, hw)
    jobs[job, L.ATTAINED] += served(jobs, job, clock[L.NOW], hw)
    jobs[job, L.FIRST_GPU] = -1
    truth[job, L.FINISH] = clock[L.NOW]
    if hw is not None:
        truth[job, L.END] = np.inf
        if hw.followers.shape[0] > 0:
            _let_follow(jobs, queue, job, gpus, hw, clock, counts, rules, settings)


@njit
def count_unmet(jobs: Floats, hw: Hardware, counts: Ints64) -> None:
    """Count for each job of a window those of the window that it comes after."""
    if hw is None or hw.followers.shape[0] == 0:
        return
    base = counts[L.BASE]
    for job in range(jobs.shape[0]):
        jobs[job, L.UNMET] = 0.0
    for job in range(jobs.shape[0]):
        for index in range(hw.followers_from[base + job], hw.followers_from[base + job + 1]):
            follower = int(hw.followers[index] - base)
            if 0 <= follower < jobs.shape[0]:
                jobs[follower, L.UNMET] += 1.0


@inlined
def is_anything_left(jobs: Floats, counts: Ints64) -> bool:
    """Whether a job is still to come, waits or runs."""
    left = counts[L.ARRIVED] < jobs.shape[0] or counts[L.RUNNING] > 0
    return bool(left or counts[L.FRONT] < counts[L.BACK] or counts[L.NOT_READY] > 0)


@inlined
def next_event(jobs: Floats, run_end: Floats, hw: Hardware, clock: Floats, counts: Ints64) -> float:
    """Time of the next arrival, completion, change of capacity or timer; infinity when there is none."""
    time = np.inf
    if counts[L.ARRIVED] < jobs.shape[0]:
        time = jobs[counts[L.ARRIVED], L.SUBMIT]
    if counts[L.RUNNING] > 0:
        time = min(time, run_end[L.TRUE_ENDS, 0])
    if hw is not None:
        if counts[L.FAULT] < hw.fault_time.shape[0] and is_anything_left(jobs, counts):
            time = min(time, max(hw.fault_time[counts[L.FAULT]], clock[L.NOW]))
        if has_reservations(hw) and is_anything_left(jobs, counts):
            time = min(time, max(clock[L.NEXT_RESERVATION], clock[L.NOW]))
    if time < np.inf:  # a timer alone would tick for ever
        time = min(time, clock[L.TIMER])
    return time


@inlined
def _meter(totals: Ints64, hw: Hardware, clock: Floats, until: float) -> None:
    """Add up energy, its cost and its carbon; the draw holds from now to the next event."""
    if hw is not None:
        watts = (totals[L.POWER] - totals[L.HELD_BACK]) * 1e-6
        now = clock[L.NOW]
        clock[L.ENERGY] += watts * (until - now)
        if hw.price.shape[0] > 0:
            clock[L.ELECTRICITY] += watts * hourly_integral(hw.price, now, until) / JOULES_PER_MWH
        if hw.carbon.shape[0] > 0:
            clock[L.CARBON] += watts * hourly_integral(hw.carbon, now, until) / JOULES_PER_KWH


@inlined
def _pass_time(totals: Ints64, hw: Hardware, clock: Floats, until: float) -> None:
    """Move the clock; nothing changes until then."""
    clock[L.BUSY_INTEGRAL] += totals[L.HELD] * (until - clock[L.NOW])
    clock[L.STRANDED_INTEGRAL] += totals[L.STRANDED] * (until - clock[L.NOW])
    _meter(totals, hw, clock, until)
    clock[L.NOW] = until


@inlined
def _let_heat(
    jobs: Floats, truth: Floats, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64,
    hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64, time: float,
) -> float:  # fmt: skip
    """Let GPUs throttle that get there before the next event; return when that is now."""
    if hw is not None:
        while hw.heat.shape[0] > 0 and clock[L.NEXT_HEAT] < time < np.inf:
            _pass_time(totals, hw, clock, clock[L.NEXT_HEAT])
            heat_up(gpus, totals, clock)
            change_rates(jobs, truth, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules)
            time = next_event(jobs, run_end, hw, clock, counts)
    return time


@inlined
def move_to_next_event(
    jobs: Floats, truth: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32,
    bits: Words, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64, settings: Floats,
) -> bool:  # fmt: skip
    """Drain all events of the next instant, completions first; return False when there is none."""
    forget_changes(truth, run_job, hw, counts)
    time = next_event(jobs, run_end, hw, clock, counts)
    if time == np.inf:
        return False
    time = _let_heat(jobs, truth, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules, time)
    _pass_time(totals, hw, clock, time)
    while counts[L.RUNNING] > 0 and run_end[L.TRUE_ENDS, 0] <= time:
        _complete(jobs, truth, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules, settings)
    if hw is not None:
        counts[L.GREW] = 0
        if hw.heat.shape[0] > 0 and clock[L.NEXT_HEAT] <= time:
            heat_up(gpus, totals, clock)
        if counts[L.FAULT] < hw.fault_time.shape[0] and hw.fault_time[counts[L.FAULT]] <= time:
            fail_and_repair(
                jobs, truth, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules, settings
            )
        if has_reservations(hw):
            set_second(nodes, time)
            if clock[L.NEXT_RESERVATION] <= time:
                reserve(nodes, hw, time)
                clock[L.NEXT_RESERVATION] = next_change(hw, time)
                counts[L.RELEASED] = 1
                counts[L.GREW] = 1
    while counts[L.ARRIVED] < jobs.shape[0] and jobs[counts[L.ARRIVED], L.SUBMIT] <= time:
        submit(jobs, queue, gpus, hw, clock, counts, rules, settings)
    while clock[L.TIMER] <= time:
        clock[L.TIMER] += settings[L.TIMER_INTERVAL]
    change_rates(jobs, truth, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules)
    return True


@inlined
def set_true_end(
    jobs: Floats, truth: Floats, job: int, gpus: Ints32, hw: Hardware, run_end: Floats, run_job: Ints32, size: int,
    clock: Floats,
) -> None:  # fmt: skip
    """Give a job that was started now its true end, in a heap of `size` jobs."""
    if np.isnan(truth[job, L.FIRST_START]):
        truth[job, L.FIRST_START] = clock[L.NOW]
    end = clock[L.NOW] + seconds_for(truth[job, L.REMAINING], jobs, job, hw)
    push_end(run_end, run_job, size, end, job)
    if hw is not None:
        truth[job, L.END] = end
        list_job(jobs, job, gpus, hw)


@njit
def forget_true_end(
    jobs: Floats, truth: Floats, job: int, gpus: Ints32, hw: Hardware, run_end: Floats, run_job: Ints32, size: int,
    clock: Floats, settings: Floats,
) -> None:  # fmt: skip
    """Take a job that was preempted now out of a heap of `size` jobs; it owes the restart cost."""
    remove_end(run_end, run_job, size, job)
    truth[job, L.REMAINING] += settings[L.PREEMPTION_COST] - served(jobs, job, clock[L.NOW], hw)
    truth[job, L.PREEMPTIONS] += 1.0
    if hw is not None:
        truth[job, L.END] = np.inf
        unlist_job(jobs, job, gpus, hw)


@inlined
def _keep_true_ends(
    jobs: Floats, truth: Floats, started: Ints32, preempted: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32,
    nodes: Ints32, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64, settings: Floats,
) -> None:  # fmt: skip
    """Let the true ends follow what a scheduling pass has preempted and started."""
    size = counts[L.RUNNING] - counts[L.STARTED] + counts[L.PREEMPTED]
    for index in range(counts[L.PREEMPTED]):
        forget_true_end(jobs, truth, preempted[index], gpus, hw, run_end, run_job, size, clock, settings)
        size -= 1
    for index in range(counts[L.STARTED]):
        set_true_end(jobs, truth, started[index], gpus, hw, run_end, run_job, size, clock)
        size += 1
    change_rates(jobs, truth, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules)


@njit
def run_to_end(
    jobs: Floats, truth: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32,
    bits: Words, totals: Ints64, hw: Hardware, ahead_gpus: Ints32, ahead_nodes: Ints32, ahead_bits: Words,
    ahead_totals: Ints64, started: Ints32, preempted: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
    settings: Floats,
) -> int:  # fmt: skip
    """Run the whole trace under a compiled order; return the number of jobs left waiting (0 unless none can fit)."""
    while move_to_next_event(
        jobs, truth, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules, settings
    ):
        scheduling_pass(
            jobs, queue, run_end, run_job, gpus, nodes, bits, totals, hw, ahead_gpus, ahead_nodes, ahead_bits,
            ahead_totals, started, preempted, clock, counts, rules, settings,
        )  # fmt: skip
        _keep_true_ends(
            jobs, truth, started, preempted, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules, settings
        )
    return int(counts[L.BACK] - counts[L.FRONT])


@njit
def warm_up(
    jobs: Floats, truth: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32,
    bits: Words, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, ahead_gpus: Ints32, ahead_nodes: Ints32,
    ahead_bits: Words, ahead_totals: Ints64, started: Ints32, jobs_to_run: int, rules: Ints64, settings: Floats,
) -> None:  # fmt: skip
    """Run a compiled, non-preemptive rule until `jobs_to_run` jobs have arrived; then forget what it remembered.

    Where later jobs arrive with the last of them, the rule leaves that instant alone: those are not its own.
    """
    while counts[L.ARRIVED] < jobs_to_run and move_to_next_event(
        jobs, truth, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules, settings
    ):
        if counts[L.ARRIVED] > jobs_to_run:
            break
        scheduling_pass(
            jobs, queue, run_end, run_job, gpus, nodes, bits, totals, hw, ahead_gpus, ahead_nodes, ahead_bits,
            ahead_totals, started, started, clock, counts, rules, settings,
        )  # fmt: skip
        _keep_true_ends(
            jobs, truth, started, started, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules, settings
        )
    counts[L.HEAD] = -1
