"""Notes in the packed arrays of what has changed, and of the jobs on each GPU: for rates, and for observers."""

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined


@inlined
def stir(gpu: int, gpus: Ints32, totals: Ints64) -> None:
    """Mark a GPU whose load, limit or health has changed, so that the rates of its jobs are set anew."""
    if gpus[gpu, L.STIRRED] == 0:
        gpus[gpu, L.STIRRED] = totals[L.STIRRED_GPUS] + 1
        totals[L.STIRRED_GPUS] = gpu + 1


@inlined
def is_stirred(jobs: Floats, job: int, gpus: Ints32) -> bool:
    """Whether one of the job's GPUs is marked."""
    gpu = int(jobs[job, L.FIRST_GPU])
    share = jobs[job, L.GPUS] < L.MILLI
    while gpu >= 0:
        if gpus[gpu, L.STIRRED] != 0:
            return True
        gpu = -1 if share else int(gpus[gpu, L.NEXT])
    return False


@inlined
def settle_stirred(gpus: Ints32, totals: Ints64) -> None:
    """Take the marks off all GPUs."""
    gpu = int(totals[L.STIRRED_GPUS]) - 1
    while gpu >= 0:
        following = int(gpus[gpu, L.STIRRED]) - 2
        gpus[gpu, L.STIRRED] = 0
        gpu = following
    totals[L.STIRRED_GPUS] = 0


@inlined
def list_job(jobs: Floats, job: int, gpus: Ints32, hw: Hardware) -> None:
    """Note on its GPUs that a job runs there."""
    if hw is None:
        return
    gpu = int(jobs[job, L.FIRST_GPU])
    if jobs[job, L.GPUS] < L.MILLI:
        before = int(gpus[gpu, L.FIRST_JOB])
        is_share = before >= 0 and jobs[before, L.ON_GPU] == gpu  # else a gang that has left
        jobs[job, L.NEXT_SHARE] = before if is_share else -1
        jobs[job, L.ON_GPU] = gpu
        gpus[gpu, L.FIRST_JOB] = job
        return
    while gpu >= 0:
        gpus[gpu, L.FIRST_JOB] = job
        gpus[gpu, L.RATED] = gpus[gpu, L.KEPT]
        gpu = int(gpus[gpu, L.NEXT])


@inlined
def unlist_job(jobs: Floats, job: int, gpus: Ints32, hw: Hardware) -> None:
    """Take a share out of its GPU's list; a gang's notes are written over when others come."""
    if hw is None or jobs[job, L.GPUS] >= L.MILLI:
        return
    gpu = int(jobs[job, L.ON_GPU])
    following = jobs[job, L.NEXT_SHARE]
    other = int(gpus[gpu, L.FIRST_JOB])
    if other == job:
        gpus[gpu, L.FIRST_JOB] = int(following)
    else:
        while jobs[other, L.NEXT_SHARE] != job:
            other = int(jobs[other, L.NEXT_SHARE])
        jobs[other, L.NEXT_SHARE] = following
    jobs[job, L.ON_GPU] = -1


@inlined
def change_draw(node: int, totals: Ints64, microwatts: int) -> None:
    """Book that a node's GPUs draw more by load and limit, or less."""
    totals[L.POWER] += microwatts
    totals[L.NODE_DRAW + node] += microwatts


@inlined
def hold_back(node: int, totals: Ints64, microwatts: int) -> None:
    """Book that a node's GPUs draw less because they throttle; a negative number is more."""
    totals[L.HELD_BACK] += microwatts
    totals[L.NODE_DRAW + node] -= microwatts


@inlined
def touch(node: int, totals: Ints64) -> None:
    """List a node as changed, for observers."""
    touched = totals[L.TOUCHED]
    if touched > 0 and (totals[L.TOUCHED + touched] == node or totals[L.TOUCHED + max(touched - 1, 1)] == node):
        return
    if touched == L.MAX_TOUCHED:
        totals[L.TOUCHED] = -1
    elif touched >= 0:
        totals[L.TOUCHED + 1 + touched] = node
        totals[L.TOUCHED] = touched + 1
