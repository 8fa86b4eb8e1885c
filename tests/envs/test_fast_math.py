"""The features' exponential beside libm's."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.core.jit import njit
from lepton_rl.envs.fast_math import fast_exp


@njit
def _of_one(value: float) -> float:
    return fast_exp(value)


@given(st.floats(-700.0, 0.0))
def test_it_is_the_exponential_to_a_few_units_in_the_last_place(value: float) -> None:
    assert math.isclose(_of_one(value), math.exp(value), rel_tol=4e-15, abs_tol=0.0)


def test_ends_are_exact() -> None:
    assert _of_one(0.0) == 1.0
    assert _of_one(-0.0) == 1.0
    assert _of_one(-701.0) == 0.0
    assert _of_one(-np.inf) == 0.0
