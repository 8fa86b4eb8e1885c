"""Deadlines drawn for the jobs of a trace that has none: how long a job runs, times a factor of its own.

So does Gavel (Narayanan et al., OSDI 2020), whose program draws 1.2, 2 or 10 times the run time, each for a third of
the jobs; here the factor is uniform between two bounds. Chronus (Gao et al., SoCC 2021) mixes jobs that have a deadline
with others that have none; `share` says how many have one.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import ConfigError
from lepton_rl.workloads.columns import MAX_SECONDS

MultipleOf = Literal["run_time", "requested_time"]
NOTE = "deadlines: "
"""How the note about drawn deadlines begins."""
GAVEL_FACTORS = (1.2, 10.0)
"""The smallest and the largest factor of Gavel's program."""
_LARGEST_FACTOR = 1000.0


def check_factors(factors: tuple[float, float]) -> None:
    """Refuse factors below 1, which no job could meet, or in the wrong order."""
    try:
        low, high = (float(factor) for factor in factors)
    except (TypeError, ValueError):
        raise ConfigError(f"deadlines: the factors must be two numbers, the smaller first, not {factors!r}") from None
    if not 1.0 <= low <= high <= _LARGEST_FACTOR:
        raise ConfigError(
            f"deadlines: the factors are {low:g} and {high:g}; they must be two numbers from 1 to {_LARGEST_FACTOR:g}, "
            "the smaller first"
        )


def parse_factors(text: str) -> tuple[float, float]:
    """Return (1.2, 10.0) for "1.2:10"."""
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise ConfigError(f"deadlines {text!r}: write LOW:HIGH, two factors of the run time, e.g. 1.2:10") from None
    check_factors((low, high))
    return low, high


def draw(
    seconds: NDArray[np.float64],
    factors: tuple[float, float],
    least_slack: float,
    share: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return seconds from submission to deadline, shape (jobs,); NaN where a job has none.

    Args:
        seconds: (jobs,) what the factors multiply.
        factors: bounds of a uniform draw.
        least_slack: seconds that a deadline leaves at least beyond `seconds`.
        share: probability that a job has a deadline; which factor it gets does not depend on it.
        rng: drawn from.
    """
    check_factors(factors)
    for name, value in (("least_slack", least_slack), ("share", share)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise ConfigError(f"deadlines: {name} must be a number, not {value!r}")
    if not 0.0 <= least_slack <= MAX_SECONDS:
        raise ConfigError(f"deadlines: the least slack is {least_slack:g} s; it must lie between 0 and {MAX_SECONDS:g}")
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"deadlines: the share of the jobs is {share:g}; it must be above 0 and at most 1")
    factor = rng.uniform(*factors, len(seconds))
    due = np.minimum(np.maximum(factor * seconds, seconds + least_slack), MAX_SECONDS)
    return np.where(rng.random(len(seconds)) < share, due, np.nan)


def said(of: MultipleOf, factors: tuple[float, float], least_slack: float, share: float) -> str:
    """Return the note about deadlines that were drawn."""
    low, high = factors
    times = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    slack = f", at least {least_slack:g} s more" if least_slack else ""
    jobs = "" if share == 1.0 else f", for {100 * share:g} % of the jobs"
    return f"{NOTE}drawn, {times} times the {of.replace('_', ' ')}{slack}{jobs}"
