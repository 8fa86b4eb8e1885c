"""Divisible tasks on GPUs, by hand and by what holds for every instance."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.agents import allocate
from lepton_rl.errors import ConfigError, MissingExtra


def test_more_work_than_there_is_room_for_the_worthier_task_first() -> None:
    # GPUs of 6 and 4; tasks of 10 and 5. Part of a task is worth 1 / 10 and 3 / 5 for each unit: all of the second one,
    # half of the first.
    found = allocate([10, 5], [6, 4], [1, 3])
    assert found.parts.sum(axis=1) == pytest.approx([0.5, 1.0])
    assert found.loads == pytest.approx([1.0, 1.0])
    assert found.value == pytest.approx(3.5)


def test_a_load_that_fits_is_spread_evenly() -> None:
    found = allocate([3, 2], [6, 4])
    assert found.parts.sum(axis=1) == pytest.approx([1.0, 1.0])
    assert found.loads == pytest.approx([0.5, 0.5])
    assert found.utilization == pytest.approx(0.5)


@given(
    demands=st.lists(st.floats(0.0, 50.0), min_size=1, max_size=5),
    capacities=st.lists(st.floats(0.5, 50.0), min_size=1, max_size=4),
    data=st.data(),
)
def test_no_limit_is_broken_and_the_value_is_that_of_the_greedy_knapsack(
    demands: list[float], capacities: list[float], data: st.DataObject
) -> None:
    # Tasks are divisible without end, so that the GPUs are one knapsack: best worth for each unit first.
    weights = data.draw(st.lists(st.floats(0.0, 9.0), min_size=len(demands), max_size=len(demands)))
    found = allocate(demands, capacities, weights)
    assert (found.parts >= 0).all()
    assert (found.parts.sum(axis=1) <= 1 + 1e-6).all()
    assert (found.loads <= 1 + 1e-6).all()
    room, best = sum(capacities), 0.0
    for demand, weight in sorted(zip(demands, weights, strict=True), key=lambda task: -task[1] / max(task[0], 1e-12)):
        part = 1.0 if demand <= room else room / demand
        room -= part * demand
        best += part * weight
    assert found.value == pytest.approx(best, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([1, -2], [3]), "the demand of task 1 must be a finite number, 0 or more, not -2"),
        (([1, np.nan], [3]), "the demand of task 1 must be a finite number, 0 or more, not nan"),
        (([1], [3, 0]), "the capacity of GPU 1 must be a finite number, above 0, not 0"),
        (([1], [3], [-1]), "the weight of task 0 must be a finite number, 0 or more, not -1"),
        (([1, 2], [3], [1]), "there are 1 weights for 2 tasks; give one for each"),
        (([], [3]), "give a list with the demand of each task, at least one"),
        (([[1]], [3]), "give a list with the demand of each task, at least one"),
        ((["much"], [3]), "each demand must be a number"),
    ],
)
def test_what_cannot_be_allocated_is_refused(arguments: tuple[list[float], ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        allocate(*arguments)


def test_a_missing_scipy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtra, match=r"lepton-rl\[solve\]"):
        allocate([1], [1])
