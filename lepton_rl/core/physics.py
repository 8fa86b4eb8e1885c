"""Utilisation, power and energy: the field's small formulas, told apart by name."""

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import ConfigError

Load = TypeVar("Load", float, NDArray[np.float64])


def utilization(used: float, capacity: float) -> float:
    """Return the instantaneous utilisation `U_t = C_t / C_max`; both in one unit (GPUs, GFLOP/s).

    Raises:
        ConfigError: there is no capacity, or more is used than there is.
    """
    _check_above_zero("a capacity", capacity)
    if not 0 <= used <= capacity:
        raise ConfigError(f"of a capacity of {capacity:g} between 0 and {capacity:g} can be used, not {used:g}")
    return used / capacity


def mean_utilization(work: float, capacity: float, seconds: float) -> float:
    """Return the utilisation of a period: work done over the work that the capacity could have done.

    Args:
        work: what was done, capacity unit x seconds (GPU-seconds).
        capacity: what was there (GPUs).
        seconds: length of the period.

    Raises:
        ConfigError: there is no capacity or no time, or the work is more than they allow, beyond rounding.
    """
    _check_above_zero("a capacity", capacity)
    _check_above_zero("a period", seconds)
    most = capacity * seconds
    if not 0 <= work <= most * (1 + 1e-9):
        raise ConfigError(f"a capacity of {capacity:g} does between 0 and {most:g} in {seconds:g} s, not {work:g}")
    return work / most


def demand_ratio(demand: float, capacity: float) -> float:
    """Return what a request asks for as a part of the capacity, `D / C`; above 1 it can never be met.

    Raises:
        ConfigError: there is no capacity, or the demand is not a number from 0 on.
    """
    _check_above_zero("a capacity", capacity)
    if not 0 <= demand < math.inf:
        raise ConfigError(f"a demand must be 0 or more, not {demand:g}")
    return demand / capacity


def _check_above_zero(what: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{what} must be above 0, not {value:g}")


def power_w(utilization: Load, max_power_w: float, idle_power_w: float = 0.0) -> Load:
    """Return the draw `idle + (max - idle) * U`, watts, element by element; without idle power it is `U * P_max`."""
    return idle_power_w + (max_power_w - idle_power_w) * utilization


def energy_joules(power_w: float, seconds: float) -> float:
    """Return the energy `E = P * t` of a constant draw, joules."""
    return power_w * seconds


def energy_per_work(utilization: Load, max_power_w: float, idle_power_w: float = 0.0) -> Load:
    """Return joules per second of full-speed work done at this utilisation, element by element.

    Raises:
        ConfigError: a utilisation is not above 0: nothing is done then.
    """
    if not np.all(np.asarray(utilization) > 0):
        raise ConfigError("energy for each work needs a utilisation above 0")
    return power_w(utilization, max_power_w, idle_power_w) / utilization
