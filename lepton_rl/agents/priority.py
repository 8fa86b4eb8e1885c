"""Policies that order the queue by a score: one compiled pass, with any blocking and placement."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from lepton_rl.agents.compiled import BlockingName, RulePolicy
from lepton_rl.errors import ConfigError
from lepton_rl.simulator import Order
from lepton_rl.simulator.scores import RESERVE_RHO, RESERVE_T0, RESERVE_T1

ScoreName = Literal[
    "fcfs", "sjf", "ljf", "smallest", "saf", "f1", "f2", "f3", "f4", "wfp3", "unicep", "srtf", "las", "edf",
    "llf",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Score:
    """One order of the queue: the formula, what it prefers, where it comes from."""

    order: Order
    summary: str
    source: str


_CARASTAN = "Carastan-Santos and de Camargo, SC 2017"
_TANG = "Tang et al., CLUSTER 2009"

SCORES: dict[ScoreName, Score] = {
    "fcfs": Score(Order.FCFS, "first come, first served", "folklore"),
    "sjf": Score(Order.SJF, "shortest requested time first", "Smith, Naval Research Logistics 1956"),
    "ljf": Score(Order.LJF, "longest requested time first", "Graham, SIAM J. Applied Mathematics 1969 (LPT)"),
    "smallest": Score(
        Order.SMALLEST, "fewest GPUs first, the classic GPU balancer", "Majumdar et al., SIGMETRICS 1988"
    ),
    "saf": Score(Order.SAF, "smallest area (GPUs x requested time) first", "Carastan-Santos et al., CCGRID 2019"),
    "f1": Score(Order.F1, "log10(r) n + 870 log10(s), fitted to simulations", _CARASTAN),
    "f2": Score(Order.F2, "sqrt(r) n + 25600 log10(s), fitted to simulations", _CARASTAN),
    "f3": Score(Order.F3, "r n + 6860000 log10(s), fitted to simulations", _CARASTAN),
    "f4": Score(Order.F4, "r sqrt(n) + 530000 log10(s), fitted to simulations", _CARASTAN),
    "wfp3": Score(Order.WFP3, "longest (wait / requested time)^3 x GPUs first", _TANG),
    "unicep": Score(Order.UNICEP, "longest wait / (log2(GPUs) x requested time) first", _TANG),
    "srtf": Score(Order.SRTF, "shortest predicted time left first; preempts", "Schrage, Operations Research 1968"),
    "las": Score(Order.LAS, "least attained service first; preempts", "Gu et al. (Tiresias), NSDI 2019"),
    "edf": Score(Order.EDF, "earliest deadline first, then jobs without one", "Liu and Layland, J. ACM 1973"),
    "llf": Score(Order.LLF, "least laxity (deadline - now - predicted time) first", "Mok, MIT 1983"),
}
"""In the formulas r is the requested time, s the submit time (seconds) and n the number of GPUs."""


class Priority(RulePolicy, frozen=True, extra="forbid"):
    """Orders the queue by a named score, lowest first, ties by submission."""

    score: ScoreName = Field(description="order of the queue")

    @property
    def order(self) -> Order:
        """Score formula of the queue."""
        return SCORES[self.score].order


def weighted_priority(
    compute: float,
    time_sensitivity: float,
    memory: float,
    weights: tuple[float, float, float] = (0.5, 0.3, 0.2),
) -> float:
    """Return `P = w1 * compute + w2 * time_sensitivity + w3 * memory`; the highest goes first.

    Each term counts in its own unit: where those differ by orders of magnitude, divide by a typical value
    first.
    """
    return weights[0] * compute + weights[1] * time_sensitivity + weights[2] * memory


def heap_order(priorities: Sequence[float]) -> list[int]:
    """Return the positions as a heap gives them up: highest priority first, ties in the given order."""
    heap = [(-priority, position) for position, priority in enumerate(priorities)]
    heapq.heapify(heap)
    return [heapq.heappop(heap)[1] for _ in range(len(heap))]


class HeapPriority(RulePolicy, frozen=True, extra="forbid"):
    """Highest weighted priority `P = w1 compute + w2 time_sensitivity + w3 memory` first, ties by submission.

    Compute intensity and time sensitivity come in the workload's own units, memory in GiB on each GPU (0
    where the job gives no figure). Unscaled, large units win: with C and M near 100 and T near 5, T moves P
    by one part in a hundred. A scale divides its term: the workload's largest value brings a term between 0
    and its weight.
    """

    compute_weight: float = Field(default=0.5, ge=0, allow_inf_nan=False, description="w1, of the compute intensity")
    time_weight: float = Field(default=0.3, ge=0, allow_inf_nan=False, description="w2, of the time sensitivity")
    memory_weight: float = Field(default=0.2, ge=0, allow_inf_nan=False, description="w3, of the memory on each GPU")
    compute_scale: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="compute intensity that counts as 1"
    )
    time_scale: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="time sensitivity that counts as 1")
    memory_scale: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="GiB that count as 1")

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "heap_priority"

    @property
    def order(self) -> Order:
        """Score formula of the queue."""
        return Order.WEIGHTED

    @property
    def weights(self) -> tuple[float, ...]:
        """Each weight divided by the scale of its term."""
        return (
            self.compute_weight / self.compute_scale,
            self.time_weight / self.time_scale,
            self.memory_weight / self.memory_scale,
        )


GpuPower = Annotated[float, Field(ge=-10, le=10, description="power of the number of GPUs n")]
TimePower = Annotated[float, Field(ge=-10, le=10, description="power of the requested time r, floored at 10 s")]
Rho = Annotated[float, Field(ge=0, le=1, description="part of the cluster that long jobs leave free")]
ShortTime = Annotated[float, Field(gt=0, allow_inf_nan=False, description="s up to which jobs leave nothing free")]
LongTime = Annotated[float, Field(gt=0, allow_inf_nan=False, description="s from which jobs leave rho free")]


class Power(RulePolicy, frozen=True, extra="forbid"):
    """Lowest `n^a * max(r, 10)^b` first: sjf (a=0, b=1), smallest (1, 0) and saf (1, 1) as one family."""

    a: GpuPower = 1.5
    b: TimePower = 2.0

    @property
    def weights(self) -> tuple[float, ...]:
        """The two powers."""
        return (self.a, self.b)

    @property
    def order(self) -> Order:
        """Score formula of the queue."""
        return Order.POWER


class Reserve(RulePolicy, frozen=True, extra="forbid"):
    """Holds GPUs back for short jobs: a job starts only if room `R` stays free beside it.

    On P GPUs a job of n GPUs and requested time r leaves `R = min(rho P clip(log(r/t0) / log(t1/t0), 0, 1),
    P - n)` GPUs free; the order is `n^a * max(r, 10)^b`. The defaults come from a random search on training windows
    of lublin_256 (256 processors, exact run times) for bounded slowdown + 2.5 x wait hours; SLOWDOWN_TUNING
    from the same search for bounded slowdown alone.
    """

    blocking: Literal["head", "skip"] = Field(default="skip", description="what happens behind a job that must wait")
    a: GpuPower = 0.75
    b: TimePower = 1.5
    rho: Rho = 0.36
    t0: ShortTime = 34.0
    t1: LongTime = 210_000.0

    def model_post_init(self, context: object) -> None:
        """Refuse times in the wrong order."""
        if not self.t0 < self.t1:
            raise ConfigError(f"{self.name}: t0 ({self.t0:g} s) must be below t1 ({self.t1:g} s)")

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "reserve"

    @property
    def order(self) -> Order:
        """Score formula of the queue."""
        return Order.POWER

    @property
    def weights(self) -> tuple[float, ...]:
        """The two powers, and the margin's figures where `simulator.scores.margin` reads them."""
        return (self.a, self.b, 0.0, 0.0, self.rho, self.t0, self.t1)


SLOWDOWN_TUNING = {"a": 1.0, "b": 1.0, "rho": RESERVE_RHO, "t0": RESERVE_T0, "t1": RESERVE_T1}
"""`Reserve` tuned for bounded slowdown alone: shorter slowdowns, longer completion times."""


class ReserveSlowdown(Reserve, frozen=True, extra="forbid"):
    """`Reserve` with the defaults of SLOWDOWN_TUNING."""

    a: GpuPower = SLOWDOWN_TUNING["a"]
    b: TimePower = SLOWDOWN_TUNING["b"]
    rho: Rho = SLOWDOWN_TUNING["rho"]
    t0: ShortTime = SLOWDOWN_TUNING["t0"]
    t1: LongTime = SLOWDOWN_TUNING["t1"]

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "reserve_slowdown"


class Random(RulePolicy, frozen=True, extra="forbid"):
    """Starts jobs in an order drawn once for each seed."""

    blocking: BlockingName = Field(default="skip", description="what happens behind a job that does not fit")
    seed: int = Field(default=0, ge=0, lt=2**53, description="seed of the order")

    @property
    def order(self) -> Order:
        """Score formula of the queue."""
        return Order.RANDOM

    @property
    def weights(self) -> tuple[float, ...]:
        """The seed."""
        return (float(self.seed),)
