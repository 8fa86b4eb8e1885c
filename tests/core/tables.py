"""Allocations built by hand for the tests of placement and snapshots."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import empty_allocation, held_gpus, hold_gpu, hold_share, release
from lepton_rl.core.arrays import Floats
from lepton_rl.core.placement import Placement, fits, place

MEMORY_GIB = 80


@dataclass
class Table:
    """Two nodes of four GPUs of 80 GiB (or another shape), and jobs that ask for `demands` GPUs, by row."""

    demands: Sequence[float]
    figures_gib: Sequence[float] = ()
    nodes: int = 2
    gpus_per_node: int = 4

    def __post_init__(self) -> None:
        self.jobs: Floats = np.zeros((len(self.demands), L.JOB_COLUMNS))
        self.jobs[:, L.GPUS] = np.array(self.demands) * L.MILLI
        self.jobs[: len(self.figures_gib), L.MEMORY] = np.array(self.figures_gib) * L.MIB_PER_GIB
        self.jobs[:, L.FIRST_GPU] = -1
        self.allocation = empty_allocation(self.nodes, self.gpus_per_node, MEMORY_GIB * L.MIB_PER_GIB)

    def place(self, job: int, rule: Placement = Placement.FIRST) -> list[int] | None:
        """The GPUs that the job now holds, in the order taken; None where it does not fit."""
        gpus, nodes, _, totals = self.allocation
        fitting = fits(rule, self.jobs, job, gpus, nodes, totals, None)
        placed = place(rule, self.jobs, job, *self.allocation, None)
        assert placed == fitting
        return self.held(job) if placed else None

    def hold(self, job: int, chosen: Sequence[int]) -> None:
        """Hold these GPUs for a gang, or the one for a share."""
        if self.demands[job] < 1:
            hold_share(self.jobs, job, *self.allocation, None, chosen[0])
            return
        tail = -1
        for gpu in chosen:
            hold_gpu(self.jobs, job, *self.allocation, None, tail, gpu)
            tail = gpu

    def give_back(self, job: int) -> None:
        release(self.jobs, job, self.allocation[0], *self.allocation, None)
        self.jobs[job, L.FIRST_GPU] = -1

    def held(self, job: int) -> list[int]:
        out = np.empty(len(self.allocation[0]), np.int64)
        return [int(gpu) for gpu in out[: held_gpus(self.jobs, job, self.allocation[0], out)]]

    @property
    def free_share(self) -> list[float]:
        """Free part of each GPU."""
        return [float(free) / L.MILLI for free in self.allocation[0][:, L.FREE]]

    @property
    def free_gib(self) -> list[float]:
        return [float(free) / L.MIB_PER_GIB for free in self.allocation[0][:, L.MEMORY_FREE]]

    def check(self) -> None:
        """Hold the sums and free sets to what the GPUs themselves say."""
        gpus, nodes, bits, totals = self.allocation
        free = gpus[:, L.FREE].reshape(self.nodes, self.gpus_per_node)
        whole = free == L.MILLI
        busy = L.MILLI * self.gpus_per_node - free.sum(axis=1)
        assert (free >= 0).all()
        assert (gpus[:, L.MEMORY_FREE] >= 0).all()
        assert nodes[:, L.WHOLE].tolist() == whole.sum(axis=1).tolist()
        assert nodes[:, L.BUSY].tolist() == busy.tolist()
        assert totals[L.FREE_WHOLE] == whole.sum()
        assert totals[L.HELD] == busy.sum()
        assert totals[L.STRANDED] == (free.sum(axis=1) * (busy > 0)).sum()
        assert not whole[: totals[L.HINT]].any()
        for node in range(self.nodes):
            for place_in_node in range(self.gpus_per_node):
                word = int(bits[node, place_in_node // 64])
                assert bool(word >> (place_in_node % 64) & 1) == whole[node, place_in_node]
