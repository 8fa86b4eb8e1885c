"""Checkpoints from which training continues bit for bit (on CPU)."""

import random
from pathlib import Path
from pickle import PickleError
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from lepton_rl.agents.sb3.vec_env import BatchVecEnv
from lepton_rl.core.atomic import replacing
from lepton_rl.errors import LeptonError

_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_last_obs", "_last_episode_starts", "_n_calls")
# what torch, pickle and SB3 raise on a file that is cut off or was written by other code
_DAMAGE = (
    OSError, RuntimeError, LookupError, ValueError, EOFError, TypeError, AttributeError, ImportError, PickleError,
)  # fmt: skip
_BUFFER_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def save_checkpoint(path: Path, model: BaseAlgorithm, env: BatchVecEnv, progress: dict[str, Any]) -> None:
    """Write everything that changes during training, atomically, at a moment between two rollouts."""
    state: dict[str, Any] = {
        "policy": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "counters": {name: getattr(model, name) for name in _COUNTERS if hasattr(model, name)},
        "env": env.state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": np.random.get_state(),  # noqa: NPY002 - SB3 draws its minibatches from the global generator
        "python": random.getstate(),
        "progress": progress,
    }
    if isinstance(model, OffPolicyAlgorithm):
        state["replay"] = _replay_state(model)
    with replacing(path) as draft:
        torch.save(state, draft)


def load_checkpoint(path: Path, model: BaseAlgorithm, env: BatchVecEnv) -> dict[str, Any]:
    """Put model, environments and random states back where they were; return the caller's progress.

    Raises:
        LeptonError: the file is damaged or belongs to other settings.
    """
    try:
        # A run folder's own file: it holds random states and arrays, which torch's safe loader refuses.
        state = torch.load(path, map_location=model.device, weights_only=False)
        model.policy.load_state_dict(state["policy"])
        model.policy.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["counters"].items():
            setattr(model, name, value)
        env.load(state["env"])
        if "replay" in state:
            _load_replay(model, state["replay"])
        torch.set_rng_state(state["torch"].cpu())
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
        np.random.set_state(state["numpy"])  # noqa: NPY002
        random.setstate(state["python"])
        progress: dict[str, Any] = state["progress"]
    except _DAMAGE as error:
        raise LeptonError(
            f"{path}: this checkpoint cannot be continued: it is damaged, or another version wrote it; "
            "train anew with --overwrite"
        ) from error
    return progress


def _replay_state(model: OffPolicyAlgorithm) -> dict[str, Any]:
    buffer = model.replay_buffer
    assert buffer is not None
    filled = buffer.buffer_size if buffer.full else buffer.pos
    arrays: dict[str, Any] = {}
    for name in _BUFFER_ARRAYS:
        array = getattr(buffer, name)
        if isinstance(array, dict):
            arrays[name] = {key: values[:filled].copy() for key, values in array.items()}
        else:
            arrays[name] = array[:filled].copy()
    return {
        "pos": buffer.pos,
        "full": buffer.full,
        "arrays": arrays,
        "exploration": getattr(model, "exploration_rate", 0),
    }


def _load_replay(model: BaseAlgorithm, saved: dict[str, Any]) -> None:
    assert isinstance(model, OffPolicyAlgorithm)
    buffer = model.replay_buffer
    assert buffer is not None
    for name, array in saved["arrays"].items():
        target = getattr(buffer, name)
        if isinstance(array, dict):
            for key, values in array.items():
                target[key][: len(values)] = values
        else:
            target[: len(array)] = array
    buffer.pos = saved["pos"]
    buffer.full = saved["full"]
    if hasattr(model, "exploration_rate"):
        model.exploration_rate = saved["exploration"]
