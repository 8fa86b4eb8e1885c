"""The two policy networks without torch: what a bundle holds, run by compiled loops over its arrays.

`agents.sb3.networks` trains the same functions in torch; the weight names are shared and a test holds both to the
same choices.

- `mlp`: tanh layers on the flattened observation.
- `deepsets`: one small network shared by all slots of the queue. Each job's features pass a relu layer; the mean over
  visible jobs and the sum over fitting ones, the pooled node table and the context make the pool; a second relu layer
  reads job and pool, and gives one logit a job. The wait logit and the value read the pool alone. Reordering the slots
  reorders the logits, and neither K nor the number of nodes is built into the weights (Zaheer et al. 2017).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.jit import inlined, njit, njit_summing
from lepton_rl.envs.codec import Codec, Observation

Singles = NDArray[np.float32]
Weights = Mapping[str, Singles]
Forward = Callable[[Observation], Singles]

NetworkName = Literal["mlp", "deepsets"]
NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)
FIT_POOL_SCALE = 1 / 16
"""The sum over fitting jobs is brought near 1 for the dozen that usually fit."""
INVALID_LOGIT = -1e8
VISIBLE_FEATURE = 1  # "gpus" is above 0 for every job and 0 in empty rows
FITS_FEATURE = 5
REMAINING = "remaining"
"""What training adds to the observation for the critic: the part of the episode's jobs yet to come."""
NODE_ENTRIES = ("load", "memory", "power")


def expected_shapes(kind: str, weights: Weights, codec: Codec, cluster: ClusterSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a network of this kind, its width taken from the weights themselves.

    Raises:
        KeyError: the array that shows the width is missing.
    """
    features, context = len(codec.feature_names), codec.shapes(cluster).get("context", (0,))[0]
    if kind == "deepsets":
        width = len(weights["job.bias"])
        pool = 2 * width + 3 * len(NODE_ENTRIES) + context
        return {
            "job.weight": (width, features),
            "job.bias": (width,),
            "mix_job.weight": (width, width),
            "mix_pool.weight": (width, pool),
            "mix_pool.bias": (width,),
            "job_logit.weight": (1, width),
            "job_logit.bias": (1,),
            "wait_hidden.weight": (width, pool),
            "wait_hidden.bias": (width,),
            "wait_logit.weight": (1, width),
            "wait_logit.bias": (1,),
        }
    width = len(weights["logits.weight"][0])
    size = sum(int(np.prod(shape)) for shape in codec.shapes(cluster).values())
    shapes: dict[str, tuple[int, ...]] = {
        "logits.weight": (codec.window + 1, width),
        "logits.bias": (codec.window + 1,),
    }
    for layer in sorted(name for name in weights if name.startswith("actor.") and name.endswith(".weight")):
        shapes[layer] = (width, size if layer == "actor.0.weight" else width)
        shapes[layer.replace(".weight", ".bias")] = (width,)
    return shapes


def forward(kind: str, weights: Weights) -> Forward:
    """Return the function from an observation to its masked logits, shape (K + 1,)."""
    return _deepsets(weights) if kind == "deepsets" else _mlp(weights)


def _mlp(weights: Weights) -> Forward:
    """Layers alternate with their activations: actor.0, actor.2, ..."""
    layers = [
        (np.ascontiguousarray(weights[f"{name}.weight"]), weights[f"{name}.bias"])
        for name in (*(f"actor.{layer}" for layer in range(0, 2 * len(weights), 2)), "logits")
        if f"{name}.weight" in weights
    ]
    inputs = layers[0][0].shape[1]
    nothing = np.zeros(0, np.float32)

    def compute(observation: Observation) -> Singles:
        values = np.empty(inputs, np.float32)
        _flatten(
            observation.get("context", nothing), observation["load"], observation["memory"], observation["power"],
            observation["queue"], values,
        )  # fmt: skip
        for matrix, bias in layers[:-1]:
            values = _dense(values, matrix, bias, np.empty_like(bias))
            np.tanh(values, out=values)
        matrix, bias = layers[-1]
        return _mask(_dense(values, matrix, bias, np.empty_like(bias)), observation["action_mask"])

    return compute


@njit
def _flatten(context: Singles, load: Singles, memory: Singles, power: Singles, queue: Singles, flat: Singles) -> None:
    """Write the observation without its mask as one vector, entries in the order of their names."""
    entries = context.shape[0]
    groups = load.shape[0]
    for index in range(entries):
        flat[index] = context[index]
    for index in range(groups):
        flat[entries + index] = load[index]
        flat[entries + groups + index] = memory[index]
        flat[entries + 2 * groups + index] = power[index]
    first = entries + 3 * groups
    features = queue.shape[1]
    for slot in range(queue.shape[0]):
        for feature in range(features):
            flat[first + slot * features + feature] = queue[slot, feature]


@njit_summing
def _dense(source: Singles, matrix: Singles, bias: Singles, out: Singles) -> Singles:
    """Write bias + matrix @ source to `out`; four outputs at a time share the reading of the inputs."""
    outputs = matrix.shape[0]
    inputs = matrix.shape[1]
    zero = np.float32(0.0)
    unit = 0
    while unit + 4 <= outputs:
        a, b, c, d = zero, zero, zero, zero
        for index in range(inputs):
            value = source[index]
            a += value * matrix[unit, index]
            b += value * matrix[unit + 1, index]
            c += value * matrix[unit + 2, index]
            d += value * matrix[unit + 3, index]
        out[unit] = a + bias[unit]
        out[unit + 1] = b + bias[unit + 1]
        out[unit + 2] = c + bias[unit + 2]
        out[unit + 3] = d + bias[unit + 3]
        unit += 4
    while unit < outputs:
        a = zero
        for index in range(inputs):
            a += source[index] * matrix[unit, index]
        out[unit] = a + bias[unit]
        unit += 1
    return out


@njit
def _mask(logits: Singles, mask: NDArray[np.int8]) -> Singles:
    """Write INVALID_LOGIT where the mask forbids the action."""
    for action in range(logits.shape[0]):
        if mask[action] == 0:
            logits[action] = INVALID_LOGIT
    return logits


def _deepsets(weights: Weights) -> Forward:
    def transposed(name: str) -> Singles:
        return np.ascontiguousarray(weights[name].T)

    arrays: Any = (
        transposed("job.weight"), weights["job.bias"], transposed("mix_job.weight"), transposed("mix_pool.weight"),
        weights["mix_pool.bias"], weights["job_logit.weight"][0], weights["job_logit.bias"],
        transposed("wait_hidden.weight"), weights["wait_hidden.bias"], weights["wait_logit.weight"][0],
        weights["wait_logit.bias"],
    )  # fmt: skip
    nothing = np.zeros(0, np.float32)

    def compute(observation: Observation) -> Singles:
        queue = observation["queue"]
        logits = np.empty(len(queue) + 1, np.float32)
        jobs = np.empty((len(queue), len(arrays[1])), np.float32)
        pool = np.zeros(len(arrays[3]), np.float32)
        hidden = np.empty((2, len(arrays[1])), np.float32)
        _deepsets_logits(  # type: ignore[call-arg]
            queue, observation["load"], observation["memory"], observation["power"],
            observation.get("context", nothing), observation["action_mask"], *arrays, jobs, pool, hidden, logits,
        )  # fmt: skip
        return logits

    return compute


@inlined
def _pool_node_entry(values: Singles, pool: Singles, offset: int) -> None:
    """Write mean, lowest and highest of one row of the node table."""
    total = np.float32(0.0)
    low = values[0]
    high = values[0]
    for index in range(values.shape[0]):
        total += values[index]
        low = min(low, values[index])
        high = max(high, values[index])
    pool[offset] = total / np.float32(values.shape[0])
    pool[offset + 1] = low
    pool[offset + 2] = high


@inlined
def _head(source: Singles, matrix: Singles, hidden: Singles, offset: Singles, last: Singles, bias: Singles) -> float:
    """Return last . relu(offset + source @ matrix) + bias; the inner loop runs over contiguous outputs."""
    width = hidden.shape[0]
    for unit in range(width):
        hidden[unit] = offset[unit]
    for row in range(matrix.shape[0]):
        value = source[row]
        if value != np.float32(0.0):  # relu leaves half of them 0
            for unit in range(width):
                hidden[unit] += value * matrix[row, unit]
    total = bias[0]
    for unit in range(width):
        total += last[unit] * max(hidden[unit], np.float32(0.0))
    return total


@njit
def _deepsets_logits(
    queue: Singles, load: Singles, memory: Singles, power: Singles, context: Singles, mask: NDArray[np.int8],
    job_weight: Singles, job_bias: Singles, mix_job: Singles, mix_pool: Singles, mix_bias: Singles,
    job_logit: Singles, job_logit_bias: Singles, wait_weight: Singles, wait_bias: Singles, wait_logit: Singles,
    wait_logit_bias: Singles, jobs: Singles, pool: Singles, hidden: Singles, logits: Singles,
) -> None:  # fmt: skip
    """Weights are transposed to (inputs, outputs); `jobs`, `pool` (zeros), `hidden` (2, width) are room to work in."""
    width = job_bias.shape[0]
    slots = queue.shape[0]
    visible = 0
    while visible < slots and queue[visible, VISIBLE_FEATURE] > 0.0:
        visible += 1
    for slot in range(visible):
        for unit in range(width):
            jobs[slot, unit] = job_bias[unit]
        for feature in range(queue.shape[1]):
            value = queue[slot, feature]
            for unit in range(width):
                jobs[slot, unit] += value * job_weight[feature, unit]
        fit = queue[slot, FITS_FEATURE]
        for unit in range(width):
            value = max(jobs[slot, unit], np.float32(0.0))
            jobs[slot, unit] = value
            pool[unit] += value
            pool[width + unit] += fit * value
    for unit in range(width):
        pool[unit] /= np.float32(max(visible, 1))
        pool[width + unit] *= np.float32(FIT_POOL_SCALE)
    _pool_node_entry(load, pool, 2 * width)
    _pool_node_entry(memory, pool, 2 * width + 3)
    _pool_node_entry(power, pool, 2 * width + 6)
    for index in range(context.shape[0]):
        pool[2 * width + 9 + index] = context[index]
    from_pool = hidden[0]
    for unit in range(width):
        from_pool[unit] = mix_bias[unit]
    for row in range(mix_pool.shape[0]):
        for unit in range(width):
            from_pool[unit] += pool[row] * mix_pool[row, unit]
    for slot in range(slots):
        logits[slot] = INVALID_LOGIT
        if slot < visible and mask[slot] != 0:
            logits[slot] = _head(jobs[slot], mix_job, hidden[1], from_pool, job_logit, job_logit_bias)
    logits[slots] = INVALID_LOGIT
    if mask[slots] != 0:
        logits[slots] = _head(pool, wait_weight, hidden[1], wait_bias, wait_logit, wait_logit_bias)
