"""The codec: snapshot <-> observation, mask and action. Environments and deployment share it."""

import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Self

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Start
from lepton_rl.core.allocation import held_gpus
from lepton_rl.core.arrays import Bools, Floats, Ints32, Ints64, Singles, Words
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.jit import njit
from lepton_rl.core.placement import Placement, place
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.envs.batch_kernel import TALLY_COLUMNS, observe
from lepton_rl.envs.features import (
    BASIC_FEATURES,
    CHANGING_COLUMNS,
    CONTEXT_FEATURES,
    FULL_FEATURES,
    UNKNOWN_TIME,
    FeatureSet,
    static_features,
)
from lepton_rl.envs.window import STATIC_COLUMNS, fact_columns
from lepton_rl.errors import BundleError, ConfigError, nearest
from lepton_rl.simulator import Blocking, Order, Rule, Timing
from lepton_rl.simulator.ends import add_prediction
from lepton_rl.simulator.scores import score
from lepton_rl.simulator.waiting import insert, remove

CODEC_VERSION = 1
MAX_GROUPS = 256
"""Nodes that are seen one by one; a larger cluster is seen in at most this many groups of neighbours."""
WINDOW_KEYS = {"fcfs": Order.FCFS, "sjf": Order.SJF, "smallest": Order.SMALLEST, "saf": Order.SAF}

Observation = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Codec:
    """How a cluster is shown to a learner and how its choice is read.

    Args:
        window: Visible jobs K; the action K waits for the next event.
        key: Order of the window, lowest first ("saf", "sjf", "smallest", "fcfs"): the K best waiting jobs by it are
            visible, so that the window does not go stale behind K old jobs that cannot start.
        features: "full" or "basic" (see `features`).
        placement: Which GPUs a chosen job gets.
    """

    window: int = 64
    key: str = "saf"
    features: str = "full"
    placement: str = "first"

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"window must be 1 or more, not {self.window}")
        for name, value, known in (
            ("key", self.key, tuple(WINDOW_KEYS)),
            ("features", self.features, tuple(f.name.lower() for f in FeatureSet)),
            ("placement", self.placement, tuple(p.name.lower() for p in Placement)),
        ):
            if value not in known:
                raise ConfigError(f"{name} {value!r} is unknown{nearest(value, known)}; known: {', '.join(known)}")

    @property
    def full(self) -> bool:
        """Whether the observation has the full features and the context."""
        return self.features == "full"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns of the observation's `queue`."""
        return FULL_FEATURES if self.full else BASIC_FEATURES

    @property
    def rule(self) -> Rule:
        """The window's order as a compiled rule; predicted ends are kept when features need them."""
        return Rule(
            WINDOW_KEYS[self.key],
            Blocking.EASY if self.full else Blocking.HEAD,
            Placement[self.placement.upper()],
        )

    def arrays(self, whole_gpus: bool) -> tuple[Ints64, Floats]:
        """Return (rules, settings) for the compiled functions; shared, not to be written."""
        return _rule_arrays(self, whole_gpus)

    def shapes(self, cluster: ClusterSpec) -> dict[str, tuple[int, ...]]:
        """Return the shape of each float32 entry of the observation."""
        groups = node_groups(cluster.nodes)
        shapes: dict[str, tuple[int, ...]] = {"load": (groups,), "memory": (groups,), "power": (groups,)}
        shapes["queue"] = (self.window, len(self.feature_names))
        if self.full:
            shapes["context"] = (len(CONTEXT_FEATURES),)
        return shapes

    def observation_space(self, cluster: ClusterSpec) -> spaces.Dict:
        """Return the space of one observation."""
        entries: dict[str, spaces.Space[Any]] = {}
        for name, shape in self.shapes(cluster).items():
            bounded = name in ("load", "memory", "power")
            # Logarithms of any sensible time stay far inside +-10.
            low, high = (0.0, 1.0) if bounded else (-10.0, 10.0)
            entries[name] = spaces.Box(low, high, shape, np.float32)
        entries["action_mask"] = spaces.MultiBinary(self.window + 1)
        return spaces.Dict(entries)

    def action_space(self) -> "spaces.Discrete[np.int64]":
        """Return the space of one action: start the job in slot 0..K-1, or K to wait."""
        return spaces.Discrete(self.window + 1)

    def open(self, snapshot: Snapshot) -> "Decision":
        """Show a snapshot to a learner; the decision goes on as long as it starts jobs."""
        return Decision(self, snapshot)

    def describe(self) -> dict[str, Any]:
        """Return the codec as plain data, for a bundle."""
        return {"version": CODEC_VERSION, **asdict(self)}

    @classmethod
    def from_description(cls, data: dict[str, Any]) -> Self:
        """Return the codec that a bundle names.

        Raises:
            BundleError: it was written for another version of the codec.
        """
        settings = dict(data)
        version = settings.pop("version", None)
        if version != CODEC_VERSION:
            raise BundleError(f"the bundle's codec has version {version}, this lepton_rl reads version {CODEC_VERSION}")
        return cls(**settings)


@cache
def _rule_arrays(codec: Codec, whole_gpus: bool) -> tuple[Ints64, Floats]:
    return codec.rule.arrays(whole_gpus, Timing())


def node_groups(nodes: int) -> int:
    """Number of groups in which the nodes are seen: one each up to MAX_GROUPS."""
    per_group = -(-nodes // MAX_GROUPS)
    return -(-nodes // per_group)


def idle_share(cluster: ClusterSpec) -> float:
    """Idle power as a part of the maximum."""
    return cluster.idle_power_w / cluster.max_power_w if cluster.max_power_w > 0 else 0.0


def as_observation(codec: Codec, machine: Singles, rows: Singles, context: Singles, mask: Bools) -> Observation:
    """Name the arrays (any leading axes) as an observation, without copying."""
    observation: Observation = {
        "load": machine[..., 0, :],
        "memory": machine[..., 1, :],
        "power": machine[..., 2, :],
        "queue": rows,
    }
    if codec.full:
        observation["context"] = context
    observation["action_mask"] = mask.view(np.int8)
    return observation


class Decision:
    """The decisions of one instant: observe, start a job, observe again.

    Attributes:
        observation: What the learner sees now.
    """

    def __init__(self, codec: Codec, snapshot: Snapshot) -> None:
        cluster = snapshot.cluster
        total, running = len(snapshot.jobs), snapshot.running_count
        self._codec = codec
        jobs = snapshot.jobs.copy()
        rules, self._settings = codec.arrays(bool((jobs[:, L.GPUS] >= L.MILLI).all()))
        totals = snapshot.totals.copy()
        totals[L.TOUCHED] = -1
        self._rows = np.zeros((codec.window, len(codec.feature_names)), np.float32)
        self._context = np.zeros(len(CONTEXT_FEATURES), np.float32)
        self._machine = np.empty((3, node_groups(cluster.nodes)), np.float32)
        self._mask = np.zeros(codec.window + 1, np.bool_)
        self._clock = np.zeros(L.CLOCK_COLUMNS)
        self._clock[L.NOW] = snapshot.time
        self._counts = np.zeros(L.COUNT_COLUMNS, np.int64)
        self._counts[L.RUNNING] = running
        self._jobs = jobs
        self._key_is_time = codec.key == "fcfs"
        self._queue = np.empty(total, np.int32)
        self._ends = (np.empty((2, total)), np.empty((3, total), np.int32))
        self._allocation = (snapshot.gpus.copy(), snapshot.nodes.copy(), snapshot.bits.copy(), totals)
        self._observed = (
            jobs, np.empty((total, STATIC_COLUMNS), np.float32), self._queue, *self._ends, *self._allocation,
            self._clock, self._counts, rules, np.zeros(TALLY_COLUMNS), codec.full, idle_share(cluster),
            np.empty(total), np.empty(codec.window, np.int32), np.empty((codec.window, fact_columns(codec.full))),
            np.empty((CHANGING_COLUMNS, codec.window), np.float32), self._rows, self._context, self._machine,
            self._mask,
        )  # fmt: skip
        self._fitting = _open(*self._observed, self._settings, self._key_is_time)
        self.observation = as_observation(codec, self._machine, self._rows, self._context, self._mask)

    @property
    def something_fits(self) -> bool:
        """Whether any visible job could start."""
        return self._fitting > 0

    @property
    def visible(self) -> NDArray[np.int64]:
        """Ids of the visible jobs, in slot order."""
        front, back = self._counts[L.FRONT], self._counts[L.BACK]
        rows = self._queue[front : min(front + self._codec.window, back)]
        ids: NDArray[np.int64] = self._jobs[rows, L.ID].astype(np.int64)
        return ids

    def start(self, slot: int) -> Start:
        """Start the fitting job in this slot, observe anew and return the action."""
        held = np.empty(self._allocation[0].shape[0], np.int64)
        job, count, self._fitting = _start_and_look_again(slot, held, *self._observed, self._key_is_time)
        return Start(job, tuple(held[:count].tolist()))


@njit
def _open(
    jobs: Floats, static: Singles, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32,
    bits: Words, totals: Ints64, clock: Floats, counts: Ints64, rules: Ints64, tally: Floats, full: bool,
    idle: float, free_after: Floats, shown: Ints32, facts: Floats, changing: Singles, rows: Singles, context: Singles,
    machine: Singles, mask: Bools, settings: Floats, key_is_time: bool,
) -> int:  # fmt: skip
    """Rebuild queue and predicted ends from a snapshot's jobs (running ones first) and observe.

    Returns how many visible jobs fit.
    """
    clock[L.TIMER] = np.inf
    running = counts[L.RUNNING]
    counts[L.ARRIVED] = jobs.shape[0]
    for job in range(jobs.shape[0]):
        if np.isnan(jobs[job, L.REQUESTED]):
            jobs[job, L.REQUESTED] = UNKNOWN_TIME
            jobs[job, L.PREDICTED] = UNKNOWN_TIME
        if job < running:
            run_end[L.TRUE_ENDS, job] = np.inf  # unknown here, and no feature reads it
            if rules[L.PREDICTS]:
                add_prediction(jobs, run_end, run_job, job, jobs[job, L.START] + jobs[job, L.PREDICTED], job)
        else:
            jobs[job, L.SCORE] = score(rules[L.ORDER], settings, jobs, job, clock[L.NOW])
            insert(jobs, queue, counts, job)
    front = counts[L.FRONT]
    log_gpus = math.log1p(gpus.shape[0])
    for position in range(front, min(front + rows.shape[0], counts[L.BACK])):
        static_features(jobs, queue[position], gpus.shape[0], log_gpus, totals[L.GPU_MEMORY], key_is_time, static)
    return observe(
        jobs, static, queue, run_end, run_job, gpus, nodes, bits, totals, clock, counts, rules, tally, full, idle,
        free_after, shown, facts, changing, rows, context, machine, mask,
    )  # fmt: skip


@njit
def _start_and_look_again(
    slot: int, held: Ints64, jobs: Floats, static: Singles, queue: Ints32, run_end: Floats, run_job: Ints32,
    gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, clock: Floats, counts: Ints64, rules: Ints64,
    tally: Floats, full: bool, idle: float, free_after: Floats, shown: Ints32, facts: Floats, changing: Singles,
    rows: Singles, context: Singles, machine: Singles, mask: Bools, key_is_time: bool,
) -> tuple[int, int, int]:  # fmt: skip
    """Start the fitting job in this slot and observe; return (its id, GPUs written to `held`, jobs that fit now)."""
    position = counts[L.FRONT] + slot
    job = queue[position]
    place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals)
    remove(queue, counts, position)
    jobs[job, L.START] = clock[L.NOW]
    if rules[L.PREDICTS]:
        add_prediction(jobs, run_end, run_job, counts[L.RUNNING], clock[L.NOW] + jobs[job, L.PREDICTED], job)
    counts[L.RUNNING] += 1
    count = held_gpus(jobs, job, gpus, held)
    last = counts[L.FRONT] + rows.shape[0] - 1
    if last < counts[L.BACK]:  # the job that has moved into the window has no static features yet
        log_gpus = math.log1p(gpus.shape[0])
        static_features(jobs, queue[last], gpus.shape[0], log_gpus, totals[L.GPU_MEMORY], key_is_time, static)
    fitting = observe(
        jobs, static, queue, run_end, run_job, gpus, nodes, bits, totals, clock, counts, rules, tally, full, idle,
        free_after, shown, facts, changing, rows, context, machine, mask,
    )  # fmt: skip
    return int(jobs[job, L.ID]), count, fitting
