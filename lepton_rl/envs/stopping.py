"""Actions that stop or move running jobs: which are shown and how, which are valid, and what they do.

Behind the choices of K waiting jobs come those of R running ones, the R with the most predicted GPU-seconds left, most
first, ties by id. Of the C choices of a running job 0 preempts it: it waits again, keeps its progress and owes the
preemption cost. Choice g moves it to free GPUs of the g-th group of nodes, of which it holds none, for the migration
cost.
"""

import math

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import release
from lepton_rl.core.arrays import Bools, Floats, Ints32, Ints64, Singles, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.marks import unlist_job
from lepton_rl.core.placement import fits
from lepton_rl.core.progress import begin_run, end_run, predicted_end, served, settle
from lepton_rl.core.slowdown import SLOWDOWN_FLOOR
from lepton_rl.envs.choices import only_type, place_as_chosen
from lepton_rl.envs.fast_math import fast_log
from lepton_rl.envs.window import LOG_TIME, LOG_WORK, weight_of
from lepton_rl.simulator.ends import add_prediction, drop_prediction, remove_end
from lepton_rl.simulator.events import forget_true_end, set_true_end
from lepton_rl.simulator.rates import change_rates, tell_change
from lepton_rl.simulator.scores import score
from lepton_rl.simulator.waiting import insert

RUNNING_FEATURES = {
    "time_left": "log1p(predicted seconds left) / 12",
    "gpus": "log1p(GPUs) / log1p(GPUs of the cluster)",
    "area_left": "log1p(GPUs x predicted seconds left) / 18",
    "share": "GPUs / GPUs of the cluster",
    "age": "log1p(seconds since the present run began) / 12",
    "stoppable": "1 when it could be preempted now",
    "slowdown": "log of the bounded slowdown if it runs on / 8",
    "weight": "(log(1 / max(requested time, 10) + 2.5 / 3600) + 8) / 8: what a second of its waiting would cost",
    "cost": "log1p(seconds that a preemption adds) / 12",
    "rate": "seconds of service a second on its GPUs, at most 4, / 4",
}
GAIN = "gain"
"""Further columns, one for each group: log2 of the speed of the type there over that of its own (the slowest that it
holds), within -4 to 4, / 4; 0 where it cannot be moved there."""
STOPPED = -2
"""The slot of an action that has been carried out already: it starts nothing and does not wait."""
_MOST_RATE = 4.0


@inlined
def _seconds_left(jobs: Floats, job: int, now: float, hw: Hardware) -> float:
    return max(predicted_end(jobs, job, hw) - now, 0.0)


@inlined
def _goes_before(jobs: Floats, job: int, other: int, now: float, hw: Hardware) -> bool:
    """Whether `job` is shown before `other`."""
    own = jobs[job, L.GPUS] * _seconds_left(jobs, job, now, hw)
    others = jobs[other, L.GPUS] * _seconds_left(jobs, other, now, hw)
    return bool(own > others or (own == others and jobs[job, L.ID] < jobs[other, L.ID]))


@inlined
def _list_running(jobs: Floats, run_job: Ints32, hw: Hardware, clock: Floats, counts: Ints64, listed: Ints32) -> int:
    """List the running jobs that are shown, in their order; return how many."""
    now = clock[L.NOW]
    count = 0
    for index in range(counts[L.RUNNING]):
        job = run_job[L.TRUE_ENDS, index]
        place = count
        if count == listed.shape[0]:
            place = count - 1
            if not _goes_before(jobs, job, listed[place], now, hw):
                continue
        else:
            count += 1
        while place > 0 and _goes_before(jobs, job, listed[place - 1], now, hw):
            listed[place] = listed[place - 1]
            place -= 1
        listed[place] = job
    return count


@inlined
def _is_old_enough(jobs: Floats, job: int, clock: Floats, settings: Floats) -> bool:
    """Whether the quantum is over. What began at this very instant is not stopped: so every instant comes to an end."""
    age = clock[L.NOW] - jobs[job, L.START]
    return bool(age > 0.0 and age >= settings[L.QUANTUM])


@inlined
def _types_held(jobs: Floats, job: int, gpus: Ints32, nodes: Ints32) -> int:
    """Bits of the types of GPU that a running job holds."""
    held = 0
    gpu = int(jobs[job, L.FIRST_GPU])
    while gpu >= 0:
        held |= 1 << nodes[gpus[gpu, L.NODE], L.TYPE]
        gpu = -1 if jobs[job, L.GPUS] < L.MILLI else int(gpus[gpu, L.NEXT])
    return held


@inlined
def _own_speed(held: int, kind: int, hw: Hardware) -> float:
    """Speed of the slowest of these types for a class of jobs."""
    slowest = np.inf
    if hw is not None:
        for bit in range(hw.speed.shape[0]):
            if (held >> bit) & 1:
                slowest = min(slowest, hw.speed[bit, kind])
    return slowest


@inlined
def _may_move(
    choice: int, held: int, jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware,
    clock: Floats, rules: Ints64, migration_cost: float,
) -> bool:  # fmt: skip
    """Whether a job that holds GPUs of these types may go to the group that the choice stands for."""
    wish = jobs[job, L.TYPES]
    only = only_type(wish, choice)
    if only == 0.0 or (held >> (choice - 1)) & 1:
        return False
    left = jobs[job, L.PREDICTED]
    jobs[job, L.TYPES] = only
    jobs[job, L.PREDICTED] = left - served(jobs, job, clock[L.NOW], hw) + migration_cost
    finds = fits(rules[L.PLACEMENT], jobs, job, gpus, nodes, totals, hw)
    jobs[job, L.TYPES] = wish
    jobs[job, L.PREDICTED] = left
    return bool(finds)


@njit
def any_stop(
    choices: int, jobs: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware,
    clock: Floats, counts: Ints64, rules: Ints64, settings: Floats, migration_cost: float, listed: Ints32,
) -> bool:  # fmt: skip
    """Whether a running job may be preempted or moved, where no visible job fits."""
    if hw is None:
        return False
    blocked = counts[L.FRONT] < counts[L.BACK]
    for place in range(_list_running(jobs, run_job, hw, clock, counts, listed)):
        job = listed[place]
        if _is_old_enough(jobs, job, clock, settings):
            if blocked:
                return True
            held = _types_held(jobs, job, gpus, nodes)
            for choice in range(1, choices):
                if _may_move(choice, held, jobs, job, gpus, nodes, totals, hw, clock, rules, migration_cost):
                    return True
    return False


@njit
def show_running(
    choices: int, jobs: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware,
    clock: Floats, counts: Ints64, rules: Ints64, settings: Floats, migration_cost: float, pinned: Bools,
    mask: Bools, listed: Ints32, rows: Singles, valid: Bools,
) -> None:  # fmt: skip
    """Write the rows of the running jobs and which of their actions are valid; `mask` says which waiting jobs fit.

    `pinned`, (jobs,) or empty, marks those that must not be stopped.
    """
    if hw is None:
        return
    now = clock[L.NOW]
    slots = mask.shape[0] - 1
    blocked = False
    for slot in range(min(slots, counts[L.BACK] - counts[L.FRONT])):
        blocked = blocked or not mask[slot]
    count = _list_running(jobs, run_job, hw, clock, counts, listed)
    total = gpus.shape[0]
    log_total = math.log1p(total)
    plain = rows.shape[1] - (choices - 1)
    cost = math.log1p(settings[L.PREEMPTION_COST]) / LOG_TIME
    for place in range(listed.shape[0]):
        first = (slots + place) * choices
        for choice in range(choices):
            valid[first + choice] = False
        for feature in range(rows.shape[1]):
            rows[place, feature] = 0.0
        if place >= count:
            listed[place] = -1
            continue
        job = listed[place]
        number = jobs[job, L.GPUS] / L.MILLI
        left = _seconds_left(jobs, job, now, hw)
        rate = jobs[job, L.RATE]
        floor = max(jobs[job, L.REQUESTED], SLOWDOWN_FLOOR)
        may_stop = _is_old_enough(jobs, job, clock, settings) and not (pinned.shape[0] > 0 and pinned[job])
        valid[first] = may_stop and blocked
        rows[place, 0] = fast_log(1.0 + left) / LOG_TIME
        rows[place, 1] = math.log1p(number) / log_total
        rows[place, 2] = fast_log(1.0 + number * left) / LOG_WORK
        rows[place, 3] = number / total
        rows[place, 4] = fast_log(1.0 + now - jobs[job, L.START]) / LOG_TIME
        rows[place, 5] = valid[first]
        rows[place, 6] = fast_log(max((now - jobs[job, L.SUBMIT] + left) / floor, 1.0)) / 8.0
        rows[place, 7] = weight_of(jobs[job, L.REQUESTED])
        rows[place, 8] = cost
        rows[place, 9] = min(rate, _MOST_RATE) / _MOST_RATE
        held = _types_held(jobs, job, gpus, nodes) if may_stop else 0
        for choice in range(1, choices):
            if may_stop and _may_move(choice, held, jobs, job, gpus, nodes, totals, hw, clock, rules, migration_cost):
                valid[first + choice] = True
                kind = int(jobs[job, L.CLASS])
                gain = math.log2(hw.speed[choice - 1, kind] / _own_speed(held, kind, hw))
                rows[place, plain + choice - 1] = min(max(gain, -4.0), 4.0) / 4.0


@inlined
def _preempt(
    jobs: Floats, truth: Floats, job: int, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32,
    nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64,
    settings: Floats,
) -> None:  # fmt: skip
    running = counts[L.RUNNING]
    forget_true_end(jobs, truth, job, gpus, hw, run_end, run_job, running, clock, settings)
    if rules[L.PREDICTS]:
        drop_prediction(run_end, run_job, running, predicted_end(jobs, job, hw), job)
    end_run(jobs, job, settings[L.PREEMPTION_COST], clock[L.NOW], gpus, nodes, bits, totals, hw)
    jobs[job, L.SCORE] = score(rules[L.ORDER], settings, jobs, job, clock[L.NOW])
    counts[L.RUNNING] -= 1
    counts[L.RELEASED] = 1
    insert(jobs, queue, counts, job)


@inlined
def _migrate(
    choice: int, migration_cost: float, jobs: Floats, truth: Floats, job: int, run_end: Floats, run_job: Ints32,
    gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64,
    rules: Ints64,
) -> None:  # fmt: skip
    """As `SimulatedCluster` migrates, to GPUs that the placement finds in the group that the choice stands for."""
    running = counts[L.RUNNING]
    if rules[L.PREDICTS]:
        drop_prediction(run_end, run_job, running, predicted_end(jobs, job, hw), job)
    unlist_job(jobs, job, gpus, hw)
    service = settle(jobs, job, clock[L.NOW], hw)
    jobs[job, L.PREDICTED] += migration_cost
    release(jobs, job, gpus, gpus, nodes, bits, totals, hw)
    jobs[job, L.CHOICE] = choice
    place_as_chosen(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals, hw)
    begin_run(jobs, job, clock[L.NOW], hw)
    truth[job, L.REMAINING] += migration_cost - service
    truth[job, L.MIGRATIONS] += 1.0
    remove_end(run_end, run_job, running, job)
    set_true_end(jobs, truth, job, gpus, hw, run_end, run_job, running - 1, clock)
    if rules[L.PREDICTS]:
        add_prediction(jobs, run_end, run_job, running - 1, predicted_end(jobs, job, hw), job)
    counts[L.RELEASED] = 1


@inlined
def stop_job(
    choice: int, migration_cost: float, jobs: Floats, truth: Floats, job: int, queue: Ints32, run_end: Floats,
    run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, clock: Floats,
    counts: Ints64, rules: Ints64, settings: Floats,
) -> None:  # fmt: skip
    """Preempt a running job, or move it to another group; what its end then is stands among the changes."""
    if choice == 0:
        _preempt(
            jobs, truth, job, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules, settings
        )
    else:
        _migrate(
            choice, migration_cost, jobs, truth, job, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts,
            rules,
        )  # fmt: skip
    tell_change(truth, job, run_job, counts)
    change_rates(jobs, truth, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules)
