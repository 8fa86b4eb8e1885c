"""What a learned policy sees: compiled encoders from packed arrays to float32 features.

Everything is known to a scheduler: times are requested or predicted ones, the visible jobs are those in the window.
Logarithms bring seconds to about 0-1: `log1p(t) / 12` is 1 at 45 hours. A job without a requested time counts as one
hour. Rows behind the last waiting job are zero.
"""

import math
from enum import IntEnum

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Bools, Floats, Ints32, Ints64, Singles
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit, njit_summing
from lepton_rl.core.placement import CONSOLIDATED, seconds_to_reservation
from lepton_rl.core.slowdown import SLOWDOWN_FLOOR
from lepton_rl.envs.fast_math import fast_log
from lepton_rl.envs.window import (
    F_GPUS,
    F_KEY,
    F_RESERVE,
    F_SUBMIT,
    F_TIME,
    LOG_TIME,
    LOG_WORK,
    S_AREA,
    S_GPUS,
    S_KEY,
    S_MEMORY,
    S_RESERVE,
    S_SHARE,
    S_TIME,
    S_WEIGHT,
    STATIC_COLUMNS,
    fits_from_window,
)
from lepton_rl.simulator.scores import RESERVE_RHO, RESERVE_T0, RESERVE_T1

UNKNOWN_TIME = 3600.0
"""Seconds that a job without a requested time is taken for."""


class FeatureSet(IntEnum):
    """Which job features the observation has."""

    BASIC = 0
    FULL = 1


BASIC_FEATURES = ("time", "gpus", "area", "share", "wait", "fits", "pressure", "rank")
FULL_FEATURES = (
    *BASIC_FEATURES,
    "memory",
    "weight",
    "key_gap",
    "slowdown",
    "until_fit",
    "harmless",
    "overrun",
    "free_after",
    "reserve_room",
)
FEATURES = {
    "time": "log1p(requested time) / 12; where running jobs can be stopped, of one that has run the time left",
    "gpus": "log1p(GPUs) / log1p(GPUs of the cluster)",
    "area": "log1p(GPUs x that time) / 18",
    "share": "GPUs / GPUs of the cluster",
    "wait": "basic: wait / (wait + 1 h); full: log1p(wait) / 12",
    "fits": "1 when the job could start now",
    "pressure": "GPUs / (free GPUs + 1), at most 4, / 4",
    "rank": "position in the window / its size",
    "memory": "GPU memory asked for on each GPU / memory of a GPU (0 without a figure)",
    "weight": "(log(1 / max(time, 10) + 2.5 / 3600) + 8) / 8: what a second of its waiting costs",
    "key_gap": "log1p of the window's key less the first job's, / 18 (0 where the key is the submit time)",
    "slowdown": "log of the bounded slowdown if started now / 8",
    "until_fit": "log1p(predicted seconds until enough GPUs are free) / 12",
    "harmless": "1 when starting it now would not delay the predicted start of the first job that does not fit",
    "overrun": "log1p(seconds by which it would run beyond that start) / 12",
    "free_after": "(free GPUs - GPUs) / GPUs of the cluster",
    "reserve_room": "free_after less the reserve rule's margin "
    f"(rho {RESERVE_RHO:g}, {RESERVE_T0:g} s to {RESERVE_T1:,.0f} s)",
}
CONTEXT_FEATURES = {
    "free": "free GPUs / GPUs",
    "waiting": "log1p(waiting jobs) / 8",
    "queued_work": "log1p(visible GPUs x requested time / GPUs) / 12",
    "head_fits": "1 when the first job of the window fits",
    "shadow": "log1p(predicted seconds until the first job that does not fit could start) / 12",
    "spare": "GPUs left over then / GPUs",
    "fitting": "visible jobs that fit / window",
    "head_size": "GPUs of the first job that does not fit / GPUs",
    "next_completion": "log1p(predicted seconds to the next completion) / 12",
    "remaining_work": "log1p(predicted GPU-seconds left on running jobs / GPUs) / 12",
    "queue_weight": "log1p(sum over visible jobs of 1 / max(time, 10) x 100) / 6",
    "hidden": "log1p(waiting jobs beyond the window) / 8",
}

NODE_ENTRIES = ("load", "memory", "power", "temperature", "health")
"""Entries of the observation by group of nodes, rows of `machine`."""
PLAIN_NODE_ENTRIES = NODE_ENTRIES[:3]
"""Those of a cluster whose GPUs are of no type."""

# changing: float32 (CHANGING_COLUMNS, window), logarithms of the visible jobs, column by column.
C_WAIT = 0
C_SLOWDOWN = 1
C_UNTIL_FIT = 2
C_OVERRUN = 3
C_FOUND = 4  # not of a job: the completion that frees so many GPUs, -1 where it has not been looked for
CHANGING_COLUMNS = 5


# inputs: float64 (STATIC_INPUTS, jobs) and logarithms: float32 (STATIC_LOGARITHMS, jobs), column by column: contiguous
# loops of arithmetic run in parallel lanes.
I_TIME = 0
I_GPUS = 1
I_KEY = 2
STATIC_INPUTS = 3
G_TIME = 0
G_AREA = 1
G_WEIGHT = 2
G_KEY = 3
G_RESERVE = 4
STATIC_LOGARITHMS = 5


@njit
def static_features(
    jobs: Floats, rows: Ints32, first: int, count: int, gpus: int, gpu_memory: int, key_is_time: bool, inputs: Floats,
    logarithms: Singles, static: Singles,
) -> None:  # fmt: skip
    """Fill what does not change while a job waits, for rows[first : first + count]; SCORE holds the window's key.

    `inputs` and `logarithms` are room to work in, for as many jobs.
    """
    for index in range(count):
        job = rows[first + index]
        time = jobs[job, L.REQUESTED]
        inputs[I_TIME, index] = time if time >= 0.0 else UNKNOWN_TIME
        inputs[I_GPUS, index] = jobs[job, L.GPUS] / L.MILLI
        inputs[I_KEY, index] = max(jobs[job, L.SCORE], 0.0)
    for index in range(count):
        logarithms[G_TIME, index] = fast_log(1.0 + inputs[I_TIME, index])
    for index in range(count):
        logarithms[G_AREA, index] = fast_log(1.0 + inputs[I_GPUS, index] * inputs[I_TIME, index])
    for index in range(count):
        logarithms[G_WEIGHT, index] = fast_log(1.0 / max(inputs[I_TIME, index], SLOWDOWN_FLOOR) + 2.5 / 3600.0)
    for index in range(count):
        logarithms[G_KEY, index] = fast_log(1.0 + inputs[I_KEY, index])
    for index in range(count):
        logarithms[G_RESERVE, index] = fast_log(max(inputs[I_TIME, index], 1.0) / RESERVE_T0)
    log_gpus = math.log1p(gpus)
    log_range = math.log(RESERVE_T1 / RESERVE_T0)
    known, size = 0.0, 0.0  # most jobs ask for as many GPUs as the one before
    for index in range(count):
        job = rows[first + index]
        number = inputs[I_GPUS, index]
        if number != known:
            known, size = number, math.log1p(number) / log_gpus
        part = logarithms[G_RESERVE, index] / log_range
        static[job, S_TIME] = logarithms[G_TIME, index] / LOG_TIME
        static[job, S_GPUS] = size
        static[job, S_AREA] = logarithms[G_AREA, index] / LOG_WORK
        static[job, S_SHARE] = number / gpus
        static[job, S_MEMORY] = jobs[job, L.MEMORY] / gpu_memory
        static[job, S_WEIGHT] = (logarithms[G_WEIGHT, index] + 8.0) / 8.0
        static[job, S_KEY] = 0.0 if key_is_time else logarithms[G_KEY, index] / LOG_WORK
        static[job, S_RESERVE] = min(RESERVE_RHO * min(max(part, 0.0), 1.0), 1.0 - number / gpus)


def all_static_features(jobs: Floats, gpus: int, gpu_memory: int, key_is_time: bool) -> Singles:
    """Return the static features of every job, shape (jobs, STATIC_COLUMNS)."""
    count = len(jobs)
    static = np.empty((count, STATIC_COLUMNS), np.float32)
    inputs, logarithms = np.empty((STATIC_INPUTS, count)), np.empty((STATIC_LOGARITHMS, count), np.float32)
    rows = np.arange(count, dtype=np.int32)
    static_features(jobs, rows, 0, count, gpus, gpu_memory, key_is_time, inputs, logarithms, static)
    return static


@inlined
def _mark_fitting(
    jobs: Floats, visible: int, shown: Ints32, facts: Floats, gpus: Ints32, nodes: Ints32, totals: Ints64,
    hw: Hardware, rules: Ints64, mask: Bools,
) -> int:  # fmt: skip
    """Write the mask of the visible jobs; return how many fit."""
    fitting = 0
    free = float(L.MILLI * totals[L.FREE_WHOLE])
    if rules[L.COUNTED] == 1:
        for place in range(visible):
            mask[place] = facts[place, F_GPUS] <= free
            fitting += mask[place]
        return fitting
    soonest = seconds_to_reservation(nodes, hw)
    unsure = 0
    if hw is not None and rules[L.PLACEMENT] != CONSOLIDATED:
        for place in range(visible):  # in parallel lanes: most gangs take any GPUs
            takes_any = facts[place, facts.shape[1] - 1] < soonest
            few = facts[place, F_GPUS] <= free
            mask[place] = few & takes_any
            fitting += mask[place]
            unsure += (few | (facts[place, F_GPUS] < L.MILLI)) & (not takes_any)
        if unsure == 0:
            return fitting
    fitting = 0
    for place in range(visible):
        mask[place] = fits_from_window(place, soonest, jobs, shown, facts, gpus, nodes, totals, hw, rules)
        fitting += mask[place]
    return fitting


@inlined
def encode_basic(
    jobs: Floats, visible: int, shown: Ints32, facts: Floats, gpus: Ints32, nodes: Ints32, totals: Ints64,
    hw: Hardware, rules: Ints64, now: float, rows: Singles, mask: Bools,
) -> int:  # fmt: skip
    """Write BASIC_FEATURES and the mask of the visible jobs; return how many fit."""
    pressure = np.float32(gpus.shape[0] / (4.0 * (totals[L.FREE_WHOLE] + 1.0)))
    rank = np.float32(1.0 / rows.shape[0])
    fitting = _mark_fitting(jobs, visible, shown, facts, gpus, nodes, totals, hw, rules, mask)
    for place in range(visible):
        wait = now - facts[place, F_SUBMIT]
        rows[place, 4] = wait / (wait + UNKNOWN_TIME)
        rows[place, 5] = mask[place]
        rows[place, 6] = min(rows[place, S_SHARE] * pressure, np.float32(1.0))
        rows[place, 7] = np.float32(place) * rank
    return fitting


@inlined
def _log_seconds(seconds: float) -> float:
    return fast_log(1.0 + max(seconds, 0.0)) * (1.0 / LOG_TIME)


@njit_summing
def _remaining_work(ends: Floats, demands: Ints32, running: int, now: float) -> float:
    """Predicted milli-GPU seconds left on the running jobs."""
    work = 0.0
    for index in range(running):
        work += demands[index] * max(ends[index] - now, 0.0)
    return work


@njit
def _predicted_free(
    run_end: Floats, run_job: Ints32, running: int, free_milli: int, now: float, free_after: Floats, context: Singles,
    gpus: int,
) -> None:  # fmt: skip
    """Write the free milli-GPU after each predicted completion, and what the context says of running jobs."""
    free = free_milli
    for index in range(running):
        free += run_job[L.PREDICTED_DEMAND, index]
        free_after[index] = free
    work = _remaining_work(run_end[L.PREDICTED_ENDS], run_job[L.PREDICTED_DEMAND], running, now)
    context[8] = _log_seconds(run_end[L.PREDICTED_ENDS, 0] - now) if running > 0 else 0.0
    context[9] = math.log1p(work / (L.MILLI * gpus)) / LOG_TIME


@inlined
def _when_free(free_after: Floats, running: int, demand: float) -> int:
    """Index of the predicted completion after which `demand` milli-GPU are free (the last one at the latest)."""
    low = 0
    high = running - 1
    while low < high:
        middle = (low + high) >> 1
        if free_after[middle] >= demand:
            high = middle
        else:
            low = middle + 1
    return low


@inlined
def _when_free_once(free_after: Floats, running: int, demand: float, found: Singles) -> int:
    """As `_when_free`; looks once for each whole number of GPUs, of which jobs ask for few different ones."""
    whole = int(demand) // L.MILLI
    if whole >= found.shape[0] or whole * L.MILLI != demand:
        return _when_free(free_after, running, demand)
    if found[whole] < 0.0:
        found[whole] = _when_free(free_after, running, demand)
    return int(found[whole])


@inlined
def _predicted_time(facts: Floats, place: int) -> float:
    time = facts[place, F_TIME]
    return time if time >= 0.0 else UNKNOWN_TIME


@inlined
def _encode_logarithms(
    visible: int, facts: Floats, changing: Singles, run_end: Floats, running: int, now: float,
    free_after: Floats, shadow: float, mask: Bools,
) -> None:  # fmt: skip
    """Fill the columns that change with time, one at a time: contiguous loops of arithmetic run in parallel lanes."""
    for place in range(visible):
        changing[C_WAIT, place] = _log_seconds(now - facts[place, F_SUBMIT])
    for place in range(visible):
        time = _predicted_time(facts, place)
        floor = max(time, SLOWDOWN_FLOOR)
        slowdown = max((now - facts[place, F_SUBMIT] + time) / floor, 1.0)
        changing[C_SLOWDOWN, place] = fast_log(slowdown) * 0.125
    found = changing[C_FOUND]
    for whole in range(found.shape[0]):
        found[whole] = -1.0
    for place in range(visible):
        until = 0.0
        if not mask[place] and running > 0:
            until = run_end[L.PREDICTED_ENDS, _when_free_once(free_after, running, facts[place, F_GPUS], found)] - now
        changing[C_UNTIL_FIT, place] = until
    for place in range(visible):
        changing[C_UNTIL_FIT, place] = _log_seconds(changing[C_UNTIL_FIT, place])
    if shadow < np.inf:
        for place in range(visible):
            changing[C_OVERRUN, place] = _log_seconds(now + _predicted_time(facts, place) - shadow)
    else:
        for place in range(visible):
            changing[C_OVERRUN, place] = 0.0


@inlined
def encode_full(
    jobs: Floats, waiting: int, visible: int, shown: Ints32, facts: Floats, changing: Singles, run_end: Floats,
    run_job: Ints32, running: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, rules: Ints64, now: float,
    free_after: Floats, rows: Singles, context: Singles, mask: Bools,
) -> int:  # fmt: skip
    """Write FULL_FEATURES, the context and the mask; return how many visible jobs fit."""
    fitting = _mark_fitting(jobs, visible, shown, facts, gpus, nodes, totals, hw, rules, mask)
    count = gpus.shape[0]
    free_share = np.float32(totals[L.FREE_WHOLE] / count)
    free_milli = L.MILLI * int(totals[L.FREE_WHOLE])
    _predicted_free(run_end, run_job, running, free_milli, now, free_after, context, count)
    shadow = np.inf
    extra = float(free_milli)
    blocked_share = 0.0
    for place in range(visible):
        if not mask[place]:
            demand = facts[place, F_GPUS]
            blocked_share = demand / (L.MILLI * count)
            if running > 0:
                last = _when_free(free_after, running, demand)
                shadow = max(run_end[L.PREDICTED_ENDS, last], now)
                while last + 1 < running and run_end[L.PREDICTED_ENDS, last + 1] <= shadow:
                    last += 1
                extra = free_after[last] - demand
            break
    _encode_logarithms(visible, facts, changing, run_end, running, now, free_after, shadow, mask)
    pressure = np.float32(count / (4.0 * (totals[L.FREE_WHOLE] + 1.0)))
    rank = np.float32(1.0 / rows.shape[0])
    first_key = facts[0, F_KEY] if visible > 0 else 0.0
    work = 0.0
    weight = 0.0
    for place in range(visible):
        demand = facts[place, F_GPUS]
        time = _predicted_time(facts, place)
        share = rows[place, S_SHARE]
        left = free_share - share
        work += demand * time
        weight += 1.0 / max(time, SLOWDOWN_FLOOR)
        rows[place, 4] = changing[C_WAIT, place]
        rows[place, 5] = mask[place]
        rows[place, 6] = min(share * pressure, np.float32(1.0))
        rows[place, 7] = np.float32(place) * rank
        rows[place, 10] = facts[place, F_KEY] - first_key
        rows[place, 11] = changing[C_SLOWDOWN, place]
        rows[place, 12] = changing[C_UNTIL_FIT, place]
        rows[place, 13] = mask[place] and (now + time <= shadow or demand <= extra)
        rows[place, 14] = changing[C_OVERRUN, place]
        rows[place, 15] = left
        rows[place, 16] = left - facts[place, F_RESERVE]
    context[0] = free_share
    context[1] = math.log1p(waiting) / 8.0
    context[2] = math.log1p(work / (L.MILLI * count)) / LOG_TIME
    context[3] = visible > 0 and mask[0]
    context[4] = _log_seconds(shadow - now) if shadow < np.inf else 0.0
    context[5] = min(max(extra / (L.MILLI * count), 0.0), 1.0)
    context[6] = fitting / rows.shape[0]
    context[7] = blocked_share
    context[10] = math.log1p(weight * 100.0) / 6.0
    context[11] = math.log1p(waiting - visible) / 8.0
    return fitting
