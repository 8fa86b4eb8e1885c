"""How far a running job is. Run and requested times are seconds of service: seconds on the GPU that they are for.

A job on slower GPUs, or spread over nodes, gets less than a second of service a second (its RATE). On a cluster of
equal nodes (`hw` is None) service is time.
"""

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined


@inlined
def served(jobs: Floats, job: int, now: float, hw: Hardware) -> float:
    """Seconds of service that the present run has given by now."""
    seconds: float = now - jobs[job, L.START]
    if hw is None:
        return seconds
    return float(seconds * jobs[job, L.RATE])


@inlined
def seconds_for(service: float, jobs: Floats, job: int, hw: Hardware) -> float:
    """Seconds that the present run takes to give so much service."""
    if hw is None:
        return service
    return float(service / jobs[job, L.RATE])


@inlined
def planned_seconds(jobs: Floats, job: int, hw: Hardware) -> float:
    """Seconds for which a plan reserves GPUs for the next run, whichever they will be."""
    if hw is None:
        return float(jobs[job, L.PREDICTED])
    return float(jobs[job, L.PREDICTED] / jobs[job, L.PLAN_RATE])


@inlined
def predicted_end(jobs: Floats, job: int, hw: Hardware) -> float:
    """When the present run is predicted to end."""
    return float(jobs[job, L.START] + seconds_for(jobs[job, L.PREDICTED], jobs, job, hw))
