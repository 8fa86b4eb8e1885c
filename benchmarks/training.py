"""Row of training: MaskablePPO as sb3-contrib ships it, our batch against processes over the Python peer.

Both sides have the same jobs, observation, network, optimiser settings, rollout (8,192 steps), minibatches
and one torch thread.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.environments import EPISODE, SMALL, WINDOW
from benchmarks.python_env import PythonSchedulingEnv
from benchmarks.rows import Row, at_least
from lepton_rl.envs import Codec, EnvironmentBatch, Episodes, Objective
from lepton_rl.workloads import Trace

OUR_ENVS = 64
PEER_ENVS = 4
ROLLOUT = 8192
SETTINGS: dict[str, Any] = {
    "policy": "MultiInputPolicy",
    "batch_size": 1024,
    "n_epochs": 4,
    "gamma": 0.9997,
    "gae_lambda": 0.98,
    "learning_rate": 3e-4,
    "policy_kwargs": {"net_arch": [64, 64]},
    "seed": 0,
    "device": "cpu",
    "verbose": 0,
}


class PeerFactory:
    """Makes one peer in a process of its own."""

    def __init__(self, trace: Trace, seed: int) -> None:
        self.trace = trace
        self.seed = seed

    def __call__(self) -> PythonSchedulingEnv:
        env = PythonSchedulingEnv(self.trace, SMALL.cluster, WINDOW, Objective(), EPISODE, copy=False)
        env.reset(seed=self.seed)
        return env


class Side:
    """One trainer, measured in turns with the other."""

    def __init__(self, env: Any, rollout: int) -> None:
        from sb3_contrib import MaskablePPO
        from stable_baselines3.common.callbacks import BaseCallback

        class Parts(BaseCallback):
            """Tells the time of the rollouts from the time of the updates."""

            rollouts = 0.0

            def _on_step(self) -> bool:
                return True

            def _on_rollout_start(self) -> None:
                self.began = time.perf_counter()

            def _on_rollout_end(self) -> None:
                self.rollouts += time.perf_counter() - self.began

        self.env = env
        self.rollout = rollout
        self.model = MaskablePPO(env=env, n_steps=rollout // env.num_envs, **SETTINGS)
        self._callback: Callable[[], Any] = Parts
        self.best = float("inf")  # seconds of one rollout and its update
        self.update = float("nan")  # seconds of the update in it

    def turn(self, rollouts: int) -> None:
        """Train on `rollouts` rollouts and keep the least time of one."""
        parts = self._callback()
        began = time.perf_counter()
        self.model.learn(rollouts * self.rollout, callback=parts, reset_num_timesteps=False)
        spent = (time.perf_counter() - began) / rollouts
        if spent < self.best:
            self.best, self.update = spent, spent - parts.rollouts / rollouts

    @property
    def steps_per_second(self) -> float:
        """Environment steps per wall second."""
        return self.rollout / self.best


def training(quick: bool) -> Iterator[Row]:
    """Steps per wall second of training, as a ratio."""
    import torch
    from stable_baselines3.common.vec_env import SubprocVecEnv

    from lepton_rl.agents.sb3.vec_env import BatchVecEnv

    torch.set_num_threads(1)
    rollout = 1024 if quick else ROLLOUT
    trace = SMALL.trace(8)
    episodes = Episodes([trace], EPISODE)
    codec = Codec(window=WINDOW, features="basic")
    peers = SubprocVecEnv([PeerFactory(trace, seed) for seed in range(1 if quick else PEER_ENVS)])
    try:
        batch = EnvironmentBatch(episodes, SMALL.cluster, codec, Objective(), OUR_ENVS)
        ours = Side(BatchVecEnv(batch, 0), rollout)
        theirs = Side(peers, rollout)
        for _ in range(1 if quick else 3):
            ours.turn(1 if quick else 4)
            theirs.turn(1)
    finally:
        peers.close()
    ratio = ours.steps_per_second / theirs.steps_per_second
    yield Row(
        f"training, MaskablePPO 64×64, batch 1024 × 4 epochs, against SubprocVecEnv({PEER_ENVS})",
        ratio,
        "×",
        at_least(5),
        ratio,
        {
            "ours, steps/s": ours.steps_per_second,
            "peer, steps/s": theirs.steps_per_second,
            "ours, update's part": ours.update / ours.best,
            "peer, update's part": theirs.update / theirs.best,
            "rollout, steps": rollout,
        },
    )
