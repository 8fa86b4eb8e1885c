"""Intervals against cases worked by hand, and against how often they hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.experiments.statistics import (
    block_length,
    compare,
    estimate,
    estimate_interquartile_mean,
    interquartile_mean,
    relative_change,
)


def test_equal_values_have_an_interval_without_width() -> None:
    found = estimate([2.5] * 50)
    assert (found.mean, found.low, found.high, found.n) == (2.5, 2.5, 2.5, 50)


def test_two_values_have_the_interval_that_counting_gives() -> None:
    # resampling 0 and 1 gives a mean of 0 or 1 with probability 1/4 each: beyond 2.5 % on both sides
    found = estimate([0.0, 1.0])
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_one_window_and_overlapping_windows_have_no_interval() -> None:
    assert estimate([3.0]).low is None
    assert estimate([3.0, 4.0], block=None).high is None
    assert compare([1.0, 2.0], [2.0, 1.0], block=None).difference.low is None


def test_a_relative_change_counts_windows_by_their_size() -> None:
    found = relative_change([-1.0, -30.0], [10.0, 60.0])
    # resampling gives -2/20, -31/70 or -60/120
    assert [found.mean, found.low, found.high] == pytest.approx([-31 / 70, -0.5, -0.1])
    assert relative_change([-1.0], [10.0]).low is None
    assert relative_change([0.0, 0.0], [0.0, 0.0]).high == 0.0
    endless = relative_change([0.0, 1.0], [0.0, 0.0])
    assert (endless.mean, endless.low) == (np.inf, None)
    assert relative_change([-9.0, -90.0, -45.0], [10.0, 100.0, 50.0]).low == pytest.approx(-0.9)


def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end() -> None:
    assert interquartile_mean([100.0, 1.0, 2.0, -50.0]) == 1.5
    assert interquartile_mean([1.0, 2.0, 3.0]) == 2.0
    found = estimate_interquartile_mean([*range(40), 1e9])
    assert found.mean == 20.0
    assert found.high is not None
    assert found.high < 40


def test_a_comparison_is_paired_and_counts_windows() -> None:
    found = compare([1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 3.0, 3.0])
    assert (found.wins, found.losses, found.ties) == (2, 1, 1)
    assert found.difference.mean == -0.25
    better_high = compare([1.0, 2.0], [0.5, 2.0 + 1e-12], higher_is_better=True)
    assert (better_high.wins, better_high.losses, better_high.ties) == (1, 0, 1)


def test_what_is_zero_but_for_rounding_is_zero() -> None:
    for one in (0.1, 0.7, 1.9, 1234.5, 1e-3):  # the single loss is in most resamples, not in all
        found = compare([one + 0.3, *[1.0] * 29], [one, *[1.0] * 29]).difference
        assert found.low == 0.0
        assert found.high is not None
        assert found.high > 0.01
    assert estimate([0.1, 0.2, -0.3]).mean == 0.0
    assert estimate([1e-17, -1e-17, 3e-17]).low == pytest.approx(-1e-17)  # small data are no rounding


def test_noise_is_a_tie_and_no_win() -> None:
    found = compare([1e-17, 0.1 + 0.2, 5.0], [0.0, 0.3, 4.0])
    assert (found.wins, found.losses, found.ties) == (0, 1, 2)
    assert (found.difference.low, found.difference.high) == (0.0, 1.0)


def test_pairing_narrows_the_interval() -> None:
    generator = np.random.default_rng(1)
    windows = generator.lognormal(3, 1, 60)
    found = compare(windows * 0.9, windows)
    assert found.difference.high is not None
    assert found.difference.high < 0
    assert found.wins == 60


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(7)
    samples = generator.exponential(1.0, (200, 50))
    held = sum(e.low <= 1.0 <= e.high for e in map(estimate, samples) if e.low is not None and e.high is not None)
    assert 0.88 <= held / 200 <= 0.98  # percentile intervals of skewed samples are a little narrow


def test_blocks_widen_the_interval_of_neighbours_that_are_alike() -> None:
    generator = np.random.default_rng(3)
    noise = generator.normal(size=(100, 60))
    alike = np.empty_like(noise)
    alike[:, 0] = noise[:, 0]
    for t in range(1, 60):
        alike[:, t] = 0.6 * alike[:, t - 1] + 0.8 * noise[:, t]

    def coverage(block: int) -> float:
        found = [estimate(sample, block) for sample in alike]
        return float(np.mean([e.low <= 0.0 <= e.high for e in found if e.low is not None and e.high is not None]))

    assert coverage(1) < 0.75
    assert coverage(block_length(60)) > coverage(1) + 0.08


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30), st.integers(1, 5))
def test_intervals_lie_within_the_values_and_repeat(values: list[float], block: int) -> None:
    found = estimate(values, block)
    assert found == estimate(values, block)
    assert found.low is not None
    assert found.high is not None
    slack = 1e-6 * max(map(abs, values)) + 1e-12
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack


@pytest.mark.parametrize(("n", "block"), [(1, 1), (10, 2), (50, 4), (100, 5), (1000, 10)])
def test_block_length(n: int, block: int) -> None:
    assert block_length(n) == block
