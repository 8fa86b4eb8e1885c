"""Rates that an action changes, as a snapshot foresees it; `simulator.rates` does the same to running clusters."""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.marks import is_stirred, settle_stirred
from lepton_rl.core.progress import settle


@inlined
def _sharing_slowdown(jobs: Floats, job: int, gpus: Ints32, hw: Hardware) -> float:
    """Slowdown of a share by the other shares on its GPU."""
    if hw is None:
        return 1.0
    gpu = int(jobs[job, L.FIRST_GPU])
    if hw.interference > 0.0:
        own = jobs[job, L.GPUS] / L.MILLI
        others = (L.MILLI - gpus[gpu, L.FREE] - jobs[job, L.GPUS]) / L.MILLI
        return float(1.0 + hw.interference * own * others)
    kind = int(jobs[job, L.CLASS])
    slowdown = 1.0
    for other in range(hw.pairs.shape[0]):
        slowdown += hw.pairs[kind, other] * (gpus[gpu, L.MATES + other] - int(other == kind))
    return slowdown


@inlined
def set_rate(jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, hw: Hardware) -> None:
    """Write how fast the job runs on the GPUs that it holds: as its slowest GPU, slowed by spread and by sharing."""
    if hw is None:
        return
    kind = int(jobs[job, L.CLASS])
    first = int(jobs[job, L.FIRST_GPU])
    share = jobs[job, L.GPUS] < L.MILLI
    slowest = np.inf
    spanned = 0
    racks = 0
    gpu = first
    before = -1
    while gpu >= 0:
        node = int(gpus[gpu, L.NODE])
        slowest = min(slowest, hw.speed[nodes[node, L.TYPE], kind] * (gpus[gpu, L.KEPT] / L.WHOLE_SPEED))
        if node != before:
            new_node, new_rack = True, True
            earlier = first
            while earlier != gpu and new_node:
                other = int(gpus[earlier, L.NODE])
                new_node = other != node
                new_rack = new_rack and nodes[other, L.RACK] != nodes[node, L.RACK]
                earlier = int(gpus[earlier, L.NEXT])
            spanned += new_node
            racks += new_node and new_rack
        before = node
        gpu = -1 if share else int(gpus[gpu, L.NEXT])
    slowdown = hw.node_slowdown[spanned] * hw.rack_slowdown[racks]
    if share and (hw.interference > 0.0 or hw.pairs.shape[0] > 0):
        slowdown *= _sharing_slowdown(jobs, job, gpus, hw)
    jobs[job, L.RATE] = slowest / slowdown


@njit
def change_rates_seen(
    jobs: Floats, running: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, now: float
) -> None:
    """Set anew the rates of the jobs on GPUs whose load or limit has changed; the first `running` rows run."""
    if hw is None:
        return
    for job in range(running):
        if is_stirred(jobs, job, gpus):
            before = jobs[job, L.RATE]
            set_rate(jobs, job, gpus, nodes, hw)
            after = jobs[job, L.RATE]
            if after != before:
                jobs[job, L.RATE] = before
                settle(jobs, job, now, hw)
                jobs[job, L.RATE] = after
    settle_stirred(gpus, totals)
