"""A genetic algorithm over plans, on pymoo: random keys for the order, one gene a job for its choice of GPUs.

pymoo selects, crosses, mutates and keeps the best of parents and children. Each child is improved by compiled
local moves (pymoo's `repair`), which makes it a memetic algorithm. Random keys: Bean, ORSA J. Computing 1994.
Several objectives: NSGA-II, Deb et al., IEEE Trans. Evolutionary Computation 2002.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.core.repair import Repair
from pymoo.operators.crossover.ux import UniformCrossover

from lepton_rl.core.arrays import Floats, Ints64

Improve = Callable[[Ints64, Ints64, int], Floats]
"""Tries so many changes on each plan (orders, choices; one a row), in place, and returns their costs, (plans,) or, of
several objectives, (plans, objectives)."""

_REDRAWN = 2.0  # genes that a mutation draws anew, on average


class _Plans(Problem):  # type: ignore[misc]
    """Minimise the costs of a plan, whose jobs have `choices` choices of GPUs each."""

    def __init__(self, waiting: int, choices: int, improve: Improve, objectives: int = 1) -> None:
        super().__init__(n_var=2 * waiting, n_obj=objectives, xl=0.0, xu=1.0)
        self.choices = choices
        self.improve = improve

    def decode(self, genes: Floats) -> tuple[Ints64, Ints64]:
        """Return (orders, choices) of genomes: the first half are keys, lowest starts first."""
        keys, drawn = np.split(genes, 2, axis=1)
        chosen = np.minimum((drawn * self.choices).astype(np.int64), self.choices - 1)
        return np.argsort(keys, axis=1, kind="stable"), chosen

    def encode(self, orders: Ints64, chosen: Ints64) -> Floats:
        """Return genomes that decode to these plans, keys evenly spaced."""
        waiting = orders.shape[1]
        keys = np.empty(orders.shape)
        np.put_along_axis(keys, orders, (np.arange(waiting)[None] + 0.5) / waiting, axis=1)
        return np.hstack((keys, (chosen + 0.5) / self.choices))

    def _evaluate(self, x: Floats, out: dict[str, Any], *args: object, **kwargs: object) -> None:
        out["F"] = self.improve(*self.decode(x), 0).reshape(len(x), self.n_obj)


class _LocalMoves(Repair):  # type: ignore[misc]
    def __init__(self, moves: int) -> None:
        super().__init__()
        self.moves = moves

    def _do(self, problem: _Plans, x: Floats, **kwargs: object) -> Floats:
        orders, chosen = problem.decode(x)
        problem.improve(orders, chosen, self.moves)
        return problem.encode(orders, chosen)


class _RedrawGenes(Mutation):  # type: ignore[misc]
    def _do(
        self, problem: _Plans, x: Floats, *args: object, random_state: np.random.Generator, **kwargs: object
    ) -> Floats:
        drawn = random_state.random(x.shape) < _REDRAWN / x.shape[1]
        return np.where(drawn, random_state.random(x.shape), x)


def evolve(
    orders: Ints64,
    chosen: Ints64,
    choices: int,
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
    problem = _Plans(orders.shape[1], choices, improve)
    algorithm = GA(
        pop_size=len(orders),
        sampling=problem.encode(orders, chosen),
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
    best_orders, best_choices = problem.decode(np.atleast_2d(algorithm.opt[0].X))
    return best_orders[0], best_choices[0], cut_short


def evolve_front(
    orders: Ints64, chosen: Ints64, choices: int, improve: Improve, *, generations: int, moves: int, seed: int
) -> tuple[Ints64, Ints64]:
    """Return the last population that NSGA-II breeds from the given plans, for two objectives."""
    problem = _Plans(orders.shape[1], choices, improve, objectives=2)
    algorithm = NSGA2(
        pop_size=len(orders),
        sampling=problem.encode(orders, chosen),
        crossover=UniformCrossover(),
        mutation=_RedrawGenes(),
        repair=_LocalMoves(moves),
        eliminate_duplicates=False,
    )
    algorithm.setup(problem, termination=("n_gen", generations + 1), seed=seed, verbose=False)
    while algorithm.has_next():
        algorithm.next()
    return problem.decode(algorithm.pop.get("X"))
