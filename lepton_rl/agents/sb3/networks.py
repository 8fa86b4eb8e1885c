"""The policy networks of `agents.network` in torch, as Stable-Baselines3 policies.

The mask is read from the observation, so that PPO and A2C choose among valid actions just as MaskablePPO does, and
DQN takes its maximum among them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableMultiInputActorCriticPolicy
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import Tensor, nn

from lepton_rl.agents.network import (
    FIT_POOL_SCALE,
    FITS_FEATURE,
    INVALID_LOGIT,
    REMAINING,
    VISIBLE_FEATURE,
    pooled_size,
)
from lepton_rl.agents.sb3.transfer import Transfer
from lepton_rl.envs.features import NODE_ENTRIES
from lepton_rl.envs.quantization import Quantization

Arrays = dict[str, Tensor]

SELDOM = -3.0
"""Logit with which training begins to stop a running job, where 0 is an even chance with starting one or waiting: there
are many of them at each event, and to try them all as often would undo all progress."""


class Passthrough(BaseFeaturesExtractor):
    """Hands the observation on, levels decoded where it is stored as such: the networks read its parts by name."""

    def __init__(self, observation_space: spaces.Dict, quantization: Quantization | None = None) -> None:
        super().__init__(observation_space, features_dim=1)
        self.quantization = quantization
        levels = {} if quantization is None else quantization.levels
        self._quantized = tuple(levels)
        for name, (zero, step) in levels.items():
            # no part of the weights: the bundle and model.zip keep the quantization itself
            self.register_buffer(f"zero_{name}", torch.from_numpy(zero.copy()), persistent=False)
            self.register_buffer(f"step_{name}", torch.from_numpy(step.copy()), persistent=False)

    def forward(self, observations: Arrays) -> Arrays:
        """Return the observation in float32, as SB3 hands it over, with levels decoded."""
        decoded = {
            name: (observations[name] - getattr(self, f"zero_{name}")) * getattr(self, f"step_{name}")
            for name in self._quantized if name in observations
        }  # fmt: skip
        return {**observations, **decoded} if decoded else observations


class MlpNetwork(nn.Module):
    """Two tanh layers each for actor and critic on the flattened observation."""

    def __init__(self, space: spaces.Dict, actions: int, width: int, depth: int) -> None:
        super().__init__()
        self.names = sorted(name for name in space.spaces if name not in ("action_mask", REMAINING))
        size = sum(int(np.prod(space[name].shape or ())) for name in self.names)
        self.actor = _tanh_layers(size, width, depth)
        self.critic = _tanh_layers(size + 1, width, depth)
        self.logits = _zeroed(nn.Linear(width, actions))
        slots, places = (space[name].shape if name in space.spaces else None for name in ("queue", "running"))
        if slots and places:
            first = (actions - 1) * slots[0] // (slots[0] + places[0])
            with torch.no_grad():
                self.logits.bias[first:-1] = SELDOM
        self.value = nn.Linear(width, 1)

    def _flat(self, observation: Arrays) -> Tensor:
        return torch.cat([observation[name].flatten(1) for name in self.names], 1)

    def forward(self, observation: Arrays) -> tuple[Tensor, Tensor]:
        """Return (unmasked logits (batch, actions), value (batch, 1))."""
        flat = self._flat(observation)
        return self.logits(self.actor(flat)), self._value(flat, observation)

    def values(self, observation: Arrays) -> Tensor:
        """Return the value alone, (batch, 1)."""
        return self._value(self._flat(observation), observation)

    def _value(self, flat: Tensor, observation: Arrays) -> Tensor:
        return self.value(self.critic(_with_remaining(flat, observation)))  # type: ignore[no-any-return]


class DeepSetsNetwork(nn.Module):
    """One small network shared by all queue slots; see `agents.network`."""

    def __init__(self, space: spaces.Dict, actions: int, width: int, critic_width: int) -> None:
        super().__init__()
        slots, features = space["queue"].shape or (1, 0)
        places, of_running = (space["running"].shape if "running" in space.spaces else None) or (0, 0)
        choices = (actions - 1) // (slots + places)
        pool = 2 * width + pooled_size({name: (entry.shape or (0,))[0] for name, entry in space.spaces.items()})
        if places:
            pool += width
            self.run = nn.Linear(of_running, width)
            self.mix_run = nn.Linear(width, width, bias=False)
            self.run_logit = _zeroed(nn.Linear(width, choices))
            nn.init.constant_(self.run_logit.bias, SELDOM)
        self.nodes = [name for name in NODE_ENTRIES if name in space.spaces]
        self.job = nn.Linear(features, width)
        self.mix_job = nn.Linear(width, width, bias=False)
        self.mix_pool = nn.Linear(pool, width)
        self.job_logit = _zeroed(nn.Linear(width, choices))
        self.wait_hidden = nn.Linear(pool, width)
        self.wait_logit = _zeroed(nn.Linear(width, 1))
        self.critic = _tanh_layers(pool + 1, critic_width, 2)
        self.value = nn.Linear(critic_width, 1)

    def _pool(self, observation: Arrays) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return (jobs (batch, K, width), pool (batch, pool), running jobs (batch, R, width) if they are shown)."""
        queue = observation["queue"]
        jobs = torch.relu(self.job(queue))
        mean_pool = _mean_of_shown(queue, jobs)
        fits = queue[..., FITS_FEATURE].unsqueeze(1)
        fit_pool = torch.bmm(fits, jobs).squeeze(1) * FIT_POOL_SCALE
        nodes = [
            reduced
            for name in self.nodes
            for reduced in (observation[name].mean(1), observation[name].amin(1), observation[name].amax(1))
        ]
        parts = [mean_pool, fit_pool, torch.stack(nodes, 1)]
        parts += [observation[name] for name in ("context", "preferences") if name in observation]
        running = None
        if "running" in observation:
            running = torch.relu(self.run(observation["running"]))
            parts.append(_mean_of_shown(observation["running"], running))
        return jobs, torch.cat(parts, 1), running

    def forward(self, observation: Arrays) -> tuple[Tensor, Tensor]:
        """Return (unmasked logits (batch, actions), value (batch, 1))."""
        jobs, pool, running = self._pool(observation)
        from_pool = self.mix_pool(pool).unsqueeze(1)
        logits = [self.job_logit(torch.relu(self.mix_job(jobs) + from_pool)).flatten(1)]
        if running is not None:
            logits.append(self.run_logit(torch.relu(self.mix_run(running) + from_pool)).flatten(1))
        logits.append(self.wait_logit(torch.relu(self.wait_hidden(pool))))
        return torch.cat(logits, 1), self.value(self.critic(_with_remaining(pool, observation)))

    def values(self, observation: Arrays) -> Tensor:
        """Return the value alone, (batch, 1)."""
        pool = _with_remaining(self._pool(observation)[1], observation)
        return self.value(self.critic(pool))  # type: ignore[no-any-return]


def _mean_of_shown(table: Tensor, encoded: Tensor) -> Tensor:
    """Return the mean of what became of the rows that are jobs, (batch, width); the rows behind them are zero."""
    shown = (table[..., VISIBLE_FEATURE] > 0).to(table.dtype)
    return torch.bmm(shown.unsqueeze(1), encoded).squeeze(1) / shown.sum(1, keepdim=True).clamp(min=1)


def _with_remaining(features: Tensor, observation: Arrays) -> Tensor:
    """Return the critic's input: the pool, whose shared layer the actor alone trains, and what only it reads.

    Outside training `remaining` is unknown and 0.
    """
    remaining = observation.get(REMAINING)
    return torch.cat((features.detach(), torch.zeros_like(features[:, :1]) if remaining is None else remaining), 1)


def make_network(kind: str, space: spaces.Dict, actions: int, width: int, critic_width: int) -> nn.Module:
    """Return the network named `kind` ("mlp" or "deepsets")."""
    if kind == "deepsets":
        return DeepSetsNetwork(space, actions, width, critic_width)
    return MlpNetwork(space, actions, critic_width, depth=2)


def _tanh_layers(size: int, width: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(size, width), nn.Tanh()]
        size = width
    return nn.Sequential(*layers)


def _zeroed(layer: nn.Linear) -> nn.Linear:
    """Start from a policy that is uniform over the valid actions."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def masked(values: Tensor, observation: Arrays) -> Tensor:
    """Put invalid actions out of reach."""
    return values.masked_fill(observation["action_mask"] == 0, INVALID_LOGIT)


class _WithNetwork:
    """What all our policies share: the network's settings, and the observation handed on to it whole."""

    # Set by SB3's constructors.
    observation_space: Any
    device: Any
    is_vectorized_observation: Any
    _transfer: Transfer | None = None

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        lr_schedule: Callable[[float], float],
        network: str = "deepsets",
        width: int = 32,
        critic_width: int = 64,
        **kwargs: Any,
    ) -> None:
        self._network_settings: dict[str, Any] = {
            "network": network,
            "width": width,
            "critic_width": critic_width,
        }
        kwargs.setdefault("features_extractor_class", Passthrough)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)  # type: ignore[call-arg]

    def obs_to_tensor(self, observation: Any) -> tuple[Arrays, bool]:
        """Return (the observation on the device, sent as one block, whether it has an axis of environments)."""
        many = self.is_vectorized_observation(observation)
        arrays = {
            name: np.ascontiguousarray(array).reshape(-1, *self.observation_space[name].shape)
            for name, array in observation.items()
        }
        return self.transfer.send(arrays), many

    @property
    def transfer(self) -> Transfer:
        """The way to the device that the weights are on."""
        if self._transfer is None or self._transfer.device != self.device:
            self._transfer = Transfer(self.device)
        return self._transfer

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **self._network_settings}  # type: ignore[misc]


class _SchedulingActorCritic(_WithNetwork):
    """What both actor-critic policies share: our network in the place of SB3's extractor, trunk and heads."""

    # Set by SB3's constructors.
    action_space: Any
    action_dist: Any
    optimizer_class: Any
    optimizer_kwargs: Any
    extract_features: Any
    parameters: Any
    network: Any

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        settings = self._network_settings
        self.network = make_network(
            settings["network"], self.observation_space, int(self.action_space.n), settings["width"],
            settings["critic_width"],
        )  # fmt: skip
        self.mlp_extractor = nn.Identity()
        self.action_net = nn.Identity()
        self.value_net = nn.Identity()
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _both(self, obs: Arrays, action_masks: Any = None) -> tuple[Any, Tensor]:
        observation = self.extract_features(obs)
        values, value = self.network(observation)
        distribution = self.action_dist.proba_distribution(action_logits=masked(values, observation))
        return distribution, value

    def forward(
        self, obs: Arrays, deterministic: bool = False, action_masks: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (actions, values, log probabilities)."""
        distribution, value = self._both(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, value, distribution.log_prob(actions)

    def evaluate_actions(self, obs: Arrays, actions: Tensor, action_masks: Any = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return (values, log probabilities, entropy) of given actions."""
        distribution, value = self._both(obs)
        return value, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: Arrays, action_masks: Any = None) -> Any:
        """Return the distribution over actions."""
        return self._both(obs)[0]

    def predict_values(self, obs: Arrays) -> Tensor:
        """Return the values alone."""
        values: Tensor = self.network.values(self.extract_features(obs))
        return values


class SchedulingPolicy(_SchedulingActorCritic, MultiInputActorCriticPolicy):  # type: ignore[misc]
    """For PPO and A2C."""


class MaskableSchedulingPolicy(_SchedulingActorCritic, MaskableMultiInputActorCriticPolicy):  # type: ignore[misc]
    """For MaskablePPO."""


class _SchedulingQNetwork(QNetwork):
    def __init__(self, *args: Any, network: str, width: int, critic_width: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        actions = int(self.action_space.n)
        self.q_net = nn.Sequential()
        space = self.observation_space
        assert isinstance(space, spaces.Dict)
        self.network = make_network(network, space, actions, width, critic_width)

    def forward(self, obs: Any) -> Tensor:
        observation: Any = self.extract_features(obs, self.features_extractor)
        return masked(self.network(observation)[0], observation)


class QSchedulingPolicy(_WithNetwork, DQNPolicy):
    """For DQN: the logits of the network are the values of the actions."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Return (the best action of each observation, `state`); DQN chooses so in training, too."""
        self.set_training_mode(False)
        shown, many = self.obs_to_tensor(observation)
        with torch.no_grad():
            best = self._predict(shown, deterministic)
        actions = self.transfer.fetch({"actions": best})["actions"].copy()
        return actions if many else actions[0], state

    def make_q_net(self) -> QNetwork:
        """Return one Q network."""
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return _SchedulingQNetwork(**arguments, **self._network_settings).to(self.device)
