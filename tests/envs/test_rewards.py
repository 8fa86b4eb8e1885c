"""An episode's return is minus the objective's cost of its finish times, whatever was decided."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec
from lepton_rl.envs import Codec, Objective, SchedulingEnv
from lepton_rl.errors import ConfigError
from lepton_rl.simulator import Order, Rule, run_trace
from lepton_rl.workloads import Trace
from tests.envs.cases import CLUSTER, head_choice, play, random_choice, workload
from tests.simulator.cases import Case, cases

OBJECTIVES = {
    "slowdown": Objective(1.0, 0.0),
    "wait": Objective(0.0, 1.0),
    "jct": Objective(0.0, 0.0, jct_hours=1.0),
    "energy": Objective(0.0, 0.0, energy_kwh=1.0),
    "mixed": Objective(1.0, 2.5, 0.5, 3.0),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=40)
@given(case=cases(), seed=st.integers(0, 5))
def test_return_is_minus_the_cost(case: Case, name: str, seed: int) -> None:
    objective = OBJECTIVES[name]
    env = SchedulingEnv(case.trace, case.cluster, Codec(4), objective, jobs=len(case.jobs))
    paid = play(env, random_choice(seed))
    assert paid == pytest.approx(-objective.cost(env.outcome()), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("warmup", [1, 7, 30])
def test_jobs_of_the_warm_up_are_not_counted(name: str, warmup: int) -> None:
    objective = OBJECTIVES[name]
    for seed in range(6):
        env = SchedulingEnv(workload(seed), CLUSTER, Codec(8, "sjf"), objective, jobs=60 - warmup, warmup=warmup)
        paid = play(env, random_choice(seed))
        assert paid == pytest.approx(-objective.cost(env.outcome(), warmup), rel=1e-9), seed


@pytest.mark.parametrize("name", OBJECTIVES)
def test_jobs_that_come_with_the_last_one_of_the_warm_up(name: str) -> None:
    # All at once: the warm-up's last arrival brings the counted jobs, which are still the learner's.
    trace = Trace.from_columns(
        {"submit_time": [0, 0, 0, 0, 0], "run_time": [30, 20, 5, 40, 8], "gpus": [1, 1, 1, 1, 1]}
    )
    objective = OBJECTIVES[name]
    for gpus in (1, 2, 8):
        env = SchedulingEnv(trace, ClusterSpec.pool(gpus), Codec(4), objective, jobs=3, warmup=2)
        paid = play(env, random_choice(1))
        assert paid == pytest.approx(-objective.cost(env.outcome(), 2), rel=1e-9)


def test_short_jobs_by_hand() -> None:
    # One GPU. Job 0 (8 s) runs at once, job 1 (4 s) waits 8 s: slowdowns 1 and max(1, 12/10).
    trace = Trace.from_columns({"submit_time": [0, 0], "run_time": [8, 4], "gpus": [1, 1]})
    env = SchedulingEnv(trace, ClusterSpec.pool(1), Codec(2, "fcfs"), Objective(1.0, 0.0), jobs=2)
    _, info = env.reset()
    assert info["return"] == pytest.approx(-1.0)  # (1 + 1) / 2: a slowdown is 1 at least
    rewards = []
    terminated = False
    while not terminated:
        _, reward, terminated, _, info = env.step(0)
        rewards.append(reward)
    # 8 s of waiting at 1/10 a second for one of two jobs; 6 of them are forgiven when the job starts.
    assert rewards == pytest.approx([-0.4, 0.3])
    assert info["return"] == pytest.approx(-1.1)
    assert info["episode_metrics"]["return"] == pytest.approx(-1.1)


def test_no_cost_is_a_reward_of_zero_without_a_sign() -> None:
    # Two GPUs, two jobs that come together: neither waits.
    trace = Trace.from_columns({"submit_time": [0, 0], "run_time": [8, 4], "gpus": [1, 1]})
    env = SchedulingEnv(trace, ClusterSpec.pool(2), Codec(2, "fcfs"), Objective(0.0, 1.0), jobs=2)
    _, info = env.reset()
    figures = [info["return"]]
    terminated = False
    while not terminated:
        _, reward, terminated, _, info = env.step(0)
        figures += [reward, info["return"]]
    assert [str(figure) for figure in figures] == ["0.0"] * 5


def test_energy_by_hand() -> None:
    # Two GPUs of 50 and 400 W; one is busy for 3,600 s: (100 + 350) W x 1 h = 0.45 kWh.
    trace = Trace.from_columns({"submit_time": [0], "run_time": [3600], "gpus": [1]})
    env = SchedulingEnv(trace, ClusterSpec.pool(2), Codec(1), OBJECTIVES["energy"], jobs=1)
    assert play(env, head_choice) == pytest.approx(-0.45)


@pytest.mark.parametrize("key", ["saf", "sjf", "fcfs", "smallest"])
def test_relative_to_the_heuristic(key: str) -> None:
    objective = OBJECTIVES["mixed"]
    trace = workload(8)
    env = SchedulingEnv(trace, CLUSTER, Codec(8, key), objective, jobs=50, warmup=10, relative_to_heuristic=True)
    heuristic = objective.cost(run_trace(trace, CLUSTER, Rule(Order[key.upper()])), 10)
    paid = play(env, random_choice(2))
    assert paid == pytest.approx(-objective.cost(env.outcome(), 10) / heuristic, rel=1e-9)
    assert play(env, head_choice) == pytest.approx(-1.0)


def test_a_heuristic_without_cost_divides_nothing() -> None:
    trace = Trace.from_columns({"submit_time": [0, 5], "run_time": [60, 60], "gpus": [1, 1]})
    env = SchedulingEnv(trace, ClusterSpec.pool(2), Codec(2), OBJECTIVES["wait"], jobs=2, relative_to_heuristic=True)
    assert play(env, head_choice) == 0.0
    # Both could have started at once; waiting once costs job 0 five seconds.
    env.reset()
    trace = Trace.from_columns({"submit_time": [0, 5, 6], "run_time": [60, 60, 60], "gpus": [1, 1, 1]})
    env = SchedulingEnv(trace, ClusterSpec.pool(3), Codec(3), OBJECTIVES["wait"], jobs=3, relative_to_heuristic=True)
    env.reset()
    assert env.step(0)[1] == 0.0
    assert env.step(3)[1] == pytest.approx(-1 / 3 / 3600)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (-1.0, 2.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_an_objective_needs_a_weight(weights: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="weights of 0 or more and one above 0"):
        Objective(*weights)


def test_cost_by_hand() -> None:
    trace = Trace.from_columns({"submit_time": [0, 0], "run_time": [36, 18], "gpus": [1, 1]})
    outcome = run_trace(trace, ClusterSpec.pool(1), Rule())
    assert outcome.finish.tolist() == [36, 54]
    objective = Objective(2.0, 3.0, 5.0, 7.0)
    kwh = 400 * 54 / 3.6e6
    assert objective.cost(outcome) == pytest.approx(2 * (1 + 3) / 2 + 3 * 18 / 3600 + 5 * 45 / 3600 + 7 * kwh / 2)
    assert objective.cost(outcome, 1) == pytest.approx(2 * 3 + 3 * 36 / 3600 + 5 * 54 / 3600 + 7 * kwh)
    assert np.isfinite(objective.cost(outcome))
