"""Who is on the Pareto front."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.experiments.drawing import line_style
from lepton_rl.experiments.pareto import Point, non_dominated, pareto_figure
from lepton_rl.experiments.statistics import Estimate


def test_the_front_by_hand() -> None:
    points = np.array([[1.0, 5.0], [2.0, 2.0], [2.0, 3.0], [0.5, 5.0], [4.0, 1.0], [0.5, 5.0]])
    assert non_dominated(points).tolist() == [3, 5, 1, 4]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_each_point_is_on_the_front_or_dominated_by_it(pairs: list[tuple[int, int]]) -> None:
    points = np.array(pairs, dtype=np.float64)
    front = non_dominated(points)

    def dominates(one: int, other: int) -> bool:
        return bool((points[one] <= points[other]).all() and (points[one] < points[other]).any())

    for row in range(len(points)):
        assert (row in front) != any(dominates(one, row) for one in range(len(points)))
        assert row in front or any(dominates(one, row) for one in front.tolist())
    assert (np.diff(points[front, 0]) >= 0).all()


def test_a_yardstick_dominates_nobody() -> None:
    pytest.importorskip("matplotlib")
    figures = {"optimum": (1.0, 1.0), "saf": (2.0, 3.0), "fcfs": (4.0, 4.0)}
    points = [
        Point(name, line_style(index), Estimate(jct, None, None, 1), Estimate(energy, None, None, 1), name != "optimum")
        for index, (name, (jct, energy)) in enumerate(figures.items())
    ]
    (legend,) = pareto_figure(points).legends
    assert [text.get_fontweight() for text in legend.get_texts()] == ["normal", "bold", "normal"]
