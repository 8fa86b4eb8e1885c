"""What may change while jobs run: failures, reservations, heat, and what jobs on one GPU do to each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.hardware.speed import known_job_class
from lepton_rl.core.units import SECONDS_PER_HOUR
from lepton_rl.errors import ConfigError

MOST_FAULTS = 2_000_000
MOST_SECONDS = 2_000_000_000
"""Of a workload's clock, for reservations: an int32."""


@dataclass(frozen=True, slots=True)
class Interference:
    """Slowdown of a share by the other shares on its GPU.

    Attributes:
        coefficient: c of `1 + c u v`: share u of the job, v of the others in all.
        pairs: (class, other class, slowdown of the first beside the second, 1 or more); a pair that is not named does
            not slow. Where any is given, `1 + sum(slowdown - 1)` over the others takes the formula's place.
    """

    coefficient: float = 0.0
    pairs: tuple[tuple[str, str, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.coefficient < math.inf:
            raise ConfigError(f"the coefficient of interference must be 0 or more, not {self.coefficient:g}")
        if self.pairs and self.coefficient:
            raise ConfigError("interference is a coefficient or pairs of classes, not both")
        for name, other, slowdown in self.pairs:
            known_job_class(name)
            known_job_class(other)
            if not 1 <= slowdown < math.inf:
                raise ConfigError(f"the slowdown of {name} beside {other} must be 1 or more, not {slowdown:g}")
        if len({pair[:2] for pair in self.pairs}) < len(self.pairs):
            raise ConfigError("a pair of classes has two slowdowns")

    @property
    def is_on(self) -> bool:
        """Whether any share slows another."""
        return self.coefficient > 0 or bool(self.pairs)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long GPUs or nodes are up and down.

    Attributes:
        mtbf_hours: mean time up.
        repair_hours: mean time down, of an exponential distribution.
        shape: of the Weibull distribution of the time up; 1 is exponential, below 1 failures come in bursts.
    """

    mtbf_hours: float
    repair_hours: float
    shape: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mtbf_hours", "repair_hours", "shape"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 0.1 <= self.shape <= 20:
            raise ConfigError(f"shape must lie between 0.1 and 20, not {self.shape:g}")

    def draw(self, until_s: float, rng: np.random.Generator) -> list[tuple[float, float]]:
        """Return (down, up again) of one unit that is up at time 0, seconds, as long as it fails before `until_s`."""
        scale = self.mtbf_hours * SECONDS_PER_HOUR / math.gamma(1 + 1 / self.shape)
        spells: list[tuple[float, float]] = []
        now = scale * float(rng.weibull(self.shape))
        while now < until_s:
            back = now + self.repair_hours * SECONDS_PER_HOUR * float(rng.exponential())
            spells.append((now, back))
            now = back + scale * float(rng.weibull(self.shape))
        return spells


@dataclass(frozen=True, slots=True)
class Fault:
    """GPUs `first_gpu` to before `first_gpu + gpus` go down at `time_s`, or come back."""

    time_s: float
    first_gpu: int
    gpus: int
    down: bool


@dataclass(frozen=True, slots=True)
class Faults:
    """Failures, and what a struck job keeps.

    Attributes:
        gpu: lifetimes of single GPUs; None: they do not fail.
        node: lifetimes of nodes.
        seed: of what is drawn; each GPU and node has a stream of its own.
        until_hours: nothing fails from this hour of the workload on; what is down comes back.
        schedule: failures and repairs that are given, beside those drawn.
        checkpoint_interval_s: seconds of service between a run's checkpoints; 0 for none.
        checkpoint_cost_s: seconds that one takes.
        restart_cost_s: seconds that a struck job owes when it starts again.
    """

    gpu: Lifetimes | None = None
    node: Lifetimes | None = None
    seed: int = 0
    until_hours: float = 8760.0
    schedule: tuple[Fault, ...] = ()
    checkpoint_interval_s: float = 0.0
    checkpoint_cost_s: float = 0.0
    restart_cost_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("until_hours", "checkpoint_interval_s", "checkpoint_cost_s", "restart_cost_s"):
            if not 0 <= getattr(self, name) < 1e9:
                raise ConfigError(f"{name} must be 0 or more, and below 1e9, not {getattr(self, name)}")
        if self.checkpoint_cost_s > 0 and self.checkpoint_interval_s == 0:
            raise ConfigError("checkpoint_cost_s without a checkpoint_interval_s: say how often checkpoints are made")

    @property
    def is_on(self) -> bool:
        """Whether anything can fail."""
        return self.gpu is not None or self.node is not None or bool(self.schedule)

    @property
    def rate(self) -> float:
        """Seconds of service that a second gives beside making checkpoints."""
        if self.checkpoint_interval_s == 0:
            return 1.0
        return self.checkpoint_interval_s / (self.checkpoint_interval_s + self.checkpoint_cost_s)

    def expected(self, gpus: int, nodes: int) -> float:
        """Return about how many failures will be drawn."""
        units = ((self.gpu, gpus), (self.node, nodes))
        return sum(n * self.until_hours / (life.mtbf_hours + life.repair_hours) for life, n in units if life)

    def events(self, first_gpus: Sequence[int], gpus: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Return (times, (first GPU, GPUs, +1 down or -1 back)) of all failures and repairs, in order of time.

        At one time repairs come first.

        Args:
            first_gpus: first GPU of each node.
            gpus: of the cluster.

        Raises:
            ConfigError: a scheduled one names GPUs that are not there, or there are too many to hold.
        """
        if self.expected(gpus, len(first_gpus)) > MOST_FAULTS:
            raise ConfigError(
                f"about {self.expected(gpus, len(first_gpus)):,.0f} failures in {self.until_hours:g} hours are more "
                f"than {MOST_FAULTS:,}; lower until_hours or raise mtbf_hours"
            )
        listed: list[tuple[float, int, int, int]] = []
        for fault in self.schedule:
            if not 0 <= fault.first_gpu < fault.first_gpu + fault.gpus <= gpus:
                raise ConfigError(
                    f"a scheduled failure names GPUs {fault.first_gpu} to {fault.first_gpu + fault.gpus - 1}; the "
                    f"cluster has 0 to {gpus - 1}"
                )
            listed.append((fault.time_s, fault.first_gpu, fault.gpus, 1 if fault.down else -1))
        ends = [*first_gpus[1:], gpus]
        units = [(self.gpu, 0, gpu, 1) for gpu in range(gpus)]
        units += [(self.node, 1, first, end - first) for first, end in zip(first_gpus, ends, strict=True)]
        for life, kind, first, count in units:
            if life is None:
                continue
            rng = np.random.default_rng([self.seed, kind, first])
            for down, back in life.draw(self.until_hours * SECONDS_PER_HOUR, rng):
                listed += [(down, first, count, 1), (back, first, count, -1)]
        listed.sort(key=lambda event: (event[0], event[3], event[1]))
        _check_balance(listed, gpus)
        times = np.array([event[0] for event in listed], np.float64)
        return times, np.array([event[1:] for event in listed], np.int32).reshape(-1, 3)


def _check_balance(events: Sequence[tuple[float, int, int, int]], gpus: int) -> None:
    """Refuse a repair of what is not down, and what is never repaired."""
    down = np.zeros(gpus, np.int64)
    for time, first, count, change in events:
        down[first : first + count] += change
        if change < 0 and down[first : first + count].min() < 0:
            raise ConfigError(f"at {time:g} s a scheduled repair brings back a GPU that is not down")
    if down.any():
        raise ConfigError(f"GPU {int(np.flatnonzero(down)[0])} is never repaired: schedule its repair too")


@dataclass(frozen=True, slots=True)
class Reservation:
    """Nodes that are kept free of jobs from the second `begin_s` to before `end_s`."""

    begin_s: int
    end_s: int
    nodes: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.end_s <= self.begin_s:
            raise ConfigError(f"a reservation ends after it begins, not at {self.end_s:g} s after {self.begin_s:g} s")
        if not 0 <= self.begin_s < self.end_s <= MOST_SECONDS:
            raise ConfigError(
                f"a reservation begins at 0 s or later and ends after that, by {MOST_SECONDS:,} s, not "
                f"{self.begin_s:g} to {self.end_s:g} s"
            )
        if self.begin_s != int(self.begin_s) or self.end_s != int(self.end_s):
            raise ConfigError(
                f"a reservation begins and ends at whole seconds, not {self.begin_s:g} to {self.end_s:g} s"
            )
        if not self.nodes:
            raise ConfigError("a reservation names no node")
        if any(later <= before for before, later in pairwise(self.nodes)):
            raise ConfigError(f"the nodes of a reservation must rise, not {list(self.nodes)}")


@dataclass(frozen=True, slots=True)
class Dynamics:
    """What may change on a cluster while jobs run; nothing by default.

    Attributes:
        interference: what shares of one GPU do to each other.
        inlet_temperature_c: of the air that cools the GPUs, where their heat is counted; None where it is not.
        faults: failures and repairs.
        reservations: nodes kept free.
    """

    interference: Interference = field(default_factory=Interference)
    inlet_temperature_c: float | None = None
    faults: Faults = field(default_factory=Faults)
    reservations: tuple[Reservation, ...] = ()


NO_DYNAMICS = Dynamics()
