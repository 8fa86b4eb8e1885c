"""Rows of one decision: a snapshot in hand, a bundle without torch, and the actions that come back."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.rows import Row, at_most
from benchmarks.timing import cpu_seconds, latencies
from benchmarks.workloads import workload
from lepton_rl.agents.bundle import LearnedPolicy, load_bundle, save_bundle
from lepton_rl.agents.network import NETWORKS, Singles
from lepton_rl.core import ClusterSpec, Snapshot
from lepton_rl.envs import Codec
from lepton_rl.envs.features import CONTEXT_FEATURES
from lepton_rl.simulator import SimulatedCluster

CLUSTER = ClusterSpec(16, 8)
WINDOW = 128
FEWEST_WAITING = WINDOW  # the window is full
ENDS = ("waits", "starts one job")


def random_weights(network: str, codec: Codec, cluster: ClusterSpec, seed: int = 0) -> dict[str, Singles]:
    """Return weights of a network of the default size as training might have left them: the time does not depend on
    them, only whether a job is started does."""
    rng = np.random.default_rng(seed)
    hidden, width, features = 64, 32, len(codec.feature_names)
    pool = 2 * width + 9 + (len(CONTEXT_FEATURES) if codec.full else 0)
    inputs = sum(int(np.prod(shape)) for shape in codec.shapes(cluster).values())
    layers = {
        "mlp": {
            "actor.0": (hidden, inputs),
            "actor.2": (hidden, hidden),
            "logits": (codec.window + 1, hidden),
        },
        "deepsets": {
            "job": (width, features),
            "mix_job": (width, width),
            "mix_pool": (width, pool),
            "job_logit": (1, width),
            "wait_hidden": (width, pool),
            "wait_logit": (1, width),
        },
    }[network]
    weights: dict[str, Singles] = {}
    for name, (outputs, count) in layers.items():
        weights[f"{name}.weight"] = (rng.normal(size=(outputs, count)) / np.sqrt(count)).astype(np.float32)
        if name != "mix_job":
            weights[f"{name}.bias"] = np.zeros(outputs, np.float32)
    return weights


def _prefer_waiting(network: str, weights: dict[str, Singles], by: float) -> dict[str, Singles]:
    """Return weights whose logit of waiting is `by` higher."""
    name = "logits.bias" if network == "mlp" else "wait_logit.bias"
    bias = weights[name].copy()
    bias[-1] += by
    return {**weights, name: bias}


def crowded_snapshots(count: int) -> list[Snapshot]:
    """Return decision points at which the window is full and a visible job fits.

    First-come-first-served keeps small jobs waiting behind a large one, as a learned policy's cluster looks between
    two of its decisions.
    """
    simulated = SimulatedCluster(workload(6000, CLUSTER.gpus, 2.0, seed=4), CLUSTER)
    codec = Codec(window=WINDOW)
    found: list[Snapshot] = []
    while len(found) < count and simulated.advance():
        snapshot = simulated.snapshot()
        if len(snapshot.queue) >= FEWEST_WAITING and codec.open(snapshot).something_fits:
            found.append(snapshot)
        while len(snapshot.queue):  # first come, first served
            head = snapshot.queue
            if head.gpus[0] > snapshot.free_gpus:
                break
            simulated.apply(_start(int(head.id[0])))
            snapshot = simulated.snapshot()
    return found


def _start(job: int) -> "Start":
    return Start(job)


def _bundle(folder: Path, network: str, prefer_waiting: float) -> LearnedPolicy:
    """Write a bundle and load it as a deployment does."""
    codec = Codec(window=WINDOW)
    weights = _prefer_waiting(network, random_weights(network, codec, CLUSTER), prefer_waiting)
    return load_bundle(save_bundle(folder, LearnedPolicy(codec, network, weights, CLUSTER), {}))
