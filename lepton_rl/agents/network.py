"""The two policy networks without torch: what a bundle holds, run by compiled loops over its arrays.

`agents.sb3.networks` trains the same functions in torch; the weight names are shared and a test holds both to the
same choices.

- `mlp`: tanh layers on the flattened observation.
- `deepsets`: one small network shared by all slots of the queue. Each job's features pass a relu layer; the mean over
  visible jobs and the sum over fitting ones, the pooled node table, the context and the preferences make the pool; a
  second relu layer reads job and pool, and gives a logit for each choice that an action has beside the job. Where
  running jobs can be stopped, they have a network of the same form, and the mean over them is part of the pool. The
  wait logit and the value read the pool alone. Reordering the slots reorders the logits, and neither K nor the number
  of nodes is built into the weights (Zaheer et al. 2017).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.jit import inlined, njit, njit_summing
from lepton_rl.envs.codec import Codec, Observation
from lepton_rl.envs.features import NODE_ENTRIES, PLAIN_NODE_ENTRIES

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


def pooled_size(entries: Mapping[str, int]) -> int:
    """Return what a deepsets network pools beside its jobs: three figures of each entry by node, and the rest whole.

    Args:
        entries: the observation's entries and their lengths.
    """
    nodes = sum(name in entries for name in NODE_ENTRIES)
    return 3 * nodes + entries.get("context", 0) + entries.get("preferences", 0)


def expected_shapes(kind: str, weights: Weights, codec: Codec, cluster: ClusterSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a network of this kind, its width taken from the weights themselves.

    Raises:
        KeyError: the array that shows the width is missing.
    """
    entries, choices = codec.shapes(cluster), codec.choices(cluster)
    if kind == "deepsets":
        width = len(weights["job.bias"])
        pool = 2 * width + pooled_size({name: shape[0] for name, shape in entries.items()})
        running: dict[str, tuple[int, ...]] = {}
        if codec.stoppable:
            pool += width
            running = {
                "run.weight": (width, len(codec.running_names(cluster))),
                "run.bias": (width,),
                "mix_run.weight": (width, width),
                "run_logit.weight": (choices, width),
                "run_logit.bias": (choices,),
            }
        return {
            **running,
            "job.weight": (width, len(codec.feature_names)),
            "job.bias": (width,),
            "mix_job.weight": (width, width),
            "mix_pool.weight": (width, pool),
            "mix_pool.bias": (width,),
            "job_logit.weight": (choices, width),
            "job_logit.bias": (choices,),
            "wait_hidden.weight": (width, pool),
            "wait_hidden.bias": (width,),
            "wait_logit.weight": (1, width),
            "wait_logit.bias": (1,),
        }
    width = len(weights["logits.weight"][0])
    size = sum(int(np.prod(shape)) for shape in entries.values())
    actions = codec.wait_action(cluster) + 1
    shapes: dict[str, tuple[int, ...]] = {"logits.weight": (actions, width), "logits.bias": (actions,)}
    for layer in sorted(name for name in weights if name.startswith("actor.") and name.endswith(".weight")):
        shapes[layer] = (width, size if layer == "actor.0.weight" else width)
        shapes[layer.replace(".weight", ".bias")] = (width,)
    return shapes


def forward(kind: str, weights: Weights, entries: Sequence[str]) -> Forward:
    """Return the function from an observation to its masked logits, one for each action.

    Args:
        kind: "mlp" or "deepsets".
        weights: the network's arrays.
        entries: names of the observation's entries that it was trained on. Where another cluster's observation lacks
            one, it counts as on a cluster on which no heat is counted and nothing fails; what else there is is not
            read.
    """
    return _deepsets(weights, entries) if kind == "deepsets" else _mlp(weights, entries)


def _joined(observation: Observation, names: Sequence[str]) -> Singles:
    """Return entries one behind the other, flat; of those that are not there, what they are without types of GPU."""
    values: Singles = np.concatenate(
        [observation[name].ravel() if name in observation else _untyped(observation, name) for name in names]
    )
    return values


def _untyped(observation: Observation, name: str) -> Singles:
    return np.full(len(observation["load"]), 1.0 if name == "health" else 0.0, np.float32)


def _mlp(weights: Weights, entries: Sequence[str]) -> Forward:
    """Layers alternate with their activations: actor.0, actor.2, ..."""
    layers = [
        (np.ascontiguousarray(weights[f"{name}.weight"]), weights[f"{name}.bias"])
        for name in (*(f"actor.{layer}" for layer in range(0, 2 * len(weights), 2)), "logits")
        if f"{name}.weight" in weights
    ]
    names = sorted(entries)

    def compute(observation: Observation) -> Singles:
        values = _joined(observation, names)
        for matrix, bias in layers[:-1]:
            values = _dense(values, matrix, bias, np.empty_like(bias))
            np.tanh(values, out=values)
        matrix, bias = layers[-1]
        return _mask(_dense(values, matrix, bias, np.empty_like(bias)), observation["action_mask"])

    return compute


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


def _deepsets(weights: Weights, entries: Sequence[str]) -> Forward:
    def transposed(name: str) -> Singles:
        return np.ascontiguousarray(weights[name].T)

    arrays: Any = (
        transposed("job.weight"), weights["job.bias"], transposed("mix_job.weight"), transposed("mix_pool.weight"),
        weights["mix_pool.bias"], np.ascontiguousarray(weights["job_logit.weight"]), weights["job_logit.bias"],
        transposed("wait_hidden.weight"), weights["wait_hidden.bias"],
        np.ascontiguousarray(weights["wait_logit.weight"]), weights["wait_logit.bias"],
    )  # fmt: skip
    nothing = np.zeros(0, np.float32)
    nobody = np.zeros((0, 0), np.float32)
    stops = "run.bias" in weights
    of_running: Any = (
        (
            transposed("run.weight"), weights["run.bias"], transposed("mix_run.weight"),
            np.ascontiguousarray(weights["run_logit.weight"]), weights["run_logit.bias"],
        )
        if stops
        else (nobody, nothing, nobody, nobody, nothing)
    )  # fmt: skip
    choices = len(weights["job_logit.bias"])
    typed = [name for name in NODE_ENTRIES if name in entries and name not in PLAIN_NODE_ENTRIES]
    whole = [name for name in ("context", "preferences") if name in entries]

    def compute(observation: Observation) -> Singles:
        queue, running = observation["queue"], observation["running"] if stops else nobody
        rows = len(queue) + len(running)
        logits = np.empty(rows * choices + 1, np.float32)
        jobs = np.empty((rows, len(arrays[1])), np.float32)
        pool = np.zeros(len(arrays[3]), np.float32)
        hidden = np.empty((2, len(arrays[1])), np.float32)
        _deepsets_logits(  # type: ignore[call-arg]
            queue, running, observation["load"], observation["memory"], observation["power"],
            _joined(observation, typed) if typed else nothing,
            observation.get("context", nothing) if len(whole) < 2 else _joined(observation, whole),
            observation["action_mask"], *arrays, *of_running, jobs, pool, hidden, logits,
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
def _mix(source: Singles, matrix: Singles, hidden: Singles, offset: Singles) -> None:
    """Write offset + source @ matrix to `hidden`; the inner loop runs over contiguous outputs."""
    width = hidden.shape[0]
    for unit in range(width):
        hidden[unit] = offset[unit]
    for row in range(matrix.shape[0]):
        value = source[row]
        if value != np.float32(0.0):  # relu leaves half of them 0
            for unit in range(width):
                hidden[unit] += value * matrix[row, unit]


@inlined
def _logit(hidden: Singles, last: Singles, bias: float) -> float:
    """Return last . relu(hidden) + bias."""
    total = bias
    for unit in range(hidden.shape[0]):
        total += last[unit] * max(hidden[unit], np.float32(0.0))
    return total


@inlined
def _shown(rows: Singles) -> int:
    """Count the jobs of a table: the rows behind them are zero."""
    count = 0
    while count < rows.shape[0] and rows[count, VISIBLE_FEATURE] > 0.0:
        count += 1
    return count


@inlined
def _encode(rows: Singles, count: int, weight: Singles, bias: Singles, out: Singles) -> None:
    """Write relu(bias + row @ weight) of the first `count` rows."""
    width = bias.shape[0]
    for row in range(count):
        for unit in range(width):
            out[row, unit] = bias[unit]
        for feature in range(rows.shape[1]):
            value = rows[row, feature]
            for unit in range(width):
                out[row, unit] += value * weight[feature, unit]
        for unit in range(width):
            out[row, unit] = max(out[row, unit], np.float32(0.0))


@inlined
def _write_logits(
    jobs: Singles, count: int, slots: int, first: int, mask: NDArray[np.int8], mix_job: Singles, last: Singles,
    bias: Singles, from_pool: Singles, hidden: Singles, logits: Singles,
) -> None:  # fmt: skip
    """Write the logits of the choices of `slots` jobs, from action `first` on; invalid beyond the first `count`."""
    choices = last.shape[0]
    for slot in range(slots):
        mixed = False
        for choice in range(choices):
            action = first + slot * choices + choice
            logits[action] = INVALID_LOGIT
            if slot < count and mask[action] != 0:
                if not mixed:
                    _mix(jobs[slot], mix_job, hidden, from_pool)
                    mixed = True
                logits[action] = _logit(hidden, last[choice], bias[choice])


@njit
def _deepsets_logits(
    queue: Singles, running: Singles, load: Singles, memory: Singles, power: Singles, typed: Singles, whole: Singles,
    mask: NDArray[np.int8], job_weight: Singles, job_bias: Singles,
    mix_job: Singles, mix_pool: Singles, mix_bias: Singles, job_logit: Singles, job_logit_bias: Singles,
    wait_weight: Singles, wait_bias: Singles, wait_logit: Singles, wait_logit_bias: Singles, run_weight: Singles,
    run_bias: Singles, mix_run: Singles, run_logit: Singles, run_logit_bias: Singles, jobs: Singles, pool: Singles,
    hidden: Singles, logits: Singles,
) -> None:  # fmt: skip
    """Weights are transposed to (inputs, outputs), but for those of the logits.

    `typed` holds the further entries by node one behind the other, `whole` what is not pooled; they may be empty.
    `running` and its weights are empty where no action stops a job. `jobs` (K + R, width), `pool` (zeros) and `hidden`
    (2, width) are room to work in.
    """
    width = job_bias.shape[0]
    slots = queue.shape[0]
    visible = _shown(queue)
    _encode(queue, visible, job_weight, job_bias, jobs)
    for slot in range(visible):
        fit = queue[slot, FITS_FEATURE]
        for unit in range(width):
            pool[unit] += jobs[slot, unit]
            pool[width + unit] += fit * jobs[slot, unit]
    for unit in range(width):
        pool[unit] /= np.float32(max(visible, 1))
        pool[width + unit] *= np.float32(FIT_POOL_SCALE)
    _pool_node_entry(load, pool, 2 * width)
    _pool_node_entry(memory, pool, 2 * width + 3)
    _pool_node_entry(power, pool, 2 * width + 6)
    nodes = load.shape[0]
    behind = 2 * width + 9
    for entry in range(typed.shape[0] // nodes):
        _pool_node_entry(typed[entry * nodes : (entry + 1) * nodes], pool, behind)
        behind += 3
    for index in range(whole.shape[0]):
        pool[behind + index] = whole[index]
    behind += whole.shape[0]
    runs = _shown(running)
    _encode(running, runs, run_weight, run_bias, jobs[slots:])
    if running.shape[0] > 0:
        for slot in range(runs):
            for unit in range(width):
                pool[behind + unit] += jobs[slots + slot, unit]
        for unit in range(width):
            pool[behind + unit] /= np.float32(max(runs, 1))
    from_pool = hidden[0]
    for unit in range(width):
        from_pool[unit] = mix_bias[unit]
    for row in range(mix_pool.shape[0]):
        for unit in range(width):
            from_pool[unit] += pool[row] * mix_pool[row, unit]
    _write_logits(jobs, visible, slots, 0, mask, mix_job, job_logit, job_logit_bias, from_pool, hidden[1], logits)
    if running.shape[0] > 0:
        first = slots * job_logit.shape[0]
        _write_logits(
            jobs[slots:], runs, running.shape[0], first, mask, mix_run, run_logit, run_logit_bias, from_pool,
            hidden[1], logits,
        )  # fmt: skip
    waits = logits.shape[0] - 1
    logits[waits] = INVALID_LOGIT
    if mask[waits] != 0:
        _mix(pool, wait_weight, hidden[1], wait_bias)
        logits[waits] = _logit(hidden[1], wait_logit[0], wait_logit_bias[0])
