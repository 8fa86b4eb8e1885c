"""The vector form of `lepton_rl/Scheduling-v0`: many clusters in one process, stepped by one compiled call."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.envs.codec import NO_COSTS, Codec, Observation
from lepton_rl.envs.objective import Objective
from lepton_rl.envs.render import render_ansi, render_rgb
from lepton_rl.envs.scheduling import DEFAULT_CLUSTER, checked_options, checked_render_mode, make_batch
from lepton_rl.errors import ConfigError
from lepton_rl.simulator import Timing
from lepton_rl.workloads import Trace


class SchedulingVectorEnv(gymnasium.vector.VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """`num_envs` independent `SchedulingEnv`s on shared arrays; see there for observation, action and reward.

    An environment that ends is reset in the same step (`AutoresetMode.SAME_STEP`): its observation is the new
    episode's first, `info["final_obs"]` holds its last (the empty cluster: no job runs or waits) and
    `info["final_info"]` its last info, the ended episode's metrics under `episode_metrics`. As in all of Gymnasium's
    vector environments every info is an array over the environments, `_name` says in which of them it holds.

    Args:
        num_envs: Environments.
        workload, cluster, codec, objective, jobs, warmup, relative_to_heuristic, preferences, timing: As in
            `SchedulingEnv`.
        copy: Return copies of the observation arrays, and infos with every step. False is the faster form: it
            returns read-only views that the next step overwrites, and infos of ended episodes alone.
        render_mode: "ansi" or "rgb_array"; `render` returns a tuple, one text or picture for each environment.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - as gymnasium declares it
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 10,
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
        preferences: bool = False,
        timing: Timing = NO_COSTS,
        copy: bool = True,
        render_mode: str | None = None,
    ) -> None:
        self.num_envs = num_envs
        self.copy = copy
        self.render_mode = checked_render_mode(render_mode)
        self.batch = make_batch(
            num_envs, workload, cluster, codec, objective, jobs, warmup, relative_to_heuristic, preferences,
            timing,
        )  # fmt: skip
        self.codec = self.batch.codec
        self.single_observation_space = self.codec.observation_space(self.batch.cluster)
        self.single_action_space = self.codec.action_space(self.batch.cluster)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._views = {name: _read_only(array) for name, array in self.batch.observation().items()}
        self._truncated = np.zeros(num_envs, np.bool_)
        self._everywhere = np.ones(num_envs, np.bool_)
        self._running = np.zeros(num_envs, np.bool_)  # an episode has begun
        self._all_running = False
        self.generators = [np.random.default_rng(s) for s in np.random.SeedSequence().spawn(num_envs)]

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode everywhere; one seed is spawned over the environments, a list gives one to each.

        Args:
            seed: As said.
            options: `{"reset_mask": array}` resets only the environments that it marks;
                `{"window": (trace, first job)}` names the episode of all that are reset, a list of such pairs (None
                to draw) the episode of each; `{"preferences": [...]}` the preferences of all that are reset.

        Raises:
            ConfigError: there is no such window, or mask or list do not have an entry for each environment.
        """
        chosen = checked_options(options, "window", "preferences", "reset_mask")
        windows = self._windows(chosen.get("window"))
        named = chosen.get("preferences")
        parts = None if named is None else self.batch.checked_preferences(named)
        mask = self._mask(chosen.get("reset_mask"))
        self._seed(seed, mask)
        for env in np.flatnonzero(mask).tolist():
            self._begin(env, windows[env], parts)
            self._running[env] = True
        self._all_running = bool(self._running.all())
        return self._observation(), self._infos()

    def _begin(
        self, env: int, window: tuple[int, int] | None = None, preferences: NDArray[np.float32] | None = None
    ) -> None:
        """Begin an episode in one environment; what is not given is drawn."""
        batch, rng = self.batch, self.generators[env]
        drawn = batch.episodes.draw(rng) if window is None else window
        batch.reset(env, drawn, batch.draw_preferences(rng) if preferences is None else preferences)

    def _seed(self, seed: int | list[int | None] | None, mask: NDArray[np.bool_]) -> None:
        """Begin the random streams of the environments in `mask` anew."""
        if seed is None:
            return
        if isinstance(seed, int | np.integer):
            streams: list[Any] = list(np.random.SeedSequence(self._checked_seed(seed)).spawn(self.num_envs))
        elif len(seed) == self.num_envs:
            streams = [None if own is None else self._checked_seed(own) for own in seed]
        else:
            raise ConfigError(f"seed must be one number or {self.num_envs} of them, not {len(seed)}")
        for env in np.flatnonzero(mask).tolist():
            if streams[env] is not None:
                self.generators[env] = np.random.default_rng(streams[env])

    def _checked_seed(self, seed: Any) -> int:
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise ConfigError(f"a seed is a whole number from 0 on, not {seed!r}")
        return int(seed)

    def _mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return self._everywhere
        marked = np.asarray(mask)
        if marked.shape != (self.num_envs,) or marked.dtype != np.bool_:
            raise ConfigError(f"options['reset_mask'] must be {self.num_envs} truth values, not {mask!r}")
        return marked

    def _windows(self, window: Any) -> list[tuple[int, int] | None]:
        if window is None:
            return [None] * self.num_envs
        if not isinstance(window, list):
            return [self.batch.episodes.checked(window)] * self.num_envs
        if len(window) != self.num_envs:
            raise ConfigError(f"options['window'] must be one pair or {self.num_envs} of them, not {len(window)}")
        return [None if own is None else self.batch.episodes.checked(own) for own in window]

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Apply one action to each environment.

        Raises:
            gymnasium.error.ResetNeeded: an environment has not begun an episode.
            ConfigError: there is not one whole number for each environment.
        """
        if not self._all_running:
            raise ResetNeeded(f"environment {int(self._running.argmin())} runs no episode: call reset() before step()")
        ended = self.batch.step(self._checked_actions(actions))
        terminated = self.batch.terminated.copy()
        rewards = self.batch.rewards.copy()
        final = self._restart(terminated) if ended else {}
        return self._observation(), rewards, terminated, self._truncated.copy(), self._infos() | final

    def _checked_actions(self, actions: Any) -> NDArray[np.int64]:
        given = np.asarray(actions)
        if given.shape != (self.num_envs,) or given.dtype.kind not in "iu":
            raise ConfigError(
                f"actions must be {self.num_envs} whole numbers, shape ({self.num_envs},), not {actions!r}"
            )
        return np.ascontiguousarray(given, np.int64)

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the valid actions, shape (num_envs, actions)."""
        return self.batch.masks.copy() if self.copy else _read_only(self.batch.masks)

    def render(self) -> tuple[Any, ...] | None:
        """Return the present state of each environment as text or as a picture, as `render_mode` says."""
        if self.render_mode is None:
            return None
        draw = render_ansi if self.render_mode == "ansi" else render_rgb
        return tuple(draw(self.batch, env) for env in range(self.num_envs))

    def _observation(self) -> Observation:
        if self.copy:
            return {name: array.copy() for name, array in self._views.items()}
        return dict(self._views)

    def _infos(self) -> dict[str, Any]:
        if not self.copy:
            return {}
        infos: dict[str, Any] = {}
        for name, array in self.batch.briefs().items():
            infos[name] = array
            infos[f"_{name}"] = self._everywhere.copy()
        return infos

    def _restart(self, terminated: NDArray[np.bool_]) -> dict[str, Any]:
        """Begin new episodes where one has ended; return what is said of the ended ones, as Gymnasium groups it."""
        observations = np.full(self.num_envs, None, object)
        final: dict[str, Any] = {}
        metrics: dict[str, Any] = {}
        for env in np.flatnonzero(terminated).tolist():
            observations[env] = self.batch.observation_of(env)
            self._write(final, env, self.batch.brief(env))
            self._write(metrics, env, self.batch.episode_info(env))
            self._begin(env)
        where = _read_only(terminated.copy())
        final["episode_metrics"] = _marked(metrics, where)
        return _marked({"final_obs": observations, "final_info": _marked(final, where)}, where)

    def _write(self, infos: dict[str, Any], env: int, values: dict[str, Any]) -> None:
        """Write one environment's values into arrays over all, which begin as zeros."""
        for name, value in values.items():
            if name not in infos:
                infos[name] = np.zeros(self.num_envs, type(value))
            infos[name][env] = value


def _marked(values: dict[str, Any], where: NDArray[np.bool_]) -> dict[str, Any]:
    """Return `values` with, beside each, the mark of the environments in which it holds."""
    return values | {f"_{name}": where for name in values}


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
