"""Plans the order and the GPUs of the queue anew at each decision, by a genetic algorithm."""

import importlib
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, PrivateAttr

from lepton_rl.agents.compiled import PlacementName, RulePolicy, placement_of
from lepton_rl.agents.first_plans import FURTHER_SEEDS, SEEDS, first_plans
from lepton_rl.agents.greedy import starts
from lepton_rl.agents.plan_choices import ON_KIND
from lepton_rl.agents.plan_kernels import NOW
from lepton_rl.agents.planning import CostWeights, Horizon, improve_plans, plan_starts, starts_now
from lepton_rl.core import Action, Placement, Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints64, Words
from lepton_rl.errors import missing_extra

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Plan:
    """What `Genetic` intends for the window of the queue, if nothing else arrives."""

    jobs: tuple[int, ...]  # in the order of their starts
    start_times: tuple[float, ...]  # seconds, as predicted
    gpus: tuple[str, ...]  # how each gets its GPUs: a placement, a policy that chooses types, or "only" a type
    cost: float  # see Genetic
    seed_cost: float  # of the best heuristic that the plan grew from
    mean_jct: float  # seconds, as predicted
    energy_kwh: float  # of these jobs above the draw of idle GPUs, as predicted


class Genetic(BaseModel, frozen=True, extra="forbid"):
    """Plans order and GPUs of the queue by a genetic algorithm and starts what its best plan starts now.

    A plan's cost, over the jobs of the window: slowdown_weight x bounded slowdowns + jct_weight x hours of
    completion time + energy_weight x kWh above idle draw + node_weight x nodes beyond the fewest of gangs that start
    now. Running jobs end when predicted, nothing arrives, later starts are planned by counting GPUs. The first plans
    are what the heuristics (`first_plans`) would do, scores as they stand now, and the best plan lives on, so
    that no plan costs more than theirs.

    On a cluster of several types of GPU a plan chooses them too. They are counted by type; each heuristic is tried
    with every placement and with the GPUs of `least_loaded`, `energy`, `cheapest` and `greenest`, and a job may wait
    for a type. On equal GPUs no plan changes the energy of a job, and energy_weight changes nothing.

    One snapshot and one seed give one plan: generations bound the work. The time budget only caps slow machines;
    `plans_cut_short` counts the plans that it stops, and the first of them is logged.
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
    energy_weight: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="slowdowns that a kWh costs, where types of GPU differ"
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
        rule = placement_of(self.placement, Placement.BEST)
        actions = _start(horizon, rows, np.full(len(rows), int(rule)))
        if not actions:
            return []
        chooses_kinds = self.placement is None and horizon.chooses_kinds
        # Planning is for when some jobs fit and others do not, or types of GPU are to be chosen.
        if chooses_kinds or len(actions) < len(rows):
            order, chosen, _ = self._search(horizon, snapshot.placement)
            now = plan_starts(horizon, order, chosen).begin[order] == snapshot.time
            actions = _start(horizon, horizon.running + order[now], chosen[order[now]])
            if not chooses_kinds:
                return actions
        if len(actions) == len(rows):  # the window is empty then: see to the rest of the queue
            for action in actions:
                snapshot = snapshot.after(action)
            return [*actions, *self.decide(snapshot)]
        return actions

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the whole plan of which `decide` starts the part that is due.

        Raises:
            MissingExtra: pymoo is not installed.
        """
        horizon = self._horizon(snapshot)
        order, chosen, seed_cost = self._search(horizon, snapshot.placement)
        return _described(horizon, order, chosen, seed_cost)

    def plan_front(self, snapshot: Snapshot, plans: int = 64, generations: int = 24) -> tuple[Plan, ...]:
        """Return plans of which none is better than another in both mean JCT and energy, shortest JCT first.

        NSGA-II breeds them from the heuristics' plans; none of those is better than all of these in both. Slowdowns
        and extra nodes do not count; the costs are those of this policy's weights. On equal GPUs energy does not
        depend on the plan, and the front is one plan.

        Args:
            snapshot: with at least one waiting job.
            plans: population of the search; at most so many beside the heuristics' own.
            generations: of the search.

        Raises:
            MissingExtra: pymoo is not installed.
        """
        horizon = self._horizon(snapshot)
        orders, chosen = self._first_plans(horizon, snapshot.placement, (*SEEDS, *FURTHER_SEEDS))
        state = _random_state(self.seed)
        seed_cost = float(self._improve(horizon, orders, chosen, 0, state).min())

        def improve(weighted: Horizon, orders: Ints64, chosen: Ints64) -> None:
            self._improve(weighted, orders, chosen, self.moves, state)

        front = _evolution("plan_front").search_front(
            horizon, orders, chosen, improve, plans=plans, generations=generations, seed=self.seed
        )
        return tuple(_described(horizon, order, choice, seed_cost) for order, choice in zip(*front, strict=True))

    def _horizon(self, snapshot: Snapshot) -> Horizon:
        weights = CostWeights(self.jct_weight, self.node_weight, self.slowdown_weight, self.energy_weight)
        return Horizon.of(snapshot, self.window, weights)

    def _first_plans(
        self, horizon: Horizon, placement: Placement, seeds: tuple[RulePolicy, ...]
    ) -> tuple[Ints64, Ints64]:
        return first_plans(horizon, placement_of(self.placement, placement), self.placement is not None, seeds)

    def _improve(self, horizon: Horizon, orders: Ints64, chosen: Ints64, moves: int, state: Words) -> Floats:
        if self.placement is not None:
            chosen[:] = int(Placement[self.placement.upper()])
        return improve_plans(horizon, orders, chosen, moves, self.placement is None, state)

    def _search(self, horizon: Horizon, placement: Placement) -> tuple[Ints64, Ints64, float]:
        """Return the best order, each job's choice of GPUs (0 is the window's first) and the best seed's cost."""
        evolve = _evolution("evolution").evolve
        state = _random_state(self.seed)

        def improve(orders: Ints64, chosen: Ints64, moves: int) -> Floats:
            return self._improve(horizon, orders, chosen, moves, state)

        orders, chosen = self._first_plans(horizon, placement, SEEDS)
        costs = improve(orders, chosen, 0)
        best = np.argsort(costs, kind="stable")[: self.population]
        kept = np.resize(best, self.population)  # few different heuristics: the best of them again
        order, choice, cut_short = evolve(
            orders[kept],
            chosen[kept],
            horizon.choices,
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
        further_orders, further_chosen = self._first_plans(horizon, placement, FURTHER_SEEDS)
        further_costs = improve(further_orders, further_chosen, 0)
        least = int(further_costs.argmin())
        if further_costs[least] < plan_starts(horizon, order, choice).cost:
            order, choice = further_orders[least], further_chosen[least]
        return order, choice, float(min(costs[best[0]], further_costs[least]))


def _evolution(module: str) -> Any:
    """Return a module that searches with pymoo."""
    try:
        return importlib.import_module(f"lepton_rl.agents.{module}")
    except ImportError:
        raise missing_extra("pymoo", "solve") from None


def _random_state(seed: int) -> Words:
    return np.array([seed + 0x9E3779B97F4A7C15], np.uint64)  # xorshift must not start from 0


def _described(horizon: Horizon, order: Ints64, chosen: Ints64, seed_cost: float) -> Plan:
    planned = plan_starts(horizon, order, chosen)
    return Plan(
        jobs=tuple(horizon.jobs[horizon.running + order, L.ID].astype(np.int64).tolist()),
        start_times=tuple(planned.begin[order].tolist()),
        gpus=tuple(_choice_name(choice, horizon.kind_names) for choice in chosen[order].tolist()),
        cost=planned.cost,
        seed_cost=seed_cost,
        mean_jct=planned.mean_jct,
        energy_kwh=planned.energy_kwh,
    )


def _choice_name(choice: int, kind_names: tuple[str, ...]) -> str:
    if choice >= ON_KIND:
        return f"only {kind_names[choice - ON_KIND]}"
    return (*(rule.name.lower() for rule in Placement), "least_loaded", "energy", "cheapest", "greenest")[choice]


def _start(horizon: Horizon, rows: Ints64, chosen: Ints64) -> list[Action]:
    """Return the starts of as many of these rows as fit now."""
    return starts(horizon.jobs, *starts_now(horizon, rows, chosen))
