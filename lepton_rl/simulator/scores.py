"""Orders of the queue: one score a job, lowest first, ties by submission.

In the formulas s is the submit time, r the requested time, n the number of GPUs, w = now - s the wait (all seconds).
F1-F4: Carastan-Santos and de Camargo, SC'17. WFP3 and UNICEP: Tang et al., CLUSTER'09. SAF is r * n ("smallest area
first"). `reserve` holds GPUs back for short jobs (see `margin`).
"""

from enum import IntEnum

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.progress import served
from lepton_rl.core.slowdown import SLOWDOWN_FLOOR


class Order(IntEnum):
    """A score formula."""

    FCFS = 0
    SJF = 1
    LJF = 2
    SMALLEST = 3
    SAF = 4
    F1 = 5
    F2 = 6
    F3 = 7
    F4 = 8
    WFP3 = 9
    UNICEP = 10
    SRTF = 11
    LAS = 12
    WEIGHTED = 13
    POWER = 14
    RANDOM = 15
    EDF = 16
    LLF = 17
    DLAS = 18
    GIVEN = 19
    GIVEN_PREEMPTIVE = 20


DYNAMIC_ORDERS = frozenset({Order.WFP3, Order.UNICEP})
PREEMPTIVE_ORDERS = frozenset({Order.SRTF, Order.LAS, Order.DLAS, Order.GIVEN_PREEMPTIVE})
GIVEN_ORDERS = frozenset({Order.GIVEN, Order.GIVEN_PREEMPTIVE})
"""Orders whose scores a policy in Python writes to the SCORE column of a snapshot: no whole trace runs under them."""
TIMELESS_ORDERS = GIVEN_ORDERS | {
    Order.FCFS, Order.SMALLEST, Order.LAS, Order.WEIGHTED, Order.RANDOM, Order.EDF, Order.DLAS,
}  # fmt: skip
"""Orders that work without requested times."""
RESERVE_RHO, RESERVE_T0, RESERVE_T1 = 0.70, 136.0, 51_200.0
"""The margin's figures (T0 and T1 in seconds) as tuned for bounded slowdown on training windows of lublin_256."""

(
    _FCFS,
    _SJF,
    _LJF,
    _SMALLEST,
    _SAF,
    _F1,
    _F2,
    _F3,
    _F4,
    _WFP3,
    _UNICEP,
    _SRTF,
    _LAS,
    _WEIGHTED,
    _POWER,
    _RANDOM,
    _EDF,
    _LLF,
    _DLAS,
    _GIVEN,
    _GIVEN_PREEMPTIVE,
) = (int(order) for order in Order)


@inlined
def _hashed(seed: float, job: float) -> float:
    """A number in [0, 1) that depends on seed and job alone (splitmix64), the same on every face."""
    z = np.uint64(np.int64(seed)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(np.int64(job))
    z += np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@inlined
def _queue_of(settings: Floats, jobs: Floats, job: int, served: float) -> float:
    """0 for the first queue, 1 for the second: those of `served` x GPUs >= weight 0, GPU-seconds."""
    return 1.0 if served * jobs[job, L.GPUS] >= settings[L.WEIGHTS] * L.MILLI else 0.0


@inlined
def _deadline(jobs: Floats, job: int) -> float:
    """When the job should have finished; tables of jobs without deadlines have no column of them."""
    return float(jobs[job, L.DEADLINE]) if jobs.shape[1] > L.DEADLINE else np.inf


@njit
def score(order: int, settings: Floats, jobs: Floats, job: int, now: float) -> float:
    """Score of a waiting job at time `now`, seconds; lowest goes first."""
    s = jobs[job, L.SUBMIT]
    r = jobs[job, L.REQUESTED]
    n = jobs[job, L.GPUS] / L.MILLI
    if order == _FCFS:
        return s
    if order == _SJF:
        return r
    if order == _LJF:
        return -r
    if order == _SMALLEST:
        return n
    if order == _SAF:
        return r * n
    if order == _WEIGHTED:
        memory_gib = jobs[job, L.MEMORY] / L.MIB_PER_GIB
        return -(
            settings[L.WEIGHTS] * jobs[job, L.COMPUTE]
            + settings[L.WEIGHTS + 1] * jobs[job, L.TIME_SENSITIVITY]
            + settings[L.WEIGHTS + 2] * memory_gib
        )
    if order == _POWER:
        return n ** settings[L.WEIGHTS] * max(r, SLOWDOWN_FLOOR) ** settings[L.WEIGHTS + 1]
    if order == _RANDOM:
        return _hashed(settings[L.WEIGHTS], jobs[job, L.ID])
    if order == _LAS:
        return jobs[job, L.ATTAINED]
    if order == _SRTF:
        return jobs[job, L.PREDICTED]
    if order == _EDF:
        return _deadline(jobs, job)
    if order == _LLF:  # deadline - now - time left: the order of those that wait is the same at any time
        return _deadline(jobs, job) - jobs[job, L.PREDICTED]
    if order == _DLAS:
        return _queue_of(settings, jobs, job, jobs[job, L.ATTAINED])
    if order in (_GIVEN, _GIVEN_PREEMPTIVE):
        return jobs[job, L.SCORE]
    if order == _WFP3:
        return -(((now - s) / r) ** 3) * n
    if order == _UNICEP:
        # The published form: log2 of a serial job is 0, and with the 1e-15 serial jobs go before others, those
        # that have waited before all. A share counts as serial: its logarithm is negative.
        return -(now - s + 1e-15) / (np.log2(max(n, 1.0) + 1e-15) * r)
    age = np.log10(max(s, 1.0))
    if order == _F1:
        return np.log10(r) * n + 870.0 * age
    if order == _F2:
        return np.sqrt(r) * n + 25600.0 * age
    if order == _F3:
        return r * n + 6860000.0 * age
    return r * np.sqrt(n) + 530000.0 * age


@inlined
def running_score(order: int, settings: Floats, jobs: Floats, job: int, now: float, hw: Hardware) -> float:
    """Score of a running job under a preemptive order: predicted time left, attained service, or its queue."""
    service = served(jobs, job, now, hw)
    if order == _DLAS:
        return _queue_of(settings, jobs, job, jobs[job, L.ATTAINED] + service)
    if order == _GIVEN_PREEMPTIVE:
        return jobs[job, L.SCORE]
    if order == _LAS:
        return jobs[job, L.ATTAINED] + service
    return jobs[job, L.PREDICTED] - service


@inlined
def margin(settings: Floats, jobs: Floats, job: int, gpus: int) -> float:
    """Milli-GPU that must stay free beside the job: `min(rho * P * clip(log(r/T0) / log(T1/T0), 0, 1), P - n)`.

    The `reserve` rule: long jobs leave room for the short ones to come. rho = weight 4 (0 switches it off),
    T0 = weight 5 and T1 = weight 6 in seconds.
    """
    rho = settings[L.WEIGHTS + 4]
    if rho <= 0.0:
        return 0.0
    t0 = settings[L.WEIGHTS + 5]
    t1 = settings[L.WEIGHTS + 6]
    part = np.log(jobs[job, L.REQUESTED] / t0) / np.log(t1 / t0)
    room = L.MILLI * gpus - jobs[job, L.GPUS]
    return min(rho * L.MILLI * gpus * min(max(part, 0.0), 1.0), room)
