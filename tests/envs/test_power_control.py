"""Power limits set every few minutes while a rule schedules the jobs."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.agents import make_policy
from lepton_rl.core import ClusterSpec, Placement
from lepton_rl.core.cluster import NodeGroup, Tariffs
from lepton_rl.core.hardware import HourlySeries, gpu_type
from lepton_rl.envs import PowerControlEnv
from lepton_rl.errors import ConfigError, TraceError
from lepton_rl.simulator import Blocking, Order, Rule, Timing, run_trace
from lepton_rl.workloads import Trace
from tests.envs.cases import CLUSTER, workload
from tests.envs.dynamic_cases import DynamicCase, dynamic_cases, hot_cluster
from tests.envs.test_detailed import MIXED, mixed_trace
from tests.envs.test_rewards import OBJECTIVES
from tests.simulator.cases import same_schedule

V100 = gpu_type("V100-SXM2-32GB")
RULES = [
    Rule(Order.SAF, Blocking.EASY),
    Rule(Order.FCFS, Blocking.HEAD, Placement.BEST),
    Rule(Order.SRTF, Blocking.SKIP),
    Rule(Order.SJF, Blocking.CONSERVATIVE),
]


def play(env: PowerControlEnv, seed: int, constant: float | None = None) -> float:
    """Play an episode with random limits, or with the same ones throughout; return the sum of its rewards."""
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    paid, ended = 0.0, False
    while not ended:
        action = rng.random(env.action_space.shape)
        if constant is not None:
            action[:] = constant
        observation, reward, ended, truncated, info = env.step(action.astype(np.float32))
        assert env.observation_space.contains(observation)
        assert not truncated
        paid += reward
    assert info["episode_metrics"]["return"] == pytest.approx(paid)
    return paid


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.order.name)
@pytest.mark.parametrize("name", ["mixed", "energy"])
@settings(max_examples=15)
@given(case=dynamic_cases(), seed=st.integers(0, 5), interval=st.sampled_from([1.0, 7.5, 60.0]))
def test_rewards_sum_to_minus_the_cost(case: DynamicCase, name: str, rule: Rule, seed: int, interval: float) -> None:
    objective = OBJECTIVES[name]
    per: Any = "node" if seed % 2 else "type"
    env = PowerControlEnv(case.trace, case.cluster, rule, objective, len(case.trace), interval, per)
    paid = play(env, seed)
    assert not np.isnan(env.outcome().finish).any()
    assert paid == pytest.approx(-objective.cost(env.outcome()), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.order.name)
def test_at_the_highest_limits_the_rule_runs_as_it_does_alone(rule: Rule) -> None:
    trace = mixed_trace(60)
    env = PowerControlEnv(trace, MIXED, rule, jobs=60, interval=300)
    play(env, 0, constant=1.0)
    assert same_schedule(env.outcome(), run_trace(trace, MIXED, rule, Timing(timer=300)))


def test_limits_by_hand() -> None:
    # One V100 for one job of 1,000 s. At half of its range it is slower from the first second on.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, V100),))
    trace = Trace.from_columns({"submit_time": [50], "run_time": [1000], "gpus": [1]}, origin=0.0)
    env = PowerControlEnv(trace, cluster, jobs=1, interval=100)
    observation, info = env.reset()
    shown = dict(zip(env.feature_names, observation.tolist(), strict=True))
    assert info["time"] == 50.0
    assert shown["limit[V100-SXM2-32GB]"] == 1.0
    assert shown["running"] == shown["waiting"] == 0.0
    observation, _, _, _, info = env.step(np.array([0.5], np.float32))
    shown = dict(zip(env.feature_names, observation.tolist(), strict=True))
    watts = (V100.min_power_limit_w + V100.max_power_limit_w) / 2
    assert info["time"] == 150.0
    assert shown["limit[V100-SXM2-32GB]"] == pytest.approx(0.5)
    assert shown["power[0]"] == pytest.approx(watts / V100.max_power_w, rel=1e-4)
    assert shown["running"] == pytest.approx(np.log1p(1) / 8)
    ended = False
    while not ended:
        _, _, ended, _, info = env.step(np.array([0.5], np.float32))
    slower = V100.under_limit(watts).speed["general"] / V100.speed["general"]
    assert env.outcome().finish[0] == pytest.approx(50 + 1000 / slower, rel=1e-6)
    assert info["episode_metrics"]["energy_kwh"] == pytest.approx(watts * 1000 / slower / 3.6e6, rel=1e-6)


def test_lower_limits_spend_less_energy() -> None:
    energy = []
    for limit in (1.0, 0.5):
        env = PowerControlEnv(mixed_trace(60), MIXED, jobs=60)
        play(env, 0, constant=limit)
        energy.append(env.outcome().energy_joules / env.outcome().makespan)
    assert energy[1] < energy[0]


def test_prices_and_carbon_of_the_hour() -> None:
    tariffs = Tariffs(HourlySeries.of([10.0, -40.0, 20.0] * 400), HourlySeries.of([100.0, 50.0, 400.0] * 400))
    cluster = ClusterSpec.of_groups(MIXED.groups, tariffs=tariffs)
    env = PowerControlEnv(mixed_trace(60), cluster, jobs=60, interval=3600)
    observation, info = env.reset(options={"window": (0, 0)})
    hour = int(info["time"] // 3600) % 3
    shown = dict(zip(env.feature_names, observation.tolist(), strict=True))
    assert shown["price"] == pytest.approx([0.25, -1.0, 0.5][hour])
    assert shown["carbon"] == pytest.approx([0.25, 0.125, 1.0][hour])
    play(env, 1)


def test_the_temperature_rises() -> None:
    trace = Trace.from_columns({"submit_time": [0], "run_time": [3000], "gpus": [4], "gpu_type": ["fast"]})
    env = PowerControlEnv(trace, hot_cluster(), jobs=1, interval=600, per="node")
    before, _ = env.reset()
    after = env.step(np.ones(3, np.float32))[0]
    at = env.feature_names.index("temperature[2]")
    assert after[at] == pytest.approx(0.85)
    assert before[at] < 0.6


@pytest.mark.parametrize("per", ["type", "node"])
def test_checkers(per: str) -> None:
    env = gymnasium.make("lepton_rl/PowerControl-v0", jobs=20, per=per)
    check_env(env.unwrapped)
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    arguments: Any = {"workload": mixed_trace(60), "cluster": MIXED, "jobs": 20, "per": per}
    with pytest.warns(UserWarning, match="symmetric and normalized Box"):
        checker.check_env(PowerControlEnv(**arguments))


def test_sac_trains() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    env = PowerControlEnv(mixed_trace(60), MIXED, jobs=20)
    model = sb3.SAC("MlpPolicy", env, learning_starts=20, batch_size=16, buffer_size=200, seed=0, device="cpu")
    model.learn(60)
    action, _ = model.predict(env.reset(seed=1)[0], deterministic=True)
    assert env.action_space.contains(action)


def test_a_policy_that_is_a_rule_schedules() -> None:
    policy = make_policy("sjf", blocking="conservative", placement="best")
    env = PowerControlEnv(mixed_trace(60), MIXED, policy, jobs=20)  # type: ignore[arg-type]
    assert env.rule == Rule(Order.SJF, Blocking.CONSERVATIVE, Placement.BEST)


def test_the_same_seed_gives_the_same_run() -> None:
    def record(seed: int) -> list[Any]:
        env = PowerControlEnv(mixed_trace(80), MIXED, jobs=20)
        return [play(env, seed), env.outcome().finish.tolist()]

    assert record(1) == record(1)
    assert record(1) != record(2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"cluster": CLUSTER}, "power limits need types of GPU, .* give it as groups"),
        ({"cluster": 8}, "cluster must be a ClusterSpec, not 8"),
        ({"interval": 0}, "interval must be 1 second or more, not 0"),
        ({"interval": "5"}, "interval must be 1 second or more, not '5'"),
        ({"per": "gpu"}, "per must be 'type' or 'node', not 'gpu'"),
        ({"rule": "saf"}, "rule must be a Rule or a policy that is one"),
        ({"objective": 1}, "objective must be an Objective, not 1"),
        ({"workload": "jobs.csv"}, "workload must be a Trace"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], sentence: str) -> None:
    defaults: dict[str, Any] = {"workload": mixed_trace(60), "cluster": MIXED, "jobs": 20}
    with pytest.raises(ConfigError, match=sentence):
        PowerControlEnv(**defaults | arguments)


def test_a_rule_that_needs_times_is_refused_without() -> None:
    trace = workload(1, requested=False, shares=False)
    with pytest.raises(TraceError, match="needs requested times"):
        PowerControlEnv(trace, MIXED, jobs=20)


def test_wrong_actions_and_steps_out_of_turn_are_named() -> None:
    env = PowerControlEnv(mixed_trace(60), MIXED, jobs=20)
    with pytest.raises(ResetNeeded, match="no episode is running"):
        env.step(np.ones(2, np.float32))
    env.reset()
    for wrong in (np.ones(3), 1.0, None, "ab", [np.nan, 1.0]):
        with pytest.raises(ConfigError, match="an action is 2 numbers from 0 to 1, not"):
            env.step(wrong)  # type: ignore[arg-type]
    env.step(np.array([-3.0, 9.0], np.float32))  # clipped
