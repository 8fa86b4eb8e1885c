"""DQN's replayed steps: a sample crosses to the device as one block."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from torch import Tensor

from lepton_rl.agents.sb3.transfer import Transfer


class ReplayBuffer(DictReplayBuffer):
    """Stable-Baselines3's, with one copy to the device for each sample."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.transfer = Transfer(self.device)

    def to_torch(self, array: NDArray[Any], copy: bool = True) -> Tensor:
        """Return the array as a tensor on the host: `_get_samples` sends all of them together."""
        return torch.from_numpy(np.ascontiguousarray(array))

    def _get_samples(  # type: ignore[override]
        self, batch_inds: NDArray[Any], env: Any = None
    ) -> DictReplayBufferSamples:
        sample = super()._get_samples(batch_inds, env)
        here = {
            **{f"observations.{name}": tensor for name, tensor in sample.observations.items()},
            **{f"next_observations.{name}": tensor for name, tensor in sample.next_observations.items()},
            "actions": sample.actions, "dones": sample.dones, "rewards": sample.rewards,
        }  # fmt: skip
        there = self.transfer.send({name: tensor.numpy() for name, tensor in here.items()})
        return sample._replace(
            observations={name: there[f"observations.{name}"] for name in sample.observations},
            next_observations={name: there[f"next_observations.{name}"] for name in sample.next_observations},
            actions=there["actions"], dones=there["dones"], rewards=there["rewards"],
        )  # fmt: skip
