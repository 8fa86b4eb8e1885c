"""The vector form of `lepton_rl/Scheduling-v0`: many clusters in one process, stepped by one compiled call."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.envs.codec import Codec, Observation
from lepton_rl.envs.objective import Objective
from lepton_rl.envs.scheduling import DEFAULT_CLUSTER, make_batch
from lepton_rl.workloads import Trace


class SchedulingVectorEnv(gymnasium.vector.VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """`num_envs` independent `SchedulingEnv`s on shared arrays; see there for observation, action and reward.

    An environment that ends is reset in the same step (`AutoresetMode.SAME_STEP`): its observation is the new
    episode's first, and `info["final_info"]` holds the ended episode's metrics under `episode_metrics`.
    (`final_obs` is the empty cluster: no job runs or waits.)

    Args:
        num_envs: Environments.
        workload, cluster, codec, objective, jobs, warmup, relative_to_heuristic: As in `SchedulingEnv`.
        copy: Return copies of the observation arrays; False returns views that the next step overwrites.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - as gymnasium declares it
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": [],
    }

    def __init__(
        self,
        num_envs: int = 64,
        workload: Trace | list[Trace] | None = None,
        cluster: ClusterSpec = DEFAULT_CLUSTER,
        codec: Codec | None = None,
        objective: Objective | None = None,
        jobs: int = 256,
        warmup: int = 0,
        relative_to_heuristic: bool = False,
        copy: bool = True,
        render_mode: str | None = None,
    ) -> None:
        self.num_envs = num_envs
        self.copy = copy
        self.render_mode = None
        self.batch = make_batch(
            num_envs, workload, cluster, codec, objective, jobs, warmup, relative_to_heuristic
        )
        self.codec = self.batch.codec
        self.single_observation_space = self.codec.observation_space(cluster)
        self.single_action_space = self.codec.action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._truncated = np.zeros(num_envs, np.bool_)
        self._needs_reset = True
        self.generators = [np.random.default_rng(s) for s in np.random.SeedSequence().spawn(num_envs)]

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode everywhere; one seed is spawned over the environments, a list gives one to each.

        `options={"reset_mask": array}` resets only the environments that it marks.
        """
        if isinstance(seed, int | np.integer):
            self.generators = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(self.num_envs)]
        elif seed is not None:
            for env, own in enumerate(seed):
                if own is not None:
                    self.generators[env] = np.random.default_rng(own)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        for env in np.flatnonzero(mask).tolist():
            self.batch.reset(env, self.batch.episodes.draw(self.generators[env]))
        self._needs_reset = False
        return self._observation(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Apply one action to each environment.

        Raises:
            gymnasium.error.ResetNeeded: no episode has begun.
        """
        if self._needs_reset:
            raise ResetNeeded("no episode is running: call reset() before step()")
        ended = self.batch.step(np.ascontiguousarray(actions, np.int64))
        infos: dict[str, Any] = {}
        terminated = self.batch.terminated.copy()
        rewards = self.batch.rewards.copy()
        if ended:
            infos = self._restart(terminated)
        return self._observation(), rewards, terminated, self._truncated.copy(), infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the valid actions, shape (num_envs, K + 1)."""
        return self.batch.masks.copy() if self.copy else self.batch.masks

    def _observation(self) -> Observation:
        observation = self.batch.observation()
        return {name: array.copy() for name, array in observation.items()} if self.copy else observation

    def _restart(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        final_info = np.full(self.num_envs, None, object)
        final_obs = np.full(self.num_envs, None, object)
        for env in np.flatnonzero(ended):
            final_info[env] = {"episode_metrics": self.batch.episode_info(int(env))}
            final_obs[env] = self.batch.observation_of(int(env))
            self.batch.reset(int(env), self.batch.episodes.draw(self.generators[env]))
        return {
            "final_obs": final_obs,
            "_final_obs": ended,
            "final_info": final_info,
            "_final_info": ended,
        }
