"""Rollouts: the trainings that Stable-Baselines3's own classes do, weight for weight, from fewer copies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import DictReplayBuffer, DictRolloutBuffer

from lepton_rl.agents.sb3 import AlgorithmName
from lepton_rl.agents.sb3.algorithms import MaskedDQN, make_algorithm
from lepton_rl.agents.sb3.networks import MaskableSchedulingPolicy, QSchedulingPolicy, SchedulingPolicy
from lepton_rl.agents.sb3.rollouts import MaskableBuffer, RolloutBuffer
from lepton_rl.agents.sb3.vec_env import BatchVecEnv
from lepton_rl.core import ClusterSpec
from lepton_rl.envs import Codec, EnvironmentBatch, Episodes, Objective
from lepton_rl.envs.quantization import OBSERVATION_DTYPES, quantization_for
from lepton_rl.errors import ConfigError
from lepton_rl.workloads import gpu_cluster

pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
CODEC = Codec(window=4)
CLUSTER = ClusterSpec(nodes=2, gpus_per_node=4)
SETTINGS: dict[str, dict[str, Any]] = {
    # 3 environments x 20 steps: the last minibatch is a smaller one
    "maskable_ppo": {"n_steps": 20, "batch_size": 16, "n_epochs": 3, "target_kl": 0.02},
    "ppo": {"n_steps": 20, "batch_size": 16, "n_epochs": 3},
    "a2c": {"n_steps": 20},
    "dqn": {"buffer_size": 60, "batch_size": 8, "learning_starts": 20, "train_freq": 2},
}
devices = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here")
        ),
    ],
)


def make_env(dtype: str = "float32") -> BatchVecEnv:
    trace = gpu_cluster(n_jobs=200, gpus=8, load=1.5, seed=3)
    batch = EnvironmentBatch(Episodes([trace], 10), CLUSTER, CODEC, Objective(), 3)
    return BatchVecEnv(batch, 0, quantization=quantization_for(dtype, CODEC, CLUSTER))


def tamed(base: Any) -> Any:
    """Stable-Baselines3's own buffer with advantages as we want them: centred, over their mean size, within 5."""

    class Tamed(base):  # type: ignore[misc]
        advantages: Any

        def compute_returns_and_advantage(self, last_values: Any, dones: Any) -> None:
            super().compute_returns_and_advantage(last_values, dones)
            centred = self.advantages - self.advantages.mean()
            self.advantages = np.clip(centred / (np.abs(centred).mean() + 1e-8), -5.0, 5.0)

    return Tamed


def stock(name: str, env: BatchVecEnv, settings: dict[str, Any], device: str) -> Any:
    """The same algorithm from Stable-Baselines3's own classes, with our networks."""
    extractor = {"features_extractor_kwargs": {"quantization": env.quantization}}
    common: dict[str, Any] = {"env": env, "policy_kwargs": extractor, "seed": 5, "device": device, **settings}
    if name == "dqn":
        return MaskedDQN(QSchedulingPolicy, replay_buffer_class=DictReplayBuffer, **common)
    common["normalize_advantage"] = False
    if name == "maskable_ppo":
        return MaskablePPO(
            MaskableSchedulingPolicy, rollout_buffer_class=tamed(MaskableDictRolloutBuffer), **common
        )  # fmt: skip
    algorithm = PPO if name == "ppo" else A2C
    return algorithm(SchedulingPolicy, rollout_buffer_class=tamed(DictRolloutBuffer), **common)


def weights(model: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = model.policy.state_dict()
    return found


def assert_equal(first: Any, second: Any) -> None:
    expected, found = weights(first), weights(second)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def trained(model: Any, steps: int = 240) -> Any:
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    model.learn(steps)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in weights(model).items())
    return model


@devices
@pytest.mark.parametrize("dtype", OBSERVATION_DTYPES)
@pytest.mark.parametrize("name", SETTINGS)
def test_trainings_end_with_the_weights_that_stock_classes_reach(name: AlgorithmName, dtype: str, device: str) -> None:
    # each is trained before the other is made: both seed torch's global generator
    theirs = trained(stock(name, make_env(dtype), SETTINGS[name], device))
    assert_equal(theirs, trained(make_algorithm(name, make_env(dtype), SETTINGS[name], {}, 5, device, None)))


@devices
@pytest.mark.parametrize("dtype", OBSERVATION_DTYPES)
@pytest.mark.parametrize("name", ["maskable_ppo", "ppo", "a2c"])
def test_a_rollout_on_the_device_trains_alike(name: AlgorithmName, dtype: str, device: str) -> None:
    kept = {**SETTINGS[name], "rollout_buffer_kwargs": {"on_device": True}}
    theirs = trained(stock(name, make_env(dtype), SETTINGS[name], device))
    assert_equal(theirs, trained(make_algorithm(name, make_env(dtype), kept, {}, 5, device, None)))


@pytest.mark.parametrize("on_device", [False, True])
def test_stock_algorithms_can_fill_our_buffers(on_device: bool) -> None:
    kwargs: dict[str, Any] = {
        "seed": 5,
        "n_steps": 20,
        "batch_size": 16,
        "n_epochs": 2,
        "device": "cpu",
        "normalize_advantage": False,
    }
    theirs = trained(
        MaskablePPO(
            MaskableSchedulingPolicy, make_env(), rollout_buffer_class=tamed(MaskableDictRolloutBuffer), **kwargs
        )
    )
    ours = MaskablePPO(
        MaskableSchedulingPolicy, make_env(), rollout_buffer_class=MaskableBuffer,
        rollout_buffer_kwargs={"on_device": on_device}, **kwargs,
    )  # fmt: skip
    assert_equal(theirs, trained(ours))


def test_stable_baselines3_loads_what_it_saved(tmp_path: Path) -> None:
    env = make_env("uint8")
    ours = trained(make_algorithm("maskable_ppo", env, SETTINGS["maskable_ppo"], {"width": 8}, 5, "cpu", None))
    ours.save(tmp_path / "model.zip")
    again = MaskablePPO.load(tmp_path / "model.zip", device="cpu")
    assert_equal(ours, again)
    observation: Any = env.reset()
    assert observation["queue"].dtype == np.uint8
    np.testing.assert_array_equal(
        again.predict(observation, deterministic=True)[0], ours.predict(observation, deterministic=True)[0]
    )


def test_what_is_stored_takes_a_quarter_as_levels() -> None:
    sizes = {}
    for dtype in OBSERVATION_DTYPES:
        env = make_env(dtype)
        buffer = RolloutBuffer(7, env.observation_space, env.action_space, "cpu", n_envs=3)
        sizes[dtype] = buffer.nbytes
    # 4 slots x 17 features, 12 of context, 3 x 2 of nodes; the mask (5) and `remaining` (4) are as they were
    assert sizes == {"float32": 21 * (86 * 4 + 9), "float16": 21 * (86 * 2 + 9), "uint8": 21 * (86 + 9)}


def test_a_rollout_that_is_too_large_for_the_device_is_refused() -> None:
    env = make_env()
    with pytest.raises(ConfigError, match=r"takes .* GiB, which cpu does not have free; use training\.rollout_on=host"):
        RolloutBuffer(10**13, env.observation_space, env.action_space, "cpu", n_envs=3, on_device=True)
