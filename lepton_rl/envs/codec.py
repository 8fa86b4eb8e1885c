"""The codec: snapshot <-> observation, mask and action. Environments and deployment share it."""

import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Self

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lepton_rl.core.arrays import Bools, Floats, Ints64, Singles
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.machine import hardware_tables, with_power_levels
from lepton_rl.core.placement import Placement
from lepton_rl.envs.features import (
    BASIC_FEATURES,
    CONTEXT_FEATURES,
    FULL_FEATURES,
    NODE_ENTRIES,
    PLAIN_NODE_ENTRIES,
    FeatureSet,
)
from lepton_rl.envs.stopping import GAIN, RUNNING_FEATURES
from lepton_rl.errors import BundleError, ConfigError, nearest
from lepton_rl.simulator import Blocking, Order, Rule, Timing

CODEC_VERSION = 2
MAX_GROUPS = 256
"""Nodes that are seen one by one; a larger cluster is seen in at most this many groups of neighbours."""
ACTIONS = ("order", "placement", "power", "preemptive")
OF_GROUPS = ("placement", "preemptive")
"""Those that tell the groups of nodes apart."""
WINDOW_KEYS = {"fcfs": Order.FCFS, "sjf": Order.SJF, "smallest": Order.SMALLEST, "saf": Order.SAF}

NO_COSTS = Timing()

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
        actions: What an action chooses: "order", a job; "placement", a job and the group of nodes that it goes to;
            "power", a job and the power limit of its GPUs; "preemptive", as "placement", or a running job to preempt or
            to move to another group. All but "order" need a cluster of groups.
        power_levels: Power limits to choose among, parts of each card's maximum power, clipped to the card's range and
            to its group's own limit, which 1 stands for.
        preferences: Components of the objective whose weights are part of the observation; 0 for none.
        running: Running jobs R that are shown and may be stopped, with "preemptive".
    """

    window: int = 64
    key: str = "saf"
    features: str = "full"
    placement: str = "first"
    actions: str = "order"
    power_levels: tuple[float, ...] = (1.0, 0.8, 0.6)
    preferences: int = 0
    running: int = 32

    def __post_init__(self) -> None:
        for size, count in (("window", self.window), ("running", self.running)):
            if isinstance(count, bool) or not isinstance(count, int | np.integer):
                raise ConfigError(f"{size} must be a whole number, not {count!r}")
            if count < 1:
                raise ConfigError(f"{size} must be 1 or more, not {count}")
        for name, value, known in (
            ("key", self.key, tuple(WINDOW_KEYS)),
            ("features", self.features, tuple(f.name.lower() for f in FeatureSet)),
            ("placement", self.placement, tuple(p.name.lower() for p in Placement)),
            ("actions", self.actions, ACTIONS),
        ):
            if value not in known:
                raise ConfigError(f"{name} {value!r} is unknown{nearest(value, known)}; known: {', '.join(known)}")
        if self.actions in OF_GROUPS and self.placement == "consolidated":
            raise ConfigError(
                f"actions {self.actions!r} choose a group of nodes, in which the fewest nodes are not known; use "
                "first, best or worst as placement, not consolidated"
            )
        levels = tuple(self.power_levels)
        object.__setattr__(self, "power_levels", levels)
        if not levels or not all(math.isfinite(level) and 0 < level <= 1 for level in levels):
            raise ConfigError(f"power_levels must be parts of the maximum power, above 0 to 1, not {list(levels)}")
        if len(set(levels)) < len(levels):
            raise ConfigError(f"power_levels must differ, not {list(levels)}")

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

    def choices(self, cluster: ClusterSpec) -> int:
        """Return how many choices C an action has for each job.

        Raises:
            ConfigError: the cluster has no groups of nodes that the actions could tell apart, or no limits.
        """
        if self.actions == "order":
            return 1
        if not cluster.groups:
            raise ConfigError(
                f"actions {self.actions!r} need groups of nodes, and {cluster} has none; give the cluster as groups"
            )
        if self.actions == "power":
            return len(self.power_levels)
        groups = len(cluster.groups)
        return 1 if groups == 1 and self.actions == "preemptive" else 1 + groups

    @property
    def stoppable(self) -> int:
        """Running jobs that actions can stop or move: R, or 0."""
        return self.running if self.actions == "preemptive" else 0

    def wait_action(self, cluster: ClusterSpec) -> int:
        """Return the action that waits for the next event, the last one."""
        return (self.window + self.stoppable) * self.choices(cluster)

    def running_names(self, cluster: ClusterSpec) -> tuple[str, ...]:
        """Return the columns of the observation's `running`."""
        return (*RUNNING_FEATURES, *(f"{GAIN} {group}" for group in range(1, self.choices(cluster))))

    def told_apart(self, cluster: ClusterSpec) -> ClusterSpec:
        """Return the cluster as the compiled functions behind the codec see it: with what actions tell apart.

        Raises:
            ConfigError: it has too many groups.
        """
        return cluster.with_groups_apart() if self.actions in OF_GROUPS else cluster

    def hardware(self, cluster: ClusterSpec) -> Hardware:
        """Return the cluster's tables, with the groups and power limits that actions choose among."""
        tables = hardware_tables(self.told_apart(cluster))
        return with_power_levels(tables, cluster, self.power_levels) if self.actions == "power" else tables

    def arrays(self, whole_gpus: bool, timing: Timing = NO_COSTS) -> tuple[Ints64, Floats]:
        """Return (rules, settings) for the compiled functions; shared, not to be written."""
        return _rule_arrays(self, whole_gpus, timing)

    def shapes(self, cluster: ClusterSpec) -> dict[str, tuple[int, ...]]:
        """Return the shape of each float32 entry of the observation."""
        groups = node_groups(cluster.nodes)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(node_entries(cluster), (groups,))
        if self.preferences:
            shapes["preferences"] = (self.preferences,)
        shapes["queue"] = (self.window, len(self.feature_names))
        if self.full:
            shapes["context"] = (len(CONTEXT_FEATURES),)
        if self.stoppable:
            shapes["running"] = (self.running, len(self.running_names(cluster)))
        return shapes

    def observation_space(self, cluster: ClusterSpec) -> spaces.Dict:
        """Return the space of one observation."""
        entries: dict[str, spaces.Space[Any]] = {}
        for name, shape in self.shapes(cluster).items():
            bounded = name in (*NODE_ENTRIES, "preferences")
            # Logarithms of any sensible time stay far inside +-10.
            low, high = (0.0, 1.0) if bounded else (-10.0, 10.0)
            entries[name] = spaces.Box(low, high, shape, np.float32)
        entries["action_mask"] = spaces.MultiBinary(self.wait_action(cluster) + 1)
        return spaces.Dict(entries)

    def action_space(self, cluster: ClusterSpec) -> "spaces.Discrete[np.int64]":
        """Return the space of one action: `slot x C + choice` is about a job, the last one waits."""
        return spaces.Discrete(self.wait_action(cluster) + 1)

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
            raise BundleError(
                f"the bundle's codec has version {version}, this lepton_rl reads version {CODEC_VERSION}; train it anew"
            )
        settings["power_levels"] = tuple(settings["power_levels"])
        return cls(**settings)


@cache
def _rule_arrays(codec: Codec, whole_gpus: bool, timing: Timing) -> tuple[Ints64, Floats]:
    return codec.rule.arrays(whole_gpus, timing)


def node_groups(nodes: int) -> int:
    """Number of groups in which the nodes are seen: one each up to MAX_GROUPS."""
    per_group = -(-nodes // MAX_GROUPS)
    return -(-nodes // per_group)


def node_entries(cluster: ClusterSpec) -> tuple[str, ...]:
    """Return the entries by group of nodes that an observation of the cluster has."""
    return NODE_ENTRIES if cluster.groups else PLAIN_NODE_ENTRIES


def idle_share(cluster: ClusterSpec) -> float:
    """Idle power as a part of the maximum."""
    return cluster.idle_power_w / cluster.max_power_w if cluster.max_power_w > 0 else 0.0


def as_preferences(values: object, count: int) -> Singles:
    """Return weights of an objective's components as an observation shows them: parts of their sum, shape (count,).

    Raises:
        ConfigError: they are not `count` numbers of 0 or more with one above 0.
    """
    try:
        weights = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        weights = np.zeros(0)
    if weights.shape != (count,) or not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ConfigError(f"preferences must be {count} numbers of 0 or more, one of them above 0, not {values!r}")
    parts: Singles = (weights / weights.sum()).astype(np.float32)
    return parts


def as_observation(
    codec: Codec, machine: Singles, rows: Singles, context: Singles, running: Singles, mask: Bools
) -> Observation:
    """Name the arrays (any leading axes) as an observation, without copying."""
    entries = NODE_ENTRIES[: machine.shape[-2]]
    observation: Observation = {name: machine[..., row, :] for row, name in enumerate(entries)}
    observation["queue"] = rows
    if codec.full:
        observation["context"] = context
    if codec.stoppable:
        observation["running"] = running
    observation["action_mask"] = mask.view(np.int8)
    return observation
