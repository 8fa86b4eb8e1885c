"""Arrival times whose rate follows the hour of the day, or of the week."""

import numpy as np
from numpy.typing import NDArray

Seed = int | np.random.SeedSequence | np.random.Generator

DAY = 86400.0
WEEK = 7 * DAY


def through_cycle(gaps: NDArray[np.float64], weights: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    """Return arrival times, seconds after the start of a period, for gaps given at the mean rate.

    Time runs faster where the weight is high: a gap of g seconds takes g / weight seconds there. The mean gap
    over whole periods is kept.

    Args:
        gaps: seconds between arrivals if the rate were constant.
        weights: relative rates of equal slots of the period, above 0.
        period: seconds.
    """
    slots = len(weights)
    passed = np.concatenate(([0.0], np.cumsum(weights / weights.sum())))  # share of a period's arrivals
    passed[-1] = 1.0
    whole, part = np.divmod(np.cumsum(gaps) / period, 1.0)
    result: NDArray[np.float64] = (whole + np.interp(part, passed, np.arange(slots + 1) / slots)) * period
    return result
