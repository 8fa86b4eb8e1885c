"""What a recorded run was like over time, exactly: queue, power, energy, its cost, fragmentation.

All of these are constant between events, and their running integrals are straight lines: nothing is sampled.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import ClusterSpec
from lepton_rl.core import layout as L
from lepton_rl.core.hardware import HourlySeries
from lepton_rl.core.units import JOULES_PER_KWH
from lepton_rl.experiments.draws import draws_of
from lepton_rl.experiments.recording import Floats, Ints, Recording


@dataclass(frozen=True, eq=False)
class Steps:
    """A figure that is constant between events.

    Attributes:
        times: (values + 1,) rising, seconds; the last is the end.
        values: (values,); each holds from its time to the next.
    """

    times: Floats
    values: Floats

    @cached_property
    def _running(self) -> Floats:
        return np.concatenate(([0.0], np.cumsum(self.values * np.diff(self.times))))

    def integral(self, until: NDArray[np.float64] | float) -> Floats:
        """Return the integral from the first time to each of `until`, unit x seconds."""
        return np.asarray(np.interp(until, self.times, self._running))

    def binned(self, edges: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the time-weighted mean, the least and the greatest value between each two edges, which rise."""
        means = np.diff(self.integral(edges)) / np.diff(edges)
        inner = self.times[1:-1]
        first = np.searchsorted(inner, edges[:-1], side="right")
        behind = np.searchsorted(inner, edges[1:], side="left") + 1
        pairs = np.stack((first, behind), axis=1).ravel()
        padded = np.append(self.values, self.values[-1])  # reduceat wants every index inside
        least, most = (function.reduceat(padded, pairs)[::2] for function in (np.minimum, np.maximum))
        return means, least, most


def queue_length(recording: Recording) -> Steps:
    """Return how many jobs wait: submitted, not finished, on no GPU, and after no job that is left."""
    if recording.watched is not None:
        return _seen(recording, recording.watched.times, recording.watched.waiting)
    back = recording.end[recording.interrupted]
    times = np.concatenate((recording.outcome.submit, recording.begin, back))
    changes = np.repeat([1, -1, 1], [len(recording.outcome.submit), len(recording.begin), len(back)])
    return _summed(recording, times, changes)


def power_w(recording: Recording) -> Steps:
    """Return the draw of all GPUs together, watts."""
    draws = draws_of(recording)
    idle = float(recording.cluster.gpu_draw_w(np.zeros(recording.cluster.gpus)).sum())
    times = np.concatenate(([recording.begun], draws.begin, draws.end))
    return _summed(recording, times, np.concatenate(([idle], draws.watts, -draws.watts)))


def fragmentation(recording: Recording) -> Steps:
    """Return the free part of partly used nodes / GPUs, 0 to 1, as the metric of that name counts it."""
    cluster = recording.cluster
    if recording.watched is not None:
        stranded = recording.watched.stranded / (L.MILLI * cluster.gpus)
        return _seen(recording, recording.watched.times, stranded)
    node_of = node_of_gpu(cluster)
    node = node_of[recording.gpu]
    milli = np.rint(recording.share * L.MILLI).astype(np.int64)[recording.stay]
    capacity = L.MILLI * np.bincount(node_of)
    times = np.concatenate((recording.begin[recording.stay], recording.end[recording.stay]))
    nodes, changes = np.tile(node, 2), np.concatenate((milli, -milli))
    order = np.lexsort((times, nodes))
    times, nodes, changes = times[order], nodes[order], changes[order]
    # each node's changes sum to 0, so one running sum through all nodes is each node's own
    busy = np.cumsum(changes)
    last = np.append((times[1:] != times[:-1]) | (nodes[1:] != nodes[:-1]), True)
    times, nodes, busy = times[last], nodes[last], busy[last]
    stranded = np.where(busy > 0, capacity[nodes] - busy, 0)
    before = np.where(np.append(True, nodes[1:] != nodes[:-1]), 0, np.append(0, stranded[:-1]))
    steps = _summed(recording, times, stranded - before)
    return Steps(steps.times, steps.values / (L.MILLI * cluster.gpus))


def node_of_gpu(cluster: ClusterSpec) -> Ints:
    """Return the node of each GPU, shape (GPUs,)."""
    return np.searchsorted(cluster.first_gpus, np.arange(cluster.gpus), side="right").astype(np.int64) - 1


def energy_kwh(power: Steps, until: Floats) -> Floats:
    """Return the energy used from the first time to each of `until`, kWh."""
    return power.integral(until) / JOULES_PER_KWH


def cost(power: Steps, series: HourlySeries, until: Floats, per_joules: float) -> Floats:
    """Return what the energy cost under an hourly series from the first time to each of `until`.

    Args:
        power: watts.
        series: USD/MWh or gCO2eq/kWh.
        until: seconds.
        per_joules: JOULES_PER_MWH or JOULES_PER_KWH: what the series is for.
    """
    hours = series.edges[(series.edges > power.times[0]) & (series.edges < power.times[-1])]
    times = np.union1d(power.times, hours)
    watts = power.values[np.searchsorted(power.times, times[:-1], side="right") - 1]
    spent = watts * np.diff(np.interp(times, series.edges, series.cumulative)) / per_joules
    return np.interp(until, times, np.concatenate(([0.0], np.cumsum(spent))))


def _summed(recording: Recording, times: Floats, changes: NDArray[np.float64] | Ints) -> Steps:
    """Return the running sum of changes, those of one instant together, over the whole run."""
    order = np.argsort(times, kind="stable")
    times = np.append(recording.begun, times[order])
    totals = np.append(0, np.cumsum(changes[order]))
    last = np.append(times[1:] != times[:-1], True) & (times < recording.ended)
    return Steps(np.append(times[last], recording.ended), totals[last].astype(np.float64))


def _seen(recording: Recording, times: Floats, values: Floats) -> Steps:
    """Return what was seen at each instant until the next one; of two at one time the later."""
    last = np.append(times[1:] != times[:-1], True) & (times < recording.ended)
    return Steps(np.append(times[last], recording.ended), values[last])
