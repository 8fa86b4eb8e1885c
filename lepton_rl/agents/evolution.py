"""A genetic algorithm over plans, on pymoo: random keys for the order, one gene a job for the placement.

pymoo selects, crosses, mutates and keeps the best of parents and children. Each child is improved by compiled
local moves (pymoo's `repair`), which makes it a memetic algorithm. Random keys: Bean, ORSA J. Computing 1994.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.operators.crossover.ux import UniformCrossover

from lepton_rl.agents.plan_kernels import PLACEMENTS
from lepton_rl.core.arrays import Floats, Ints64

Improve = Callable[[Ints64, Ints64, int], Floats]
"""Tries so many changes on each plan (orders, placements; one a row), in place, and returns their costs."""

_REDRAWN = 2.0  # genes that a mutation draws anew, on average


def _decode(genes: Floats) -> tuple[Ints64, Ints64]:
    """Return (orders, placements) of genomes: the first half are keys, lowest starts first."""
    keys, placements = np.split(genes, 2, axis=1)
    rules = np.minimum((placements * PLACEMENTS).astype(np.int64), PLACEMENTS - 1)
    return np.argsort(keys, axis=1, kind="stable"), rules


def _encode(orders: Ints64, placements: Ints64) -> Floats:
    """Return genomes that decode to these plans, keys evenly spaced."""
    waiting = orders.shape[1]
    keys = np.empty(orders.shape)
    np.put_along_axis(keys, orders, (np.arange(waiting)[None] + 0.5) / waiting, axis=1)
    return np.hstack((keys, (placements + 0.5) / PLACEMENTS))


class _Plans(Problem):  # type: ignore[misc]
    """Minimise the cost of a plan."""

    def __init__(self, waiting: int, improve: Improve) -> None:
        super().__init__(n_var=2 * waiting, n_obj=1, xl=0.0, xu=1.0)
        self.improve = improve

    def _evaluate(self, x: Floats, out: dict[str, Any], *args: object, **kwargs: object) -> None:
        out["F"] = self.improve(*_decode(x), 0)[:, None]


class _LocalMoves(Repair):  # type: ignore[misc]
    def __init__(self, moves: int) -> None:
        super().__init__()
        self.moves = moves

    def _do(self, problem: _Plans, x: Floats, **kwargs: object) -> Floats:
        orders, placements = _decode(x)
        problem.improve(orders, placements, self.moves)
        return _encode(orders, placements)


class _RedrawGenes(Mutation):  # type: ignore[misc]
    def _do(
        self, problem: _Plans, x: Floats, *args: object, random_state: np.random.Generator, **kwargs: object
    ) -> Floats:
        drawn = random_state.random(x.shape) < _REDRAWN / x.shape[1]
        return np.where(drawn, random_state.random(x.shape), x)


def evolve(
    orders: Ints64,
    placements: Ints64,
    improve: Improve,
    *,
    generations: int,
    moves: int,
    seed: int,
    budget_s: float,
) -> tuple[Ints64, Ints64, bool]:
    """Return the best plan found from the given ones (one a row; their number is the population's).

    The best plan of each generation lives on, so the result costs no more than the best one given. The last
    value says whether the time ran out before the generations did.
    """
    problem = _Plans(orders.shape[1], improve)
    algorithm = GA(
        pop_size=len(orders),
        sampling=_encode(orders, placements),
        crossover=UniformCrossover(),
        mutation=_RedrawGenes(),
        repair=_LocalMoves(moves),
        eliminate_duplicates=False,
    )
    algorithm.setup(problem, termination=("n_gen", generations + 1), seed=seed, verbose=False)
    end = perf_counter() + budget_s
    cut_short = False
    while algorithm.has_next():
        algorithm.next()
        if perf_counter() > end and algorithm.has_next():
            cut_short = True
            break
    best_orders, best_placements = _decode(np.atleast_2d(algorithm.opt[0].X))
    return best_orders[0], best_placements[0], cut_short
