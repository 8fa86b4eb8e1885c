"""Linear programs on HiGHS, through scipy."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_rl.core.arrays import Floats
from lepton_rl.errors import ConfigError, missing_extra


class NoOptimum(ConfigError):
    """A linear program has no optimum, or the solver does not find it."""


@dataclass(frozen=True, eq=False)
class Solution:
    """An optimum.

    Attributes:
        x: (variables,).
        value: what was greatest.
        prices: (rows,), what one more of each row's limit would add to the value; 0 where the row does not bind.
    """

    x: Floats
    value: float
    prices: Floats


def maximise(gain: Floats, rows: Any, limits: Floats) -> Solution:
    """Return x >= 0 with `rows @ x <= limits` for which `gain @ x` is greatest.

    Args:
        gain: (variables,).
        rows: (rows, variables), an array or a sparse one of scipy.
        limits: (rows,).

    Raises:
        MissingExtra: scipy is not installed.
        NoOptimum: there is none, or the solver does not find it.
    """
    try:
        from scipy.optimize import linprog
    except ImportError:
        raise missing_extra("scipy", "solve") from None
    found = linprog(-gain, A_ub=rows, b_ub=limits, bounds=(0, None), method="highs")
    if found.status != 0:
        raise NoOptimum(f"the linear program has no optimum that HiGHS can find: {found.message}")
    return Solution(np.maximum(found.x, 0.0), -float(found.fun), -np.asarray(found.ineqlin.marginals))
