"""Slowdown of jobs that share a GPU."""

import math

import numpy as np
import pytest

from lepton_rl.core.hardware import PairTable, interference_coefficient, pair_table, shared_slowdown
from lepton_rl.errors import ConfigError


def test_the_formula_by_hand() -> None:
    assert shared_slowdown(1.0, 1.0, 0.5) == 1.5
    assert shared_slowdown(0.5, 0.5, 0.5) == 1.125
    assert shared_slowdown(1.0, 0.0, 0.5) == 1.0  # alone
    # three jobs: what each other one adds is added up
    assert shared_slowdown(1.0, 2.0, 0.5) == 1.0 + 2 * (shared_slowdown(1.0, 1.0, 0.5) - 1.0)


def test_two_busy_jobs_share_better_than_by_turns() -> None:
    for gpu in ("V100-SXM2-16GB", "P100-PCIe", "K80"):
        assert 1.0 < shared_slowdown(1.0, 1.0, interference_coefficient(gpu)) < 2.0
    assert interference_coefficient("A100-SXM4-80GB") == interference_coefficient()


def test_a_table_by_hand() -> None:
    table = pair_table({("a", "b"): (0.5, 0.8), ("b", "c"): (1.2, 0.0), ("a", "a"): (0.5, 0.25)})
    assert table.jobs == ("a", "b", "c")
    assert table.slowdown_beside("a", ["b"]) == 2.0
    assert table.slowdown_beside("b", ["a"]) == 1.25
    assert table.slowdown_beside("b", ["c"]) == 1.0  # faster than alone is noise
    assert table.slowdown_beside("c", ["b"]) == math.inf  # the two do not run together
    assert table.slowdown_beside("a", ["a"]) == 3.0  # the mean of 2 and 4
    assert math.isnan(table.slowdown_beside("a", ["c"]))  # not measured
    assert table.slowdown_beside("a", ["b", "b"]) == 3.0
    assert table.slowdown_beside("a", []) == 1.0


def test_wrong_tables_are_refused() -> None:
    with pytest.raises(ConfigError, match="no job called 'bert 23'; did you mean 'bert 32'"):
        pair_table({("bert 32", "gpt"): (1.0, 1.0)}).slowdown_beside("bert 23", [])
    with pytest.raises(ConfigError, match=r"the speed of 'a' beside 'b' must be 0 or more, not -0.5"):
        pair_table({("a", "b"): (-0.5, 1.0)})
    with pytest.raises(ConfigError, match="names a job twice"):
        PairTable(("a", "a"), np.ones((2, 2)))
    with pytest.raises(ConfigError, match=r"must be square, not of shape \(1, 2\)"):
        PairTable(("a", "b"), np.ones((1, 2)))
    with pytest.raises(ConfigError, match=r"a slowdown must be 1 or more, not 0.5"):
        PairTable(("a",), np.array([[0.5]]))
