"""Rows of the environments: steps per CPU-second beside the Python peer, growth, reset, memory."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.python_env import PythonSchedulingEnv
from benchmarks.rows import Row, Target, at_least, at_most
from benchmarks.timing import cpu_seconds
from benchmarks.workloads import workload
from lepton_rl.core import ClusterSpec
from lepton_rl.envs import Codec, EnvironmentBatch, Episodes, Objective, SchedulingVectorEnv
from lepton_rl.envs.batch_kernel import choose_random
from lepton_rl.workloads import Trace

ENVS = 64
WINDOW = 128
GPUS_PER_NODE = 8
EPISODE = 1024
SAMPLE_EVERY = 50  # steps between two looks at the queues, which are not timed
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Setting:
    """A cluster, and the load under which random actions keep the wanted mean queue on it."""

    nodes: int
    load: float
    warmup: int = 0
    jobs: int = EPISODE

    @property
    def cluster(self) -> ClusterSpec:
        """The machine."""
        return ClusterSpec(self.nodes, GPUS_PER_NODE)

    def trace(self, episodes: int) -> Trace:
        """Return jobs for that many episodes without overlap."""
        return workload(episodes * (self.jobs + self.warmup), self.cluster.gpus, self.load, seed=1)


SMALL = Setting(nodes=16, load=2.05)
# A cluster sixteen times as large is full only behind a warm-up, and an episode is longer so that this stays a part.
LARGE = Setting(nodes=256, load=2.8, warmup=768, jobs=2048)
# The same jobs and a mean queue of 50-60 on every size, so that the cluster alone grows.
GROWTH = (SMALL, Setting(64, 2.45, 192), Setting(256, 3.15, 768), Setting(1024, 2.75, 4096))


@dataclass(frozen=True, slots=True)
class Speed:
    """Steps per CPU-second, the best of the repeats, and the mean queue over all of them."""

    steps_per_second: float
    kernel_steps_per_second: float
    queue: float
    queue_low: float
    queue_high: float
    visible: float


def measure_vector_env(setting: Setting, features: str, quick: bool, cluster: ClusterSpec | None = None) -> Speed:
    """Step the vector env with random valid actions: drawing them and beginning new episodes count.

    `cluster` stands in for the setting's own, of as many GPUs.
    """
    steps, repeats = (400, 2) if quick else (3000, REPEATS)
    codec = Codec(window=WINDOW, features=features)
    trace = setting.trace(8 if quick else 32)
    env = SchedulingVectorEnv(
        ENVS, trace, cluster or setting.cluster, codec, Objective(), setting.jobs, setting.warmup, copy=False
    )
    env.reset(seed=0)
    batch = env.batch
    seeds = np.arange(1, ENVS + 1) * 7919
    actions = np.zeros(ENVS, np.int64)
    _spread_over_episodes(batch, seeds, actions)

    def step() -> None:
        choose_random(batch.masks, seeds, actions)
        env.step(actions)

    best, queues, visible = float("inf"), [], []
    for _ in range(repeats):
        spent = 0.0
        for _ in range(steps // SAMPLE_EVERY):
            began = time.process_time()
            for _ in range(SAMPLE_EVERY):
                step()
            spent += time.process_time() - began
            waiting = np.array([len(batch.view(index).queue_gpus) for index in range(ENVS)])
            queues.append(waiting.mean())
            visible.append(np.minimum(waiting, WINDOW).mean())
        best = min(best, spent)
    kernel = _kernel_seconds(batch, seeds, actions, steps, repeats)
    return Speed(
        steps_per_second=steps * ENVS / best,
        kernel_steps_per_second=steps * ENVS / kernel,
        queue=float(np.mean(queues)),
        queue_low=float(np.min(queues)),
        queue_high=float(np.max(queues)),
        visible=float(np.mean(visible)),
    )


def _spread_over_episodes(batch: EnvironmentBatch, seeds: NDArray[np.int64], actions: NDArray[np.int64]) -> None:
    """Bring the environments to different points of their episodes, as in the middle of a training."""
    rng = np.random.default_rng(0)
    apart = 2 * batch.episodes.jobs // ENVS
    for env in range(ENVS):
        batch.reset(env, batch.episodes.draw(rng))
        for _ in range(apart):
            _step_batch(batch, seeds, actions, rng)


def _step_batch(
    batch: EnvironmentBatch, seeds: NDArray[np.int64], actions: NDArray[np.int64], rng: np.random.Generator
) -> None:
    choose_random(batch.masks, seeds, actions)
    if batch.step(actions):
        for env in np.flatnonzero(batch.terminated):
            batch.reset(int(env), batch.episodes.draw(rng))


def _kernel_seconds(
    batch: EnvironmentBatch, seeds: NDArray[np.int64], actions: NDArray[np.int64], steps: int, repeats: int
) -> float:
    """Return the CPU seconds of `steps` compiled calls alone, below the Gymnasium face."""
    rng = np.random.default_rng(0)
    best = float("inf")
    for _ in range(repeats):
        spent = 0.0
        for _ in range(steps):
            choose_random(batch.masks, seeds, actions)
            began = time.process_time()
            ended = batch.step(actions)
            spent += time.process_time() - began
            if ended:
                for env in np.flatnonzero(batch.terminated):
                    batch.reset(int(env), batch.episodes.draw(rng))
        best = min(best, spent)
    return best


def measure_python_env(setting: Setting, quick: bool) -> tuple[float, float]:
    """Return (steps per CPU-second, mean queue) of the peer: whole episodes of the same jobs, one by one."""
    episodes = 1 if quick else REPEATS
    trace = setting.trace(8 if quick else 32)
    env = PythonSchedulingEnv(trace, setting.cluster, WINDOW, Objective(), setting.jobs, setting.warmup, copy=False)
    env.reset(seed=0)
    draw = random.Random(0)
    best, queues = 0.0, []
    for _ in range(episodes):
        steps, spent, terminated = 0, 0.0, False
        while not terminated:
            began = time.process_time()
            for _ in range(SAMPLE_EVERY):
                valid = env.action_masks().nonzero()[0]
                _, _, terminated, _, _ = env.step(valid[int(draw.random() * len(valid))])
                steps += 1
                if terminated:
                    env.reset()
                    break
            spent += time.process_time() - began
            queues.append(env.waiting())
        best = max(best, steps / spent)
    return best, float(np.mean(queues))


def _beside_peer(setting: Setting, what: str, features: str, target: Target, peer: float, quick: bool) -> Row:
    speed = measure_vector_env(setting, features, quick)
    details: dict[str, float | str] = {
        "mean queue": speed.queue,
        "mean visible": speed.visible,
        "lowest queue": speed.queue_low,
        "highest queue": speed.queue_high,
        "compiled call alone, steps/CPU-s": speed.kernel_steps_per_second,
        "offered load": setting.load,
    }
    # The peer has the basic features alone: a ratio to fewer features would not be like for like.
    ratio = None
    if features == "basic":
        ratio = speed.steps_per_second / peer
        details["Python env, steps/CPU-s"] = peer
    return Row(f"vector env, {what}", speed.steps_per_second, "steps/CPU-s", target, ratio, details)


def vector_env(quick: bool) -> Iterator[Row]:
    """Steps per CPU-second on 16 and 256 nodes, basic and full features."""
    for setting, basic_target in ((SMALL, 1_000_000), (LARGE, 800_000)):
        peer, _ = measure_python_env(setting, quick)
        nodes = f"{setting.nodes} nodes × {GPUS_PER_NODE}"
        yield _beside_peer(setting, f"{nodes}, 8 features", "basic", at_least(basic_target), peer, quick)
        yield _beside_peer(setting, f"{nodes}, full features", "full", at_least(250_000), peer, quick)


def growth_with_nodes(quick: bool) -> Iterator[Row]:
    """Steps per CPU-second from 16 to 1,024 nodes at one mean queue."""
    base = 0.0
    for setting in GROWTH[:2] if quick else GROWTH:
        speed = measure_vector_env(setting, "basic", quick)
        base = base or speed.steps_per_second
        details: dict[str, float | str] = {
            "mean queue": speed.queue,
            "cost of a step against 16 nodes": base / speed.steps_per_second,
        }
        yield Row(
            f"growth: {setting.nodes:,} nodes × {GPUS_PER_NODE}, 8 features",
            speed.steps_per_second,
            "steps/CPU-s",
            details=details,
        )


def reset_and_memory(quick: bool) -> Iterator[Row]:
    """Milliseconds of a reset, and the memory of 64 environments."""
    trace = SMALL.trace(8)
    codec = Codec(window=WINDOW)
    rng = np.random.default_rng(0)
    resets = 20 if quick else 200

    def batch(setting: Setting, relative: bool) -> EnvironmentBatch:
        episodes = Episodes([trace if setting is SMALL else setting.trace(2)], setting.jobs, setting.warmup)
        return EnvironmentBatch(episodes, setting.cluster, codec, Objective(), ENVS, relative)

    def milliseconds(made: EnvironmentBatch) -> float:
        def several() -> None:
            for _ in range(resets):
                made.reset(0, made.episodes.draw(rng))

        several()
        return cpu_seconds(several, REPEATS) / resets * 1e3

    plain = batch(SMALL, False)
    peer = PythonSchedulingEnv(trace, SMALL.cluster, WINDOW, Objective(), EPISODE, copy=False)
    peer.reset(seed=0)
    peer_ms = cpu_seconds(peer.reset, 10) * 1e3
    took = milliseconds(plain)
    yield Row(
        f"reset, {EPISODE:,} jobs, 16 nodes, full features",
        took,
        "ms",
        at_most(2),
        details={"Python env, ms": peer_ms},
    )
    yield Row(
        f"reset, {EPISODE:,} jobs, reward relative to a heuristic's run",
        milliseconds(batch(SMALL, True)),
        "ms",
        at_most(2),
    )
    for setting in (SMALL, LARGE):
        made = plain if setting is SMALL else batch(LARGE, False)
        yield Row(
            f"state of {ENVS} environments, K = {WINDOW}, {setting.nodes} nodes, full features",
            made.state_bytes / 1e6,
            "MB",
            at_most(60),
            details={"jobs of an episode": setting.jobs + setting.warmup},
        )
