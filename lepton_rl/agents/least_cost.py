"""Each job on the GPUs where its run costs least: what the policies for energy, rent and carbon share."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_rl.agents.ordered import OrderedPolicy, Starts, Trial
from lepton_rl.core import Placement, Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.allocation import held_gpus, release
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import LOAD_MW, Hardware, HardwareTables, hourly_integral
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.placement import place

_BEST = int(Placement.BEST)
NO_HOURS = np.zeros(0)


@dataclass(frozen=True, eq=False, slots=True)
class RunningCosts:
    """What a busy GPU costs.

    Attributes:
        rates: (types,) cost of a second on a GPU of each type.
        hours: (hours + 1,) running integral of what the hour multiplies the rates by; empty where it does not.
    """

    rates: Floats
    hours: Floats


class LeastCostPolicy(OrderedPolicy, frozen=True, extra="forbid"):
    """Base of the policies that start each job where its run costs least.

    Candidates are the GPUs that placement `best` finds on one type of GPU at a time, and for gangs those that it
    finds on all types together. Costs count the time that the job takes there: its slowest GPU, slowed by the nodes
    and racks spanned. Ties go to the type of the earlier group. On a cluster of identical GPUs placement is `best`.
    """

    def costs(self, snapshot: Snapshot, trial: Trial) -> RunningCosts:
        """Return what busy GPUs cost; `trial` is of a cluster whose nodes differ."""
        raise NotImplementedError

    def priced(self, snapshot: Snapshot, trial: Trial) -> Trial:
        """Return the trial with one type of GPU for each cost; only where nodes differ."""
        return trial

    def place_in_order(self, snapshot: Snapshot, trial: Trial, rows: Ints64, out: Starts) -> int:
        """Place each job where it costs least."""
        rates, hours = NO_HOURS, NO_HOURS
        if trial.hw is not None:
            trial = self.priced(snapshot, trial)
            costs = self.costs(snapshot, trial)
            rates, hours = costs.rates, costs.hours
        return _start_at_least_cost(
            rows, self.blocking == "skip", snapshot.time, rates, hours, trial.jobs, trial.gpus, trial.nodes, trial.bits,
            trial.totals, trial.hw, out.rows, out.held,
        )  # fmt: skip


def added_watts(hw: HardwareTables) -> Floats:
    """Return what full load adds to the draw of an idle GPU of each type, watts; shape (types,)."""
    return hw.power_mw[:, LOAD_MW] / 1e3


@inlined
def _cost(jobs: Floats, job: int, now: float, rates: Floats, hours: Floats, gpus: Ints32, nodes: Ints32) -> float:
    """Cost of the job's run on the GPUs that it holds; without a predicted time left, of a second of service."""
    share = jobs[job, L.GPUS] < L.MILLI
    rate = 0.0
    gpu = int(jobs[job, L.FIRST_GPU])
    while gpu >= 0:
        rate += rates[nodes[gpus[gpu, L.NODE], L.TYPE]]
        gpu = -1 if share else int(gpus[gpu, L.NEXT])
    if share:
        rate *= jobs[job, L.GPUS] / L.MILLI
    service = jobs[job, L.PREDICTED]
    known = service > 0.0  # a job that was stopped may have outrun its requested time
    seconds = (service if known else 1.0) / jobs[job, L.RATE]
    if known and hours.shape[0] > 0:
        seconds = hourly_integral(hours, now, now + seconds)
    return float(rate * seconds)


@njit
def place_at_least_cost(
    jobs: Floats, job: int, now: float, rates: Floats, hours: Floats, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware,
) -> bool:  # fmt: skip
    """Hold the GPUs on which the job costs least; return False, with nothing changed, when it does not fit."""
    if hw is None:
        return place(_BEST, jobs, job, gpus, nodes, bits, totals, hw)
    wanted = int(jobs[job, L.TYPES])
    kinds = rates.shape[0]
    best: Any = 0
    least = np.inf
    for kind in range(kinds + 1):
        types = wanted
        if kind < kinds:
            types = wanted & (1 << kind)
        elif jobs[job, L.GPUS] <= L.MILLI:  # one GPU is of one type
            types = 0
        if types == 0:
            continue
        jobs[job, L.TYPES] = types
        if place(_BEST, jobs, job, gpus, nodes, bits, totals, hw):
            cost = _cost(jobs, job, now, rates, hours, gpus, nodes)
            release(jobs, job, gpus, gpus, nodes, bits, totals, hw)
            jobs[job, L.FIRST_GPU] = -1
            if best == 0 or cost < least:
                best = types
                least = cost
    if best != 0:
        jobs[job, L.TYPES] = best
        place(_BEST, jobs, job, gpus, nodes, bits, totals, hw)
    jobs[job, L.TYPES] = wanted
    return bool(best != 0)


@njit
def _start_at_least_cost(
    rows: Ints64, skip: bool, now: float, rates: Floats, hours: Floats, jobs: Floats, gpus: Ints32, nodes: Ints32,
    bits: Words, totals: Ints64, hw: Hardware, started: Ints64, held: Ints64,
) -> int:  # fmt: skip
    """Start these rows one after the other; list rows and their GPUs, return how many."""
    count = 0
    offset = 0
    for row in rows:
        if totals[L.HELD] == L.MILLI * gpus.shape[0]:
            break
        if place_at_least_cost(jobs, row, now, rates, hours, gpus, nodes, bits, totals, hw):
            offset += held_gpus(jobs, row, gpus, held[offset:])
            started[count] = row
            count += 1
        elif not skip:
            break
    return count
