"""The front of a queue's plans: none of them is better than another in both mean JCT and energy.

NSGA-II ranks and breeds plans; the local moves on each child follow one of several weighted sums of both objectives.
"""

from collections.abc import Callable

import numpy as np

from lepton_rl.agents.evolution import evolve_front
from lepton_rl.agents.planning import CostWeights, Horizon, plan_starts
from lepton_rl.core.arrays import Floats, Ints64
from lepton_rl.core.units import SECONDS_PER_HOUR

Improve = Callable[[Horizon, Ints64, Ints64], None]
"""Tries changes on plans (orders, choices; one a row) in place, by the costs of a horizon."""

_ROUNDING = 1e-9
_DIRECTIONS = (0.0, 0.125, 0.5, 1.0, 2.0, 8.0)
"""Weights of energy in the local moves, in parts of the front's mean slope."""


def search_front(
    horizon: Horizon, orders: Ints64, chosen: Ints64, improve: Improve, *, plans: int, generations: int, seed: int
) -> tuple[Ints64, Ints64]:
    """Return (orders, choices) of a front, shortest mean JCT first, from the given plans and those bred from them.

    No given plan is better than all of the front in both objectives.
    """
    costs = _objectives(horizon, orders, chosen)
    weighted = _directions(horizon, costs)

    def improved(orders: Ints64, chosen: Ints64, moves: int) -> Floats:
        if moves:
            for row in range(len(orders)):
                improve(weighted[row % len(weighted)], orders[row : row + 1], chosen[row : row + 1])
        return _objectives(horizon, orders, chosen)

    kept = np.resize(_spread(costs, plans), plans)
    bred = evolve_front(
        orders[kept], chosen[kept], horizon.choices, improved, generations=generations, moves=1, seed=seed
    )
    orders, chosen = (np.concatenate(pair) for pair in zip((orders, chosen), bred, strict=True))
    front = non_dominated(_objectives(horizon, orders, chosen))
    return orders[front], chosen[front]


def non_dominated(costs: Floats, twins: bool = False) -> Ints64:
    """Return the rows that no other is as good as in both columns and better in one, by column 0.

    Figures that differ by a part of 1e-9 or less are equal: sums of the same times round. Of equal rows the first is
    returned, or with `twins` each.
    """
    order = np.lexsort((costs[:, 1], costs[:, 0]))
    best = np.minimum.accumulate(costs[order, 1])
    first = np.concatenate(([True], costs[order[1:], 1] < best[:-1] - _ROUNDING * np.abs(best[:-1])))
    front = order[first]
    if twins:
        apart = np.abs(costs[:, None, :] - costs[front]) - _ROUNDING * np.abs(costs[front])
        same = (apart.max(axis=2) <= 0.0).any(axis=1)
        front = order[same[order]]
    return front.astype(np.int64)


def _objectives(horizon: Horizon, orders: Ints64, chosen: Ints64) -> Floats:
    """Return mean JCT, seconds, and energy, kWh, of each plan, (plans, 2)."""
    plans = (plan_starts(horizon, order, choice) for order, choice in zip(orders, chosen, strict=True))
    return np.array([(plan.mean_jct, plan.energy_kwh) for plan in plans])


def _directions(horizon: Horizon, costs: Floats) -> list[Horizon]:
    """Return the horizon with the weights of each direction; of the first one where energy is all the same."""
    hours, kwh = np.ptp(costs, axis=0) * (horizon.waiting / SECONDS_PER_HOUR, 1.0)
    slopes = [part * hours / kwh for part in _DIRECTIONS] if kwh > 0.0 else [0.0]
    return [horizon.weighted(CostWeights(jct=1.0, node=0.0, slowdown=0.0, energy=float(slope))) for slope in slopes]


def _spread(costs: Floats, count: int) -> Ints64:
    """Return at most `count` rows: the non-dominated first, then the best in one objective or the other."""
    ranks = np.minimum(*(np.argsort(np.argsort(costs[:, column], kind="stable")) for column in (0, 1)))
    ranks[non_dominated(costs)] = -1
    return np.argsort(ranks, kind="stable")[:count]
