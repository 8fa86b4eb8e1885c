"""What a recorded run did to each GPU over time: rows of GPUs x bins of time, each cell a mean that is exact.

Load and draw are constant between events, and the temperature follows them in closed form: a piece adds to the bins
that it begins and ends in, and as much to each one between. Nothing is sampled, however many jobs there are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lepton_rl.core import ClusterSpec
from lepton_rl.core.hardware.thermal import steady_temperature_c
from lepton_rl.experiments.draws import draws_of, inlet_c, type_of_gpu
from lepton_rl.experiments.recording import Floats, Ints, Recording
from lepton_rl.experiments.timelines import node_of_gpu
from lepton_rl.experiments.watched import Draws

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
    stay = recording.stay
    held = Draws(recording.gpu, recording.begin[stay], recording.end[stay], recording.share[stay])
    return _deposit(held, grid, _seconds) / _gpu_seconds(grid)


def power_w(recording: Recording, grid: Grid) -> Floats:
    """Return the mean draw of a GPU of each cell, watts, shape (rows, bins)."""
    idle = recording.cluster.gpu_draw_w(np.zeros(recording.cluster.gpus))
    joules = _deposit(draws_of(recording), grid, _seconds)
    return np.bincount(grid.row, idle)[:, None] / grid.gpus[:, None] + joules / _gpu_seconds(grid)


def knows_temperature(cluster: ClusterSpec) -> bool:
    """Return whether the GPUs' thermal figures are known: those of a type that says where they are from."""
    return bool(cluster.groups) and all(kind.sources for kind in cluster.types)


def temperature_c(recording: Recording, grid: Grid) -> Floats:
    """Return the mean temperature of a GPU of each cell, degrees Celsius, shape (rows, bins).

    The first-order response of `core.hardware.thermal` to the draw, from the temperature of an idle GPU on: with
    `tau dT/dt = T_end - T`, the integral of T over a bin is that of T_end less tau times what T rose by.

    The cluster is one of groups: other GPUs have no thermal figures.
    """
    draws, inlet = draws_of(recording), inlet_c(recording.cluster)
    width = grid.edges[1] - grid.edges[0]
    total = np.zeros((len(grid.gpus), len(grid.edges) - 1))
    type_of = type_of_gpu(recording.cluster)
    for index, kind in enumerate(recording.cluster.types):
        resistance, tau = kind.thermal_resistance_c_per_w, kind.thermal_time_constant_s
        own = replace(draws, watts=np.where(type_of[draws.gpu] == index, resistance * draws.watts, 0.0))
        heating = _deposit(own, grid, _seconds)
        response = _deposit(own, grid, _response(tau))
        rise = np.zeros(len(total))
        for column in range(total.shape[1]):
            before, rise = rise, rise * math.exp(-width / tau) + response[:, column]
            total[:, column] += (heating[:, column] - tau * (rise - before)) / width
        at_rest = steady_temperature_c(kind.idle_power_w, inlet, resistance)
        total += at_rest * np.bincount(grid.row, type_of == index)[:, None]
    return total / grid.gpus[:, None]


def _seconds(begin: Floats, end: Floats, edge: Floats) -> Floats:
    return end - begin


def _response(tau: float) -> Part:
    """Return how far a temperature, by the end of the bin, has followed a rise of 1 that lasted so long."""

    def part(begin: Floats, end: Floats, edge: Floats) -> Floats:
        return np.exp((end - edge) / tau) - np.exp((begin - edge) / tau)

    return part


def _deposit(pieces: Draws, grid: Grid, part: Part) -> Floats:
    """Return the sum of each piece's `watts` (of whatever kind) x `part` of its time, by cell, shape (rows, bins)."""
    rows, bins, edges = len(grid.gpus), len(grid.edges) - 1, grid.edges
    begin, end, amount, row = pieces.begin, pieces.end, pieces.watts, grid.row[pieces.gpu]
    first = np.clip(np.searchsorted(edges, begin, side="right") - 1, 0, bins - 1)
    last = np.clip(np.searchsorted(edges, end, side="left") - 1, first, bins - 1)
    at_first = part(begin, np.minimum(end, edges[first + 1]), edges[first + 1])
    at_last = np.where(last > first, part(edges[last], end, edges[last + 1]), 0.0)
    each = float(part(edges[:1], edges[1:2], edges[1:2])[0])

    def laid(column: Ints, values: Floats, columns: int) -> Floats:
        flat = np.bincount(row * columns + column, values, rows * columns)
        return flat.astype(np.float64).reshape(rows, columns)

    # a change where the full bins begin and one behind them: the running sum is what every bin between gets
    full = laid(np.minimum(first + 1, last), amount, bins + 1) - laid(last, amount, bins + 1)
    between: Floats = np.cumsum(full, axis=1)[:, :bins] * each
    return laid(first, amount * at_first, bins) + laid(last, amount * at_last, bins) + between


def _gpu_seconds(grid: Grid) -> Floats:
    seconds: Floats = grid.gpus[:, None] * np.diff(grid.edges)
    return seconds
