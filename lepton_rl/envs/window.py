"""The window: facts and unchanging features of the visible jobs, in order, kept from step to step.

Between two observations a job or two come or go. Moving what lies behind them costs less than writing a hundred rows
anew: the unchanging features stay in the observation's own rows.
"""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Singles
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined
from lepton_rl.core.memory import move
from lepton_rl.core.placement import CONSOLIDATED, fits
from lepton_rl.core.progress import planned_seconds
from lepton_rl.core.slowdown import SLOWDOWN_FLOOR
from lepton_rl.envs.fast_math import fast_log

LOG_TIME = 12.0
LOG_WORK = 18.0

# facts: float64 (window, columns), one row per visible job: the first BASIC_FACT_COLUMNS or, for the full features,
# FACT_COLUMNS; on a detailed cluster one more: the seconds that the job is planned to take if any free GPUs will do
# for it, infinity if it minds which.
F_SUBMIT = 0  # seconds
F_GPUS = 1  # milli-GPU
BASIC_FACT_COLUMNS = 2
F_TIME = 2  # seconds that the run is predicted to take
F_KEY = 3  # as S_KEY
F_RESERVE = 4  # as S_RESERVE
FACT_COLUMNS = 5

# static: float32 (jobs, STATIC_COLUMNS), what does not change while a job waits. The first four are also the first
# four columns of the observation's rows.
S_TIME = 0
S_GPUS = 1
S_AREA = 2
S_SHARE = 3
S_MEMORY = 4
S_WEIGHT = 5
S_KEY = 6
S_RESERVE = 7
STATIC_COLUMNS = 8

# Columns of full rows that do not change either.
ROW_MEMORY = 8
ROW_WEIGHT = 9


def fact_columns(full: bool, detailed: bool) -> int:
    """Return the number of columns of `facts`."""
    return (FACT_COLUMNS if full else BASIC_FACT_COLUMNS) + int(detailed)


@inlined
def _anywhere_seconds(jobs: Floats, job: int, hw: Hardware) -> float:
    """Seconds that a gang is planned to take that any free GPUs will do for; infinity for another job."""
    if hw is None:
        return np.inf
    every_type = (1 << hw.power_mw.shape[0]) - 1
    minds = jobs[job, L.GPUS] < L.MILLI or int(jobs[job, L.TYPES]) & every_type != every_type
    for column in range(L.ASKS, jobs.shape[1]):
        minds = minds or jobs[job, column] > 0.0
    return np.inf if minds else planned_seconds(jobs, job, hw)


@inlined
def fits_from_window(
    place: int, soonest: float, jobs: Floats, shown: Ints32, facts: Floats, gpus: Ints32, nodes: Ints32,
    totals: Ints64, hw: Hardware, rules: Ints64,
) -> bool:  # fmt: skip
    """Whether the job at this place of the window could start now; mostly told without a look at its row.

    `soonest` is `seconds_to_reservation` now.
    """
    demand = facts[place, F_GPUS]
    if demand >= L.MILLI:
        if demand > L.MILLI * totals[L.FREE_WHOLE]:
            return False
        if hw is not None and facts[place, facts.shape[1] - 1] < soonest and rules[L.PLACEMENT] != CONSOLIDATED:
            return True
    return fits(rules[L.PLACEMENT], jobs, shown[place], gpus, nodes, totals, hw)


@inlined
def weight_of(time: float) -> float:
    """What a second of waiting costs a job of so many seconds, as a feature."""
    return float((fast_log(1.0 / max(time, SLOWDOWN_FLOOR) + 2.5 / 3600.0) + 8.0) / 8.0)


@inlined
def _write_what_is_left(jobs: Floats, job: int, place: int, full: bool, rows: Singles) -> None:
    """Of a job that has run before, tell the time that is left."""
    time = jobs[job, L.PREDICTED]
    rows[place, S_TIME] = fast_log(1.0 + max(time, 0.0)) / LOG_TIME
    rows[place, S_AREA] = fast_log(1.0 + max(time, 0.0) * jobs[job, L.GPUS] / L.MILLI) / LOG_WORK
    if full:
        rows[place, ROW_WEIGHT] = weight_of(time)


@inlined
def _write(
    jobs: Floats, static: Singles, job: int, place: int, hw: Hardware, full: bool, told_left: bool, shown: Ints32,
    facts: Floats, rows: Singles,
) -> None:  # fmt: skip
    shown[place] = job
    facts[place, F_SUBMIT] = jobs[job, L.SUBMIT]
    facts[place, F_GPUS] = jobs[job, L.GPUS]
    rows[place, S_TIME] = static[job, S_TIME]
    rows[place, S_GPUS] = static[job, S_GPUS]
    rows[place, S_AREA] = static[job, S_AREA]
    rows[place, S_SHARE] = static[job, S_SHARE]
    if full:
        facts[place, F_TIME] = jobs[job, L.PREDICTED]
        facts[place, F_KEY] = static[job, S_KEY]
        facts[place, F_RESERVE] = static[job, S_RESERVE]
        rows[place, ROW_MEMORY] = static[job, S_MEMORY]
        rows[place, ROW_WEIGHT] = static[job, S_WEIGHT]
    if hw is not None:
        facts[place, facts.shape[1] - 1] = _anywhere_seconds(jobs, job, hw)
    if told_left and jobs[job, L.PREDICTED] != jobs[job, L.REQUESTED]:
        _write_what_is_left(jobs, job, place, full, rows)


@inlined
def _move(shown: Ints32, facts: Floats, rows: Singles, to: int, start: int, count: int) -> None:
    move(shown, to, start, count)
    move(facts, to, start, count)
    move(rows, to, start, count)


@inlined
def follow_queue(
    jobs: Floats, static: Singles, queue: Ints32, front: int, visible: int, filled: int, hw: Hardware, full: bool,
    told_left: bool, shown: Ints32, facts: Floats, rows: Singles,
) -> int:  # fmt: skip
    """Make the window show queue[front : front + visible]; it has `filled` rows from before.

    `shown`, int32 (window,), holds the jobs that its rows describe. With `told_left` the time of a job that has run
    before is what is left. Returns the number of rows behind which nothing
    was ever written: from `visible` on they are left over.
    """
    written = max(filled, visible)
    same = min(visible, filled)
    for place in range(same):
        if shown[place] != queue[front + place]:
            same = place
            break
    place = same
    while place < visible:
        job = queue[front + place]
        if place < filled and shown[place] == job:
            place += 1
        elif place + 1 < filled and shown[place + 1] == job:  # one has gone
            filled -= 1
            _move(shown, facts, rows, place, place + 1, filled - place)
        else:
            if place + 1 < visible and place < filled and shown[place] == queue[front + place + 1]:
                filled = min(filled, shown.shape[0] - 1)  # one has come; the last may have to leave
                _move(shown, facts, rows, place + 1, place, filled - place)
                filled += 1
                written = max(written, filled)
            _write(jobs, static, job, place, hw, full, told_left, shown, facts, rows)
            filled = max(filled, place + 1)
            place += 1
    return written
