"""How far a running job is. Run and requested times are seconds of service: seconds on the GPU that they are for.

A job on slower GPUs, or spread over nodes, gets less than a second of service a second (its RATE, from SINCE on). On
a cluster of equal nodes (`hw` is None) service is time.
"""

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import release
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined


@inlined
def served(jobs: Floats, job: int, now: float, hw: Hardware) -> float:
    """Seconds of service that the present run has given by now, where its rate has changed since then."""
    if hw is None:
        return float(now - jobs[job, L.START])
    return float((now - jobs[job, L.SINCE]) * jobs[job, L.RATE])


@inlined
def settle(jobs: Floats, job: int, now: float, hw: Hardware) -> float:
    """Count what the present run has given by now as attained; return it. The rate may change then."""
    service = served(jobs, job, now, hw)
    jobs[job, L.ATTAINED] += service
    jobs[job, L.PREDICTED] -= service
    if hw is not None:
        jobs[job, L.SINCE] = now
    return service


@inlined
def begin_run(jobs: Floats, job: int, now: float, hw: Hardware) -> None:
    """Book that a job whose GPUs are held runs from now on."""
    jobs[job, L.START] = now
    if hw is not None:
        jobs[job, L.SINCE] = now
        jobs[job, L.BEFORE] = jobs[job, L.ATTAINED]


@inlined
def end_run(
    jobs: Floats, job: int, cost: float, now: float, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64,
    hw: Hardware,
) -> float:  # fmt: skip
    """Take a running job off its GPUs: it keeps its progress and owes `cost` seconds of service.

    Returns the service of the run since its rate was set.
    """
    service = served(jobs, job, now, hw)
    release(jobs, job, gpus, gpus, nodes, bits, totals, hw)
    jobs[job, L.FIRST_GPU] = -1
    jobs[job, L.ATTAINED] += service
    jobs[job, L.PREDICTED] += cost - service
    return service


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
    if hw is None:
        return float(jobs[job, L.START] + jobs[job, L.PREDICTED])
    return float(jobs[job, L.SINCE] + jobs[job, L.PREDICTED] / jobs[job, L.RATE])
