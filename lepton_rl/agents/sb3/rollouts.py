"""Rollouts of the on-policy algorithms: buffers for Stable-Baselines3, and how they are filled.

Minibatches are those of Stable-Baselines3's own buffers, number for number. The mask is not stored a second time: our
policies read it from the observation.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer, MaskableDictRolloutBufferSamples
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples
from torch import Tensor

from lepton_rl.agents.sb3.storage import DeviceStorage, HostStorage, Storage
from lepton_rl.agents.sb3.transfer import Arrays, Tensors, Transfer

ADVANTAGE_CLIP = 5.0
_BESIDE = ("actions", "values", "log_probs", "advantages", "returns")
"""What SB3's minibatches have behind the observations, in this order."""


def _tame(advantages: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centre advantages, divide by their mean size and clip: dividing by the standard deviation of a heavy tail
    would crush the ordinary steps."""
    centred = advantages - advantages.mean()
    tamed: NDArray[np.float32] = np.clip(centred / (np.abs(centred).mean() + 1e-8), -ADVANTAGE_CLIP, ADVANTAGE_CLIP)
    return tamed


class _Rollout:
    """What both rollout buffers share; `show` comes before a step, `add` behind it.

    Args:
        arguments: as SB3's buffers have them.
        on_device: keep the observations on the device.
    """

    # Set by SB3's constructors.
    buffer_size: int
    n_envs: int
    device: torch.device
    observation_space: Any
    obs_shape: dict[str, tuple[int, ...]]

    def __init__(self, *arguments: Any, on_device: bool = False, **named: Any) -> None:
        self._on_device = on_device
        self._storage: Storage | None = None
        super().__init__(*arguments, **named)

    def _make(self) -> None:
        """Make room, once the base class knows the sizes."""
        shapes = {name: (self.obs_shape[name], space.dtype) for name, space in self.observation_space.spaces.items()}
        self.transfer = Transfer(self.device)
        kind: type[HostStorage | DeviceStorage] = DeviceStorage if self._on_device else HostStorage
        self._storage = kind(self.transfer, self.buffer_size, self.n_envs, shapes)
        self._outputs = torch.zeros((2, self.buffer_size, self.n_envs), device=self.device)

    @property
    def nbytes(self) -> int:
        """Bytes of the observations."""
        assert self._storage is not None
        return self._storage.nbytes

    def reset(self) -> None:
        """Begin a rollout; its room stays."""
        if self._storage is None:
            self._make()
        shape = (self.buffer_size, self.n_envs)
        self.actions = np.zeros(shape, np.int64)
        self.rewards, self.episode_starts, self.advantages, self.returns, self.values, self.log_probs = (
            np.zeros(shape, np.float32) for _ in range(6)
        )
        self._shown: Any = None
        self.generator_ready = self.full = False
        self.pos = 0

    def show(self, observation: Arrays) -> Tensors:
        """Keep the observation of the coming step and return it on the device."""
        assert self._storage is not None
        self._shown = observation
        return self._storage.write(self.pos, observation)

    def add(
        self,
        obs: Arrays,
        action: NDArray[Any],
        reward: NDArray[np.float32],
        episode_start: NDArray[Any],
        value: Tensor,
        log_prob: Tensor,
        action_masks: NDArray[Any] | None = None,
    ) -> None:
        """Keep what came of a step; values and log probabilities stay on the device until the rollout ends."""
        if self._shown is not obs:
            self.show(obs)
        self._shown = None
        self.actions[self.pos] = action.reshape(-1)
        self.rewards[self.pos] = reward
        self.episode_starts[self.pos] = episode_start
        self._outputs[0, self.pos] = value.detach().reshape(-1)
        self._outputs[1, self.pos] = log_prob.detach().reshape(-1)
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def compute_returns_and_advantage(self, last_values: Tensor, dones: NDArray[Any]) -> None:
        """Compute as SB3 does, then tame the advantages; the returns stay as they are."""
        fetched = self.transfer.fetch({"outputs": self._outputs, "last": last_values})
        self.values, self.log_probs = (array.copy() for array in fetched["outputs"])
        super().compute_returns_and_advantage(torch.from_numpy(fetched["last"]), dones)  # type: ignore[misc]
        self.advantages = _tame(self.advantages)

    def get(self, batch_size: int | None = None) -> Iterator[Any]:
        """Yield minibatches in random order, all rows at once without a size.

        One stays as it is until the next is asked for.
        """
        assert self.full
        assert self._storage is not None
        rows = self.buffer_size * self.n_envs
        # SB3 counts over the steps of each environment
        env, step = np.divmod(np.random.permutation(rows), self.buffer_size)  # noqa: NPY002 - SB3's global generator
        order = step * self.n_envs + env
        size = batch_size or rows
        beside = {name: getattr(self, name).reshape(-1) for name in _BESIDE}
        orders = [order[first : first + size] for first in range(0, rows, size)]
        batches = self._storage.batches(orders, beside, not self.generator_ready)
        self.generator_ready = True
        for batch in batches:
            yield self._samples(batch)

    def _samples(self, batch: Tensors) -> Any:
        return DictRolloutBufferSamples(batch, *(batch.pop(name) for name in _BESIDE))


class RolloutBuffer(_Rollout, DictRolloutBuffer):  # type: ignore[misc]
    """Rollouts with tamed advantages."""


class MaskableBuffer(_Rollout, MaskableDictRolloutBuffer):  # type: ignore[misc]
    """Rollouts with masks and tamed advantages."""

    def _samples(self, batch: Tensors) -> Any:
        sample = super()._samples(batch)
        return MaskableDictRolloutBufferSamples(**sample._asdict(), action_masks=batch["action_mask"])


class Collecting:
    """`collect_rollouts` of PPO, A2C and MaskablePPO with one copy to the device for a step, and one back: the actions.

    It does without what our environments never need: bootstrapping behind a truncated episode, noise that depends on
    the state, actions that are no numbers.
    """

    policy: Any
    action_space: spaces.Discrete
    num_timesteps: int
    _last_obs: Any
    _last_episode_starts: Any
    _update_info_buffer: Any

    def collect_rollouts(
        self, env: Any, callback: Any, rollout_buffer: Any, n_rollout_steps: int, use_masking: bool = True
    ) -> bool:
        """Fill the buffer with steps of the current policy; return False where the callback ends the training."""
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        transfer = rollout_buffer.transfer
        callback.on_rollout_start()
        for _ in range(n_rollout_steps):
            with torch.no_grad():
                chosen, values, log_probs = self.policy(rollout_buffer.show(self._last_obs))
            actions = transfer.fetch({"actions": chosen})["actions"]
            new_obs, rewards, dones, infos = env.step(actions)
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
            rollout_buffer.add(self._last_obs, actions, rewards, self._last_episode_starts, values, log_probs)
            self._last_obs, self._last_episode_starts = new_obs, dones
        with torch.no_grad():
            values = self.policy.predict_values(transfer.send(new_obs))
        rollout_buffer.compute_returns_and_advantage(values, dones)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True
