"""Divisible tasks on GPUs: the allocation of most weighted work, and among those the one of least maximum load."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lepton_rl.agents.linear_program import maximise
from lepton_rl.core.arrays import Floats
from lepton_rl.errors import ConfigError, missing_extra

_KEPT = 1.0 - 1e-9
"""Part of the first optimum that the second one keeps: exact equality is infeasible in floating point."""


@dataclass(frozen=True, eq=False)
class Allocation:
    """What part of each task each GPU does.

    Attributes:
        parts: (tasks, GPUs), x_ti; a row sums to at most 1, less where the GPUs cannot do the whole task.
        loads: (GPUs,), utilisation of each, 0 to 1.
        utilization: of all GPUs together.
        value: weighted sum of the parts done.
    """

    parts: Floats
    loads: Floats
    utilization: float
    value: float


def allocate(demands: ArrayLike, capacities: ArrayLike, weights: ArrayLike | None = None) -> Allocation:
    """Divide tasks among GPUs by two linear programs.

    First `max sum_t w_t sum_i x_ti` with `sum_t x_ti T_t <= C_i`, `sum_i x_ti <= 1` and x >= 0; then, of all those
    optima, one whose highest load `sum_t x_ti T_t / C_i` is least. Each has tasks x GPUs variables.

    Args:
        demands: (tasks,), T_t: rate that each task asks for, 0 or more.
        capacities: (GPUs,), C_i: rate of each GPU, above 0, in the same unit (GFLOP/s).
        weights: (tasks,), w_t: worth of each task, 0 or more; 1 if None.

    Raises:
        ConfigError: a figure is not one that can be allocated, or the lengths differ.
        MissingExtra: scipy is not installed.
    """
    demand = _figures("demand", "task", demands)
    capacity = _figures("capacity", "GPU", capacities, above_zero=True)
    weight = np.ones_like(demand) if weights is None else _figures("weight", "task", weights)
    if len(weight) != len(demand):
        raise ConfigError(f"there are {len(weight)} weights for {len(demand)} tasks; give one for each")
    try:
        from scipy import sparse
    except ImportError:
        raise missing_extra("scipy", "solve") from None
    tasks, gpus = len(demand), len(capacity)
    unit = float(capacity.max())  # the solver's tolerances are absolute: loads of order 1 suit them
    use = sparse.kron(demand[None, :] / unit, sparse.eye_array(gpus))  # (GPUs, tasks x GPUs)
    done = sparse.kron(sparse.eye_array(tasks), np.ones((1, gpus)))  # (tasks, tasks x GPUs)
    gain = np.repeat(weight, gpus)
    most = maximise(gain, sparse.vstack([use, done]), np.append(capacity / unit, np.ones(tasks)))

    rows = sparse.block_array(
        [[use, -capacity[:, None] / unit], [done, None], [-gain[None, :], None]],
        format="csr",
    )
    limits = np.concatenate([np.zeros(gpus), np.ones(tasks), [-most.value * _KEPT]])
    level = maximise(np.append(np.zeros(tasks * gpus), -1.0), rows, limits)
    parts = level.x[:-1].reshape(tasks, gpus)
    used = demand @ parts
    return Allocation(parts, used / capacity, float(used.sum() / capacity.sum()), float(weight @ parts.sum(axis=1)))


def _figures(what: str, owner: str, given: ArrayLike, above_zero: bool = False) -> Floats:
    """Return the figures as (n,) numbers, or refuse the first that is wrong by its place, counted from 0."""
    try:
        figures = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"each {what} must be a number") from None
    if figures.ndim != 1 or len(figures) == 0:
        raise ConfigError(f"give a list with the {what} of each {owner}, at least one")
    good = np.isfinite(figures) & (figures > 0 if above_zero else figures >= 0)
    if not good.all():
        first = int(np.argmin(good))
        least = "above 0" if above_zero else "0 or more"
        raise ConfigError(f"the {what} of {owner} {first} must be a finite number, {least}, not {figures[first]:g}")
    return figures
