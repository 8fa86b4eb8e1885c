"""Temperatures of GPUs, and what heat leaves of their draw and speed.

Each GPU's temperature is known at the moment from which its draw is constant; what lies between is computed where it
is wanted. A GPU at its throttle temperature draws no more than what holds it there (`core.hardware.thermal`).
"""

import numpy as np

from lepton_rl.core import layout as L
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
from lepton_rl.core.hardware.thermal import seconds_to_temperature
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.marks import hold_back, stir, touch
from lepton_rl.core.power import drawn_uw, left_by_limit

_speed_under_limit = inlined(speed_under_limit)
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
def node_heat(figure: int, gpus: Ints32, nodes: Ints32) -> int:
    """Where one of the NODE_HEAT_ROWS begins in the clock."""
    return int(heat_row(gpus.shape[0], gpus) + figure * nodes.shape[0])


@inlined
def _left_of(node: int, gpus: Ints32, nodes: Ints32, clock: Floats, now: float) -> float:
    """Part that is left now of what the GPUs of a node, all of one type, were above their steady temperatures."""
    passed = now - clock[node_heat(L.COUNTED_AT, gpus, nodes) + node]
    return float(np.exp(passed * clock[node_heat(L.DECAY, gpus, nodes) + node]))


@inlined
def temperature(gpu: int, gpus: Ints32, nodes: Ints32, hw: Hardware, clock: Floats, now: float) -> float:
    """Temperature of a GPU at a time at which its draw has not changed since, degrees Celsius."""
    if hw is None:
        return np.nan
    row = heat_row(gpu, gpus)
    node = int(gpus[gpu, L.NODE])
    if clock[row + L.NOT_DRAWN] > 0.0 or clock[_hot_at(gpu)] <= now:
        return float(hw.heat[nodes[node, L.TYPE], THROTTLE_C])
    if clock[node_heat(L.COUNTED_AT, gpus, nodes) + node] == now:  # what is added up below would round
        return float(clock[row + L.DEGREES])
    above = clock[row + L.DEGREES] - clock[row + L.STEADY]
    return float(clock[row + L.STEADY] + above * _left_of(node, gpus, nodes, clock, now))


@inlined
def _count_to_now(node: int, gpus: Ints32, nodes: Ints32, clock: Floats) -> None:
    """Let a node's GPUs cool or warm up to now: one exponential for all of them."""
    at = node_heat(L.COUNTED_AT, gpus, nodes) + node
    if clock[at] != clock[L.NOW]:
        left = _left_of(node, gpus, nodes, clock, clock[L.NOW])
        clock[at] = clock[L.NOW]
        for gpu in range(nodes[node, L.FIRST], nodes[node, L.FIRST] + nodes[node, L.COUNT]):
            row = heat_row(gpu, gpus)
            clock[row + L.DEGREES] = clock[row + L.STEADY] + (clock[row + L.DEGREES] - clock[row + L.STEADY]) * left


@inlined
def sum_heat(node: int, gpus: Ints32, nodes: Ints32, clock: Floats) -> None:
    """Sum up for observers what a node's temperatures come from."""
    steady, above = 0.0, 0.0
    for gpu in range(nodes[node, L.FIRST], nodes[node, L.FIRST] + nodes[node, L.COUNT]):
        row = heat_row(gpu, gpus)
        steady += clock[row + L.STEADY]
        above += clock[row + L.DEGREES] - clock[row + L.STEADY]
    clock[node_heat(L.STEADY_SUM, gpus, nodes) + node] = steady
    clock[node_heat(L.ABOVE_SUM, gpus, nodes) + node] = above


@njit
def temperatures(gpus: Ints32, nodes: Ints32, hw: Hardware, clock: Floats, now: float, out: Floats) -> None:
    """Write the temperature of each GPU, degrees Celsius; NaN where it is not counted."""
    for gpu in range(gpus.shape[0]):
        out[gpu] = np.nan
        if hw is not None and hw.heat.shape[0] > 0:
            out[gpu] = temperature(gpu, gpus, nodes, hw, clock, now)


@njit
def take_temperatures(
    degrees: Floats, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, clock: Floats
) -> None:
    """Let the clock go on from the temperatures of GPUs, shape (GPUs,), as they are measured now.

    Where one is at its throttle temperature and would draw more than holds it there, it throttles.
    """
    if hw is None:
        return
    totals[L.HELD_BACK] = 0
    for node in range(nodes.shape[0]):
        totals[L.NODE_DRAW + node] = 0
    for gpu in range(gpus.shape[0]):
        row = heat_row(gpu, gpus)
        figures = hw.heat[nodes[gpus[gpu, L.NODE], L.TYPE]]
        natural_uw = drawn_uw(gpu, gpus, nodes, hw)
        hot = degrees[gpu] >= figures[THROTTLE_C] and natural_uw * 1e-6 > figures[HOLD_W]
        clock[row + L.NOT_DRAWN] = np.rint(natural_uw - figures[HOLD_W] * 1e6) if hot else 0.0
        totals[L.NODE_DRAW + gpus[gpu, L.NODE]] += natural_uw
        hold_back(int(gpus[gpu, L.NODE]), totals, int(clock[row + L.NOT_DRAWN]))
        clock[row + L.STEADY] = figures[THROTTLE_C] if hot else hw.inlet_c + figures[C_PER_W] * natural_uw * 1e-6
        clock[row + L.DEGREES] = degrees[gpu]
        clock[node_heat(L.COUNTED_AT, gpus, nodes) + gpus[gpu, L.NODE]] = clock[L.NOW]
    _forget_hot_at(gpus, clock)


@inlined
def warm(gpu: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, clock: Floats) -> None:
    """Book a GPU's draw from now on: it throttles, or no longer does."""
    if hw is None:
        return
    now = clock[L.NOW]
    row = heat_row(gpu, gpus)
    node = int(gpus[gpu, L.NODE])
    kind = nodes[node, L.TYPE]
    figures = hw.heat[kind]
    _count_to_now(node, gpus, nodes, clock)
    was_hot = clock[row + L.NOT_DRAWN] > 0.0
    reached = was_hot or clock[_hot_at(gpu)] <= now
    degrees = figures[THROTTLE_C] if reached else clock[row + L.DEGREES]
    natural_uw = drawn_uw(gpu, gpus, nodes, hw)
    natural = natural_uw * 1e-6
    hold = figures[HOLD_W]
    hot = degrees >= figures[THROTTLE_C] and natural > hold
    not_drawn = np.rint(natural_uw - hold * 1e6) if hot else 0.0
    hold_back(node, totals, int(not_drawn - clock[row + L.NOT_DRAWN]))
    clock[row + L.NOT_DRAWN] = not_drawn
    clock[row + L.STEADY] = figures[THROTTLE_C] if hot else hw.inlet_c + figures[C_PER_W] * natural
    clock[row + L.DEGREES] = degrees
    hot_at = np.inf
    if not hot and natural > hold:
        hot_at = now + _seconds_to_temperature(
            degrees, figures[THROTTLE_C], natural, hw.inlet_c, figures[C_PER_W], figures[TIME_CONSTANT_S]
        )
    _set_hot_at(gpu, hot_at, gpus, clock)
    touch(node, totals)
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
        clock[row + L.STEADY] = hw.inlet_c + figures[C_PER_W] * watts
        clock[row + L.DEGREES] = clock[row + L.STEADY]
        clock[row + L.NOT_DRAWN] = 0.0
    for node in range(nodes.shape[0]):
        clock[node_heat(L.COUNTED_AT, gpus, nodes) + node] = clock[L.NOW]
        clock[node_heat(L.DECAY, gpus, nodes) + node] = -1.0 / hw.heat[nodes[node, L.TYPE], TIME_CONSTANT_S]
