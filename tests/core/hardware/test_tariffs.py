"""Hourly series and what a constant draw costs under them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.core.hardware import HourlySeries, carbon_grams, carbon_series, energy_cost_usd, rental_cost_usd
from lepton_rl.errors import ConfigError

PRICES = HourlySeries.of([50.0, -10.0, 100.0], "prices")
SERIES = st.lists(st.floats(-500, 500), min_size=1, max_size=30)


def test_by_hand() -> None:
    # 1 MW for the last half of hour 0 and the first quarter of hour 1: 25 - 2.5 USD
    assert energy_cost_usd(1e6, 1800.0, 4500.0, PRICES) == pytest.approx(22.5)
    assert energy_cost_usd(1e6, 3600.0, 7200.0, PRICES) == pytest.approx(-10.0)
    assert energy_cost_usd(1e6, 0.0, 10800.0, PRICES) == pytest.approx(140.0)
    assert energy_cost_usd(1e6, 5000.0, 5000.0, PRICES) == 0.0
    # 400 W for two hours at 100 and 300 g/kWh: 40 + 120 g
    assert carbon_grams(400.0, 0.0, 7200.0, carbon_series([100.0, 300.0])) == pytest.approx(160.0)
    assert rental_cost_usd(2.0, 4, 1800.0) == 4.0


@given(values=SERIES, parts=st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_an_integral_is_the_sum_of_its_pieces(values: list[float], parts: list[float]) -> None:
    series = HourlySeries.of(values)
    times = sorted(part * series.seconds for part in parts)
    whole = series.integral(times[0], times[-1])
    pieces = sum(series.integral(begin, end) for begin, end in itertools.pairwise(times))
    assert pieces == pytest.approx(whole, abs=1e-4)


@given(values=SERIES, hour=st.integers(0, 29))
def test_whole_hours_are_the_values(values: list[float], hour: int) -> None:
    series = HourlySeries.of(values)
    at = hour % len(values)
    assert series.integral(at * 3600.0, (at + 1) * 3600.0) == pytest.approx(values[at] * 3600, abs=1e-5)


def test_a_series_shorter_than_the_workload_is_refused() -> None:
    with pytest.raises(ConfigError, match="prices: the series covers 3 hours, and 4 are needed; give a longer one"):
        PRICES.require(10801.0)
    with pytest.raises(ConfigError, match="covers 3 hours, and 4 are needed"):
        energy_cost_usd(100.0, 0.0, 14400.0, PRICES)
    PRICES.require(10800.0)
    with pytest.raises(ConfigError, match="covers 3 hours, and inf are needed"):
        PRICES.integral(0.0, float("inf"))


def test_intervals_are_checked() -> None:
    for begin, end in ((-1.0, 10.0), (20.0, 10.0), (float("nan"), 10.0)):
        with pytest.raises(ConfigError, match="an interval must satisfy"):
            PRICES.integral(begin, end)


def test_negative_values() -> None:
    assert PRICES.negative_hours().tolist() == [1]
    report = PRICES.negative_report()
    assert report == ("prices: 1 hour of 3 below 0 (counted from 0: 1), down to -10; energy earns money in them")
    assert HourlySeries.of([0.0, 1.0]).negative_report() is None
    with pytest.raises(ConfigError, match="carbon series: hour 1 has a carbon intensity of -1 g/kWh; it must be 0"):
        carbon_series([1.0, -1.0])
    with pytest.raises(ConfigError, match=r"a rental price must be 0 or more, not -0.5 USD per hour"):
        rental_cost_usd(-0.5, 1, 3600.0)


def test_wrong_series_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs at least one value"):
        HourlySeries.of([])
    with pytest.raises(ConfigError, match="prices: the value of hour 1 is not a number"):
        HourlySeries.of([1.0, np.nan], "prices")


def test_a_series_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        PRICES.cumulative[0] = 1.0
