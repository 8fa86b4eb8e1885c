"""Energy by counter and by integral: worked out by hand, and never falling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.devices import EnergyMeter


def test_the_trapezoid_by_hand() -> None:
    meter = EnergyMeter()
    assert meter.add(10.0, None, 100_000).integrated_mj is None
    assert meter.add(12.0, None, 300_000).integrated_mj == 400_000  # 200 W for 2 s
    assert meter.add(12.5, None, 100_000).integrated_mj == 500_000  # 200 W for 0.5 s


def test_the_counter_counts_from_its_first_word() -> None:
    meter = EnergyMeter(600_000)
    assert meter.add(0.0, 5_000_000, None).counter_mj is None
    assert meter.add(1.0, 5_100_000, None).counter_mj == 100_000
    assert meter.add(2.0, 5_100_000, None).counter_mj == 100_000


def test_unknown_power_is_a_gap_that_is_counted() -> None:
    meter = EnergyMeter()
    meter.add(0.0, None, 100_000)
    meter.add(1.0, None, 100_000)
    meter.add(3.0, None, None)
    meter.add(4.0, None, None)
    energy = meter.add(5.0, None, 100_000)
    assert energy.missing_s == 4.0
    assert energy.integrated_mj == 100_000
    assert meter.add(6.0, None, 100_000).integrated_mj == 200_000


def test_the_counter_bridges_a_gap_of_its_own() -> None:
    meter = EnergyMeter(600_000)
    meter.add(0.0, 1_000, None)
    meter.add(1.0, None, None)
    assert meter.add(10.0, 901_000, None).counter_mj == 900_000


@pytest.mark.parametrize("width", [2**32, 2**64])
def test_a_counter_that_wraps_around(width: int) -> None:
    meter = EnergyMeter(600_000)
    meter.add(0.0, width - 60_000, None)
    energy = meter.add(1.0, 40_000, None)
    assert energy.counter_mj == 100_000
    assert energy.resets == 0


def test_a_driver_that_is_loaded_again_counts_from_zero() -> None:
    meter = EnergyMeter(600_000)
    meter.add(0.0, 10**9, None)
    meter.add(1.0, 10**9 + 100_000, None)
    energy = meter.add(2.0, 70_000, None)
    assert energy.counter_mj == 170_000
    assert energy.resets == 1


def test_an_impossible_step_is_no_energy() -> None:
    meter = EnergyMeter(600_000)
    meter.add(0.0, 0, None)
    energy = meter.add(1.0, 10**12, None)
    assert energy.counter_mj == 0
    assert energy.resets == 1
    assert meter.add(2.0, 10**12 + 50_000, None).counter_mj == 50_000


def test_without_a_known_maximum_a_fall_adds_nothing() -> None:
    meter = EnergyMeter()
    meter.add(0.0, 10**9, None)
    assert meter.add(1.0, 5, None).counter_mj == 0


def _fed(counter_mw: float, power_mw: int, seconds: int) -> EnergyMeter:
    meter = EnergyMeter(600_000, allowed_difference=0.2, window_s=60.0)
    for second in range(seconds + 1):
        meter.add(float(second), round(second * counter_mw), power_mw)
    return meter


def test_two_that_agree_are_not_flagged() -> None:
    energy = _fed(100_000, 110_000, 120).energy
    assert not energy.disagree
    assert energy.difference == pytest.approx(1 / 11)


def test_two_that_disagree_are_flagged_once_the_window_is_full() -> None:
    # Seen on an idle card (Zeus, issue 181): 187 J by one, 327 J by the other.
    assert not _fed(187_000, 327_000, 59).energy.disagree
    energy = _fed(187_000, 327_000, 60).energy
    assert energy.disagree
    assert energy.difference == pytest.approx(140 / 327)


def test_a_disagreement_that_is_over_is_forgotten() -> None:
    meter = _fed(187_000, 327_000, 60)
    for second in range(61, 122):
        meter.add(float(second), round(60 * 187_000 + (second - 60) * 327_000), 327_000)
    assert not meter.energy.disagree


def test_spans_that_differ_are_not_compared() -> None:
    meter = _fed(100_000, 100_000, 59)
    meter.add(60.0, None, 100_000)
    assert meter.energy.difference is None
    meter.add(61.0, 61 * 100_000, 100_000)  # the counter speaks of two seconds, the integral of one
    assert meter.energy.difference is None
    assert meter.energy.counter_mj == meter.energy.integrated_mj == 61 * 100_000
    meter.add(62.0, 62 * 100_000, 100_000)
    assert meter.energy.difference is None  # a full window has no hole
    short = EnergyMeter(600_000, window_s=1.0)
    short.add(0.0, 0, 100_000)
    short.add(1.0, None, 100_000)
    assert short.add(2.0, 200_000, 100_000).difference is None
    assert short.add(3.0, 300_000, 100_000).difference == 0.0


def test_an_idle_pair_of_zeros_agrees() -> None:
    assert _fed(0, 0, 60).energy.difference == 0.0


@given(
    st.lists(
        st.tuples(
            st.floats(-100, 1e6),
            st.none() | st.integers(0, 2**64 - 1),
            st.none() | st.integers(0, 600_000),
        ),
        max_size=50,
    ),
    st.none() | st.just(600_000.0),
)
def test_energy_never_falls(readings: list[tuple[float, int | None, int | None]], max_power_mw: float | None) -> None:
    meter = EnergyMeter(max_power_mw, window_s=10.0)
    before = meter.energy
    for monotonic_s, counter_mj, power_mw in readings:
        now = meter.add(monotonic_s, counter_mj, power_mw)
        assert (now.counter_mj or 0) >= (before.counter_mj or 0)
        assert (now.integrated_mj or 0) >= (before.integrated_mj or 0)
        assert now.missing_s >= before.missing_s
        assert now.resets >= before.resets
        before = now
