"""What GPUs draw, and what a power limit leaves of their speed: compiled functions over the packed arrays."""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64
from lepton_rl.core.hardware.power_limit import power_under_limit, speed_under_limit
from lepton_rl.core.hardware.tables import (
    EXPONENT,
    FLOOR_W,
    IDLE_MW,
    IDLE_W,
    KEPT_BY_GROUP,
    LOWEST_HELD_W,
    NATURAL_W,
    Hardware,
)
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.marks import change_draw, stir, touch
from lepton_rl.core.rates import set_rate

_speed_under_limit = inlined(speed_under_limit)
_power_under_limit = inlined(power_under_limit)


@inlined
def drawn_uw(gpu: int, gpus: Ints32, nodes: Ints32, hw: Hardware) -> int:
    """Draw of a GPU by its load and power limit, microwatts."""
    if hw is None or gpus[gpu, L.DOWN] > 0:
        return 0
    idle = hw.power_mw[nodes[gpus[gpu, L.NODE], L.TYPE], IDLE_MW] * 1000
    return int(idle + int(gpus[gpu, L.LOAD]) * (L.MILLI - int(gpus[gpu, L.FREE])))


@inlined
def left_by_limit(gpu: int, gpus: Ints32, nodes: Ints32, hw: Hardware) -> float:
    """Part of the speed under the group's limit that the GPU's own limit leaves."""
    if hw is None:
        return 1.0
    curve = hw.curve[nodes[gpus[gpu, L.NODE], L.TYPE]]
    limit = gpus[gpu, L.LIMIT] * 1e-3
    left = _speed_under_limit(curve[NATURAL_W], limit, curve[FLOOR_W], curve[EXPONENT])
    return float(left / curve[KEPT_BY_GROUP])


@njit
def set_limit(gpu: int, limit_mw: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware) -> None:
    """Give a GPU another power limit, in milliwatts and in the card's range."""
    if hw is None:
        return
    curve = hw.curve[nodes[gpus[gpu, L.NODE], L.TYPE]]
    gpus[gpu, L.LIMIT] = limit_mw
    draw = _power_under_limit(curve[NATURAL_W], limit_mw * 1e-3, curve[LOWEST_HELD_W])
    load = np.int32(np.rint((max(draw, curve[IDLE_W]) - curve[IDLE_W]) * 1e3))
    if gpus[gpu, L.DOWN] == 0:
        more = (int(load) - int(gpus[gpu, L.LOAD])) * (L.MILLI - int(gpus[gpu, L.FREE]))
        change_draw(int(gpus[gpu, L.NODE]), totals, more)
    gpus[gpu, L.LOAD] = load
    gpus[gpu, L.KEPT] = np.int32(np.rint(left_by_limit(gpu, gpus, nodes, hw) * L.WHOLE_SPEED))
    touch(int(gpus[gpu, L.NODE]), totals)
    stir(gpu, gpus, totals)


@inlined
def limit_held(jobs: Floats, job: int, level: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware) -> None:
    """Limit the GPUs that a job has just been given to a level of `hw.levels_mw`, and set its rate anew."""
    if hw is None:
        return
    share = jobs[job, L.GPUS] < L.MILLI
    gpu = int(jobs[job, L.FIRST_GPU])
    while gpu >= 0:
        limit = int(hw.levels_mw[nodes[gpus[gpu, L.NODE], L.TYPE], level])
        if gpus[gpu, L.LIMIT] != limit:
            set_limit(gpu, limit, gpus, nodes, totals, hw)
        gpu = -1 if share else int(gpus[gpu, L.NEXT])
    set_rate(jobs, job, gpus, nodes, hw)
