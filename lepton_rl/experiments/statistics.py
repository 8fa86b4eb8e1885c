"""Means with intervals from few, heavy-tailed samples: bootstrap, interquartile mean, paired differences.

A sample is one figure for each window of jobs. Windows that are drawn independently are resampled one by one;
windows that follow each other in one trace are alike, so that runs of neighbours are resampled together
(circular block bootstrap, Politis and Romano 1992). Windows that overlap get no interval at all.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 10_000
_MOST_WEIGHTS = 4_000_000  # larger samples are resampled less often
_TIE = 1e-9  # relative; the same schedule may be summed in another order
_ROUNDING = 1e-12  # relative to the largest figure; sums that ought to cancel leave about this much, or less


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its percentile interval; None where there is no interval to give."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Differences to a rival on the same windows: mean with interval, and how many windows each one won."""

    difference: Estimate
    wins: int
    losses: int
    ties: int


def block_length(n: int) -> int:
    """Return the block for `n` neighbouring windows, of the optimal order n^(1/3) (Kuensch 1989)."""
    return max(1, round(math.cbrt(n)))


def estimate(values: ArrayLike, block: int | None = 1) -> Estimate:
    """Return the mean of one figure per window and its 95 % interval.

    Args:
        values: in the order of the windows.
        block: windows that are resampled together; None where they overlap and an interval would mislead.
    """
    sample = np.asarray(values, dtype=np.float64)
    size = float(np.abs(sample).max())
    mean = _unless_rounding(float(sample.mean()), size)
    return Estimate(mean, *_percentiles(_resampled_means(sample, block), size), len(sample))


def interquartile_mean(values: ArrayLike) -> float:
    """Return the mean of the middle half: a quarter of the values (rounded down) is left out at each end."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def estimate_interquartile_mean(values: ArrayLike, block: int | None = 1) -> Estimate:
    """Return the interquartile mean and its 95 % interval; see `estimate`."""
    sample = np.asarray(values, dtype=np.float64)
    low, high = None, None
    if block is not None and len(sample) > 1:
        drawn = np.sort(sample[_indices(len(sample), block)], axis=1)
        cut = len(sample) // 4
        means = drawn[:, cut : len(sample) - cut].mean(axis=1)
        low, high = _percentiles(means, float(np.abs(sample).max()))
    return Estimate(interquartile_mean(sample), low, high, len(sample))


def compare(values: ArrayLike, rival: ArrayLike, higher_is_better: bool = False, block: int | None = 1) -> Comparison:
    """Return how `values` differ from the rival's on the same windows.

    A window is a tie, its difference 0, below 1e-9 of its two figures or 1e-12 of the largest one of all windows.
    """
    ours, theirs = (np.asarray(sample, dtype=np.float64) for sample in (values, rival))
    difference = ours - theirs
    sizes = np.maximum(np.abs(ours), np.abs(theirs))
    tied = np.abs(difference) <= np.maximum(_TIE * sizes, _ROUNDING * sizes.max())
    difference[tied] = 0.0
    won = (difference > 0) == higher_is_better
    return Comparison(
        estimate(difference, block),
        wins=int(np.count_nonzero(won & ~tied)),
        losses=int(np.count_nonzero(~won & ~tied)),
        ties=int(np.count_nonzero(tied)),
    )


def relative_change(difference: ArrayLike, scale: ArrayLike, block: int | None = 1) -> Estimate:
    """Return the mean difference over the mean scale, of figures per window, and its 95 % interval.

    Both are resampled together, so that a window counts by its size. 0 over 0 is 0; what is infinite has no interval.

    Args:
        difference: in the order of the windows.
        scale: 0 or more each, what the difference of the window is a part of.
        block: as in `estimate`.
    """
    ours, theirs = (np.asarray(sample, dtype=np.float64) for sample in (difference, scale))
    part = float(_part(ours.mean(), theirs.mean()))
    if block is None or len(ours) < 2:
        return Estimate(part, None, None, len(ours))
    weights = _weights(len(ours), block)
    parts = _part(weights @ ours, weights @ theirs)
    return Estimate(part, *_percentiles(parts if np.isfinite(parts).all() else None, 1.0), len(ours))


def _part(difference: ArrayLike, scale: ArrayLike) -> FloatArray:
    """Return difference / scale; infinite over 0, but 0 where both are."""
    ours, theirs = np.asarray(difference, dtype=np.float64), np.asarray(scale, dtype=np.float64)
    over_nothing = np.where(ours == 0, 0.0, np.copysign(np.inf, ours))
    part: FloatArray = np.where(theirs > 0, ours / np.where(theirs > 0, theirs, 1.0), over_nothing)
    return part


def _unless_rounding(figure: float, size: float) -> float:
    """Return the figure, or 0 where it is 0 but for the rounding of sums of figures of this size."""
    return 0.0 if abs(figure) <= _ROUNDING * size else figure


def _resampled_means(sample: FloatArray, block: int | None) -> FloatArray | None:
    if block is None or len(sample) < 2:
        return None
    centre = sample.mean()  # equal values then keep an interval without width
    means: FloatArray = centre + _weights(len(sample), block) @ (sample - centre)
    return means


def _percentiles(means: FloatArray | None, size: float) -> tuple[float | None, float | None]:
    if means is None:
        return None, None
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(means, (tail, 100.0 - tail))
    return _unless_rounding(float(low), size), _unless_rounding(float(high), size)


@lru_cache(maxsize=4)
def _indices(n: int, block: int) -> NDArray[np.int64]:
    """Return (resamples, n) positions; the seed is fixed, so that equal samples have equal intervals."""
    resamples = min(RESAMPLES, max(1000, _MOST_WEIGHTS // n))
    block = min(block, n)
    generator = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(n, block)))
    blocks = -(-n // block)
    starts = generator.integers(0, n, size=(resamples, blocks, 1))
    drawn: NDArray[np.int64] = ((starts + np.arange(block)) % n).reshape(resamples, -1)[:, :n]
    return drawn


@lru_cache(maxsize=4)
def _weights(n: int, block: int) -> FloatArray:
    """Return (resamples, n): how often each window was drawn, over n."""
    drawn = _indices(n, block)
    flat = drawn + n * np.arange(len(drawn))[:, None]
    return np.bincount(flat.ravel(), minlength=drawn.shape[0] * n).reshape(-1, n) / n
