"""Deadlines and shares, worked out by hand."""

import numpy as np
import pytest

from lepton_rl.agents import Drf, FinishTimeFairness, Priority, RuleNames, rule_names, run_policy
from lepton_rl.core import ClusterSpec, Placement, Start
from lepton_rl.core.metrics import finish_time_fairness
from lepton_rl.errors import ConfigError
from lepton_rl.simulator import SimulatedCluster
from tests.agents.cases import plain_trace


def test_earliest_deadline_first() -> None:
    # One GPU. Job 2 has no deadline and goes last; job 3 (due at 25) before job 1 (due at 100).
    trace = plain_trace(
        submit_time=[0.0, 1.0, 2.0, 5.0],
        run_time=[10.0, 10.0, 10.0, 10.0],
        gpus=[1.0] * 4,
        deadline=[10.0, 99.0, np.nan, 20.0],
    )
    outcome = run_policy(Priority(score="edf"), trace, ClusterSpec.pool(1))
    assert outcome.finish.tolist() == [10.0, 30.0, 40.0, 20.0]
    assert outcome.metrics()["deadlines_met"] == 1.0
    late = run_policy(Priority(score="fcfs"), trace, ClusterSpec.pool(1))
    assert late.tardiness.tolist() == [0.0, 0.0, 15.0]
    assert late.metrics()["deadlines_met"] == pytest.approx(2 / 3)
    assert late.metrics()["mean_tardiness"] == pytest.approx(5.0)


def test_least_laxity_first() -> None:
    # At 0 job 1 is due later but is longer: its laxity is 100 - 95 = 5 s, that of job 0 is 50 - 10 = 40 s.
    trace = plain_trace(run_time=[10.0, 95.0], gpus=[1.0, 1.0], deadline=[50.0, 100.0]).with_requested("exact")
    assert run_policy(Priority(score="llf"), trace, ClusterSpec.pool(1)).finish.tolist() == [105.0, 95.0]
    assert run_policy(Priority(score="edf"), trace, ClusterSpec.pool(1)).finish.tolist() == [10.0, 105.0]


def test_without_deadlines_all_are_met() -> None:
    trace = plain_trace(run_time=[10.0, 10.0], gpus=[1.0, 1.0])
    metrics = run_policy(Priority(score="edf"), trace, ClusterSpec.pool(1)).metrics()
    assert (metrics["deadlines_met"], metrics["mean_tardiness"]) == (1.0, 0.0)


def started(policy: Drf, users: list[int], gpus: list[float], pool: int) -> list[int]:
    trace = plain_trace(run_time=[10.0] * len(users), gpus=gpus, user=users)
    cluster = SimulatedCluster(trace, ClusterSpec.pool(pool))
    assert cluster.advance()
    return [action.job for action in policy.decide(cluster.snapshot()) if isinstance(action, Start)]


def test_users_take_turns_by_what_they_hold() -> None:
    # 4 GPUs: user 0 sent four jobs before user 1 sent two: 0, 4, 1, 5.
    assert started(Drf(), [0, 0, 0, 0, 1, 1], [1.0] * 6, 4) == [0, 4, 1, 5]
    # A gang of 2 counts twice: user 0 starts it, user 1 two jobs, then user 0 again.
    assert started(Drf(), [0, 0, 1, 1], [2.0, 1.0, 1.0, 1.0], 5) == [0, 2, 3, 1]
    # User 1 has weight 3.
    assert started(Drf(weights="1=3"), [0, 0, 0, 1, 1, 1], [1.0] * 6, 4) == [0, 3, 4, 5]


def test_the_poorest_waits_for_its_job_to_fit_unless_others_may_pass() -> None:
    # User 0 holds nothing, and its gang of 4 does not fit beside 0: head stops there, skip lets user 1 in.
    trace = plain_trace(submit_time=[0.0, 1.0, 1.0], run_time=[10.0, 10.0, 5.0], gpus=[2.0, 4.0, 1.0], user=[1, 0, 1])
    assert run_policy(Drf(), trace, ClusterSpec.pool(4)).first_start.tolist() == [0.0, 10.0, 20.0]
    assert run_policy(Drf(blocking="skip"), trace, ClusterSpec.pool(4)).first_start.tolist() == [0.0, 10.0, 1.0]


def test_the_rules_in_force_are_named() -> None:
    assert rule_names(Drf(blocking="skip"), Placement.BEST) == RuleNames("skip", "best")
    assert rule_names(Drf(placement="worst")) == RuleNames("head", "worst")


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [("ada=2", "'ada=2' is not CODE=WEIGHT, as in 3=0.5"), ("0=0", "'0=0': a weight must be above 0")],
)
def test_weights_are_checked(weights: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Drf(weights=weights)


def test_rho_of_three_jobs() -> None:
    # One GPU. Job 0: 0 to 10, with job 1 beside it from 5 on: N = 1.5, rho = 10 / (10 x 1.5). Job 1: 5 to 20, N = 1 +
    # 5 / 15, rho = 15 / (10 x 4/3). Job 2, alone: rho = 1.
    rho = finish_time_fairness(
        np.array([0.0, 5.0, 30.0]), np.array([10.0, 20.0, 34.0]), np.array([10.0, 10.0, 4.0]), np.ones(3), 1
    )
    assert rho.tolist() == pytest.approx([2 / 3, 9 / 8, 1.0])
    # On 8 GPUs a share of 8 / N holds the whole job: only waiting counts.
    rho = finish_time_fairness(np.zeros(2), np.array([10.0, 20.0]), np.array([10.0, 10.0]), np.ones(2), 8)
    assert rho.tolist() == [1.0, 2.0]


def test_who_fares_worst_goes_first() -> None:
    # At 10 s job 1 has waited 9 s for 100 s of run time, job 2 has waited 8 s for 4 s.
    trace = plain_trace(submit_time=[0.0, 1.0, 2.0], run_time=[10.0, 100.0, 4.0], gpus=[1.0] * 3)
    outcome = run_policy(FinishTimeFairness(), trace.with_requested("exact"), ClusterSpec.pool(1))
    assert outcome.finish.tolist() == [10.0, 114.0, 14.0]
