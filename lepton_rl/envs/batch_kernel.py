"""Episodes of many environments at once: the simulator's events with a learner's decisions between them.

Arrays have a leading axis of environments. A decision is due when a visible job fits, or a running one may be
stopped where actions can do that; the instants between pass by themselves.
"""

from typing import Any

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Bools, Floats, Ints32, Ints64, Singles, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.memory import read_eight
from lepton_rl.core.placement import fits, seconds_to_reservation
from lepton_rl.core.slowdown import SLOWDOWN_FLOOR, bounded_slowdown
from lepton_rl.envs.choices import place_as_chosen
from lepton_rl.envs.features import encode_basic, encode_full
from lepton_rl.envs.look_ahead import look_ahead
from lepton_rl.envs.node_features import encode_nodes
from lepton_rl.envs.stopping import STOPPED, any_stop, show_running, stop_job
from lepton_rl.envs.window import F_GPUS, fits_from_window, follow_queue
from lepton_rl.simulator.events import move_to_next_event, set_true_end
from lepton_rl.simulator.rates import change_rates
from lepton_rl.simulator.starting import book
from lepton_rl.simulator.waiting import remove

# prices: float64 (jobs, PRICE_COLUMNS), the objective's share of each job.
WAITING = 0  # cost of a second of waiting
SUBMISSION = 1  # cost that no decision changes, charged on arrival
REFUND = 2  # given back at the start for each second of waiting that the slowdown's floor forgives
RUNNING = 3  # part of WAITING that a second of running costs too
PRICE_COLUMNS = 4

# tally: float64 (TALLY_COLUMNS,)
WAITING_RATE = 0  # cost of a second with the present queue
ENERGY_IDLE = 1  # cost of a second of the empty cluster's power
ENERGY_BUSY = 2  # further cost of a second of one held milli-GPU; where nodes differ, cost of a joule
RETURN = 3  # rewards of the episode so far
STEPS = 4
INVALID = 5  # actions that named no startable job and were taken as waiting
SHOWN = 6  # rows of the observation that the last encoding filled
SCALE = 7  # what rewards are divided by
FAULTS_SHOWN = 8  # counts[FAULT] at the last encoding
OWED = 9  # cost of an action that has been carried out before the step
MIGRATION_COST = 10  # seconds of service that a migration adds
TALLY_COLUMNS = 11


@inlined
def _cost_of_end(jobs: Floats, truth: Floats, prices: Floats, job: int, end: float) -> float:
    """What a job costs that finishes at `end`, beyond what its submission did.

    What its runs take beyond its run time is a wait to the metrics; what they save shortens one, down to 0.
    """
    wait = end - jobs[job, L.SUBMIT] - truth[job, L.RUN]
    known = max(wait, 0.0)
    forgiven = max(min(known, SLOWDOWN_FLOOR - truth[job, L.RUN]), 0.0)
    cost = prices[job, RUNNING] * wait + (prices[job, WAITING] - prices[job, RUNNING]) * known
    return float(cost - prices[job, REFUND] * forgiven)


@inlined
def clear_waiting(counts: Ints64, tally: Floats) -> None:
    """Where no job waits, take away what rounding has left of the cost of waiting."""
    if counts[L.FRONT] == counts[L.BACK] and counts[L.NOT_READY] == 0:
        tally[WAITING_RATE] = 0.0


@inlined
def charge_start(jobs: Floats, truth: Floats, prices: Floats, job: int, clock: Floats) -> float:
    """Return what a job costs that starts now where nodes differ, beyond what its waiting did."""
    end = truth[job, L.END]
    truth[job, L.CHARGED] = end
    waited = clock[L.NOW] - jobs[job, L.SUBMIT]
    return float(_cost_of_end(jobs, truth, prices, job, end) - prices[job, WAITING] * waited)


_WAITS = -1.0  # truth[CHARGED] of a job that was stopped


@inlined
def charge_changes(
    jobs: Floats, truth: Floats, prices: Floats, run_job: Ints32, hw: Hardware, clock: Floats, counts: Ints64,
    tally: Floats,
) -> float:  # fmt: skip
    """Charge or give back what jobs cost more or less now that their ends have changed, or that they wait again."""
    cost = 0.0
    if hw is not None:
        for index in range(counts[L.CHANGES]):
            job = run_job[L.CHANGED_ENDS, index]
            charged = truth[job, L.CHARGED]
            end = truth[job, L.FINISH]
            if np.isnan(end):
                end = truth[job, L.END]
            if end < np.inf:
                if end != charged:
                    cost += _cost_of_end(jobs, truth, prices, job, end)
                    cost -= _cost_of_end(jobs, truth, prices, job, charged)
                    truth[job, L.CHARGED] = end
            elif charged != _WAITS:
                cost += prices[job, WAITING] * (clock[L.NOW] - jobs[job, L.SUBMIT])
                cost -= _cost_of_end(jobs, truth, prices, job, charged)
                tally[WAITING_RATE] += prices[job, WAITING]
                truth[job, L.CHARGED] = _WAITS
    return cost


@inlined
def pay_to_next_event(
    jobs: Floats, truth: Floats, prices: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32,
    nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64,
    settings: Floats, tally: Floats,
) -> tuple[bool, float]:  # fmt: skip
    """Move to the next event; return whether there was one and what the time until it cost."""
    before = clock[L.NOW]
    drawing = float(totals[L.HELD])
    used = 0.0
    if hw is not None:
        drawing = 0.0  # what is drawn is metered: it may change on the way
        used = clock[L.ENERGY]
    arrived = counts[L.ARRIVED]
    moved = move_to_next_event(
        jobs, truth, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules, settings
    )
    if not moved:
        return False, 0.0
    rate = tally[WAITING_RATE] + tally[ENERGY_IDLE] + tally[ENERGY_BUSY] * drawing
    cost = rate * (clock[L.NOW] - before)
    if hw is not None:
        cost += tally[ENERGY_BUSY] * (clock[L.ENERGY] - used)
    for job in range(arrived, counts[L.ARRIVED]):
        tally[WAITING_RATE] += prices[job, WAITING]
        cost += prices[job, SUBMISSION]
    return True, cost + charge_changes(jobs, truth, prices, run_job, hw, clock, counts, tally)


@inlined
def any_visible_fits(
    jobs: Floats, queue: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, counts: Ints64,
    rules: Ints64, window: int,
) -> bool:  # fmt: skip
    """Whether a visible job could start now."""
    if totals[L.HELD] == L.MILLI * gpus.shape[0]:
        return False
    front = counts[L.FRONT]
    free = float(L.MILLI * totals[L.FREE_WHOLE])
    for position in range(front, min(front + window, counts[L.BACK])):
        job = queue[position]
        if rules[L.COUNTED] == 1:
            if jobs[job, L.GPUS] <= free:
                return True
        elif fits(rules[L.PLACEMENT], jobs, job, gpus, nodes, totals, hw):
            return True
    return False


@inlined
def decision_is_due(
    jobs: Floats, queue: Ints32, run_job: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware,
    clock: Floats, counts: Ints64, rules: Ints64, settings: Floats, tally: Floats, listed: Ints32, choices: int,
    window: int,
) -> bool:  # fmt: skip
    """Whether a visible job could start now, or a running one stop or move where actions can do that."""
    if any_visible_fits(jobs, queue, gpus, nodes, totals, hw, counts, rules, window):
        return True
    return bool(
        listed.shape[0] > 0
        and any_stop(
            choices, jobs, run_job, gpus, nodes, totals, hw, clock, counts, rules, settings, tally[MIGRATION_COST],
            listed,
        )
    )  # fmt: skip


@inlined
def _another_fits(
    action: int, jobs: Floats, queue: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware,
    counts: Ints64, rules: Ints64, filled: int, shown: Ints32, facts: Floats,
) -> bool:  # fmt: skip
    """Whether a visible job could start after the one at place `action` of the last observation has."""
    newly_visible = counts[L.FRONT] + facts.shape[0] - 1
    if rules[L.COUNTED] == 1:
        free = float(L.MILLI * totals[L.FREE_WHOLE])
        for other in range(filled):
            if facts[other, F_GPUS] <= free and other != action:
                return True
        return bool(newly_visible < counts[L.BACK] and jobs[queue[newly_visible], L.GPUS] <= free)
    soonest = seconds_to_reservation(nodes, hw)
    for other in range(filled):
        if other != action and fits_from_window(other, soonest, jobs, shown, facts, gpus, nodes, totals, hw, rules):
            return True
    return newly_visible < counts[L.BACK] and fits(
        rules[L.PLACEMENT], jobs, queue[newly_visible], gpus, nodes, totals, hw
    )


@inlined
def start_job(
    jobs: Floats, truth: Floats, prices: Floats, queue: Ints32, position: int, run_end: Floats, run_job: Ints32,
    gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64,
    rules: Ints64, settings: Floats, tally: Floats,
) -> float:  # fmt: skip
    """Start the fitting job at this position of the queue; return the cost (a refund is negative)."""
    job = queue[position]
    place_as_chosen(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals, hw)
    remove(queue, counts, position)
    set_true_end(jobs, truth, job, gpus, hw, run_end, run_job, counts[L.RUNNING], clock)
    book(jobs, job, hw, run_end, run_job, clock, counts, rules)
    tally[WAITING_RATE] -= prices[job, WAITING]
    clear_waiting(counts, tally)
    if hw is not None:
        cost: float = charge_start(jobs, truth, prices, job, clock)
        change_rates(jobs, truth, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules)
        return cost + charge_changes(jobs, truth, prices, run_job, hw, clock, counts, tally)
    waited = clock[L.NOW] - jobs[job, L.SUBMIT]
    forgiven = min(waited, SLOWDOWN_FLOOR - truth[job, L.RUN])
    return float(-prices[job, REFUND] * forgiven) if forgiven > 0.0 else 0.0


@inlined
def observe(
    jobs: Floats, static: Singles, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32,
    bits: Words, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64, tally: Floats, full: bool,
    told_left: bool, idle_share: float, free_after: Floats, shown: Ints32, facts: Floats, changing: Singles,
    rows: Singles, context: Singles, machine: Singles, mask: Bools,
) -> int:  # fmt: skip
    """Write the observation of one environment, but for its running jobs; return how many visible jobs fit."""
    front = counts[L.FRONT]
    waiting = counts[L.BACK] - front
    visible = min(waiting, rows.shape[0])
    if hw is not None and tally[FAULTS_SHOWN] != counts[L.FAULT]:
        tally[FAULTS_SHOWN] = counts[L.FAULT]
        for place in range(int(tally[SHOWN])):
            shown[place] = -1  # a job that was struck may stand where it did, with other time left
    written = follow_queue(
        jobs, static, queue, front, visible, int(tally[SHOWN]), hw, full, told_left, shown, facts, rows
    )
    if full:
        fitting = encode_full(
            jobs, waiting, visible, shown, facts, changing, run_end, run_job, counts[L.RUNNING], gpus, nodes, totals,
            hw, rules, clock[L.NOW], free_after, rows, context, mask,
        )  # fmt: skip
    else:
        fitting = encode_basic(jobs, visible, shown, facts, gpus, nodes, totals, hw, rules, clock[L.NOW], rows, mask)
    for place_in_window in range(visible, written):
        mask[place_in_window] = False
        for feature in range(rows.shape[1]):
            rows[place_in_window, feature] = 0.0
    tally[SHOWN] = visible
    mask[rows.shape[0]] = counts[L.RUNNING] > 0  # an idle cluster has nothing to wait for that a scheduler can know
    encode_nodes(gpus, nodes, totals, hw, clock, idle_share, machine)
    return fitting


@inlined
def move_to_decision(
    jobs: Floats, truth: Floats, prices: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32,
    nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64,
    settings: Floats, tally: Floats, listed: Ints32, choices: int, window: int, open_choice: bool,
) -> tuple[bool, float]:  # fmt: skip
    """Let time pass to the next event after which a visible job fits, or a running one may be stopped or moved.

    `open_choice` says that there is such a one already. Returns whether a decision is due (otherwise the episode is
    over) and what the time cost.
    """
    cost = 0.0
    while True:
        arrived = counts[L.ARRIVED]
        running = counts[L.RUNNING]
        moved, price = pay_to_next_event(
            jobs, truth, prices, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules, settings,
            tally,
        )  # fmt: skip
        if not moved:
            return False, cost
        cost += price
        # Where nothing fitted and nothing was given back, only jobs that have come can fit now.
        may_fit = open_choice or counts[L.RUNNING] < running or counts[L.GREW] == 1 or listed.shape[0] > 0
        for job in range(arrived, counts[L.ARRIVED]):  # not yet ready ones too: a look too many
            may_fit = may_fit or fits(rules[L.PLACEMENT], jobs, job, gpus, nodes, totals, hw)
        if may_fit and decision_is_due(
            jobs, queue, run_job, gpus, nodes, totals, hw, clock, counts, rules, settings, tally, listed, choices,
            window,
        ):  # fmt: skip
            return True, cost
        open_choice = False


@njit
def step_all(
    actions: Ints64, jobs: Floats, truth: Floats, prices: Floats, static: Singles, queue: Ints32, run_end: Floats,
    run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, clock: Floats,
    counts: Ints64, rules: Ints64, settings: Floats, tally: Floats, listed: Ints32, choices: int, full: bool,
    idle_share: float, free_after: Floats, shown: Ints32, facts: Floats, changing: Singles, rows: Singles,
    context: Singles, machine: Singles, mask: Bools, rewards: Floats, terminated: Bools,
) -> int:  # fmt: skip
    """Apply one action to each environment and write rewards, observations and ends; return how many ended.

    An environment that ended shows its empty cluster; the caller resets it. An action that stops a running job has
    been carried out before (`stop_all`) and stands as STOPPED.
    """
    window = rows.shape[1]
    ended = 0
    for env in range(actions.shape[0]):
        look_ahead(
            env, actions, jobs, truth, prices, queue, run_end, run_job, gpus, nodes, bits, totals, counts, window
        )
        action = actions[env]
        cost = 0.0
        start = 0 <= action < window and mask[env, action]
        if start:
            cost = start_job(
                jobs[env], truth[env], prices[env], queue[env], counts[env, L.FRONT] + action, run_end[env],
                run_job[env], gpus[env], nodes[env], bits[env], totals[env], hw, clock[env], counts[env], rules,
                settings, tally[env],
            )  # fmt: skip
        elif action == STOPPED:
            cost = tally[env, OWED]
        elif action != window or not mask[env, window]:
            tally[env, INVALID] += 1.0
        due = False
        price = 0.0
        waits = not start and action != STOPPED and mask[env, window]
        if not waits:
            if start:
                due = _another_fits(
                    action, jobs[env], queue[env], gpus[env], nodes[env], totals[env], hw, counts[env], rules,
                    int(tally[env, SHOWN]), shown[env], facts[env],
                )  # fmt: skip
            if not due and (not start or listed.shape[1] > 0):
                due = decision_is_due(
                    jobs[env], queue[env], run_job[env], gpus[env], nodes[env], totals[env], hw, clock[env],
                    counts[env], rules, settings, tally[env], listed[env], choices, window,
                )  # fmt: skip
        if not due:
            due, price = move_to_decision(
                jobs[env], truth[env], prices[env], queue[env], run_end[env], run_job[env], gpus[env], nodes[env],
                bits[env], totals[env], hw, clock[env], counts[env], rules, settings, tally[env], listed[env], choices,
                window, waits,
            )  # fmt: skip
        reward = 0.0 - (cost + price) / tally[env, SCALE]  # a minus sign would make -0.0 of no cost
        rewards[env] = reward
        tally[env, RETURN] += reward
        tally[env, STEPS] += 1.0
        terminated[env] = not due
        ended += not due
        observe(
            jobs[env], static[env], queue[env], run_end[env], run_job[env], gpus[env], nodes[env], bits[env],
            totals[env], hw, clock[env], counts[env], rules, tally[env], full, listed.shape[1] > 0, idle_share,
            free_after, shown[env], facts[env], changing, rows[env], context[env], machine[env], mask[env],
        )  # fmt: skip
    return ended


@njit
def stop_all(
    actions: Ints64, choices: int, jobs: Floats, truth: Floats, prices: Floats, queue: Ints32, run_end: Floats,
    run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, clock: Floats,
    counts: Ints64, rules: Ints64, settings: Floats, tally: Floats, window: int, listed: Ints32, valid: Bools,
    slots: Ints64,
) -> None:  # fmt: skip
    """Carry out the actions that stop or move running jobs; note their cost in the tally, and STOPPED as their slot."""
    if hw is None:
        return
    first = window * choices
    for env in range(actions.shape[0]):
        action = actions[env] - first
        if 0 <= action < listed.shape[1] * choices and valid[env, actions[env]]:
            stop_job(
                action % choices, tally[env, MIGRATION_COST], jobs[env], truth[env], listed[env, action // choices],
                queue[env], run_end[env], run_job[env], gpus[env], nodes[env], bits[env], totals[env], hw, clock[env],
                counts[env], rules, settings,
            )  # fmt: skip
            slots[env] = STOPPED
            tally[env, OWED] = charge_changes(
                jobs[env], truth[env], prices[env], run_job[env], hw, clock[env], counts[env], tally[env]
            )


@njit
def show_all_running(
    choices: int, jobs: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware,
    clock: Floats, counts: Ints64, rules: Ints64, settings: Floats, tally: Floats, pinned: Bools, mask: Bools,
    listed: Ints32, rows: Singles, valid: Bools,
) -> None:  # fmt: skip
    """Write the rows of the running jobs of every environment, and which of their actions are valid."""
    for env in range(mask.shape[0]):
        show_running(
            choices, jobs[env], run_job[env], gpus[env], nodes[env], totals[env], hw, clock[env], counts[env], rules,
            settings, tally[env, MIGRATION_COST], pinned, mask[env], listed[env], rows[env], valid[env],
        )  # fmt: skip


_slowdown_of: Any = inlined(bounded_slowdown)


@njit
def summarize(jobs: Floats, truth: Floats, warmup: int) -> tuple[float, float, float]:
    """Return mean JCT (s) and mean bounded slowdown of the jobs behind the warm-up, and the makespan of all (s)."""
    first, last, waited, slowed = np.inf, -np.inf, 0.0, 0.0
    for job in range(jobs.shape[0]):
        first = min(first, jobs[job, L.SUBMIT])
        last = max(last, truth[job, L.FINISH])
        if job >= warmup:
            completion = truth[job, L.FINISH] - jobs[job, L.SUBMIT]
            waited += completion
            slowed += _slowdown_of(max(completion - truth[job, L.RUN], 0.0), truth[job, L.RUN])
    count = jobs.shape[0] - warmup
    return waited / count, slowed / count, last - first


# Masks are read eight at a time: one uint64 holds eight bytes that are 0 or 1.
_EVERY_BYTE = np.uint64(0x0101010101010101)
_LOW_BYTES = np.uint64(0x00FF00FF00FF00FF)
_EVERY_PAIR = np.uint64(0x0001000100010001)
_MOST_WORDS = 255  # that can be added up before a byte runs over


@inlined
def _count(mask: Bools, env: int, words: int) -> int:
    """Count the valid ones of the first 8 x `words` actions."""
    valid = 0
    for first in range(0, words, _MOST_WORDS):
        bytewise = np.uint64(0)
        for word in range(first, min(first + _MOST_WORDS, words)):
            bytewise += read_eight(mask, env, 8 * word)
        pairs = (bytewise & _LOW_BYTES) + ((bytewise >> np.uint64(8)) & _LOW_BYTES)
        valid += int((pairs * _EVERY_PAIR) >> np.uint64(48))
    return valid


@inlined
def _find_valid(mask: Bools, env: int, words: int, wanted: int) -> int:
    """Return the valid action before which there are `wanted` others."""
    for word in range(words):
        up_to = read_eight(mask, env, 8 * word) * _EVERY_BYTE  # byte i: how many of the word's first i + 1 are valid
        inside = int(up_to >> np.uint64(56))
        if wanted < inside:
            action = 8 * word
            while int(up_to & np.uint64(0xFF)) <= wanted:
                up_to >>= np.uint64(8)
                action += 1
            return action
        wanted -= inside
    action = 8 * words
    while wanted >= int(mask[env, action]):
        wanted -= int(mask[env, action])
        action += 1
    return action


@njit
def choose_random(mask: Bools, seeds: Ints64, actions: Ints64) -> None:
    """Draw a uniformly random valid action for each environment; `seeds` carries the random state."""
    width = mask.shape[1]
    words = width >> 3
    for env in range(mask.shape[0]):
        state = np.uint64(seeds[env]) * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        seeds[env] = np.int64(state)
        valid = _count(mask, env, words)
        for action in range(8 * words, width):
            valid += int(mask[env, action])
        wanted = int(((state >> np.uint64(32)) * np.uint64(valid)) >> np.uint64(32))
        if valid > 0:
            actions[env] = _find_valid(mask, env, words, wanted)
