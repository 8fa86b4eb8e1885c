"""Rates that an action changes, as a snapshot foresees it; `simulator.rates` does the same to running clusters."""

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import is_stirred, set_rate, settle_stirred
from lepton_rl.core.arrays import Floats, Ints32, Ints64
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import njit
from lepton_rl.core.progress import settle


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
