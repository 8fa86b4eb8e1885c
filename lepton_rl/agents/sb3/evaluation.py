"""What the network is worth now: the real metrics on held-out windows, greedy and sampled."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from lepton_rl.agents.network import Singles
from lepton_rl.agents.sb3.networks import Passthrough, masked
from lepton_rl.agents.sb3.transfer import Transfer
from lepton_rl.envs.batch import EnvironmentBatch
from lepton_rl.envs.codec import Observation


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over the windows; `cost` is the objective, relative to the heuristic's where rewards are."""

    cost: float
    mean_jct: float
    mean_bounded_slowdown: float
    utilization: float
    mean_power_w: float


def network_of(model: BaseAlgorithm) -> torch.nn.Module:
    """Return the network that chooses actions."""
    policy: Any = model.policy
    module = policy.q_net.network if hasattr(policy, "q_net") else policy.network
    assert isinstance(module, torch.nn.Module)
    return module


def _extractor_of(model: BaseAlgorithm) -> Passthrough:
    """Return what decodes observations in front of the network."""
    policy: Any = model.policy
    extractor = (policy.q_net if hasattr(policy, "q_net") else policy).features_extractor
    assert isinstance(extractor, Passthrough)
    return extractor


def network_weights(model: BaseAlgorithm) -> dict[str, Singles]:
    """Return copies of the arrays that a bundle needs: everything but the critic's."""
    state = network_of(model).state_dict()
    actors = {name: tensor for name, tensor in state.items() if not name.startswith(("critic.", "value."))}
    fetched = Transfer(model.device).fetch(actors)
    return {name: array.astype(np.float32, copy=True) for name, array in fetched.items()}


def evaluate(
    model: BaseAlgorithm,
    batch: EnvironmentBatch,
    windows: Sequence[tuple[int, int]],
    sample: bool,
    seed: int = 0,
) -> tuple[Evaluation, dict[str, tuple[Singles, Singles]]]:
    """Run each window once (`batch` has one environment for each) and return means and the range of what was seen.

    Draws come from a generator of their own: evaluating leaves training's random state alone.
    """
    generator = np.random.default_rng(seed)
    for env, window in enumerate(windows):
        batch.reset(env, window)
    network, extractor, transfer = network_of(model), _extractor_of(model), Transfer(model.device)
    quantization = extractor.quantization
    running = np.ones(len(windows), np.bool_)
    infos: list[dict[str, float]] = [{} for _ in windows]
    ranges: dict[str, tuple[Singles, Singles]] = {}
    while running.any():
        observation = batch.observation()
        _widen(ranges, observation)
        shown = transfer.send(observation if quantization is None else quantization.encode(observation))
        with torch.no_grad():
            tensors = extractor({name: tensor.float() for name, tensor in shown.items()})
            values = transfer.fetch({"values": masked(network(tensors)[0], tensors)})["values"]
        if sample:
            values = values + generator.gumbel(size=values.shape)
        batch.step(values.argmax(1).astype(np.int64))
        for env in np.flatnonzero(batch.terminated).tolist():
            if running[env]:
                infos[env] = batch.episode_info(int(env))
                running[env] = False
            batch.reset(int(env), windows[env])  # it runs on beside the others, unread
    mean = {key: float(np.mean([info[key] for info in infos])) for key in infos[0]}
    result = Evaluation(
        cost=-mean["return"],
        mean_jct=mean["mean_jct"],
        mean_bounded_slowdown=mean["mean_bounded_slowdown"],
        utilization=mean["utilization"],
        mean_power_w=mean["mean_power_w"],
    )
    return result, ranges


def _widen(ranges: dict[str, tuple[Singles, Singles]], observation: Observation) -> None:
    """Take the observation into the range of each feature (over environments, slots and nodes)."""
    for name, array in observation.items():
        if name == "action_mask":
            continue
        keep_last = name in ("queue", "context", "running")
        axes = tuple(range(array.ndim - 1)) if keep_last else None
        low, high = np.asarray(array.min(axis=axes)), np.asarray(array.max(axis=axes))
        if name in ranges:
            low, high = np.minimum(ranges[name][0], low), np.maximum(ranges[name][1], high)
        ranges[name] = (low, high)
