"""The filter of readings: bounds, medians, and what stays missing."""

import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.devices import DeviceIdentity, Reading, ReadingFilter
from lepton_rl.devices.filter import BOUNDS, SMOOTHED

_IDENTITY = DeviceIdentity(0, "GPU-0", "Fake", memory_total_bytes=1000, max_power_limit_mw=400_000)


def _power(*values: float | None, window: int = 5) -> list[float | None]:
    smooth = ReadingFilter(_IDENTITY, window)
    return [smooth(Reading("GPU-0", time, power_mw=value)).power_mw for time, value in enumerate(values)]  # type: ignore[arg-type]


def test_the_median_of_a_short_window_by_hand() -> None:
    assert _power(100, 300, 200, 900, 100, 100, window=3) == [100, 200, 200, 300, 200, 100]


def test_an_outlier_is_replaced_by_what_came_before() -> None:
    # 1.5 times the limit of 400 W is 600 W.
    assert _power(100_000, 600_001, 120_000) == [100_000, 100_000, 110_000]
    assert _power(600_000) == [600_000]
    assert _power(-1) == [None]


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_what_is_missing_stays_missing_and_ends_the_window(missing: float | None) -> None:
    assert _power(100, 200, missing, 400) == [100, 150, None, 400]


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("utilisation", (0.0, 0.5, 1.0), (-0.01, 1.01)),
        ("memory_utilisation", (0.0, 1.0), (-0.01, 2.0)),
        ("temperature_c", (-20, 60, 125), (-21, 126, 255)),
        ("memory_used_bytes", (0, 1000), (-1, 1001)),
        ("memory_free_bytes", (0, 1000), (-1, 1001)),
        ("power_limit_mw", (0, 600_000), (-1, 600_001)),
        ("sm_clock_mhz", (0, 3000), (-1, 4_294_967_295)),
        ("energy_mj", (0, 2**63), (-1,)),
    ],
)
def test_physical_bounds(field: str, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    for value in inside:
        assert getattr(ReadingFilter(_IDENTITY)(Reading("GPU-0", 0.0, **{field: value})), field) == value  # type: ignore[arg-type]
    for value in outside:
        assert getattr(ReadingFilter(_IDENTITY)(Reading("GPU-0", 0.0, **{field: value})), field) is None  # type: ignore[arg-type]


def test_used_memory_is_held_to_what_the_device_says_it_has() -> None:
    reading = Reading("GPU-0", 0.0, memory_total_bytes=500, memory_used_bytes=600)
    assert ReadingFilter(_IDENTITY)(reading).memory_used_bytes is None


def test_steps_of_memory_and_states_are_not_smoothed() -> None:
    smooth = ReadingFilter(_IDENTITY)
    smooth(Reading("GPU-0", 0.0, memory_used_bytes=900, throttle_reasons=("hw_slowdown",), ecc_uncorrected=1))
    now = smooth(Reading("GPU-0", 1.0, memory_used_bytes=10, throttle_reasons=(), ecc_uncorrected=2))
    assert (now.memory_used_bytes, now.throttle_reasons, now.ecc_uncorrected) == (10, (), 2)


def test_without_a_known_limit_any_power_is_possible() -> None:
    smooth = ReadingFilter(DeviceIdentity(0, "GPU-0", "unknown"))
    assert smooth(Reading("GPU-0", 0.0, power_mw=5_000_000)).power_mw == 5_000_000


def test_a_window_holds_at_least_one_reading() -> None:
    with pytest.raises(ValueError, match="at least 1 reading, not 0"):
        ReadingFilter(_IDENTITY, 0)
    assert _power(100, 300, window=1) == [100, 300]


@given(st.lists(st.none() | st.floats() | st.integers(-(10**7), 10**7), max_size=40), st.integers(1, 9))
def test_what_comes_out_is_possible_or_missing(values: list[float | None], window: int) -> None:
    smooth = ReadingFilter(_IDENTITY, window)
    for time, value in enumerate(values):
        raw = Reading("GPU-0", time, **dict.fromkeys(BOUNDS, value))
        filtered = smooth(raw)
        for name, bound in BOUNDS.items():
            low, high = bound(_IDENTITY, raw)
            out = getattr(filtered, name)
            assert out is None or low <= out <= high
            if value is None or not math.isfinite(value):
                assert out is None
            elif low <= value <= high:
                assert out is not None
    assert set(SMOOTHED) <= set(BOUNDS) <= {field.name for field in fields(Reading)}
