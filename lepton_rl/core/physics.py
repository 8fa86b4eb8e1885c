"""Utilisation, power and energy: the field's small formulas, told apart by name."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Load = TypeVar("Load", float, NDArray[np.float64])


def utilization(used: float, capacity: float) -> float:
    """Return the instantaneous utilisation `U_t = C_t / C_max`; both in one unit (GPUs, GFLOP/s)."""
    return used / capacity


def mean_utilization(work: float, capacity: float, seconds: float) -> float:
    """Return the utilisation of a period: work done over the work that the capacity could have done.

    Args:
        work: what was done, capacity unit x seconds (GPU-seconds).
        capacity: what was there (GPUs).
        seconds: length of the period.
    """
    return work / (capacity * seconds)


def demand_ratio(demand: float, capacity: float) -> float:
    """Return what a request asks for as a part of the capacity, `D / C`; above 1 it can never be met."""
    return demand / capacity


def power_w(utilization: Load, max_power_w: float, idle_power_w: float = 0.0) -> Load:
    """Return the draw `idle + (max - idle) * U`, watts, element by element; without idle power it is `U * P_max`."""
    return idle_power_w + (max_power_w - idle_power_w) * utilization


def energy_joules(power_w: float, seconds: float) -> float:
    """Return the energy `E = P * t` of a constant draw, joules."""
    return power_w * seconds


def energy_per_work(utilization: Load, max_power_w: float, idle_power_w: float = 0.0) -> Load:
    """Return joules per second of full-speed work done at this utilisation (above 0), element by element."""
    return power_w(utilization, max_power_w, idle_power_w) / utilization
