"""Slowdown of a job whose GPUs are spread over nodes and racks: configurable piecewise linear curves."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SpreadCurve:
    """Slowdown against a count of nodes or racks: linear between the points, constant after the last.

    Attributes:
        counts: rising whole numbers from 1.
        slowdowns: time of a step relative to one node or rack, as many; the first is 1, none is below it.
    """

    counts: tuple[int, ...] = (1,)
    slowdowns: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.counts or len(self.counts) != len(self.slowdowns):
            raise ConfigError(
                f"a curve needs one slowdown for each count, not {len(self.slowdowns)} for {len(self.counts)}"
            )
        if self.counts[0] != 1 or self.slowdowns[0] != 1.0:
            raise ConfigError(
                f"a curve starts with count 1 at slowdown 1, not {self.counts[0]} at {self.slowdowns[0]:g}"
            )
        for before, after in itertools.pairwise(self.counts):
            if after <= before:
                raise ConfigError(f"the counts of a curve must rise; {after} follows {before}")
        low = [slowdown for slowdown in self.slowdowns if not slowdown >= 1.0]
        if low:
            raise ConfigError(f"a slowdown must be 1 or more, not {low[0]:g}")

    def table(self, most: int) -> NDArray[np.float64]:
        """Return the slowdown for each count, (most + 1,): what a kernel looks up; entry 0 is 1."""
        values: NDArray[np.float64] = np.interp(np.arange(most + 1), self.counts, self.slowdowns)
        return values


def spread_slowdown(count: float, counts: Sequence[float], slowdowns: Sequence[float]) -> float:
    """Return the slowdown at a count by linear interpolation between rising counts, constant outside them."""
    if count <= counts[0]:
        return float(slowdowns[0])
    for i in range(1, len(counts)):
        if count <= counts[i]:
            part = (count - counts[i - 1]) / (counts[i] - counts[i - 1])
            return float(slowdowns[i - 1] + part * (slowdowns[i] - slowdowns[i - 1]))
    return float(slowdowns[len(slowdowns) - 1])


@dataclass(frozen=True, slots=True)
class Locality:
    """Slowdown of a job by the nodes and racks that it spans: the product of two curves."""

    nodes: SpreadCurve = SpreadCurve()
    racks: SpreadCurve = SpreadCurve()

    def slowdown(self, nodes: int, racks: int = 1) -> float:
        """Return the slowdown of a job on GPUs of so many nodes and racks, 1 or more."""
        return spread_slowdown(nodes, self.nodes.counts, self.nodes.slowdowns) * spread_slowdown(
            racks, self.racks.counts, self.racks.slowdowns
        )
