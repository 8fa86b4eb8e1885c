"""The environment as Gymnasium and Stable-Baselines3 see it."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec
from lepton_rl.envs import Codec, EnvironmentBatch, Episodes, Objective, SchedulingEnv, SchedulingVectorEnv
from lepton_rl.errors import ConfigError, TraceError
from lepton_rl.workloads import Trace
from tests.envs.cases import CLUSTER, assert_same, play, random_choice, skip_choice, workload
from tests.simulator.cases import Case, cases


@pytest.mark.parametrize("features", ["basic", "full"])
@pytest.mark.parametrize("render_mode", [None, "ansi", "rgb_array"])
def test_gymnasium_checker(features: str, render_mode: str | None) -> None:
    env = gymnasium.make(
        "lepton_rl/Scheduling-v0",
        workload=workload(1),
        cluster=CLUSTER,
        codec=Codec(8, features=features),
        jobs=20,
        render_mode=render_mode,
    )
    check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("features", ["basic", "full"])
def test_stable_baselines3_checker(features: str) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with pytest.warns(UserWarning, match="observation queue has an unconventional shape") as told:
        checker.check_env(SchedulingEnv(workload(1), CLUSTER, Codec(8, features=features), jobs=20))
    assert len(told) == 1  # as docs/environment.md says


def test_it_runs_without_any_argument() -> None:
    env = gymnasium.make("lepton_rl/Scheduling-v0")
    observation, _ = env.reset(seed=0)
    assert observation["queue"].shape == (64, 17)
    assert env.observation_space.contains(observation)
    env.close()


@settings(max_examples=60)
@given(case=cases(), features=st.sampled_from(["basic", "full"]), seed=st.integers(0, 9))
def test_random_play_stays_in_the_spaces(case: Case, features: str, seed: int) -> None:
    env = SchedulingEnv(case.trace, case.cluster, Codec(5, features=features), jobs=len(case.jobs))
    choose = random_choice(seed)
    observation, _ = env.reset(seed=seed)
    starts = 0
    terminated = False
    while not terminated:
        assert env.observation_space.contains(observation)
        mask = env.action_masks()
        assert np.array_equal(mask, observation["action_mask"].astype(bool))
        assert mask[:-1].any()  # a decision is due only when a visible job fits
        idle = (observation["load"] == 0).all()
        assert mask[-1] == (not idle)
        choice = choose(mask)
        starts += choice < 5
        observation, reward, terminated, truncated, info = env.step(choice)
        assert np.isfinite(reward)
        assert not truncated
    assert starts == len(case.jobs)
    assert info["invalid_actions"] == 0
    assert not np.isnan(env.outcome().finish).any()


def test_an_ended_episode_shows_the_empty_cluster() -> None:
    env = SchedulingEnv(workload(2), CLUSTER, Codec(8), jobs=30)
    play(env, skip_choice)
    observation = env.batch.observation_of(0)
    assert (observation["queue"] == 0).all()
    assert (observation["action_mask"] == 0).all()
    assert (observation["load"] == 0).all()
    assert (observation["memory"] == 0).all()
    assert observation["power"].tolist() == [0.125] * 3  # 50 of 400 W
    assert observation["context"].tolist() == [1.0, *[0.0] * 4, 1.0, *[0.0] * 6]
    assert not env.action_masks().any()


def test_slots_behind_the_last_waiting_job_are_zero() -> None:
    env = SchedulingEnv(workload(3, jobs=80), CLUSTER, Codec(8), jobs=80)
    choose = random_choice(3)
    observation, _ = env.reset()
    filled = []
    terminated = False
    while not terminated:
        waiting = round(np.expm1(observation["context"][1] * 8))
        rows = observation["queue"]
        assert (rows[waiting:] == 0).all()
        assert (rows[: min(waiting, 8), 0] > 0).all()
        filled.append(waiting)
        observation, _, terminated, _, _ = env.step(choose(env.action_masks()))
    assert max(filled) > 8  # longer than the window, too
    assert min(filled) < 8


def test_invalid_actions_wait_and_are_counted() -> None:
    trace = Trace.from_columns({"submit_time": [0, 1, 2], "run_time": [10, 10, 10], "gpus": [1, 2, 1]}, origin=0.0)
    env = SchedulingEnv(trace, ClusterSpec.pool(2), Codec(3, "fcfs"), jobs=3)
    observation, info = env.reset()
    before = observation
    # On an idle cluster waiting leads nowhere: the same decision again.
    for wrong in (3, 1, 2):
        observation, reward, terminated, _, info = env.step(wrong)
        assert (reward, terminated, info["time"]) == (0.0, False, 0.0)
        assert_same(observation, before)
    assert info["invalid_actions"] == 3
    env.step(0)  # job 0 runs; the next job that fits is job 2 at 2 s
    observation, _, _, _, info = env.step(0)  # slot 0 holds job 1, which does not fit: wait
    assert info["time"] == 10.0
    assert info["invalid_actions"] == 4
    env.step(3)
    assert env.batch.brief(0)["invalid_actions"] == 5
    play(env, skip_choice)
    assert env.batch.episode_info(0)["invalid_actions"] == 0


def test_info_at_the_end() -> None:
    env = SchedulingEnv(workload(4), CLUSTER, Codec(8), jobs=40, warmup=20)
    _, info = env.reset(seed=1)
    assert set(info) == {"time", "return", "invalid_actions"}
    choose = random_choice(1)
    terminated, steps, paid = False, 0, info["return"]
    while not terminated:
        _, reward, terminated, _, info = env.step(choose(env.action_masks()))
        steps += 1
        paid += reward
    metrics = info["episode_metrics"]
    outcome = env.outcome()
    assert metrics["length"] == steps
    assert metrics["return"] == pytest.approx(paid)
    assert metrics["return"] == info["return"]
    assert metrics["mean_jct"] == outcome.jct[20:].mean()
    assert metrics["mean_bounded_slowdown"] == outcome.bounded_slowdown()[20:].mean()
    assert metrics["utilization"] == outcome.metrics()["utilization"]


def test_rewards_and_observations_follow_the_seed() -> None:
    def record(seed: int) -> list[Any]:
        env = SchedulingEnv(workload(5, jobs=200), CLUSTER, Codec(8), jobs=20)
        choose = random_choice(seed)
        observation, _ = env.reset(seed=seed)
        seen: list[Any] = [observation]
        for _ in range(3):
            terminated = False
            while not terminated:
                observation, reward, terminated, _, _ = env.step(choose(env.action_masks()))
                seen.append((observation, reward))
            seen.append(env.reset()[0])
        return seen

    first, second, other = record(1), record(1), record(2)
    assert repr(first) == repr(second)
    assert repr(first) != repr(other)


def test_episodes_are_drawn_evenly_over_traces_and_windows() -> None:
    episodes = Episodes([workload(1, jobs=12), workload(2, jobs=11)], jobs=6, warmup=4)
    rng = np.random.default_rng(0)
    drawn = [episodes.draw(rng) for _ in range(2000)]
    windows, counts = np.unique(drawn, axis=0, return_counts=True)
    assert windows.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]
    assert counts.min() > 320


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"jobs": 0}, "an episode needs 1 job or more and no negative warm-up, not 0 and 0"),
        ({"warmup": -1}, "not 256 and -1"),
        ({"jobs": 100}, "an episode takes 100 jobs .0 of them warm-up., the shortest trace has 60"),
        ({"jobs": 5, "render_mode": "human"}, "render_mode must be 'ansi' or 'rgb_array', not 'human'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        SchedulingEnv(workload(6), CLUSTER, **arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"workload": "jobs.csv"}, "workload must be a Trace or a list of them, not 'jobs.csv'"),
        ({"workload": []}, r"workload must be a Trace or a list of them, not \[\]"),
        ({"workload": ["jobs.csv"]}, "workload must be a Trace"),
        ({"workload": 3}, "workload must be a Trace"),
        ({"cluster": 8}, "cluster must be a ClusterSpec, not 8"),
        ({"cluster": None}, "cluster must be a ClusterSpec, not None"),
        ({"codec": "saf"}, "codec must be a Codec, not 'saf'"),
        ({"objective": 1.0}, "objective must be an Objective, not 1.0"),
        ({"jobs": 2.5}, "jobs must be a whole number, not 2.5"),
        ({"warmup": "5"}, "warmup must be a whole number, not '5'"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        SchedulingEnv(**arguments)
    with pytest.raises(ConfigError, match=sentence):
        SchedulingVectorEnv(2, **arguments)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"window": 10**9}, r"a window is two whole numbers, \(trace, first job\), not 1000000000"),
        ({"window": (0, 1, 2)}, "a window is two whole numbers"),
        ({"window": (0, 0.5)}, "a window is two whole numbers"),
        ({"window": "ab"}, "a window is two whole numbers"),
        ({"window": (1, 0)}, "there are traces 0 to 0"),
        ({"window": (0, 56)}, "the first job of trace 0's windows is 0 to 55"),
        ({"window": (0, -1)}, "is 0 to 55"),
        ({"window": (0, 10**30)}, "is 0 to 55"),
        ((0, 1), r"options must be a mapping such as .*, not \(0, 1\)"),
        ({"windw": 1}, r"^options: 'windw' is no option of reset; did you mean 'window'\? "),
    ],
)
def test_a_window_that_is_not_there_is_named(options: Any, sentence: str) -> None:
    env = SchedulingEnv(workload(7), CLUSTER, jobs=5)
    env.reset(options={"window": np.array([0, 2])})
    with pytest.raises(ConfigError, match=sentence):
        env.reset(options=options)


@pytest.mark.parametrize("action", [0.5, "0", None, 10**30, np.array([0])])
def test_an_action_that_is_no_number_is_named(action: Any) -> None:
    env = SchedulingEnv(workload(7), CLUSTER, Codec(4), jobs=5)
    env.reset()
    with pytest.raises(ConfigError, match="an action is a whole number, 0 to 4, not"):
        env.step(action)
    env.step(np.array(0))


def test_a_step_needs_a_running_episode() -> None:
    env = SchedulingEnv(workload(7), CLUSTER, jobs=5)
    with pytest.raises(ResetNeeded, match="no episode is running"):
        env.step(0)
    env.reset(seed=0)
    while not env.step(skip_choice(env.action_masks()))[2]:
        pass
    with pytest.raises(ResetNeeded, match="no episode is running"):
        env.step(0)
    with pytest.raises(ResetNeeded, match="environment 0 runs no episode"):
        SchedulingVectorEnv(2, workload(7), CLUSTER, jobs=5).step(np.zeros(2, np.int64))


def test_a_job_that_can_never_run_is_named() -> None:
    with pytest.raises(TraceError, match=r"asks for .* GPUs, the cluster has 2"):
        SchedulingEnv(workload(6), ClusterSpec.pool(2), jobs=5)
    with pytest.raises(ConfigError, match="1 environment or more, not 0"):
        EnvironmentBatch(Episodes([workload(6)], 5), CLUSTER, Codec(), Objective(), 0)


# Pictures.


def small(render_mode: str) -> SchedulingEnv:
    """Two nodes of two GPUs at 6 s: job 0 holds half of GPU 0, job 1 holds GPUs 2 and 3; two jobs wait."""
    trace = Trace.from_columns(
        {
            "submit_time": [0, 5, 6, 6],
            "run_time": [3600, 3600, 1800, 60],
            "gpus": [0.5, 2, 2, 1],
        },
        origin=0.0,
    )
    codec = Codec(3, "fcfs", placement="best")
    env = SchedulingEnv(trace, ClusterSpec(2, 2), codec, jobs=4, render_mode=render_mode)
    env.reset()
    env.step(0)
    env.step(0)
    return env


def test_text() -> None:
    assert small("ansi").render().splitlines() == [
        "time 6 s   utilisation 62%   power 1.1 kW   running 2   waiting 2",
        "node   0 |▄ |",
        "node   1 |██|",
        "slot   0   2 GPUs, asks 1,800 s, waits 0 s",
        "slot   1 * 1 GPU, asks 60 s, waits 0 s",
    ]


def test_text_of_a_large_state_is_cut() -> None:
    trace = Trace.from_columns({"submit_time": [0] * 30, "run_time": [9] * 30, "gpus": [1] * 30})
    env = SchedulingEnv(trace, ClusterSpec(40, 1), Codec(20), jobs=30, render_mode="ansi")
    env.reset()
    text = env.render().splitlines()
    assert len(text) == 1 + 32 + 1 + 12 + 1
    assert text[33] == "... 8 more nodes"
    assert text[-1] == "... 18 more jobs"


def test_without_a_render_mode_there_is_no_picture() -> None:
    env = SchedulingEnv(workload(7), CLUSTER, jobs=5)
    env.reset()
    assert env.render() is None
