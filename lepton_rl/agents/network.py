"""The two policy networks as plain arrays: what a bundle holds, run with NumPy alone.

`agents.sb3.networks` trains the same functions in torch; the weight names are shared and a test holds both to the
same choices.

- `mlp`: tanh layers on the flattened observation.
- `deepsets`: one small network shared by all slots of the queue. Each job's features pass a relu layer; the mean over
  visible jobs and the sum over fitting ones, the context and the pooled node table make the pool; a second relu layer
  reads job and pool, and gives one logit a job. The wait logit and the value read the pool alone. Reordering the slots
  reorders the logits, and neither K nor the number of nodes is built into the weights (Zaheer et al. 2017).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.envs.codec import Observation

Singles = NDArray[np.float32]
Weights = Mapping[str, Singles]

NETWORKS = ("mlp", "deepsets")
FIT_POOL_SCALE = np.float32(1 / 16)
"""The sum over fitting jobs is brought near 1 for the dozen that usually fit."""
INVALID_LOGIT = np.float32(-1e8)
VISIBLE_FEATURE = 1  # "gpus" is above 0 for every job and 0 in empty rows
FITS_FEATURE = 5
NODE_ENTRIES = ("load", "memory", "power")


def logits(kind: str, weights: Weights, observation: Observation) -> Singles:
    """Return the masked logits of one observation, shape (K + 1,)."""
    compute = _deepsets if kind == "deepsets" else _mlp
    values = compute(weights, observation)
    return np.where(observation["action_mask"].astype(np.bool_), values, INVALID_LOGIT)


def flat_input(observation: Observation) -> Singles:
    """Return the observation without its mask as one vector, in the order that the mlp was trained with."""
    parts = [observation[name].ravel() for name in sorted(observation) if name != "action_mask"]
    return np.concatenate(parts)


def _mlp(weights: Weights, observation: Observation) -> Singles:
    hidden = flat_input(observation)
    layer = 0
    while f"actor.{layer}.weight" in weights:
        hidden = np.tanh(weights[f"actor.{layer}.weight"] @ hidden + weights[f"actor.{layer}.bias"])
        layer += 2  # layers alternate with their activations
    values: Singles = weights["logits.weight"] @ hidden + weights["logits.bias"]
    return values


def pooled_nodes(observation: Mapping[str, Any]) -> Singles:
    """Return mean, lowest and highest of load, memory and power, shape (9,)."""
    table = [observation[name] for name in NODE_ENTRIES]
    return np.array([reduced for row in table for reduced in (row.mean(), row.min(), row.max())], np.float32)


def _deepsets(weights: Weights, observation: Observation) -> Singles:
    queue = observation["queue"]
    visible = int(np.count_nonzero(queue[:, VISIBLE_FEATURE]))
    shown = queue[:visible]  # empty rows stand behind the last job and add nothing to the pools
    jobs = np.maximum(shown @ weights["job.weight"].T + weights["job.bias"], 0)
    mean_pool = jobs.sum(0) / np.float32(max(visible, 1))
    fit_pool = (shown[:, FITS_FEATURE] @ jobs) * FIT_POOL_SCALE
    parts = [mean_pool, fit_pool, pooled_nodes(observation)]
    if "context" in observation:
        parts.append(observation["context"])
    pool = np.concatenate(parts)
    mixed = np.maximum(jobs @ weights["mix_job.weight"].T + (weights["mix_pool.weight"] @ pool + weights["mix_pool.bias"]), 0)
    waiting = np.maximum(weights["wait_hidden.weight"] @ pool + weights["wait_hidden.bias"], 0)
    values = np.full(len(queue) + 1, INVALID_LOGIT, np.float32)
    values[:visible] = mixed @ weights["job_logit.weight"][0] + weights["job_logit.bias"][0]
    values[-1] = waiting @ weights["wait_logit.weight"][0] + weights["wait_logit.bias"][0]
    return values
