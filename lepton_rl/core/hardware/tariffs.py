"""Hourly series of electricity price and carbon intensity, and what a constant draw costs under them.

A series is a step function; its running integral makes the integral over any interval two look-ups. A kernel reads
the same two arrays: `edges` (rising seconds) and `cumulative` (the integral from the first edge, unit x seconds).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_rl.core.units import JOULES_PER_KWH, JOULES_PER_MWH, SECONDS_PER_HOUR
from lepton_rl.errors import ConfigError, counted


@dataclass(frozen=True, slots=True, eq=False)
class HourlySeries:
    """A price or an intensity that holds for an hour at a time, from second 0.

    Attributes:
        name: of the file or region, for messages.
        values: (hours,); USD/MWh or gCO2eq/kWh.
        edges: (hours + 1,); seconds at which the values begin and end.
        cumulative: (hours + 1,); integral of the values from the first edge, unit x seconds.
    """

    name: str
    values: NDArray[np.float64]
    edges: NDArray[np.float64]
    cumulative: NDArray[np.float64]

    @classmethod
    def of(cls, values: ArrayLike, name: str = "series") -> "HourlySeries":
        """Return the series of these hourly values.

        Raises:
            ConfigError: there are none, or one is not a number.
        """
        hourly = np.array(values, dtype=np.float64)
        if hourly.ndim != 1 or len(hourly) == 0:
            raise ConfigError(f"{name}: an hourly series needs at least one value")
        odd = np.flatnonzero(~np.isfinite(hourly))
        if len(odd):
            raise ConfigError(f"{name}: the value of hour {odd[0]} is not a number")
        edges = np.arange(len(hourly) + 1, dtype=np.float64) * SECONDS_PER_HOUR
        cumulative = np.zeros(len(hourly) + 1)
        np.cumsum(hourly * SECONDS_PER_HOUR, out=cumulative[1:])
        for array in (hourly, edges, cumulative):
            array.flags.writeable = False
        return cls(name, hourly, edges, cumulative)

    @property
    def seconds(self) -> float:
        """How long the series is."""
        return float(self.edges[-1])

    def require(self, seconds: float) -> None:
        """Refuse a series that ends before `seconds`.

        Raises:
            ConfigError: it does.
        """
        if seconds > self.seconds:
            raise ConfigError(
                f"{self.name}: the series covers {counted(len(self.values), 'hour')}, and "
                f"{np.ceil(seconds / SECONDS_PER_HOUR):,.0f} are needed; give a longer one, or a shorter workload"
            )

    def until(self, seconds: float) -> "HourlySeries":
        """Return the hours that begin before `seconds`, at least the first."""
        return HourlySeries.of(self.values[: max(math.ceil(seconds / SECONDS_PER_HOUR), 1)], self.name)

    def integral(self, begin: float, end: float) -> float:
        """Return the integral over [begin, end], unit x seconds.

        Raises:
            ConfigError: the interval begins before 0 or ends after the series.
        """
        if not 0 <= begin <= end:
            raise ConfigError(f"{self.name}: an interval must satisfy 0 <= begin ({begin:g} s) <= end ({end:g} s)")
        self.require(end)
        return integral_between(begin, end, self.edges, self.cumulative)

    def negative_hours(self) -> NDArray[np.int64]:
        """Return the hours whose value is below 0, as indices from 0."""
        found: NDArray[np.int64] = np.flatnonzero(self.values < 0).astype(np.int64)
        return found

    def negative_report(self) -> str | None:
        """Return a sentence that counts and names the hours below 0, or None where there are none."""
        hours = self.negative_hours()
        if len(hours) == 0:
            return None
        first = ", ".join(str(hour) for hour in hours[:3].tolist()) + (", ..." if len(hours) > 3 else "")
        return (
            f"{self.name}: {counted(len(hours), 'hour')} of {len(self.values):,} below 0 (counted from 0: {first}), "
            f"down to {self.values.min():g}; energy earns money in them"
        )


def carbon_series(values: ArrayLike, name: str = "carbon series") -> HourlySeries:
    """Return the series of these hourly carbon intensities, gCO2eq/kWh.

    Raises:
        ConfigError: one is below 0, or as in `HourlySeries.of`.
    """
    series = HourlySeries.of(values, name)
    hours = series.negative_hours()
    if len(hours):
        raise ConfigError(
            f"{name}: hour {hours[0]} has a carbon intensity of {series.values[hours[0]]:g} g/kWh; it must be 0 or more"
        )
    return series


def integral_between(
    begin: float, end: float, edges: Sequence[float] | Any, cumulative: Sequence[float] | Any
) -> float:
    """Return a step function's integral over [begin, end] from its edges and running integral."""
    return running_integral(end, edges, cumulative) - running_integral(begin, edges, cumulative)


def running_integral(time: float, edges: Sequence[float] | Any, cumulative: Sequence[float] | Any) -> float:
    """Return a step function's integral from its first edge to `time`, which lies within its edges; O(log n)."""
    low, high = 0, len(edges) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if edges[middle] <= time:
            low = middle
        else:
            high = middle
    slope = (cumulative[high] - cumulative[low]) / (edges[high] - edges[low])
    return float(cumulative[low] + slope * (time - edges[low]))


def energy_cost_usd(power_w: float, begin: float, end: float, price_usd_per_mwh: HourlySeries) -> float:
    """Return what a constant draw over [begin, end] costs, USD; below 0 where the price is."""
    return power_w * price_usd_per_mwh.integral(begin, end) / JOULES_PER_MWH


def carbon_grams(power_w: float, begin: float, end: float, carbon_g_per_kwh: HourlySeries) -> float:
    """Return what a constant draw over [begin, end] emits, gCO2eq."""
    return power_w * carbon_g_per_kwh.integral(begin, end) / JOULES_PER_KWH


def rental_cost_usd(price_usd_per_hour: float, gpus: float, seconds: float) -> float:
    """Return the rent of so many GPUs, USD.

    Raises:
        ConfigError: the price is below 0.
    """
    if not 0 <= price_usd_per_hour < math.inf:
        raise ConfigError(f"a rental price must be 0 or more, not {price_usd_per_hour} USD per hour")
    return price_usd_per_hour * gpus * seconds / SECONDS_PER_HOUR
