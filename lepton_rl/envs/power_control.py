"""`lepton_rl/PowerControl-v0`: power limits, set again and again while a rule schedules the jobs."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Singles
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.hardware.tariffs import HourlySeries
from lepton_rl.core.metrics import Outcome
from lepton_rl.core.placement import Placement
from lepton_rl.core.units import JOULES_PER_KWH, SECONDS_PER_HOUR
from lepton_rl.envs.batch_kernel import ENERGY_BUSY, SCALE, TALLY_COLUMNS
from lepton_rl.envs.codec import node_groups
from lepton_rl.envs.episodes import Episodes
from lepton_rl.envs.features import NODE_ENTRIES, UNKNOWN_TIME
from lepton_rl.envs.node_features import encode_nodes
from lepton_rl.envs.objective import Objective
from lepton_rl.envs.power_kernel import run_interval, set_limits
from lepton_rl.envs.scheduling import checked_options, expected, traces_of
from lepton_rl.envs.variants import mixed_cluster
from lepton_rl.envs.window import LOG_TIME
from lepton_rl.errors import ConfigError
from lepton_rl.simulator import Blocking, Order, Rule, Timing
from lepton_rl.simulator.jobs import cluster_for
from lepton_rl.simulator.state import State, build_state, outcome_of
from lepton_rl.simulator.trace_run import check_times
from lepton_rl.workloads import Trace

DEFAULT_RULE = Rule(Order.SAF, Blocking.EASY)
DEFAULT_OBJECTIVE = Objective(slowdown=1.0, wait_hours=2.5, energy_kwh=1.0)
SECONDS_PER_DAY = 24 * SECONDS_PER_HOUR
QUEUE_FEATURES = {
    "waiting": "log1p(waiting jobs) / 8",
    "queued_work": "log1p(sum of GPUs x predicted time over waiting jobs / GPUs) / 12",
    "oldest_wait": "log1p(seconds since the submission of the job that waits longest) / 12",
    "running": "log1p(running jobs) / 8",
    "hour_sin": "sine of the time of day, from the workload's time 0 on",
    "hour_cos": "cosine of it",
}
SERIES_FEATURES = {
    "price": "electricity price now / the highest of its series by size",
    "carbon": "carbon intensity now / the highest of its series",
}


class RuleLike(Protocol):
    """A policy that is a compiled rule, as `agents.make_policy("sjf", blocking="easy")`."""

    def rule(self, placement: Placement) -> Rule:
        """Return the rule."""


class PowerControlEnv(gymnasium.Env[Singles, Singles]):
    """Set the power limits of a GPU cluster while a compiled rule schedules its jobs.

    **Action** `Box(0, 1)`, one number for each type of GPU (`per="type"`, in the order of `cluster.types`) or for each
    node (`per="node"`): where between the card's lowest and highest power limit the limit of these GPUs is from now on,
    for whatever runs there. Numbers outside are clipped. An episode begins under the limits of the cluster's groups.

    **Observation** `Box`, float32, entries named by `feature_names`: for each node (above 256 nodes: each group of
    neighbouring nodes, at most 256) `load`, `memory`, `power`, `temperature` and `health` as in `SchedulingEnv`; the
    present limit of each number of the action, 0-1; then `QUEUE_FEATURES`, and `SERIES_FEATURES` where the cluster has
    hourly prices or carbon.

    **Reward** minus the objective's cost of the interval, as an exact integral: the rewards of an episode sum to minus
    the objective of its finish times and its metered energy.

    **Episode** a window of consecutive jobs on an empty cluster. An action is taken at the first submission, before
    anything starts, and then every `interval` seconds. `terminated` when all jobs have finished, at the last finish;
    `truncated` only by wrappers. `info` has `time` (s), `return`, and at the end `episode_metrics`.

    Args:
        workload: A trace, or several; None for a synthetic GPU workload.
        cluster: The machine, a cluster of groups; None for a small one of A100, V100 and T4 nodes.
        rule: What schedules the jobs, a `Rule` or a policy that is one; None for smallest area first with EASY
            backfilling.
        objective: What is minimised; None for slowdown 1, wait_hours 2.5, energy_kwh 1.
        jobs: Jobs of an episode.
        interval: Seconds between two actions.
        per: "type" or "node".

    Raises:
        ConfigError: an argument has the wrong type or value.
        TraceError: a job of the workload can never run on the cluster, or the rule needs requested times that it lacks.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as gymnasium.Env declares it

    def __init__(
        self,
        workload: Trace | list[Trace] | None = None,
        cluster: ClusterSpec | None = None,
        rule: Rule | RuleLike | None = None,
        objective: Objective | None = None,
        jobs: int = 256,
        interval: float = 300.0,
        per: Literal["type", "node"] = "type",
    ) -> None:
        machine = expected("cluster", mixed_cluster() if cluster is None else cluster, ClusterSpec)
        if not machine.groups:
            raise ConfigError(f"power limits need types of GPU, and those of {machine} have none; give it as groups")
        if not isinstance(interval, int | float) or not 1 <= interval < math.inf:
            raise ConfigError(f"interval must be 1 second or more, not {interval!r}")
        if per not in ("type", "node"):
            raise ConfigError(f"per must be 'type' or 'node', not {per!r}")
        self.objective = expected("objective", DEFAULT_OBJECTIVE if objective is None else objective, Objective)
        self.episodes = Episodes(traces_of(workload, machine), jobs)
        self.cluster = cluster_for(self.episodes.traces, machine)
        self.interval = float(interval)
        self.rule = _as_rule(rule)
        for trace in self.episodes.traces:
            check_times(trace, self.rule)
        self._find_knobs(per)
        self._machine = np.zeros((len(NODE_ENTRIES), node_groups(self.cluster.nodes)), np.float32)
        self.feature_names = self._names(per)
        self.observation_space = cast(spaces.Space[Singles], self._space())
        self.action_space = spaces.Box(0.0, 1.0, (len(self._lowest_w),), np.float32)
        self._state: State | None = None
        self._ended = True

    def _find_knobs(self, per: str) -> None:
        """Number what an action sets: of each GPU its number, of each number the range of limits."""
        groups = self.cluster.groups
        names = [kind.name for kind in self.cluster.types]
        if per == "type":
            self._knob = np.repeat([names.index(g.limited_gpu.name) for g in groups], [g.gpus for g in groups])
        else:
            sizes = np.diff([*self.cluster.first_gpus, self.cluster.gpus])
            self._knob = np.repeat(np.arange(self.cluster.nodes), sizes)
        of_gpu = np.repeat(
            [(g.gpu.min_power_limit_w, g.gpu.max_power_limit_w) for g in groups], [g.gpus for g in groups], axis=0
        )
        _, first = np.unique(self._knob, return_index=True)
        self._lowest_w, self._highest_w = of_gpu[first].T

    @property
    def _series(self) -> dict[str, HourlySeries]:
        tariffs = {"price": self.cluster.tariffs.electricity, "carbon": self.cluster.tariffs.carbon}
        return {name: series for name, series in tariffs.items() if series is not None}

    def _names(self, per: str) -> tuple[str, ...]:
        groups = self._machine.shape[1]
        kinds = [kind.name for kind in self.cluster.types] if per == "type" else range(self.cluster.nodes)
        return (
            *(f"{entry}[{group}]" for entry in NODE_ENTRIES for group in range(groups)),
            *(f"limit[{kind}]" for kind in kinds),
            *QUEUE_FEATURES,
            *self._series,
        )

    def _space(self) -> spaces.Box:
        signed = ("hour_sin", "hour_cos", "price", "carbon")
        counted = ("waiting", "queued_work", "oldest_wait", "running")  # logarithms stay far below 10
        low = np.array([-1.0 if name in signed else 0.0 for name in self.feature_names], np.float32)
        high = np.array([10.0 if name in counted else 1.0 for name in self.feature_names], np.float32)
        return spaces.Box(low, high, dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Singles, dict[str, Any]]:
        """Begin an episode; `options={"window": (trace, first_job)}` names it, otherwise it is drawn.

        Raises:
            ConfigError: there is no such window.
        """
        super().reset(seed=seed)
        chosen: Mapping[str, Any] = checked_options(options, "window")
        window = chosen.get("window")
        index, first = self.episodes.draw(self.np_random) if window is None else self.episodes.checked(window)
        self._trace = self.episodes.traces[index].window(first, self.episodes.length)
        self._state = build_state(self._trace, self.cluster, self.rule, Timing(timer=self.interval))
        self._prices = self.objective.prices(self._trace.run_time, self.episodes.jobs)
        self._tally = np.zeros(TALLY_COLUMNS)
        self._tally[ENERGY_BUSY] = self.objective.energy_rates(self.cluster, self.episodes.jobs)[1]
        self._tally[SCALE] = 1.0
        self._return, self._length, self._ended = 0.0, 0, False
        return self._observe(), self._info()

    def step(self, action: Singles) -> tuple[Singles, float, bool, bool, dict[str, Any]]:
        """Set the limits and let an interval pass.

        Raises:
            ConfigError: the action is not as many numbers as the action space says.
            gymnasium.error.ResetNeeded: no episode has begun, or it has ended.
        """
        s = self._state
        if s is None or self._ended:
            raise ResetNeeded("no episode is running: call reset() before step()")
        parts = self._checked(action)
        watts = self._lowest_w + parts * (self._highest_w - self._lowest_w)
        set_limits(np.rint(watts * 1e3).astype(np.int64)[self._knob], s.gpus[0], s.nodes[0], s.totals[0], s.hw)
        left, cost = run_interval(
            s.jobs, s.truth, self._prices, s.queue, s.run_end, s.run_job, s.gpus[0], s.nodes[0], s.bits[0],
            s.totals[0], s.hw, s.gpus[1], s.nodes[1], s.bits[1], s.totals[1], s.started, s.preempted, s.clock,
            s.counts, s.rules, s.settings, self._tally,
        )  # fmt: skip
        reward = 0.0 - float(cost)
        self._return += reward
        self._length += 1
        self._ended = not left
        info = self._info()
        if self._ended:
            info["episode_metrics"] = self._metrics()
        return self._observe(), reward, self._ended, False, info

    def outcome(self) -> Outcome:
        """Return when each job of the episode started and finished (complete once it has ended)."""
        if self._state is None:
            raise ResetNeeded("no episode has begun: call reset() first")
        return outcome_of(self._trace, self._state)

    def _checked(self, action: object) -> Floats:
        try:
            parts = np.asarray(action, np.float64)
        except (TypeError, ValueError):
            parts = np.zeros(0)
        if parts.shape != self._lowest_w.shape or not np.isfinite(parts).all():
            raise ConfigError(f"an action is {len(self._lowest_w)} numbers from 0 to 1, not {action!r}")
        return np.clip(parts, 0.0, 1.0)

    def _observe(self) -> Singles:
        s = cast(State, self._state)
        s.totals[0, L.TOUCHED] = -1
        encode_nodes(s.gpus[0], s.nodes[0], s.totals[0], s.hw, s.clock, 0.0, self._machine)
        _, first = np.unique(self._knob, return_index=True)
        span = np.maximum(self._highest_w - self._lowest_w, 1e-9)
        limits = np.clip((s.gpus[0, first, L.LIMIT] * 1e-3 - self._lowest_w) / span, 0.0, 1.0)
        return np.concatenate((self._machine.ravel(), limits, self._queue_features()), dtype=np.float32)

    def _queue_features(self) -> list[float]:
        s = cast(State, self._state)
        now = float(s.clock[L.NOW])
        waiting = s.jobs[s.queue[s.counts[L.FRONT] : s.counts[L.BACK]]]
        seconds = np.maximum(np.nan_to_num(waiting[:, L.PREDICTED], nan=UNKNOWN_TIME), 0.0)  # some outran theirs
        work = float((waiting[:, L.GPUS] * seconds).sum()) / (L.MILLI * self.cluster.gpus)
        oldest = now - float(waiting[:, L.SUBMIT].min()) if len(waiting) else 0.0
        angle = 2 * math.pi * (now % SECONDS_PER_DAY) / SECONDS_PER_DAY
        return [
            math.log1p(len(waiting)) / 8.0,
            math.log1p(work) / LOG_TIME,
            math.log1p(oldest) / LOG_TIME,
            math.log1p(int(s.counts[L.RUNNING])) / 8.0,
            math.sin(angle),
            math.cos(angle),
            *(_now_of(series, now) for series in self._series.values()),
        ]

    def _info(self) -> dict[str, Any]:
        return {"time": float(cast(State, self._state).clock[L.NOW]), "return": self._return}

    def _metrics(self) -> dict[str, float]:
        outcome = self.outcome()
        return {
            "return": self._return,
            "length": self._length,
            "mean_jct": float(outcome.jct.mean()),
            "mean_bounded_slowdown": float(outcome.bounded_slowdown().mean()),
            "utilization": outcome.utilization,
            "mean_power_w": outcome.mean_power_w,
            "energy_kwh": outcome.energy_joules / JOULES_PER_KWH,
        }


def _as_rule(rule: object) -> Rule:
    """Return the rule that an argument means."""
    if rule is None:
        return DEFAULT_RULE
    if isinstance(rule, Rule):
        return rule
    make = getattr(rule, "rule", None)
    made = make(Placement.FIRST) if callable(make) else None
    if not isinstance(made, Rule):
        raise ConfigError(f"rule must be a Rule or a policy that is one, such as make_policy('sjf'), not {rule!r}")
    return made


def _now_of(series: HourlySeries, now: float) -> float:
    """Return the value of this hour as a part of the highest by size; the last hour goes on."""
    values: NDArray[np.float64] = series.values
    highest = float(np.abs(values).max())
    return float(values[min(int(now / SECONDS_PER_HOUR), len(values) - 1)]) / highest if highest else 0.0
