"""What a cluster whose state changes by more than its jobs showed at each instant: draw, queue, stranded GPUs.

Failures, power limits and dependencies do not show in who held which GPU; snapshots tell of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import Snapshot
from lepton_rl.core import layout as L


@dataclass(frozen=True, eq=False)
class Draws:
    """Watts beyond those of an idle GPU, in pieces of constant draw; arrays of shape (pieces,), times in seconds."""

    gpu: NDArray[np.int64]
    begin: NDArray[np.float64]
    end: NDArray[np.float64]
    watts: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Watched:
    """What was seen at each instant, once all was decided; it held until the next one.

    Attributes:
        times: (instants,) seconds.
        waiting: (instants,) jobs in the queue.
        stranded: (instants,) free thousandths of GPUs on partly used nodes.
        draws: by load, power limit and health; what heat holds back is not taken off.
    """

    times: NDArray[np.float64]
    waiting: NDArray[np.float64]
    stranded: NDArray[np.float64]
    draws: Draws


class Watch:
    """Looks at a cluster at each instant."""

    def __init__(self, idle: Snapshot) -> None:
        self._idle = self._draw = idle.gpu_power_w
        self._since = np.full(len(self._draw), idle.time)
        self._instants: list[tuple[float, float, float]] = []
        self._pieces: list[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]] = []

    def see(self, snapshot: Snapshot) -> None:
        """Take down what changed at this instant, after its decisions."""
        self._instants.append((snapshot.time, float(len(snapshot.queue)), float(snapshot.totals[L.STRANDED])))
        draw = snapshot.gpu_power_w
        changed = np.flatnonzero(draw != self._draw)
        if len(changed):
            beyond = (self._draw - self._idle)[changed]
            self._pieces.append((changed, self._since[changed], np.full(len(changed), snapshot.time), beyond))
            self._since[changed] = snapshot.time
            self._draw = draw

    def watched(self, end: float) -> Watched:
        """Return all that was seen, up to the end of the run."""
        every = np.arange(len(self._draw))
        last = (every, self._since, np.full(len(every), end), self._draw - self._idle)
        gpu, begin, ends, watts = (np.concatenate(parts) for parts in zip(*self._pieces, last, strict=True))
        drawn = (watts != 0.0) & (ends > begin)
        times, waiting, stranded = np.array(self._instants).T
        return Watched(times, waiting, stranded, Draws(gpu[drawn], begin[drawn], ends[drawn], watts[drawn]))
