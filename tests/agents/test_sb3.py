"""What our parts of Stable-Baselines3 promise it."""

import numpy as np
import pytest

from lepton_rl.agents.sb3.algorithms import make_algorithm
from lepton_rl.agents.sb3.vec_env import BatchVecEnv
from lepton_rl.core import ClusterSpec
from lepton_rl.envs import Codec, EnvironmentBatch, Episodes, Objective
from lepton_rl.workloads import gpu_cluster

CODEC = Codec(window=4)


def make_env(count: int = 3, seed: int = 0) -> BatchVecEnv:
    trace = gpu_cluster(n_jobs=200, gpus=8, load=1.5, seed=3)
    batch = EnvironmentBatch(Episodes([trace], 10), ClusterSpec(nodes=2, gpus_per_node=4), CODEC, Objective(), count)
    return BatchVecEnv(batch, seed)


@pytest.mark.parametrize("exploration", [0.0, 1.0])
@pytest.mark.parametrize("deterministic", [False, True])
def test_dqn_answers_in_the_shape_of_the_question(exploration: float, deterministic: bool) -> None:
    env = make_env()
    model = make_algorithm("dqn", env, {"buffer_size": 10}, {}, 0, "cpu", None)
    model.exploration_rate = exploration  # type: ignore[attr-defined]
    many = env.reset()
    one = {name: array[1] for name, array in many.items()}
    assert model.predict(many, deterministic=deterministic)[0].shape == (3,)
    action, _ = model.predict(one, deterministic=deterministic)
    assert action.shape == ()
    assert one["action_mask"][int(action)]


def test_an_ended_episode_shows_its_last_observation() -> None:
    env = make_env()
    shapes = {name: array.shape[1:] for name, array in env.reset().items()}
    while True:
        env.step_async(env.action_masks().argmax(1))
        _, _, done, infos = env.step_wait()
        if done.any():
            break
    last = infos[int(done.argmax())]["terminal_observation"]
    assert {name: array.shape for name, array in last.items()} == shapes
    assert last["remaining"] == 0.0
    assert not last["queue"].any()


def test_environments_draw_from_streams_spawned_from_the_seed() -> None:
    env = make_env(seed=7)
    expected = [np.random.default_rng(child).random() for child in np.random.SeedSequence(7).spawn(3)]
    assert [generator.random() for generator in env.generators] == expected
    env.seed(7)
    assert [generator.random() for generator in env.generators] == expected
