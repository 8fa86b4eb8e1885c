"""Shares of types of GPU: worked by hand, and against every corner of tiny programs."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.agents import ShareProblem, max_min_shares, max_throughput_shares
from lepton_rl.core.arrays import Floats
from lepton_rl.errors import ConfigError


def problem(rates: list[list[float]], capacity: list[float], **others: list[float]) -> ShareProblem:
    ones = [1.0] * len(rates)
    return ShareProblem(
        np.array(others.get("jobs", ones)),
        np.array(others.get("gpus", ones)),
        np.array(rates),
        np.array(capacity),
    )


def test_three_jobs_on_a_v100_and_a_k80() -> None:
    # The throughputs of the example of Gavel's section 4.1. All levels are equal at the optimum: with shares a, (b, c),
    # (d, e) and an equal share of a third of both, 40 a = 50 z / 3, 12 b + 4 c = 16 z / 3, 100 d + 50 e = 150 z / 3,
    # a + b + d = c + e = d + e = 1: z = 12 / 11, each job has 9 % more than a third of the cluster.
    three = problem([[40.0, 10.0], [12.0, 4.0], [100.0, 50.0]], [1.0, 1.0])
    shares = max_min_shares(three)
    assert shares * 11 == pytest.approx(np.array([[5.0, 0.0], [5.0, 1.0], [1.0, 10.0]]), abs=1e-4)
    assert three.levels(shares) == pytest.approx(3 * [12 / 11 * 2 / 3])


def test_two_classes_on_two_types() -> None:
    # Class 0 gains 4 times from the fast GPU, class 1 not at all: each goes where it loses least.
    two = problem([[4.0, 1.0], [1.0, 1.0]], [1.0, 1.0])
    for shares in (max_min_shares(two), max_throughput_shares(two)):
        assert shares == pytest.approx(np.eye(2), abs=1e-4)
    # Both gain from it, class 0 more. Most is done with class 0 there (4 + 1 of 3 + 2); levels (1 + 3 a) / 2.5 and
    # (2 - a) / 1.5 for a part a of it are equal at a half.
    both = problem([[4.0, 1.0], [2.0, 1.0]], [1.0, 1.0])
    assert max_throughput_shares(both) == pytest.approx(np.eye(2), abs=1e-4)
    assert max_min_shares(both) == pytest.approx(np.full((2, 2), 0.5), abs=1e-4)


def test_what_some_cannot_use_goes_to_the_others() -> None:
    # Six GPUs: two jobs of one GPU run all the time, and two of four GPUs share what is left.
    shares = max_min_shares(problem([[1.0], [1.0]], [6.0], jobs=[2.0, 2.0], gpus=[1.0, 4.0]))
    assert shares.ravel() == pytest.approx([1.0, 0.5], abs=1e-4)


def test_of_equal_throughputs_the_fairest() -> None:
    # One type: all full allocations do the same work.
    shares = max_throughput_shares(problem([[1.0], [1.0]], [2.0], jobs=[4.0, 4.0]))
    assert shares.ravel() == pytest.approx([0.25, 0.25], abs=1e-4)


def test_a_gang_larger_than_each_type_takes_of_both() -> None:
    # Pools: type 0, type 1, both. The gang of 6 on 4 + 4 GPUs takes half of its GPUs from each, 3 of 4; alone it runs
    # all the time and leaves one of each type.
    shares = max_min_shares(
        ShareProblem(
            jobs=np.array([1.0, 8.0]),
            gpus=np.array([6.0, 1.0]),
            rates=np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]),
            capacity=np.array([4.0, 4.0]),
            pools=np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]),
        )
    )
    # Levels: 6 x of the gang, 1 y of the others, 6 x + 8 y = 8: equal at 8 / 9.
    assert shares[0] == pytest.approx([0.0, 0.0, 4 / 27], abs=1e-4)
    assert shares[1].sum() == pytest.approx(8 / 9, abs=1e-4)


def corner_optimum(gain: Floats, rows: Floats, limits: Floats) -> float:
    """The best corner of `rows @ x <= limits`, x >= 0, by trying all of them."""
    every, most = np.vstack([rows, -np.eye(len(gain))]), np.append(limits, np.zeros(len(gain)))
    best = 0.0
    for chosen in combinations(range(len(every)), len(gain)):
        corner = every[list(chosen)]
        if abs(np.linalg.det(corner)) > 1e-9:
            x = np.linalg.solve(corner, most[list(chosen)])
            if (every @ x <= most + 1e-9).all():
                best = max(best, float(gain @ x))
    return best


RATES = st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0])


@st.composite
def problems(draw: st.DrawFn) -> ShareProblem:
    kinds, types = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return problem(
        [[draw(RATES) for _ in range(types)] for _ in range(kinds)],
        [draw(st.integers(1, 8).map(float)) for _ in range(types)],
        jobs=[draw(st.integers(1, 9).map(float)) for _ in range(kinds)],
        gpus=[draw(st.sampled_from([0.5, 1.0, 2.0, 4.0])) for _ in range(kinds)],
    )


@settings(max_examples=60)
@given(small=problems())
def test_no_corner_is_better(small: ShareProblem) -> None:
    kinds, types = small.rates.shape
    demand = small.jobs * small.gpus
    time = np.kron(np.eye(kinds), np.ones(types))
    gpus = np.kron(demand, np.eye(types))
    rows, limits = np.vstack([time, gpus]), np.append(np.ones(kinds), small.capacity)

    fast = max_throughput_shares(small)
    most = corner_optimum((demand[:, None] * small.rates).ravel(), rows, limits)
    assert float(small.jobs @ small.throughput(fast)) == pytest.approx(most, rel=1e-4)

    fair = max_min_shares(small)
    level = time * ((small.gpus / small.equal_rate)[:, None] * small.rates).ravel()
    with_least = np.hstack([np.vstack([-level, rows]), np.append(np.ones(kinds), np.zeros(len(rows)))[:, None]])
    least = corner_optimum(np.append(np.zeros(kinds * types), 1.0), with_least, np.append(np.zeros(kinds), limits))
    assert small.levels(fair).min() == pytest.approx(least, rel=1e-4)

    for shares in (fast, fair):
        assert (shares >= 0).all()
        assert (rows @ shares.ravel() <= limits * (1 + 1e-6)).all()


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"rates": [[1.0, -1.0]], "capacity": [1.0, 1.0]}, "rates must be finite and 0 or more"),
        ({"rates": [[1.0]], "capacity": [0.0]}, r"capacity must be a list of finite numbers above 0, not \[0.0\]"),
        ({"rates": [[1.0]], "capacity": [1.0], "jobs": [-1.0]}, "jobs must be a list of finite numbers above 0"),
        ({"rates": [[0.0]], "capacity": [1.0]}, "kind 0 has a rate above 0 in no pool"),
        ({"rates": [[1.0]], "capacity": [1.0, 1.0]}, "1 kinds of jobs and 2 pools need"),
    ],
)
def test_bad_figures_are_refused(given_: dict[str, list[float]], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        problem(**given_)  # type: ignore[arg-type]
