"""Stable-Baselines3's algorithms with our policies: what differs from stock is here, and small."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.utils import LinearSchedule

from lepton_rl.agents.sb3 import AlgorithmName
from lepton_rl.agents.sb3.networks import MaskableSchedulingPolicy, QSchedulingPolicy, SchedulingPolicy
from lepton_rl.agents.sb3.vec_env import BatchVecEnv

ADVANTAGE_CLIP = 5.0


def _tame(advantages: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centre advantages, divide by their mean size and clip: dividing by the standard deviation of a heavy tail
    would crush the ordinary steps."""
    centred = advantages - advantages.mean()
    tamed: NDArray[np.float32] = np.clip(centred / (np.abs(centred).mean() + 1e-8), -ADVANTAGE_CLIP, ADVANTAGE_CLIP)
    return tamed


class _Tamed:
    """What both rollout buffers share."""

    advantages: NDArray[np.float32]  # set by SB3's constructors

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: NDArray[Any]) -> None:
        """Compute as SB3 does, then tame the advantages; the returns stay as they are."""
        super().compute_returns_and_advantage(last_values, dones)  # type: ignore[misc]
        self.advantages = _tame(self.advantages)


class RolloutBuffer(_Tamed, DictRolloutBuffer):
    """Rollouts with tamed advantages."""


class MaskableBuffer(_Tamed, MaskableDictRolloutBuffer):
    """Rollouts with masks and tamed advantages."""


class MaskedDQN(DQN):
    """DQN whose exploration draws among valid actions only."""

    def _random_valid(self, masks: NDArray[Any]) -> NDArray[np.int64]:
        generator = self.action_space.np_random
        return np.array([generator.choice(np.flatnonzero(mask)) for mask in masks], np.int64)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[NDArray[Any], Any]:
        """Choose greedily, or with probability `exploration_rate` a random valid action.

        Actions have the shape (observations,), and () for one observation without that axis.
        """
        if not deterministic and self.action_space.np_random.random() < self.exploration_rate:
            mask = np.asarray(observation["action_mask"])
            return self._random_valid(np.atleast_2d(mask)).reshape(mask.shape[:-1]), state
        return self.policy.predict(observation, state, episode_start, deterministic)

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        assert isinstance(self._last_obs, dict)
        if self.num_timesteps < learning_starts:
            actions = self._random_valid(self._last_obs["action_mask"])
        else:
            actions, _ = self.predict(self._last_obs, deterministic=False)
        return actions, actions


def make_algorithm(
    name: AlgorithmName,
    env: BatchVecEnv,
    settings: dict[str, Any],
    network: dict[str, Any],
    seed: int,
    device: str,
    tensorboard_log: str | None,
) -> BaseAlgorithm:
    """Return the algorithm `name` with its SB3 keyword arguments and the network's settings.

    `learning_rate` may be a pair (first, last): it then falls linearly over the training. From `seed`, 0 to
    2**32 - 1, SB3 seeds the environments, too.
    """
    settings = dict(settings)
    rate = settings.get("learning_rate")
    if isinstance(rate, tuple | list):
        settings["learning_rate"] = LinearSchedule(rate[0], rate[1], 1.0)
    common: dict[str, Any] = {
        "env": env,
        "policy_kwargs": network,
        "seed": seed,
        "device": device,
        "tensorboard_log": tensorboard_log,
        "verbose": 0,
    }
    if name == "dqn":
        return MaskedDQN(QSchedulingPolicy, **common, **settings)
    on_policy = {"normalize_advantage": False, **common, **settings}
    if name == "maskable_ppo":
        return MaskablePPO(MaskableSchedulingPolicy, rollout_buffer_class=MaskableBuffer, **on_policy)
    algorithm = PPO if name == "ppo" else A2C
    return algorithm(SchedulingPolicy, rollout_buffer_class=RolloutBuffer, **on_policy)
