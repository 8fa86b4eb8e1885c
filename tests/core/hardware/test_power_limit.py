"""Speed and draw under a power limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.core.hardware import GpuType, PowerCurve, gpu_types, power_under_limit, speed_under_limit
from lepton_rl.errors import ConfigError

GPUS = st.sampled_from(gpu_types())
PARTS = st.floats(0, 1)


def natural(gpu: GpuType, load: float) -> float:
    return gpu.idle_power_w + (gpu.max_power_w - gpu.idle_power_w) * load


def limited(gpu: GpuType, part: float) -> float:
    return gpu.min_power_limit_w + (gpu.max_power_limit_w - gpu.min_power_limit_w) * part


def test_by_hand() -> None:
    # A job of 300 W over a floor of 100 W under a limit of 200 W has half of its power: 1 - 0.5 ** 2.
    assert speed_under_limit(300.0, 200.0, 100.0, 2.0) == 0.75
    assert speed_under_limit(300.0, 200.0, 100.0, 1.0) == 0.5
    assert speed_under_limit(300.0, 300.0, 100.0, 2.0) == 1.0
    assert speed_under_limit(150.0, 200.0, 100.0, 2.0) == 1.0
    assert speed_under_limit(300.0, 100.0, 100.0, 2.0) == 0.0
    assert power_under_limit(300.0, 200.0, 110.0) == 200.0
    assert power_under_limit(300.0, 100.0, 110.0) == 110.0  # the card cannot be held to 100 W
    assert power_under_limit(90.0, 100.0, 110.0) == 90.0


@given(gpu=GPUS, load=PARTS, part=PARTS)
def test_a_limit_above_the_natural_draw_costs_nothing(gpu: GpuType, load: float, part: float) -> None:
    power, limit = natural(gpu, load), limited(gpu, part)
    curve = gpu.power_curve
    speed = speed_under_limit(power, limit, curve.floor_w, curve.exponent)
    draw = power_under_limit(power, limit, curve.lowest_held_w)
    assert 0 < speed <= 1
    assert draw <= power
    assert draw <= max(limit, curve.lowest_held_w)
    if limit >= power:
        assert (speed, draw) == (1.0, power)


@given(gpu=GPUS, load=PARTS, parts=st.tuples(PARTS, PARTS))
def test_a_higher_limit_never_slows_or_saves(gpu: GpuType, load: float, parts: tuple[float, float]) -> None:
    low, high = (limited(gpu, part) for part in sorted(parts))
    curve, power = gpu.power_curve, natural(gpu, load)
    assert speed_under_limit(power, low, curve.floor_w, curve.exponent) <= speed_under_limit(
        power, high, curve.floor_w, curve.exponent
    )
    assert power_under_limit(power, low, curve.lowest_held_w) <= power_under_limit(power, high, curve.lowest_held_w)


def test_a_limit_saves_energy_before_it_wastes_it() -> None:
    # per unit of work: draw over speed
    for gpu in gpu_types():
        curve = gpu.power_curve
        limit = max(gpu.min_power_limit_w, 0.8 * gpu.max_power_w)
        speed = speed_under_limit(gpu.max_power_w, limit, curve.floor_w, curve.exponent)
        assert power_under_limit(gpu.max_power_w, limit, curve.lowest_held_w) / speed < gpu.max_power_w, gpu.name


def test_a_wrong_curve_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"exponent must be 1 or more, not 0.5"):
        PowerCurve(50.0, 0.5, 100.0)
    with pytest.raises(ConfigError, match=r"floor \(-1.0 W\) and lowest held draw \(100.0 W\) must be 0 or more"):
        PowerCurve(-1.0, 2.0, 100.0)
