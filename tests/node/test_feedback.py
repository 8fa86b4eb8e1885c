"""What results say about who should decide: by hand, and by what must hold for any results."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.node.feedback import (
    FeedbackRules,
    Results,
    Verdict,
    judge_promoted,
    judge_trial,
    nudged,
    slowed_by,
)

RULES = FeedbackRules()


def results(
    slowdown: float, jobs: int = 100, success: float = 1.0, decisions: int = 100, fallbacks: int = 0
) -> Results:
    rng = np.random.default_rng(0)
    return Results(
        slowdown * rng.uniform(0.9, 1.1, jobs), np.arange(jobs) < round(success * jobs), decisions, fallbacks
    )


def test_a_better_policy_on_trial_is_promoted() -> None:
    advice = judge_trial(results(2.0), results(1.5), RULES)
    assert advice.verdict is Verdict.PROMOTE
    assert advice.reason.startswith("its jobs are slowed 0.7")


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        (results(1.5, jobs=20), "the policy on trial has had 20 of 50 jobs"),
        (results(1.98), "which is not 5% less for sure"),
        (results(3.0), "which is not 5% less for sure"),
        (results(1.0, success=0.5), "50% of its jobs were done, of the others 100%"),
        (results(1.0, fallbacks=20), "the fallback decided for the policy on trial in 20%"),
    ],
)
def test_any_doubt_keeps_the_acting_policy(trial: Results, reason: str) -> None:
    advice = judge_trial(results(2.0), trial, RULES)
    assert advice.verdict is Verdict.KEEP
    assert reason in advice.reason


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (results(2.0), Verdict.KEEP),
        (results(2.05), Verdict.KEEP),
        (results(3.0), Verdict.ROLL_BACK),
        (results(3.0, jobs=10), Verdict.KEEP),
        (results(1.0, success=0.5), Verdict.ROLL_BACK),
        (results(1.0, jobs=10, fallbacks=50), Verdict.ROLL_BACK),
    ],
)
def test_a_promoted_policy_that_does_worse_gives_way(now: Results, verdict: Verdict) -> None:
    assert judge_promoted(results(2.0), now, RULES).verdict is verdict


def test_weights_follow_the_jobs_that_are_slowed() -> None:
    weights = {"compute": 0.5, "time_sensitivity": 0.3, "memory": 0.2}
    found = nudged(weights, {"compute": 1.0, "time_sensitivity": 2.0, "memory": 0.5}, RULES)
    assert found == pytest.approx({"compute": 0.5, "time_sensitivity": 0.33, "memory": 0.18})


@given(
    st.dictionaries(st.sampled_from("abc"), st.floats(0.01, 10.0)),
    st.dictionaries(st.sampled_from("abcd"), st.floats(allow_nan=True, allow_infinity=True)),
)
def test_weights_stay_in_their_bounds(weights: dict[str, float], slowed: dict[str, float]) -> None:
    found = nudged(weights, slowed, RULES)
    assert found.keys() == weights.keys()
    for name, weight in found.items():
        assert RULES.lowest_weight <= weight <= RULES.highest_weight
        assert abs(weight - weights[name]) <= RULES.step * weights[name] + 1e-12


def test_who_is_slowed() -> None:
    quantity = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    assert slowed_by(quantity, np.where(quantity > 6, 3.0, 1.0)) == 2.0
    assert np.isnan(slowed_by(np.ones(8), quantity))
