"""The codec: snapshot <-> observation, mask and action. Environments and deployment share it."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Start
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.jit import njit_allocating
from lepton_rl.core.placement import Floats, Ints32, Ints64, Placement, Words
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.envs.batch_kernel import TALLY_COLUMNS, observe
from lepton_rl.envs.features import (
    BASIC_FEATURES,
    CONTEXT_FEATURES,
    FULL_FEATURES,
    STATIC_COLUMNS,
    UNKNOWN_TIME,
    Bools,
    FeatureSet,
    Singles,
    static_features,
)
from lepton_rl.errors import BundleError, ConfigError, nearest
from lepton_rl.simulator import Blocking, Order, Rule, Timing
from lepton_rl.simulator.ends import add_prediction
from lepton_rl.simulator.scores import score
from lepton_rl.simulator.waiting import insert

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
            WINDOW_KEYS[self.key], Blocking.EASY if self.full else Blocking.HEAD, Placement[self.placement.upper()]
        )

    def arrays(self, whole_gpus: bool) -> tuple[Ints64, Floats]:
        """Return (rules, settings) for the compiled functions."""
        return self.rule.arrays(whole_gpus, Timing())

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

    def encode(self, snapshot: Snapshot) -> tuple[Observation, NDArray[np.int64]]:
        """Return (observation, ids of the visible jobs in slot order)."""
        cluster = snapshot.cluster
        rules, settings = self.arrays(bool((snapshot.jobs[:, L.GPUS] >= L.MILLI).all()))
        rows = np.zeros((self.window, len(self.feature_names)), np.float32)
        context = np.zeros(len(CONTEXT_FEATURES), np.float32)
        machine = np.empty((3, node_groups(cluster.nodes)), np.float32)
        mask = np.zeros(self.window + 1, np.bool_)
        visible = np.empty(self.window, np.int64)
        jobs = snapshot.jobs.copy()
        totals = snapshot.totals.copy()
        totals[L.TOUCHED] = -1
        count = _encode_snapshot(
            jobs, snapshot.running_count, snapshot.gpus, snapshot.nodes, snapshot.bits, totals, snapshot.time,
            rules, settings, self.full, self.key == "fcfs", idle_share(cluster), rows, context, machine, mask, visible,
        )  # fmt: skip
        mask[self.window] = True  # more jobs may come: a real cluster always may wait
        observation = as_observation(self, machine, rows, context, mask)
        return observation, visible[:count]

    def decode(self, action: int, visible: NDArray[np.int64]) -> Start | None:
        """Return the start that the action means, None for waiting."""
        return Start(int(visible[action])) if action < len(visible) else None

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


@njit_allocating
def _encode_snapshot(
    jobs: Floats, running: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, now: float, rules: Ints64,
    settings: Floats, full: bool, key_is_time: bool, idle: float, rows: Singles, context: Singles, machine: Singles,
    mask: Bools, visible: Ints64,
) -> int:  # fmt: skip
    """Rebuild the packed arrays from a snapshot's jobs and encode them; return the number of visible jobs."""
    total = jobs.shape[0]
    for row in range(total):
        if np.isnan(jobs[row, L.REQUESTED]):
            jobs[row, L.REQUESTED] = UNKNOWN_TIME
            jobs[row, L.PREDICTED] = UNKNOWN_TIME
    queue = np.empty(total, np.int32)
    run_end = np.empty((2, max(running, 1)))
    run_job = np.empty((2, max(running, 1)), np.int32)
    clock = np.zeros(L.CLOCK_COLUMNS)
    clock[L.NOW] = now
    clock[L.TIMER] = np.inf
    counts = np.zeros(L.COUNT_COLUMNS, np.int64)
    counts[L.ARRIVED] = total
    for row in range(running):
        if rules[L.PREDICTS]:
            add_prediction(run_end, run_job, row, jobs[row, L.START] + jobs[row, L.PREDICTED], row)
        run_end[L.TRUE_ENDS, row] = np.inf  # unknown here, and no feature reads it
    counts[L.RUNNING] = running
    for row in range(running, total):
        jobs[row, L.SCORE] = score(rules[L.ORDER], settings, jobs, row, now)
        insert(jobs, queue, counts, row)
    static = np.empty((total, STATIC_COLUMNS), np.float32)
    static_features(jobs, gpus.shape[0], totals[L.GPU_MEMORY], key_is_time, static)
    tally = np.zeros(TALLY_COLUMNS)
    observe(
        jobs, static, queue, run_end, run_job, gpus, nodes, bits, totals, clock, counts, rules, tally, full, idle,
        np.empty(max(running, 1)), rows, context, machine, mask,
    )  # fmt: skip
    count = min(total - running, rows.shape[0])
    for place in range(count):
        visible[place] = np.int64(jobs[queue[counts[L.FRONT] + place], L.ID])
    return count
