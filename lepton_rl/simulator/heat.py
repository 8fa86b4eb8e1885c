"""Temperatures of GPUs, and what heat leaves of their draw and speed.

Each GPU's temperature is known at the moment from which its draw is constant; what lies between is computed where it
is wanted. A GPU at its throttle temperature draws no more than what holds it there (`core.hardware.thermal`).
"""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import stir
from lepton_rl.core.arrays import Floats, Ints32, Ints64
from lepton_rl.core.hardware.power_limit import speed_under_limit
from lepton_rl.core.hardware.tables import (
    C_PER_W,
    EXPONENT,
    FLOOR_W,
    FULL_W,
    HOLD_W,
    KEPT_HOT,
    THROTTLE_C,
    TIME_CONSTANT_S,
    Hardware,
)
from lepton_rl.core.hardware.thermal import seconds_to_temperature, temperature_after_c
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.power import drawn_uw, left_by_limit

_speed_under_limit = inlined(speed_under_limit)
_temperature_after_c = inlined(temperature_after_c)
_seconds_to_temperature = inlined(seconds_to_temperature)


@inlined
def _hot_at(gpu: int) -> int:
    """Where the clock holds when a GPU will be at its throttle temperature."""
    return L.DETAILED_CLOCK_COLUMNS + gpu


@inlined
def _blocks(gpus: Ints32) -> int:
    """Number of blocks of GPUs of which the clock holds the least time."""
    return int((gpus.shape[0] + L.HEAT_BLOCK - 1) // L.HEAT_BLOCK)


@inlined
def heat_row(gpu: int, gpus: Ints32) -> int:
    """Where a GPU's other figures begin in the clock."""
    return int(L.DETAILED_CLOCK_COLUMNS + gpus.shape[0] + _blocks(gpus) + gpu * L.HEAT_COLUMNS)


@inlined
def _least(clock: Floats, first: int, behind: int) -> float:
    """Least of a stretch of the clock; four at a time."""
    a, b, c, d = np.inf, np.inf, np.inf, np.inf
    while first + 4 <= behind:
        a = min(a, clock[first])
        b = min(b, clock[first + 1])
        c = min(c, clock[first + 2])
        d = min(d, clock[first + 3])
        first += 4
    while first < behind:
        a = min(a, clock[first])
        first += 1
    return min(min(a, b), min(c, d))


@inlined
def _set_hot_at(gpu: int, time: float, gpus: Ints32, clock: Floats) -> None:
    """Write when a GPU will be at its throttle temperature, and the least times above it."""
    before = clock[_hot_at(gpu)]
    clock[_hot_at(gpu)] = time
    block = gpu // L.HEAT_BLOCK
    blocks = L.DETAILED_CLOCK_COLUMNS + gpus.shape[0]
    if time <= clock[blocks + block]:
        clock[blocks + block] = time
        clock[L.NEXT_HEAT] = min(clock[L.NEXT_HEAT], time)
    elif before == clock[blocks + block]:
        first = block * L.HEAT_BLOCK
        behind = min(first + L.HEAT_BLOCK, gpus.shape[0])
        clock[blocks + block] = _least(clock, _hot_at(first), _hot_at(behind))
        if before == clock[L.NEXT_HEAT]:
            clock[L.NEXT_HEAT] = _least(clock, blocks, blocks + _blocks(gpus))


@inlined
def _forget_hot_at(gpus: Ints32, clock: Floats) -> None:
    """No GPU is on its way to its throttle temperature."""
    for place in range(L.DETAILED_CLOCK_COLUMNS, L.DETAILED_CLOCK_COLUMNS + gpus.shape[0] + _blocks(gpus)):
        clock[place] = np.inf
    clock[L.NEXT_HEAT] = np.inf


@inlined
def temperature(gpu: int, gpus: Ints32, nodes: Ints32, hw: Hardware, clock: Floats, now: float) -> float:
    """Temperature of a GPU at a time at which its draw has not changed since, degrees Celsius."""
    if hw is None:
        return np.nan
    row = heat_row(gpu, gpus)
    figures = hw.heat[nodes[gpus[gpu, L.NODE], L.TYPE]]
    if clock[row + L.NOT_DRAWN] > 0.0 or clock[_hot_at(gpu)] <= now:
        return float(figures[THROTTLE_C])
    if clock[row + L.WARM_SINCE] == now:  # the exponential of 0 seconds would round
        return float(clock[row + L.TEMPERATURE])
    return _temperature_after_c(
        clock[row + L.TEMPERATURE], clock[row + L.DRAWING], now - clock[row + L.WARM_SINCE], hw.inlet_c,
        figures[C_PER_W], figures[TIME_CONSTANT_S],
    )  # fmt: skip


@njit
def temperatures(gpus: Ints32, nodes: Ints32, hw: Hardware, clock: Floats, now: float, out: Floats) -> None:
    """Write the temperature of each GPU, degrees Celsius; NaN where it is not counted."""
    for gpu in range(gpus.shape[0]):
        out[gpu] = np.nan
        if hw is not None and hw.heat.shape[0] > 0:
            out[gpu] = temperature(gpu, gpus, nodes, hw, clock, now)


@njit
def take_temperatures(degrees: Floats, gpus: Ints32, nodes: Ints32, hw: Hardware, clock: Floats) -> None:
    """Let the clock go on from the temperatures of GPUs, shape (GPUs,), as they are measured now.

    Where one is at its throttle temperature and would draw more than holds it there, it throttles.
    """
    if hw is None:
        return
    for gpu in range(gpus.shape[0]):
        row = heat_row(gpu, gpus)
        figures = hw.heat[nodes[gpus[gpu, L.NODE], L.TYPE]]
        natural_uw = drawn_uw(gpu, gpus, nodes, hw)
        hot = degrees[gpu] >= figures[THROTTLE_C] and natural_uw * 1e-6 > figures[HOLD_W]
        clock[row + L.TEMPERATURE] = degrees[gpu]
        clock[row + L.WARM_SINCE] = clock[L.NOW]
        clock[row + L.NOT_DRAWN] = np.rint(natural_uw - figures[HOLD_W] * 1e6) if hot else 0.0
    _forget_hot_at(gpus, clock)


@inlined
def warm(gpu: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, clock: Floats) -> None:
    """Book a GPU's draw from now on: it throttles, or no longer does."""
    if hw is None:
        return
    now = clock[L.NOW]
    row = heat_row(gpu, gpus)
    kind = nodes[gpus[gpu, L.NODE], L.TYPE]
    figures = hw.heat[kind]
    degrees = temperature(gpu, gpus, nodes, hw, clock, now)
    natural_uw = drawn_uw(gpu, gpus, nodes, hw)
    natural = natural_uw * 1e-6
    hold = figures[HOLD_W]
    hot = degrees >= figures[THROTTLE_C] and natural > hold
    not_drawn = np.rint(natural_uw - hold * 1e6) if hot else 0.0
    totals[L.HELD_BACK] += int(not_drawn - clock[row + L.NOT_DRAWN])
    was_hot = clock[row + L.NOT_DRAWN] > 0.0
    clock[row + L.TEMPERATURE] = degrees
    clock[row + L.WARM_SINCE] = now
    clock[row + L.DRAWING] = hold if hot else natural
    clock[row + L.NOT_DRAWN] = not_drawn
    hot_at = np.inf
    if not hot and natural > hold:
        hot_at = now + _seconds_to_temperature(
            degrees, figures[THROTTLE_C], natural, hw.inlet_c, figures[C_PER_W], figures[TIME_CONSTANT_S]
        )
    _set_hot_at(gpu, hot_at, gpus, clock)
    if hot or was_hot:
        left = left_by_limit(gpu, gpus, nodes, hw)
        if hot:
            if natural == figures[FULL_W]:
                left *= figures[KEPT_HOT]
            else:
                curve = hw.curve[kind]
                left *= _speed_under_limit(natural, hold, curve[FLOOR_W], curve[EXPONENT])
        gpus[gpu, L.KEPT] = np.int32(np.rint(left * L.WHOLE_SPEED))


@njit
def heat_up(gpus: Ints32, totals: Ints64, clock: Floats) -> None:
    """Mark the GPUs that have reached their throttle temperature by now."""
    now = clock[L.NOW]
    blocks = L.DETAILED_CLOCK_COLUMNS + gpus.shape[0]
    for block in range(_blocks(gpus)):
        if clock[blocks + block] <= now:
            for gpu in range(block * L.HEAT_BLOCK, min((block + 1) * L.HEAT_BLOCK, gpus.shape[0])):
                if clock[_hot_at(gpu)] <= now:
                    stir(gpu, gpus, totals)


@njit
def start_cold(gpus: Ints32, nodes: Ints32, hw: Hardware, clock: Floats) -> None:
    """Give each idle GPU its steady temperature, at the beginning of a run; reservations are looked at anew."""
    clock[L.NEXT_HEAT] = np.inf
    clock[L.NEXT_RESERVATION] = -np.inf
    if hw is None or hw.heat.shape[0] == 0:
        return
    _forget_hot_at(gpus, clock)
    for gpu in range(gpus.shape[0]):
        figures = hw.heat[nodes[gpus[gpu, L.NODE], L.TYPE]]
        row = heat_row(gpu, gpus)
        watts = drawn_uw(gpu, gpus, nodes, hw) * 1e-6
        clock[row + L.TEMPERATURE] = hw.inlet_c + figures[C_PER_W] * watts
        clock[row + L.WARM_SINCE] = clock[L.NOW]
        clock[row + L.DRAWING] = watts
        clock[row + L.NOT_DRAWN] = 0.0
