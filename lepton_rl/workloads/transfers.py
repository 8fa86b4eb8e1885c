"""Data that a job needs: moved before it computes, piece by piece while it computes, or while it waits."""

import re
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_rl.errors import ConfigError, TraceError, counted, nearest
from lepton_rl.workloads.columns import MAX_SECONDS, check_numbers
from lepton_rl.workloads.trace import Trace

Seconds = NDArray[np.float64]

OVERLAPS = ("none", "chunks:N", "prefetch")


def staged_seconds(transfer_s: ArrayLike, compute_s: ArrayLike, chunks: int) -> Seconds:
    """Return how long a transfer and the computing on its data take together, seconds.

    The data comes in `chunks` equal pieces, and a piece is computed while the next one is transferred. With transfer
    t, computing w and c pieces: `t/c + (c - 1) max(t/c, w/c) + w/c`. One piece takes t + w, without overlap; many come
    near max(t, w).

    Args:
        transfer_s: seconds, any shape.
        compute_s: seconds, a shape that goes with it.
        chunks: 1 or more.
    """
    if chunks < 1:
        raise ConfigError(f"chunks is {chunks}; it must be 1 or more")
    transfer, compute = np.asarray(transfer_s, np.float64) / chunks, np.asarray(compute_s, np.float64) / chunks
    return np.asarray(transfer + (chunks - 1) * np.maximum(transfer, compute) + compute)


def with_transfers(trace: Trace, seconds_per_job: ArrayLike, overlap: str = "none") -> Trace:
    """Return the trace with a transfer of data before or beside each job's computing, which its run time is.

    A note of the trace says which. Requested times change as the run times do.

    Args:
        trace: the jobs.
        seconds_per_job: how long the transfer takes, one number or shape (jobs,); 0 is none.
        overlap: "none": the job holds its GPUs while data is transferred, then computes: run time t + w.
            "chunks:N": it holds them while data comes in N pieces, see `staged_seconds`.
            "prefetch": data is transferred as soon as the job is submitted, without a GPU; it joins the queue after
            that. Its submit time becomes the end of the transfer, from which waits and JCT then count; a deadline
            stays where it was.

    Raises:
        ConfigError: there is no such overlap.
        TraceError: a transfer is not 0 or more seconds, or with "prefetch" ends after a deadline.
    """
    seconds = _checked(trace, seconds_per_job)
    if overlap == "prefetch":
        return _prefetched(trace, seconds)
    chunks = 1 if overlap == "none" else _chunks(overlap)
    run = np.where(seconds > 0.0, staged_seconds(seconds, trace.run_time, chunks), trace.run_time)
    check_numbers("run_time", run, lambda row: f"{trace.name}: job {trace.job_id[row]}")
    requested = np.where(seconds > 0.0, staged_seconds(seconds, trace.requested_time, chunks), trace.requested_time)
    pieces = "" if chunks == 1 else f", in {counted(chunks, 'piece')}, each computed while the next one comes"
    note = f"{_average(seconds)} is part of the run times{pieces}"
    busy = trace.gpu_utilization * (trace.run_time / run)  # a transfer keeps the GPUs waiting
    return replace(trace, run_time=run, requested_time=requested, gpu_utilization=busy, notes=(*trace.notes, note))


def _prefetched(trace: Trace, seconds: Seconds) -> Trace:
    deadline = trace.deadline - seconds
    late = deadline <= 0.0
    if late.any():
        row = int(late.argmax())
        due = f"job {trace.job_id[row]} has to finish {trace.deadline[row]:g} s after its submission"
        raise TraceError(f"{trace.name}: {due}, but its transfer takes {seconds[row]:g} s")
    note = f"{_average(seconds)} passes before a job joins the queue: submit times, waits and JCT count from its end"
    moved = replace(trace, submit_time=trace.submit_time + seconds, deadline=deadline, notes=(*trace.notes, note))
    return moved.by_submit_time()


def _average(seconds: Seconds) -> str:
    return f"transfers: {seconds.mean():g} s a job on average"


def _chunks(overlap: str) -> int:
    match = re.fullmatch(r"chunks:([1-9]\d{0,8})", overlap)
    if match is None:
        hint = nearest(overlap, OVERLAPS)
        raise ConfigError(f"no overlap of transfers is called {overlap!r}{hint}; known: {', '.join(OVERLAPS)}")
    return int(match[1])


def _checked(trace: Trace, seconds: ArrayLike) -> Seconds:
    """Return the transfers' seconds, shape (jobs,)."""
    array = np.asarray(seconds, np.float64)
    if array.shape not in ((), (len(trace),)):
        raise TraceError(f"{trace.name}: transfers of shape {array.shape}; give one number, or one for each job")
    array = np.broadcast_to(array, (len(trace),))
    bad = ~((array >= 0.0) & (array <= MAX_SECONDS))
    if bad.any():
        row = int(bad.argmax())
        job = trace.job_id[row]
        raise TraceError(
            f"{trace.name}: the transfer of job {job} is {array[row]:g} s; it must be 0 to {MAX_SECONDS:g}"
        )
    return array
