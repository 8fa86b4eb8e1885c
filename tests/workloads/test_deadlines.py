"""Deadlines that are drawn."""

import math
from typing import Any

import numpy as np
import pytest

from lepton_rl.errors import ConfigError, TraceError
from lepton_rl.workloads import Trace, lublin

SECONDS = [10.0, 100.0, 1000.0]


def three(**columns: Any) -> Trace:
    return Trace.from_columns({"submit_time": [0.0, 1.0, 2.0], "run_time": SECONDS, "gpus": [1.0] * 3, **columns})


@pytest.fixture(scope="module")
def trace() -> Trace:
    return lublin(10_000, 256, seed=5)


def test_one_factor_for_all() -> None:
    assert three().with_deadlines((2.0, 2.0)).deadline.tolist() == [20.0, 200.0, 2000.0]
    assert three().with_deadlines((2.0, 2.0), least_slack=60.0).deadline.tolist() == [70.0, 200.0, 2000.0]


def test_multiples_of_what_users_asked_for() -> None:
    asked = three(requested_time=[60.0, 50.0, 3600.0])
    assert asked.with_deadlines((1.5, 1.5), of="requested_time").deadline.tolist() == [90.0, 75.0, 5400.0]
    with pytest.raises(TraceError, match="cannot be multiples of requested times, for there are none"):
        asked.with_requested("absent").with_deadlines(of="requested_time")


def test_factors_are_uniform_between_their_bounds(trace: Trace) -> None:
    drawn = trace.with_deadlines((1.2, 10.0), rng=np.random.default_rng(1))
    factor = drawn.deadline / trace.run_time
    assert 1.2 <= factor.min() < 1.3
    assert 9.9 < factor.max() <= 10.0
    assert factor.mean() == pytest.approx(5.6, abs=0.1)
    assert abs(np.corrcoef(factor, trace.run_time)[0, 1]) < 0.05


def test_a_share_of_the_jobs_with_the_factors_that_they_would_have_anyway(trace: Trace) -> None:
    every = trace.with_deadlines(rng=np.random.default_rng(1))
    some = trace.with_deadlines(share=0.25, rng=np.random.default_rng(1))
    has = ~np.isnan(some.deadline)
    assert has.mean() == pytest.approx(0.25, abs=0.02)
    assert some.deadline[has].tolist() == every.deadline[has].tolist()


def test_the_generator_decides(trace: Trace) -> None:
    first, again, other = (trace.with_deadlines(rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert trace.with_deadlines() == trace.with_deadlines(rng=np.random.default_rng(0))


def test_those_of_the_file_are_replaced_and_a_note_says_what_is_there() -> None:
    filed = three(deadline=[5.0, math.nan, 7.0])
    assert not any("deadlines" in note for note in filed.notes)
    twice = filed.with_deadlines().with_deadlines((2.0, 3.0), least_slack=60.0, share=0.999)
    assert (np.isnan(twice.deadline) | (twice.deadline >= 2.0 * twice.run_time)).all()
    said = [note for note in twice.notes if note.startswith("deadlines")]
    assert said == ["deadlines: drawn, 2 to 3 times the run time, at least 60 s more, for 99.9 % of the jobs"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"factors": (0.5, 2.0)},
            "the factors are 0.5 and 2; they must be two numbers from 1 to 1000",
        ),
        ({"factors": (3.0, 2.0)}, "the smaller first"),
        ({"factors": (1.0, math.nan)}, "the factors are 1 and nan"),
        ({"least_slack": -1.0}, "the least slack is -1 s; it must lie between 0 and"),
        ({"share": 0.0}, "the share of the jobs is 0; it must be above 0 and at most 1"),
    ],
)
def test_figures_out_of_bounds(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        three().with_deadlines(**settings)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"factors": 2}, "the factors must be two numbers, the smaller first, not 2"),
        ({"factors": (1, 2, 3)}, "the factors must be two numbers"),
        ({"factors": ("a", 2)}, "the factors must be two numbers"),
        ({"of": "gpus"}, "deadlines are multiples of run_time or of requested_time, not of 'gpus'"),
        ({"share": True}, "share must be a number, not True"),
    ],
)
def test_what_is_no_rule_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    trace = Trace.from_columns({"submit_time": [0.0], "run_time": [5.0], "gpus": [1.0]})
    with pytest.raises(ConfigError, match=sentence):
        trace.with_deadlines(**arguments)
