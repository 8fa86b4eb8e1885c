"""Plans the order and the placement of the queue anew at each decision, by a genetic algorithm."""

import logging
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field, PrivateAttr

from lepton_rl.agents.compiled import PlacementName, RulePolicy, placement_of
from lepton_rl.agents.greedy import starts
from lepton_rl.agents.plan_kernels import NOW
from lepton_rl.agents.planning import Horizon, improve_plans, plan_starts, start_order, starts_now
from lepton_rl.agents.priority import Power, Priority, Reserve, ReserveSlowdown
from lepton_rl.core import Action, Placement, Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints64
from lepton_rl.errors import missing_extra

_LOG = logging.getLogger(__name__)

SEEDS: tuple[RulePolicy, ...] = (
    *(Priority(score=score) for score in ("fcfs", "sjf", "ljf", "smallest", "saf", "f1", "wfp3", "unicep")),
    Power(),
    Power(a=-10.0, b=0.001),  # largest first, then shortest: what greedy packs into a pool
    Reserve(),
    ReserveSlowdown(),
)
"""Heuristics whose starts, with blocking head and skip, are the first plans."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What `Genetic` intends for the window of the queue, if nothing else arrives."""

    jobs: tuple[int, ...]  # in the order of their starts
    start_times: tuple[float, ...]  # seconds, as predicted
    placements: tuple[Placement, ...]
    cost: float  # see Genetic
    seed_cost: float  # of the best heuristic that the plan grew from


class Genetic(BaseModel, frozen=True, extra="forbid"):
    """Plans order and placement of the queue by a genetic algorithm and starts what its best plan starts now.

    A plan's cost, over the jobs of the window: slowdown_weight x bounded slowdowns + jct_weight x hours of
    completion time + node_weight x nodes beyond the fewest of gangs that start now. Running jobs end when
    predicted, nothing arrives, later starts are planned by counting GPUs. The first plans are what the
    heuristics of SEEDS would do (scores as they stand now) and the best plan lives on, so that no plan costs
    more than theirs. One snapshot and one seed give one plan: generations bound the work. The time budget only
    caps slow machines; `plans_cut_short` counts the plans that it stops, and the first of them is logged.
    """

    window: int = Field(default=32, ge=2, le=512, description="waiting jobs planned, smallest area first")
    population: int = Field(default=8, ge=4, le=512, description="plans kept")
    generations: int = Field(default=2, ge=0, le=10_000, description="generations after the heuristics' plans")
    moves: int = Field(default=64, ge=0, le=10_000, description="local changes tried on each new plan")
    jct_weight: float = Field(default=2.5, ge=0, allow_inf_nan=False, description="slowdowns that an hour of JCT costs")
    node_weight: float = Field(
        default=0.01, ge=0, allow_inf_nan=False, description="slowdowns that a gang's extra node costs"
    )
    slowdown_weight: float = Field(
        default=1.0, ge=0, allow_inf_nan=False, description="of the slowdowns; 0 plans for completion time alone"
    )
    placement: PlacementName | None = Field(
        default=None, description="which GPUs a job gets; none: planned for each job"
    )
    budget_ms: float = Field(default=2000.0, gt=0, description="longest time for one plan, ms; inf for none")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the search")
    _cut_short: list[float] = PrivateAttr(default_factory=list)

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "genetic"

    @property
    def needs_requested_times(self) -> bool:
        """True: without them nothing can be planned."""
        return True

    @property
    def plans_cut_short(self) -> int:
        """Plans that the time budget stopped before their last generation."""
        return len(self._cut_short)

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Return the starts of this instant, in the order of the plan.

        Raises:
            MissingExtra: pymoo is not installed.
        """
        full = snapshot.totals[L.HELD] == L.MILLI * len(snapshot.gpus)
        if full or snapshot.running_count == len(snapshot.jobs):
            return []
        horizon = self._horizon(snapshot)
        rows = np.arange(horizon.running, len(horizon.jobs))
        # Planning is for when some jobs fit and others do not.
        rule = placement_of(self.placement, Placement.BEST)
        actions = _start(horizon, rows, np.full(len(rows), int(rule)))
        if len(actions) == len(rows):  # the window is empty then: see to the rest of the queue
            for action in actions:
                snapshot = snapshot.after(action)
            return [*actions, *self.decide(snapshot)]
        if not actions:
            return []
        order, placements, _ = self._search(horizon, snapshot.placement)
        _, begin = plan_starts(horizon, order, placements)
        now = begin[order] == snapshot.time
        return _start(horizon, horizon.running + order[now], placements[order[now]])

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the whole plan of which `decide` starts the part that is due."""
        horizon = self._horizon(snapshot)
        order, placements, seed_cost = self._search(horizon, snapshot.placement)
        cost, begin = plan_starts(horizon, order, placements)
        return Plan(
            jobs=tuple(horizon.jobs[horizon.running + order, L.ID].astype(np.int64).tolist()),
            start_times=tuple(begin[order].tolist()),
            placements=tuple(Placement(rule) for rule in placements[order].tolist()),
            cost=cost,
            seed_cost=seed_cost,
        )

    def _horizon(self, snapshot: Snapshot) -> Horizon:
        return Horizon.of(snapshot, self.window, self.jct_weight, self.node_weight, self.slowdown_weight)

    def _search(self, horizon: Horizon, placement: Placement) -> tuple[Ints64, Ints64, float]:
        """Return the best order, each job's placement (0 is the window's first) and the best seed's cost."""
        try:
            from lepton_rl.agents.evolution import evolve
        except ImportError:
            raise missing_extra("pymoo", "solve") from None
        rule = placement_of(self.placement, placement)
        fixed = self.placement is not None
        state = np.array([self.seed + 0x9E3779B97F4A7C15], np.uint64)  # xorshift must not start from 0

        def improve(orders: Ints64, placements: Ints64, moves: int) -> Floats:
            if fixed:
                placements[:] = int(rule)
            return improve_plans(horizon, orders, placements, moves, not fixed, state)

        orders = _first_orders(horizon, rule)
        placements = np.full(orders.shape, int(rule))
        costs = improve(orders, placements, 0)
        best = np.argsort(costs, kind="stable")[: self.population]
        kept = np.resize(best, self.population)  # few different heuristics: the best of them again
        order, placement_rules, cut_short = evolve(
            orders[kept],
            placements[kept],
            improve,
            generations=self.generations,
            moves=self.moves,
            seed=self.seed,
            budget_s=self.budget_ms / 1000.0,
        )
        if cut_short:
            if not self._cut_short:
                _LOG.warning("genetic: a plan was stopped after %g ms (budget_ms)", self.budget_ms)
            self._cut_short.append(float(horizon.options[NOW]))
        return order, placement_rules, float(costs[best[0]])


def _first_orders(horizon: Horizon, placement: Placement) -> Ints64:
    """Return the different orders of starts that the heuristics give, one a row."""
    orders = [start_order(horizon, seed.rule(placement), skip) for seed in SEEDS for skip in (False, True)]
    return np.unique(np.stack(orders), axis=0)


def _start(horizon: Horizon, rows: Ints64, rules: Ints64) -> list[Action]:
    """Return the starts of as many of these rows as fit now."""
    return starts(horizon.jobs, *starts_now(horizon, rows, rules))
