"""Dominant-resource best fit: pack tightly, and spend the least energy where packing does not decide."""

import numpy as np
from pydantic import BaseModel, Field

from lepton_rl.agents.compiled import PlacementName
from lepton_rl.core import Action, Placement, Snapshot, Start
from lepton_rl.core import layout as L
from lepton_rl.core.allocation import held_gpus, release
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.geometry import gpu_memory, node_of
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit, njit_allocating
from lepton_rl.core.placement import place


@njit
def _left_over(
    jobs: Floats, row: int, rule: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware,
    scratch: Ints64,
) -> float:  # fmt: skip
    """GPUs' worth of the dominant resource left free where the job would go; infinity if it does not fit."""
    former = jobs[row, L.FIRST_GPU]  # the row may stand for others of its kind, and hold GPUs itself
    if not place(rule, jobs, row, gpus, nodes, bits, totals, hw):
        return float(np.inf)
    count = held_gpus(jobs, row, gpus, scratch)
    left = 0.0
    if jobs[row, L.GPUS] < L.MILLI:
        gpu = scratch[0]
        memory_free = float(gpus[gpu, L.MEMORY_FREE])
        share_free = float(gpus[gpu, L.FREE])
        release(jobs, row, gpus, gpus, nodes, bits, totals, hw)
        capacity = gpu_memory(node_of(gpu, gpus, nodes, hw), nodes, totals, hw)
        memory = (gpus[gpu, L.MEMORY_FREE] - memory_free) / capacity
        memory_binds = memory > jobs[row, L.GPUS] / L.MILLI
        left = memory_free / capacity if memory_binds else share_free / L.MILLI
    else:
        for index in range(count):
            node = node_of(scratch[index], gpus, nodes, hw)
            seen = False
            for before in range(index - 1, -1, -1):  # neighbours in the gang mostly share a node
                if node_of(scratch[before], gpus, nodes, hw) == node:
                    seen = True
                    break
            if not seen:
                left += nodes[node, L.WHOLE]
        release(jobs, row, gpus, gpus, nodes, bits, totals, hw)
    jobs[row, L.FIRST_GPU] = former
    return left


@inlined
def _alike(jobs: Floats, one: int, other: int) -> bool:
    """Whether two jobs ask for the same."""
    if jobs[one, L.GPUS] != jobs[other, L.GPUS] or jobs[one, L.MEMORY] != jobs[other, L.MEMORY]:
        return False
    for column in range(L.CLASS, jobs.shape[1]):  # of a detailed cluster
        if column != L.RATE and jobs[one, column] != jobs[other, column]:
            return False
    return True


@njit_allocating
def _pack(
    jobs: Floats, first: int, joules: Floats, rule: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64,
    hw: Hardware, started: Ints64, held: Ints64,
) -> int:  # fmt: skip
    """Start rows `first`.. one after the other, best fit first; list rows and their GPUs, return how many."""
    total = jobs.shape[0]
    kinds = 0
    sample = np.empty(total, np.int64)  # one row of each kind: jobs that ask for the same are placed the same
    left = np.empty(total)
    kind = np.empty(total, np.int64)
    scratch = np.empty(gpus.shape[0], np.int64)
    for row in range(first, total):
        found = 0
        while found < kinds and not _alike(jobs, row, sample[found]):
            found += 1
        if found == kinds:
            sample[kinds] = row
            left[kinds] = 0.0
            kinds += 1
        kind[row] = found
    count = 0
    offset = 0
    while totals[L.HELD] < L.MILLI * gpus.shape[0]:
        for index in range(kinds):
            if left[index] < np.inf:  # what does not fit now will not fit after another start
                left[index] = _left_over(jobs, sample[index], rule, gpus, nodes, bits, totals, hw, scratch)
        best = -1
        for row in range(first, total):
            fit = left[kind[row]]
            if jobs[row, L.FIRST_GPU] >= 0 or fit == np.inf:
                continue
            if best < 0 or fit < left[kind[best]] or (fit == left[kind[best]] and joules[row] < joules[best]):
                best = row
        if best < 0:
            break
        place(rule, jobs, best, gpus, nodes, bits, totals, hw)
        offset += held_gpus(jobs, best, gpus, held[offset:])
        started[count] = best
        count += 1
    return count


class Greedy(BaseModel, frozen=True, extra="forbid"):
    """Packs the cluster: at each decision the waiting job that fits best starts, until none fits.

    A job's dominant resource is the one of which it asks the larger part of a GPU: compute or memory (Ghodsi
    et al., Dominant Resource Fairness, NSDI 2011; a gang holds whole GPUs, so theirs is the GPU). The job
    that fits best leaves the least of that resource free where the placement puts it (on its nodes for a
    gang, on its GPU for a share), as in the packing of Grandl et al. (Tetris), SIGCOMM 2014. Ties go to the
    least energy, `(max - idle) power x GPUs x requested time`, then to the earlier submission. Without
    requested times power stands for energy.
    """

    placement: PlacementName = Field(default="best", description="which GPUs a job gets")

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "greedy"

    @property
    def needs_requested_times(self) -> bool:
        """False: they only break ties."""
        return False

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Return the starts of this instant, best fit first."""
        first = snapshot.running_count
        total = len(snapshot.jobs)
        if first == total or snapshot.totals[L.HELD] == L.MILLI * len(snapshot.gpus):
            return []
        jobs = snapshot.jobs.copy()
        spec = snapshot.cluster
        joules = (spec.max_power_w - spec.idle_power_w) * jobs[:, L.GPUS] / L.MILLI
        requested = jobs[:, L.PREDICTED]
        joules *= np.where(np.isnan(requested), 1.0, requested)
        started = np.empty(total, np.int64)
        held = np.empty(len(snapshot.gpus) + total, np.int64)
        count = _pack(
            jobs, first, joules, int(Placement[self.placement.upper()]), snapshot.gpus.copy(),
            snapshot.nodes.copy(), snapshot.bits.copy(), snapshot.totals.copy(), snapshot.hw, started, held,
        )  # fmt: skip
        return starts(jobs, started[:count], held)


def starts(jobs: Floats, rows: Ints64, held: Ints64) -> list[Action]:
    """Return the starts of these rows; `held` has their GPUs behind each other."""
    actions: list[Action] = []
    offset = 0
    for row in rows.tolist():
        size = max(int(jobs[row, L.GPUS]) // L.MILLI, 1)
        actions.append(Start(int(jobs[row, L.ID]), tuple(held[offset : offset + size].tolist())))
        offset += size
    return actions
