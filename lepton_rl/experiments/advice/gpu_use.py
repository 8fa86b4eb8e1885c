"""GPUs that jobs ask for and do not keep busy, by the utilisation that was measured."""

from dataclasses import replace

import numpy as np

from lepton_rl.core import ClusterSpec
from lepton_rl.core.arrays import Bools, Floats
from lepton_rl.core.hardware.dynamics import Interference
from lepton_rl.errors import counted
from lepton_rl.experiments.advice.candidate import Candidate
from lepton_rl.experiments.advice.study import Idea, LeftOut, Study
from lepton_rl.workloads import Trace
from lepton_rl.workloads.job_table import runnable

KIND = "over-asked GPUs"
TARGET_UTILIZATION = 0.8
"""Up to which a GPU is filled in the mean: a mean says nothing of the peaks, for which the rest is left."""
SHARES = (0.125, 0.25, 0.5)
"""Of a GPU; they fill one without a remainder."""
UNSAID = ("energy_kwh", "electricity_usd", "carbon_kg")
"""The simulation lets a held GPU draw as a busy one, so that it would call idle time given back power saved."""

_TINY = 1e-9


def fewer_gpus(study: Study) -> Idea:
    """Try jobs of one GPU as shares of it, and gangs on a part of their GPUs, where they keep these busy no more."""
    if np.isnan(study.column("gpu_utilization")).all():
        yield LeftOut(KIND, "the trace does not say how busy jobs kept their GPUs (column gpu_utilization)")
        return
    if not _is_known(study).any():
        yield LeftOut(KIND, "no job of known gpu_utilization has a memory figure, by which it would fit on fewer GPUs")
        return
    needed = np.concatenate([gpus_needed(trace, study.setup.cluster) for trace in study.traces])
    asked = study.column("gpus")
    alone, gangs = (needed < asked) & (asked == 1), (needed < asked) & (asked > 1)
    if not (alone | gangs).any():
        yield LeftOut(KIND, f"no job of known gpu_utilization would fit on fewer, each {TARGET_UTILIZATION:.0%} busy")
        return
    if alone.any():
        yield _tried(study, needed, alone, "one-GPU jobs as shares", "one-GPU jobs as 1/2, 1/4 or 1/8 of a GPU")
    if gangs.any():
        yield _tried(study, needed, gangs, "smaller gangs", "gangs on a half, a third, ... of their GPUs")
    if alone.any() and gangs.any():
        how = "one-GPU jobs as 1/2, 1/4 or 1/8 of a GPU and gangs on a half, a third, ... of theirs"
        yield _tried(study, needed, alone | gangs, "shares and smaller gangs", how)


def gpus_needed(trace: Trace, cluster: ClusterSpec) -> Floats:
    """Return the GPUs on which each job's busy GPU-seconds fit into its run time, shape (jobs,).

    A job of n GPUs, busy a part u of its time, kept n u GPUs busy. It is given the fewest that keep TARGET_UTILIZATION
    with that: one of SHARES for a job of one GPU, a divisor of n for a gang, for these cut its work into equal parts.
    Its memory is kept in the sum. Jobs whose utilisation or memory is not known, and those that could not run so, keep
    what they ask for.
    """
    memory = trace.gpu_memory_gib
    largest = max([kind.memory_gib for kind in cluster.types], default=cluster.gpu_memory_gib)
    by_memory = np.where(trace.gpus > 1, trace.gpus * memory / largest, 0.0)
    least = np.maximum(trace.gpus * trace.gpu_utilization / TARGET_UTILIZATION, by_memory)
    needed = trace.gpus.copy()
    for count in np.unique(trace.gpus[trace.gpus >= 1]).tolist():
        rows = np.flatnonzero((trace.gpus == count) & np.isfinite(least) & (memory > 0))
        sizes = _sizes(int(count))
        needed[rows] = sizes[np.minimum(np.searchsorted(sizes, least[rows] - _TINY), len(sizes) - 1)]
    settled: Floats = np.where(_can_run(_asking(trace, needed), cluster), needed, trace.gpus)
    return settled


def _sizes(gpus: int) -> Floats:
    """Return what a job of so many GPUs may ask for instead, rising, itself the last."""
    if gpus == 1:
        return np.array([*SHARES, 1.0])
    return np.array([part for part in range(1, gpus + 1) if gpus % part == 0], np.float64)


def _asking(trace: Trace, gpus: Floats) -> Trace:
    """Return the jobs asking for so many GPUs, with all that they take beside them as before in the sum."""
    scale = np.where(gpus >= 1, trace.gpus / gpus, 1.0)
    asks = {name: array * scale for name, array in trace.asks.items()}
    utilization = np.minimum(trace.gpu_utilization * trace.gpus / gpus, 1.0)
    return replace(
        trace, gpus=gpus, gpu_memory_gib=trace.gpu_memory_gib * scale, gpu_utilization=utilization, asks=asks
    )


def _can_run(trace: Trace, cluster: ClusterSpec) -> Bools:
    if cluster.groups:
        return runnable(trace, cluster)
    return ~(trace.gpu_memory_gib > cluster.gpu_memory_gib)


def _is_known(study: Study) -> Bools:
    known: Bools = ~np.isnan(study.column("gpu_utilization")) & (study.column("gpu_memory_gib") > 0)
    return known


def _tried(study: Study, needed: Floats, changed: Bools, title: str, how: str) -> Candidate:
    asked, used, seconds = study.column("gpus"), study.column("gpu_utilization"), study.gpu_seconds
    mean = np.average(used[changed], weights=seconds[changed])
    cluster = study.setup.cluster
    shares_are_free = (needed[changed] < 1).any() and cluster.dynamics.interference == Interference()
    free = " Sharing a GPU costs nothing in this cluster's file." if shares_are_free else ""
    text = (
        f"Ask for the GPUs that are used: {np.count_nonzero(changed):,} of {counted(len(changed), 'job')} "
        f"({seconds[changed].sum() / seconds.sum():.0%} of the GPU-hours) kept theirs busy {mean:.0%} of the time. "
        f"Simulated with {how}, {_sum(needed[changed])} in place of {_sum(asked[changed])} in all: as few as do the "
        f"same work in the same run time, busy at most {TARGET_UTILIZATION:.0%} of it. A bound: a job that cannot use "
        f"that idle time runs longer; measure one first.{free}"
    )
    gpus = np.where(changed, needed, asked)
    parts = np.split(gpus, np.cumsum([len(trace) for trace in study.traces])[:-1])
    windows = tuple(_asking(trace, part) for trace, part in zip(study.traces, parts, strict=True))
    return Candidate(KIND, title, text, "mean_jct", replace(study.setup, windows=windows), UNSAID)


def _sum(gpus: Floats) -> str:
    return f"{gpus.sum():,.1f}".removesuffix(".0")
