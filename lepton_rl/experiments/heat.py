"""What a recorded run did to each GPU over time: rows of GPUs x bins of time, each cell a mean that is exact.

Load and draw are constant between events, and the temperature follows them in closed form: a stay adds to the bins that
it begins and ends in, and as much to each one between. Nothing is sampled, however many jobs there are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lepton_rl.core import ClusterSpec
from lepton_rl.core.hardware.rules import INLET_TEMPERATURE_C
from lepton_rl.core.hardware.thermal import steady_temperature_c
from lepton_rl.experiments.recording import Floats, Ints, Recording
from lepton_rl.experiments.timelines import gpu_power_w, node_of_gpu

MOST_ROWS = 256
BINS = 600
Part = Callable[[Floats, Floats, Floats], Floats]
"""What a load from one time to another gives by the end of their bin: (begins, ends, ends of the bins) -> amounts."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The cells of a heat map.

    Attributes:
        row: (GPUs,) row of each GPU.
        edges: (bins + 1,) seconds, evenly spaced.
        unit: what a row is of: "GPU" or "node".
        together: neighbouring units of a row; the last row may have fewer.
    """

    row: Ints
    edges: Floats
    unit: str
    together: int

    @property
    def gpus(self) -> Ints:
        """GPUs of each row, shape (rows,)."""
        return np.bincount(self.row)


def grid_of(recording: Recording, most_rows: int = MOST_ROWS, bins: int = BINS) -> Grid:
    """Return a row for each GPU, where these are too many for each node, or for as few neighbours as will do."""
    cluster = recording.cluster
    edges = np.linspace(recording.begun, recording.ended, bins + 1)
    units, unit = np.arange(cluster.gpus), "GPU"
    if cluster.gpus > most_rows and cluster.nodes > 1:
        units, unit = node_of_gpu(cluster), "node"
    together = math.ceil((int(units[-1]) + 1) / most_rows)
    return Grid(units // together, edges, unit, together)


def utilization(recording: Recording, grid: Grid) -> Floats:
    """Return the share of the GPUs of each cell that jobs hold, 0 to 1, shape (rows, bins)."""
    held = _deposit(recording, grid, np.ones(recording.cluster.gpus), _seconds)
    return held / _gpu_seconds(grid)


def power_w(recording: Recording, grid: Grid) -> Floats:
    """Return the mean draw of a GPU of each cell, watts, shape (rows, bins)."""
    idle, dynamic = gpu_power_w(recording.cluster)
    joules = _deposit(recording, grid, dynamic, _seconds)
    return np.bincount(grid.row, idle)[:, None] / grid.gpus[:, None] + joules / _gpu_seconds(grid)


def temperature_c(recording: Recording, grid: Grid) -> Floats:
    """Return the mean temperature of a GPU of each cell, degrees Celsius, shape (rows, bins).

    The first-order response of `core.hardware.thermal` to the recorded draw, from the temperature of an idle GPU in
    inlet air of 30 °C: with `tau dT/dt = T_end - T`, the integral of T over a bin is that of T_end less tau times what
    T rose by.

    The cluster is one of groups: other GPUs have no thermal figures.
    """
    _, dynamic = gpu_power_w(recording.cluster)
    width = grid.edges[1] - grid.edges[0]
    total = np.zeros((len(grid.gpus), len(grid.edges) - 1))
    type_of = _type_of_gpu(recording.cluster)
    for index, kind in enumerate(recording.cluster.types):
        resistance, tau = kind.thermal_resistance_c_per_w, kind.thermal_time_constant_s
        own = np.where(type_of == index, resistance, 0.0)
        heating = _deposit(recording, grid, own * dynamic, _seconds)
        response = _deposit(recording, grid, own * dynamic, _response(tau))
        rise = np.zeros(len(total))
        for column in range(total.shape[1]):
            before, rise = rise, rise * math.exp(-width / tau) + response[:, column]
            total[:, column] += (heating[:, column] - tau * (rise - before)) / width
        at_rest = steady_temperature_c(kind.idle_power_w, INLET_TEMPERATURE_C, resistance)
        total += at_rest * np.bincount(grid.row, type_of == index)[:, None]
    return total / grid.gpus[:, None]


def _seconds(begin: Floats, end: Floats, edge: Floats) -> Floats:
    return end - begin


def _response(tau: float) -> Part:
    """Return how far a temperature, by the end of the bin, has followed a rise of 1 that lasted so long."""

    def part(begin: Floats, end: Floats, edge: Floats) -> Floats:
        return np.exp((end - edge) / tau) - np.exp((begin - edge) / tau)

    return part


def _deposit(recording: Recording, grid: Grid, weight: Floats, part: Part) -> Floats:
    """Return the sum of `weight` of each held GPU x share x `part` of its time, by cell, shape (rows, bins)."""
    rows, bins, edges = len(grid.gpus), len(grid.edges) - 1, grid.edges
    first = np.clip(np.searchsorted(edges, recording.begin, side="right") - 1, 0, bins - 1)
    last = np.clip(np.searchsorted(edges, recording.end, side="left") - 1, first, bins - 1)
    at_first = part(recording.begin, np.minimum(recording.end, edges[first + 1]), edges[first + 1])
    at_last = np.where(last > first, part(edges[last], recording.end, edges[last + 1]), 0.0)
    each = float(part(edges[:1], edges[1:2], edges[1:2])[0])
    stay, row = recording.stay, grid.row[recording.gpu]
    amount = weight[recording.gpu] * recording.share[stay]

    def laid(column: Ints, values: Floats, columns: int) -> Floats:
        flat = np.bincount(row * columns + column[stay], values, rows * columns)
        return flat.astype(np.float64).reshape(rows, columns)

    # a change where the full bins begin and one behind them: the running sum is what every bin between gets
    starts, stops = (np.minimum(first + 1, last), last)
    full = laid(starts, amount, bins + 1) - laid(stops, amount, bins + 1)
    between: Floats = np.cumsum(full, axis=1)[:, :bins] * each
    return laid(first, amount * at_first[stay], bins) + laid(last, amount * at_last[stay], bins) + between


def _gpu_seconds(grid: Grid) -> Floats:
    seconds: Floats = grid.gpus[:, None] * np.diff(grid.edges)
    return seconds


def _type_of_gpu(cluster: ClusterSpec) -> Ints:
    """Return the index among `cluster.types` of each GPU's type, shape (GPUs,)."""
    names = [kind.name for kind in cluster.types]
    kinds = [names.index(group.limited_gpu.name) for group in cluster.groups]
    return np.repeat(np.array(kinds, np.int64), [group.gpus for group in cluster.groups])
