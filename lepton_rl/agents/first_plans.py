"""The plans that a genetic search begins with: what the heuristics would do on the same horizon."""

from functools import cache

import numpy as np

from lepton_rl.agents.compiled import RulePolicy
from lepton_rl.agents.plan_choices import COST_TABLES, ENERGY, LEAST_COST, LEAST_LOADED, ON_KIND
from lepton_rl.agents.planning import Horizon, start_orders
from lepton_rl.agents.priority import HeapPriority, Power, Priority, Reserve, ReserveSlowdown
from lepton_rl.core import Placement
from lepton_rl.core.arrays import Floats, Ints64
from lepton_rl.simulator import Timing

SEEDS: tuple[RulePolicy, ...] = (
    *(Priority(score=score) for score in ("fcfs", "sjf", "ljf", "smallest", "saf", "f1", "wfp3", "unicep")),
    Power(),
    Power(a=-10.0, b=0.001),  # largest first, then shortest: what greedy packs into a pool
    Reserve(),
    ReserveSlowdown(),
)
"""Heuristics whose starts, with blocking head and skip, are the first plans."""

# Apart from SEEDS, so that they do not change what the search breeds where they are no better. Among waiting jobs the
# preemptive orders are sjf and fcfs.
FURTHER_SEEDS: tuple[RulePolicy, ...] = (
    *(Priority(score=score) for score in ("f2", "f3", "f4", "edf", "llf")),
    HeapPriority(),
)
"""Heuristics that a plan is compared with at the end: the best of them is taken where the search found no better."""


def first_plans(
    horizon: Horizon, placement: Placement, is_fixed: bool, seeds: tuple[RulePolicy, ...]
) -> tuple[Ints64, Ints64]:
    """Return the different plans that the heuristics give: orders of starts and choices of GPUs, (plans, window) each.

    Args:
        horizon: what is planned.
        placement: that of the heuristics.
        is_fixed: the plans have this placement alone; else, where nodes differ, every choice of GPUs that a heuristic
            makes is tried with every order.
        seeds: the heuristics.
    """
    choices = _first_choices(horizon, placement, is_fixed)
    rules, settings = _rules(seeds)
    orders = start_orders(horizon, rules, settings, choices)
    plans = np.hstack((orders, np.repeat(choices, len(orders) // len(choices), axis=0)))
    orders, chosen = np.split(np.unique(plans, axis=0), 2, axis=1)
    return np.ascontiguousarray(orders), np.ascontiguousarray(chosen)


@cache
def _rules(seeds: tuple[RulePolicy, ...]) -> tuple[Ints64, Floats]:
    """Return order and settings of each seed."""
    arrays = [seed.rule(Placement.FIRST).arrays(True, Timing()) for seed in seeds]
    orders = np.array([int(seed.order) for seed in seeds])
    return orders, np.stack([settings for _, settings in arrays])


def _first_choices(horizon: Horizon, placement: Placement, is_fixed: bool) -> Ints64:
    rules = [int(placement)]
    patient: list[Ints64] = []
    if not is_fixed and horizon.kinds is not None:
        rules = [*map(int, Placement), LEAST_LOADED]
        if horizon.chooses_kinds:
            rules += [LEAST_COST + table for table in COST_TABLES]
            patient = _patient_choices(horizon)
    return np.array([*([rule] * horizon.waiting for rule in rules), *patient])


def _patient_choices(horizon: Horizon) -> list[Ints64]:
    """Return, for each job, the kind on which its run takes the fewest joules, and the one on which it is fastest."""
    assert horizon.kinds is not None
    rates = horizon.kinds.rates[horizon.running :, :-1]
    with np.errstate(divide="ignore"):
        joules = horizon.kinds.costs[ENERGY] / rates
    return [ON_KIND + np.argmin(joules, axis=1), ON_KIND + np.argmax(rates, axis=1)]
