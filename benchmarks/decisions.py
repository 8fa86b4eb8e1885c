"""Rows of one decision: a snapshot in hand, a bundle without torch, and the actions that come back."""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.rows import Row, at_most
from benchmarks.timing import cpu_seconds, latencies
from benchmarks.workloads import workload
from lepton_rl.agents.bundle import LearnedPolicy, load_bundle, save_bundle
from lepton_rl.agents.network import NETWORKS, Singles
from lepton_rl.agents.registry import make_policy
from lepton_rl.core import ClusterSpec, Policy, Snapshot
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import gpu_type
from lepton_rl.envs import Codec
from lepton_rl.envs.decision import Decision
from lepton_rl.envs.features import CONTEXT_FEATURES
from lepton_rl.simulator import Blocking, Order, Rule, SimulatedCluster, decide

CLUSTER = ClusterSpec(16, 8)
WINDOW = 128
ENDS = ("waits", "starts one job")


def random_weights(network: str, codec: Codec, cluster: ClusterSpec, seed: int = 0) -> dict[str, Singles]:
    """Return weights of a network of the default size.

    A decision takes as long as with trained ones; only which job is started depends on them.
    """
    rng = np.random.default_rng(seed)
    hidden, width, features = 64, 32, len(codec.feature_names)
    pool = 2 * width + 9 + (len(CONTEXT_FEATURES) if codec.full else 0)
    inputs = sum(int(np.prod(shape)) for shape in codec.shapes(cluster).values())
    layers = {
        "mlp": {
            "actor.0": (hidden, inputs),
            "actor.2": (hidden, hidden),
            "logits": (codec.wait_action(CLUSTER) + 1, hidden),
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

    Smallest area first fills every gap, so that most of them come when one job has just finished.
    """
    simulated = SimulatedCluster(workload(6000, CLUSTER.gpus, 2.0, seed=4), CLUSTER)
    codec, rule = Codec(window=WINDOW), Rule(Order.SAF, Blocking.SKIP)
    found: list[Snapshot] = []
    while len(found) < count and simulated.advance():
        snapshot = simulated.snapshot()
        if len(snapshot.queue) >= WINDOW and Decision.of(codec, snapshot).is_due:
            found.append(snapshot)
        for action in decide(snapshot, rule):
            simulated.apply(action)
    return found


def _bundle(network: str, prefer_waiting: float) -> LearnedPolicy:
    """Write a bundle and load it as a deployment does."""
    codec = Codec(window=WINDOW)
    weights = _prefer_waiting(network, random_weights(network, codec, CLUSTER), prefer_waiting)
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(Path(folder), LearnedPolicy(codec, network, weights, CLUSTER), {})
        return load_bundle(folder)


def _parts(policy: LearnedPolicy, snapshot: Snapshot, calls: int) -> dict[str, float | str]:
    """Return the least CPU microseconds of a decision's parts."""
    codec = policy.codec

    def microseconds(work: Callable[[], object]) -> float:
        return cpu_seconds(lambda: [work() for _ in range(calls)], 3) / calls * 1e6

    opened = microseconds(lambda: Decision.of(codec, snapshot))
    observation = Decision.of(codec, snapshot).observation
    slot = policy.choose(observation)
    parts: dict[str, float | str] = {
        "observation, µs": opened,
        "one forward pass, µs": microseconds(lambda: policy.choose(observation)),
    }
    if slot < codec.window:
        parts["observation, start and observation, µs"] = microseconds(lambda: Decision.of(codec, snapshot).start(slot))
    return parts


def _percentiles(
    policy: Policy, snapshots: Sequence[Snapshot], rounds: int, clock: Callable[[], float]
) -> tuple[float, float]:
    """Return (p50, p99) of a decision by this clock, microseconds."""
    count = len(snapshots)
    seconds = latencies(lambda index: policy.decide(snapshots[index % count]), count * rounds, clock)
    middle, tail = np.percentile(seconds, (50, 99)) * 1e6
    return float(middle), float(tail)


def one_decision(quick: bool) -> Iterator[Row]:
    """Latency of `LearnedPolicy.decide` on snapshots with at least 128 waiting jobs."""
    snapshots = crowded_snapshots(40 if quick else 300)
    rounds = 5 if quick else 30
    for network in NETWORKS:
        for end, prefer_waiting, starts in ((ENDS[0], 1e4, 0), (ENDS[1], -1e4, 1)):
            policy = _bundle(network, prefer_waiting)
            chosen = [snapshot for snapshot in snapshots if len(policy.decide(snapshot)) == starts]
            count = len(chosen)
            middle, tail = _percentiles(policy, chosen, rounds, time.perf_counter)
            cpu_middle, cpu_tail = _percentiles(policy, chosen, rounds, time.thread_time)
            name = f"one decision that {end}, {network}, K = {WINDOW}"
            details: dict[str, float | str] = {
                "snapshots": count,
                "waiting jobs, mean": float(np.mean([len(snapshot.queue) for snapshot in chosen])),
                "p50 in CPU time, µs": cpu_middle,
                "torch loaded": "yes" if "torch" in sys.modules else "no",
                **_parts(policy, chosen[count // 2], 50 if quick else 500),
            }
            yield Row(f"{name}, p50", middle, "µs", at_most(50), details=details)
            yield Row(f"{name}, p99", tail, "µs", at_most(1000), details={"p99 in CPU time, µs": cpu_tail})
    yield from _on_a_node(quick)


def _on_a_node(quick: bool) -> Iterator[Row]:
    """Latency of a heuristic on snapshots as a node of eight GPUs has them, with about 200 waiting jobs."""
    node = ClusterSpec.of_groups((NodeGroup(1, 8, gpu_type("A100-SXM4-80GB"), (("cpu_cores", 128.0),)),))
    simulated = SimulatedCluster(workload(2500, 8, 4.0, seed=4).fit_to(8), node)
    policy = make_policy("saf", blocking="easy")
    found: list[Snapshot] = []
    while len(found) < (40 if quick else 300) and simulated.advance():
        snapshot = simulated.snapshot()
        actions = policy.decide(snapshot)
        if 150 <= len(snapshot.queue) <= 250 and actions:
            found.append(snapshot)
        for action in actions:
            simulated.apply(action)
    rounds = 5 if quick else 30
    middle, tail = _percentiles(policy, found, rounds, time.perf_counter)
    cpu_middle, cpu_tail = _percentiles(policy, found, rounds, time.thread_time)
    waiting = float(np.mean([len(snapshot.queue) for snapshot in found]))
    name = "one decision that starts jobs, saf + EASY, a node of 8 GPUs"
    details = {"snapshots": len(found), "waiting jobs, mean": waiting, "p50 in CPU time, µs": cpu_middle}
    yield Row(f"{name}, p50", middle, "µs", at_most(50), details=details)
    yield Row(f"{name}, p99", tail, "µs", at_most(1000), details={"p99 in CPU time, µs": cpu_tail})
