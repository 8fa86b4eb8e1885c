"""The batch of environments behind Stable-Baselines3's VecEnv interface, without a copy for each environment."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from lepton_rl.agents.network import REMAINING
from lepton_rl.envs.batch import EnvironmentBatch
from lepton_rl.envs.codec import Observation
from lepton_rl.envs.quantization import Quantization


class BatchVecEnv(VecEnv):
    """Steps all environments in one compiled call; ended ones begin a new episode at once.

    The observation has one entry more than the codec's: `remaining` (1,), the part of the episode's jobs that are yet
    to come. Only the critic reads it: how much cost is still ahead cannot be seen otherwise, and a critic that
    guesses it drowns the actor in noise.

    Args:
        batch: The environments.
        seed: Root of the random streams that draw episodes, one spawned for each environment. An SB3 algorithm with
            a seed spawns them anew from that.
        reward_scale: Rewards are multiplied by it, to bring the critic's targets to about 1-10.
        quantization: How observations are stored and sent; None for float32.
    """

    render_mode: str | None = None  # read by VecEnv's constructor

    def __init__(
        self,
        batch: EnvironmentBatch,
        seed: int,
        reward_scale: float = 1.0,
        quantization: Quantization | None = None,
    ) -> None:
        self.batch = batch
        self.reward_scale = reward_scale
        self.quantization = quantization
        space = batch.codec.observation_space(batch.cluster)
        if quantization is not None:
            space = quantization.space(space)
        space[REMAINING] = spaces.Box(0.0, 1.0, (1,), np.float32)
        super().__init__(batch.count, space, batch.codec.action_space(batch.cluster))
        self._spawn_generators(seed)
        self._actions = np.zeros(batch.count, np.int64)
        self._began = time.perf_counter()

    def reset(self) -> Observation:
        """Begin an episode everywhere."""
        for env in range(self.num_envs):
            self._restart(env)
        return self._observation()

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Remember the actions."""
        self._actions[:] = actions

    def step_wait(self) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Apply the actions."""
        ended = self.batch.step(self._actions)
        rewards = (self.batch.rewards * self.reward_scale).astype(np.float32)
        done = self.batch.terminated.copy()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if ended:
            for env in np.flatnonzero(done):
                infos[env] = self._final_info(int(env))
                self._restart(int(env))
        return self._observation(), rewards, done, infos

    def _final_info(self, env: int) -> dict[str, Any]:
        metrics = self.batch.episode_info(env)
        episode = {"r": metrics["return"], "l": metrics["length"], "t": time.perf_counter() - self._began}
        terminal = self._encoded(self.batch.observation_of(env))
        terminal[REMAINING] = self.batch.remaining()[env]
        return {"episode": episode, "episode_metrics": metrics, "terminal_observation": terminal}

    def _restart(self, env: int) -> None:
        rng = self.generators[env]
        self.batch.reset(env, self.batch.episodes.draw(rng), self.batch.draw_preferences(rng))

    def _encoded(self, observation: Observation) -> Observation:
        return observation if self.quantization is None else self.quantization.encode(observation)

    def _observation(self) -> Observation:
        shown = self.batch.observation()
        # SB3 keeps an observation until after the next step, which overwrites the batch's arrays.
        observation = {
            name: array.copy() if array is shown[name] else array for name, array in self._encoded(shown).items()
        }
        observation[REMAINING] = self.batch.remaining()
        return observation

    def state(self) -> dict[str, Any]:
        """Return all that `load` needs to continue bit for bit."""
        return {
            "batch": self.batch.save_state(),
            "generators": [generator.bit_generator.state for generator in self.generators],
            "action_space": self.action_space.np_random.bit_generator.state,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.batch.load_state(state["batch"])
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        self.action_space.np_random.bit_generator.state = state["action_space"]

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the valid actions, shape (num_envs, K C + 1)."""
        return self.batch.masks

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Serve `action_masks`, the one method that sb3-contrib asks for."""
        if method_name != "action_masks":
            raise AttributeError(f"the batched environment has no method {method_name!r}")
        return [self.batch.masks[env] for env in self._get_indices(indices)]

    def has_attr(self, attr_name: str) -> bool:
        """Return whether `get_attr` would answer."""
        return attr_name in ("action_masks", "render_mode")

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute once for each environment."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the whole batch."""
        setattr(self, attr_name, value)

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Return False for each environment: there are no wrappers."""
        return [False for _ in self._get_indices(indices)]

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Spawn new random streams from `seed`, which the next reset uses."""
        if seed is not None:
            self._spawn_generators(seed)
        return [seed] * self.num_envs

    def _spawn_generators(self, seed: int) -> None:
        self.generators = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(self.num_envs)]

    def close(self) -> None:
        """Nothing is held open."""
