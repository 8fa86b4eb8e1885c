"""Temperatures of GPUs, and what heat leaves of their draw and speed.

Each GPU's temperature is known at the moment from which its draw is constant; what lies between is computed where it
is wanted. A GPU at its throttle temperature draws no more than what holds it there (`core.hardware.thermal`).
"""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import stir
from lepton_rl.core.arrays import Floats, Ints32, Ints64
from lepton_rl.core.hardware.power_limit import speed_under_limit
from lepton_rl.core.hardware.tables import C_PER_W, EXPONENT, FLOOR_W, HOLD_W, THROTTLE_C, TIME_CONSTANT_S, Hardware
from lepton_rl.core.hardware.thermal import seconds_to_temperature, temperature_after_c
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.power import drawn_uw, left_by_limit

_speed_under_limit = inlined(speed_under_limit)
_temperature_after_c = inlined(temperature_after_c)
_seconds_to_temperature = inlined(seconds_to_temperature)


@inlined
def heat_row(gpu: int) -> int:
    """Where a GPU's figures begin in the clock."""
    return L.DETAILED_CLOCK_COLUMNS + gpu * L.HEAT_COLUMNS


@inlined
def temperature(gpu: int, gpus: Ints32, nodes: Ints32, hw: Hardware, clock: Floats, now: float) -> float:
    """Temperature of a GPU at a time at which its draw has not changed since, degrees Celsius."""
    if hw is None:
        return np.nan
    row = heat_row(gpu)
    figures = hw.heat[nodes[gpus[gpu, L.NODE], L.TYPE]]
    if clock[row + L.NOT_DRAWN] > 0.0 or clock[row + L.HOT_AT] <= now:
        return float(figures[THROTTLE_C])
    if now == clock[row + L.WARM_SINCE]:  # not through an exponential that rounds: observers compare
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
        row = heat_row(gpu)
        figures = hw.heat[nodes[gpus[gpu, L.NODE], L.TYPE]]
        natural_uw = drawn_uw(gpu, gpus, nodes, hw)
        hot = degrees[gpu] >= figures[THROTTLE_C] and natural_uw * 1e-6 > figures[HOLD_W]
        clock[row + L.TEMPERATURE] = degrees[gpu]
        clock[row + L.WARM_SINCE] = clock[L.NOW]
        clock[row + L.HOT_AT] = np.inf
        clock[row + L.NOT_DRAWN] = np.rint(natural_uw - figures[HOLD_W] * 1e6) if hot else 0.0
    clock[L.NEXT_HEAT] = np.inf


@njit
def warm(gpu: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, clock: Floats) -> None:
    """Book a GPU's draw from now on: it throttles, or no longer does."""
    if hw is None:
        return
    now = clock[L.NOW]
    row = heat_row(gpu)
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
    clock[row + L.HOT_AT] = np.inf
    if not hot and natural > hold:
        clock[row + L.HOT_AT] = now + _seconds_to_temperature(
            degrees, figures[THROTTLE_C], natural, hw.inlet_c, figures[C_PER_W], figures[TIME_CONSTANT_S]
        )
        clock[L.NEXT_HEAT] = min(clock[L.NEXT_HEAT], clock[row + L.HOT_AT])
    if hot or was_hot:
        left = left_by_limit(gpu, gpus, nodes, hw)
        if hot:
            curve = hw.curve[kind]
            left *= _speed_under_limit(natural, hold, curve[FLOOR_W], curve[EXPONENT])
        gpus[gpu, L.KEPT] = np.int32(np.rint(left * L.WHOLE_SPEED))


@njit
def find_next_heat(gpus: Ints32, clock: Floats) -> None:
    """Look anew for the next time at which a GPU reaches its throttle temperature."""
    clock[L.NEXT_HEAT] = np.inf
    for gpu in range(gpus.shape[0]):
        clock[L.NEXT_HEAT] = min(clock[L.NEXT_HEAT], clock[heat_row(gpu) + L.HOT_AT])


@njit
def heat_up(gpus: Ints32, totals: Ints64, clock: Floats) -> None:
    """Mark the GPUs that have reached their throttle temperature by now."""
    for gpu in range(gpus.shape[0]):
        if clock[heat_row(gpu) + L.HOT_AT] <= clock[L.NOW]:
            stir(gpu, gpus, totals)


@njit
def start_cold(gpus: Ints32, nodes: Ints32, hw: Hardware, clock: Floats) -> None:
    """Give each GPU the steady temperature of its draw, at the beginning of a run; idle GPUs do not throttle."""
    clock[L.NEXT_HEAT] = np.inf
    if hw is None or hw.heat.shape[0] == 0:
        return
    for gpu in range(gpus.shape[0]):
        figures = hw.heat[nodes[gpus[gpu, L.NODE], L.TYPE]]
        row = heat_row(gpu)
        watts = drawn_uw(gpu, gpus, nodes, hw) * 1e-6
        clock[row + L.TEMPERATURE] = hw.inlet_c + figures[C_PER_W] * watts
        clock[row + L.WARM_SINCE] = clock[L.NOW]
        clock[row + L.DRAWING] = watts
        clock[row + L.HOT_AT] = np.inf
        clock[row + L.NOT_DRAWN] = 0.0
