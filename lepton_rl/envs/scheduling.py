"""`lepton_rl/Scheduling-v0` and what other actions make of it: one cluster, one episode at a time."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, SupportsIndex, TypeVar, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.metrics import Outcome
from lepton_rl.envs.batch import EnvironmentBatch
from lepton_rl.envs.codec import NO_COSTS, Codec, Observation
from lepton_rl.envs.episodes import Episodes
from lepton_rl.envs.objective import Objective
from lepton_rl.envs.render import render_ansi, render_rgb
from lepton_rl.errors import ConfigError, nearest
from lepton_rl.simulator import Timing
from lepton_rl.workloads import Trace, gpu_cluster
from lepton_rl.workloads.job_table import fit_to_cluster

Kind = TypeVar("Kind")
DEFAULT_CLUSTER = ClusterSpec(nodes=4, gpus_per_node=8)


def default_workload(cluster: ClusterSpec = DEFAULT_CLUSTER, seed: int = 0) -> Trace:
    """Return the synthetic GPU workload that environments use when they are given none."""
    drawn = gpu_cluster(n_jobs=20_000, gpus=cluster.gpus, load=1.0, seed=seed)
    return fit_to_cluster(drawn, cluster) if cluster.groups else drawn


class SchedulingEnv(gymnasium.Env[Observation, np.int64]):
    """Choose which waiting job starts next on a GPU cluster.

    A decision is due whenever a visible job fits; other instants pass by themselves. Several jobs may be started at
    one instant, one after the other, and everything may be decided anew at the next event.

    **Action** `Discrete(K + 1)`: 0..K-1 starts the job in that slot of the window on GPUs that the placement chooses;
    K waits for the next event. `action_masks()` and the observation's `action_mask` hold the valid ones: jobs that
    fit, and waiting while any job runs (an idle cluster must start one). Any other action waits where it can, and is
    counted in `info["invalid_actions"]`. A codec with `actions="placement"` (`lepton_rl/SchedulingPlacement-v0`) or
    "power" (`lepton_rl/SchedulingPower-v0`) has C choices for each slot, `Discrete(K C + 1)`: `slot x C + choice`
    starts the job on any GPU (choice 0) or in the choice-th group of nodes alone; or with its GPUs limited to that
    power level from then on. `K C` waits. With "preemptive" (`lepton_rl/SchedulingPreemptive-v0`) there are the choices
    of "placement", and as many for each of R running jobs, `Discrete((K + R) C + 1)`: `(K + place) x C` preempts the
    running job there, `+ g` moves it to the g-th group. `(K + R) C` waits.

    **Observation** `Dict`, float32: `load`, `memory`, `power` of each node, 0-1 (above 256 nodes: of groups of
    neighbouring nodes, at most 256), on a cluster of groups `temperature` (mean of its GPUs / 100 degrees Celsius, 0
    where heat is not counted) and `health` (part of its GPUs that are up), too; `queue` (K, F), the K waiting jobs that
    are first by the window's key, columns `codec.feature_names` explained in `lepton_rl.envs.features.FEATURES`, rows
    behind the last one zero; `context` (12,), see `CONTEXT_FEATURES` (full features only); `preferences` (n,), parts of
    the objective's components (with `preferences`); `running` (R, F'), with "preemptive", the running jobs with the
    most predicted GPU-seconds left, columns `codec.running_names(cluster)` explained in
    `lepton_rl.envs.stopping.RUNNING_FEATURES`; `action_mask` int8. Only what a scheduler can know is
    shown: requested or predicted times, never true run times.

    **Reward** minus the objective's cost of the time that passed (see `Objective`): rewards of an episode sum to
    minus the cost computed from its finish times, divided by the heuristic's cost on the same jobs when
    `relative_to_heuristic`. What was paid before the first decision is in `reset`'s `info["return"]`.

    **Episode** a window of consecutive jobs on an empty cluster (after `warmup` jobs that a heuristic runs, if any).
    `terminated` when all its jobs have finished; `truncated` only by wrappers such as TimeLimit.
    `info` has `time` (s), `invalid_actions`, and at the end `episode_metrics` (mean JCT, bounded slowdown, ...).

    Args:
        workload: A trace, or several; None for a synthetic GPU workload.
        cluster: The machine.
        codec: Window, features, placement and actions.
        objective: What is minimised.
        jobs: Counted jobs of an episode.
        warmup: Jobs before them that a heuristic runs.
        relative_to_heuristic: Divide rewards by the heuristic's cost on the same jobs.
        preferences: Weigh the components of the objective anew in each episode, and show how.
        timing: What preemptions and migrations cost, and the quantum before which a run is left alone.
        render_mode: "ansi" (text) or "rgb_array" (picture) of queue, GPUs, utilisation and power.

    Raises:
        ConfigError: an argument has the wrong type or value.
        TraceError: a job of the workload does not fit the cluster.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - as gymnasium.Env declares it
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 10,
    }

    def __init__(
        self,
        workload: Trace | list[Trace] | None = None,
        cluster: ClusterSpec = DEFAULT_CLUSTER,
        codec: Codec | None = None,
        objective: Objective | None = None,
        jobs: int = 256,
        warmup: int = 0,
        relative_to_heuristic: bool = False,
        preferences: bool = False,
        timing: Timing = NO_COSTS,
        render_mode: str | None = None,
    ) -> None:
        self.batch = make_batch(
            1, workload, cluster, codec, objective, jobs, warmup, relative_to_heuristic, preferences, timing
        )  # fmt: skip
        self.codec = self.batch.codec
        self.cluster = self.batch.cluster
        self.render_mode = checked_render_mode(render_mode)
        self._needs_reset = True
        self.observation_space = cast(spaces.Space[Observation], self.codec.observation_space(self.cluster))
        self.action_space = self.codec.action_space(self.cluster)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; `options={"window": (trace, first_job)}` names it, otherwise it is drawn.

        `{"preferences": [...]}` names its preferences, parts of the objective's components in their order.

        Raises:
            ConfigError: there is no such window, or there are no such preferences.
        """
        super().reset(seed=seed)
        chosen, batch = checked_options(options, "window", "preferences"), self.batch
        window, parts = chosen.get("window"), chosen.get("preferences")
        batch.reset(
            0,
            batch.episodes.draw(self.np_random) if window is None else batch.episodes.checked(window),
            batch.draw_preferences(self.np_random) if parts is None else batch.checked_preferences(parts),
        )
        self._needs_reset = False
        return self.batch.observation_of(0), self._info()

    def step(self, action: SupportsIndex) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Start the job that the action names, or wait.

        Raises:
            ConfigError: it is no whole number.
            gymnasium.error.ResetNeeded: no episode has begun, or it has ended.
        """
        if self._needs_reset:
            raise ResetNeeded("no episode is running: call reset() before step()")
        try:
            actions = np.array([operator.index(action)], np.int64)
        except (TypeError, OverflowError):
            raise ConfigError(
                f"an action is a whole number, 0 to {self.batch.masks.shape[1] - 1}, not {action!r}"
            ) from None
        self.batch.step(actions)
        terminated = self._needs_reset = bool(self.batch.terminated[0])
        info = self._info()
        if terminated:
            info["episode_metrics"] = self.batch.episode_info(0)
        return self.batch.observation_of(0), float(self.batch.rewards[0]), terminated, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the valid actions, one truth value each."""
        mask: NDArray[np.bool_] = self.batch.masks[0].copy()
        return mask

    def outcome(self) -> Outcome:
        """Return when each job of the episode started and finished (complete once it has ended)."""
        return self.batch.outcome(0)

    def render(self) -> Any:
        """Return the present state as text or as a picture (height, width, 3), as `render_mode` says."""
        if self.render_mode == "ansi":
            return render_ansi(self.batch)
        if self.render_mode == "rgb_array":
            return render_rgb(self.batch)
        return None

    def _info(self) -> dict[str, Any]:
        return self.batch.brief(0)


def make_batch(
    count: int,
    workload: object,
    cluster: object,
    codec: object,
    objective: object,
    jobs: int,
    warmup: int,
    relative_to_heuristic: bool,
    preferences: bool,
    timing: object = NO_COSTS,
) -> EnvironmentBatch:
    """Return `count` environments, with every argument of an environment checked; see `SchedulingEnv`.

    Raises:
        ConfigError: an argument has the wrong type or value.
    """
    machine = expected("cluster", cluster, ClusterSpec)
    seen = expected("codec", Codec() if codec is None else codec, Codec)
    minimised = expected("objective", Objective() if objective is None else objective, Objective)
    costs = expected("timing", timing, Timing)
    if costs.timer:
        raise ConfigError("an environment has no timer: it decides where something can be decided; leave it out")
    if costs != NO_COSTS and not seen.stoppable:
        raise ConfigError(f"timing is read where running jobs can be stopped: {seen.actions!r} actions stop none")
    for name, number in (("jobs", jobs), ("warmup", warmup)):
        if not isinstance(number, int | np.integer):
            raise ConfigError(f"{name} must be a whole number, not {number!r}")
    if preferences:
        seen = replace(seen, preferences=len(minimised.components))
    episodes = Episodes(traces_of(workload, machine), int(jobs), int(warmup))
    return EnvironmentBatch(episodes, machine, seen, minimised, count, relative_to_heuristic, costs)


def traces_of(workload: object, cluster: ClusterSpec) -> list[Trace]:
    """Return the traces that an environment's workload argument means.

    Raises:
        ConfigError: it is neither a trace nor a sequence of traces.
    """
    if workload is None:
        return [default_workload(cluster)]
    traces = [workload] if isinstance(workload, Trace) else workload
    if not isinstance(traces, Sequence) or not traces or not all(isinstance(trace, Trace) for trace in traces):
        raise ConfigError(
            f"workload must be a Trace or a list of them, not {workload!r}; lepton_rl.workloads.read_trace reads a file"
        )
    return list(traces)


def expected(name: str, value: object, kind: type[Kind]) -> Kind:
    """Return an argument of an environment if it is of its type."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ConfigError(f"{name} must be {article} {kind.__name__}, not {value!r}")
    return value


def checked_render_mode(mode: str | None) -> str | None:
    """Return the render mode if there is such a one."""
    if mode not in (None, "ansi", "rgb_array"):
        raise ConfigError(f"render_mode must be 'ansi' or 'rgb_array', not {mode!r}")
    return mode


def checked_options(options: object, *known: str) -> Mapping[str, Any]:
    """Return the options of a reset, all of them known, none as an empty mapping."""
    if options is not None and not isinstance(options, Mapping):
        raise ConfigError(f'options must be a mapping such as {{"window": (0, 1000)}}, not {options!r}')
    for name in options or ():
        if name not in known:
            hint = f"{nearest(str(name), known)} (known: {', '.join(known)})"
            raise ConfigError(f"options: {name!r} is no option of reset{hint}")
    return options or {}
