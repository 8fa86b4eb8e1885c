"""Temperature between events, and how a hot GPU slows itself."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lepton_rl.core.hardware import seconds_to_temperature, temperature_after_c, throttled_power_w
from lepton_rl.core.hardware.thermal import steady_temperature_c

INLET, RESISTANCE, TAU = 30.0, 0.15, 60.0
POWER = st.floats(0, 700)
TEMPERATURE = st.floats(20, 110)
SECONDS = st.floats(0, 1e5)


def after(start: float, power: float, seconds: float) -> float:
    return temperature_after_c(start, power, seconds, INLET, RESISTANCE, TAU)


def test_by_hand() -> None:
    # 300 W lead to 30 + 45 = 75 °C; from 30 °C, one time constant does 1 - 1/e of the way.
    assert steady_temperature_c(300.0, INLET, RESISTANCE) == 75.0
    assert after(30.0, 300.0, 60.0) == pytest.approx(75 - 45 / math.e)
    assert after(30.0, 300.0, 0.0) == 30.0
    assert after(30.0, 300.0, math.inf) == 75.0
    assert seconds_to_temperature(30.0, 52.5, 300.0, INLET, RESISTANCE, TAU) == pytest.approx(60 * math.log(2))
    assert seconds_to_temperature(30.0, 75.0, 300.0, INLET, RESISTANCE, TAU) == math.inf  # only in the limit
    assert seconds_to_temperature(30.0, 20.0, 300.0, INLET, RESISTANCE, TAU) == math.inf
    assert seconds_to_temperature(90.0, 80.0, 0.0, INLET, RESISTANCE, TAU) == pytest.approx(60 * math.log(60 / 50))


@given(start=TEMPERATURE, power=POWER, first=SECONDS, second=SECONDS)
def test_cutting_the_time_changes_nothing(start: float, power: float, first: float, second: float) -> None:
    at_once = after(start, power, first + second)
    assert after(after(start, power, first), power, second) == pytest.approx(at_once, abs=1e-9)


@given(start=TEMPERATURE, power=POWER, target=TEMPERATURE)
def test_the_crossing_is_where_the_temperature_is(start: float, power: float, target: float) -> None:
    seconds = seconds_to_temperature(start, target, power, INLET, RESISTANCE, TAU)
    assume(seconds < 1e4)
    assert after(start, power, seconds) == pytest.approx(target, abs=1e-6)


@given(temperature=TEMPERATURE, power=POWER)
def test_a_throttled_gpu_never_heats_beyond_its_limit(temperature: float, power: float) -> None:
    allowed = throttled_power_w(temperature, power, 85.0, INLET, RESISTANCE)
    assert allowed <= power
    if temperature < 85.0:
        assert allowed == power
    else:
        assert after(temperature, allowed, 1.0) <= temperature + 1e-9


def test_throttling_by_hand() -> None:
    assert throttled_power_w(84.9, 500.0, 85.0, INLET, RESISTANCE) == 500.0
    assert throttled_power_w(85.0, 500.0, 85.0, INLET, RESISTANCE) == pytest.approx(55 / 0.15)
    assert throttled_power_w(85.0, 300.0, 85.0, INLET, RESISTANCE) == 300.0  # that cools it
    assert throttled_power_w(95.0, 300.0, 85.0, 90.0, RESISTANCE) == 0.0  # the air is hotter than the GPU may be
