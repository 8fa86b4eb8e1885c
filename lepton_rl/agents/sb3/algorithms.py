"""Stable-Baselines3's algorithms with our policies: what differs from stock is here, and small."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from lepton_rl.agents.sb3 import AlgorithmName
from lepton_rl.agents.sb3.networks import MaskableSchedulingPolicy, QSchedulingPolicy, SchedulingPolicy
from lepton_rl.agents.sb3.replay import ReplayBuffer
from lepton_rl.agents.sb3.rollouts import Collecting, MaskableBuffer, RolloutBuffer
from lepton_rl.agents.sb3.vec_env import BatchVecEnv


class CollectingPPO(Collecting, PPO):  # type: ignore[misc]
    """PPO with one copy each way for a step."""


class CollectingA2C(Collecting, A2C):  # type: ignore[misc]
    """A2C with one copy each way for a step."""


class CollectingMaskablePPO(Collecting, MaskablePPO):  # type: ignore[misc]
    """MaskablePPO with one copy each way for a step."""


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

    Observations that the environments show in fewer bytes are decoded on the device, in front of the network.

    `learning_rate` may be a pair (first, last): it then falls linearly over the training. From `seed`, 0 to
    2**32 - 1, SB3 seeds the environments, too.
    """
    settings = dict(settings)
    rate = settings.get("learning_rate")
    if isinstance(rate, tuple | list):
        settings["learning_rate"] = LinearSchedule(rate[0], rate[1], 1.0)
    common: dict[str, Any] = {
        "env": env,
        "policy_kwargs": {**network, "features_extractor_kwargs": {"quantization": env.quantization}},
        "seed": seed,
        "device": device,
        "tensorboard_log": tensorboard_log,
        "verbose": 0,
    }
    if name == "dqn":
        return MaskedDQN(QSchedulingPolicy, replay_buffer_class=ReplayBuffer, **common, **settings)
    on_policy = {"normalize_advantage": False, **common, **settings}
    if name == "maskable_ppo":
        return CollectingMaskablePPO(MaskableSchedulingPolicy, rollout_buffer_class=MaskableBuffer, **on_policy)
    algorithm = CollectingPPO if name == "ppo" else CollectingA2C
    return algorithm(SchedulingPolicy, rollout_buffer_class=RolloutBuffer, **on_policy)
