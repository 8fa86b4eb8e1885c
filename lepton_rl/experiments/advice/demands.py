"""What jobs ask for and may not need: memory that only larger GPUs have, and longer times than they run."""

from dataclasses import replace

import numpy as np

from lepton_rl.agents import policy_name
from lepton_rl.core import ClusterSpec
from lepton_rl.core.arrays import Floats
from lepton_rl.experiments.advice.candidate import Candidate
from lepton_rl.experiments.advice.study import Idea, LeftOut, Study
from lepton_rl.workloads import Trace


def smaller_memory(study: Study) -> Idea:
    """Try memory figures lowered to the next smaller type of GPU, for jobs that they keep from it."""
    sizes = sorted({kind.memory_gib for kind in study.setup.cluster.types})
    if len(sizes) < 2:
        yield LeftOut("over-asked memory", "the cluster has no GPUs of different memory")
        return
    lowered = np.concatenate([_next_smaller(trace, sizes) for trace in study.traces])
    asked = study.column("gpu_memory_gib")
    forced = lowered < asked
    if not forced.any():
        yield LeftOut("over-asked memory", "no job's memory figure keeps it from a type of GPU")
        return
    share = study.gpu_seconds[forced].sum() / study.gpu_seconds.sum()
    text = (
        f"Measure how much GPU memory jobs use: {np.count_nonzero(forced):,} of {len(forced):,} ({share:.0%} of the "
        f"GPU-hours) ask for more than a smaller type has, {np.median(asked[forced]):g} GiB in the median. Simulated "
        "as if each needed no more than the next smaller type of GPU has."
    )
    after = study.setup.with_traces(lambda trace: replace(trace, gpu_memory_gib=_next_smaller(trace, sizes)))
    yield Candidate("over-asked memory", "memory figures one type lower", text, "mean_jct", after)


def _next_smaller(trace: Trace, sizes: list[float]) -> Floats:
    """Return the memory figures, GiB, each lowered to the largest size below it, but for jobs that name a type."""
    asked = trace.gpu_memory_gib
    places = np.searchsorted([_as_counted(size) for size in sizes], np.nan_to_num(asked, nan=0.0), side="left")
    lower = (places > 0) & (trace.gpu_type < 0)
    lowered: Floats = np.where(lower, np.take(sizes, np.maximum(places - 1, 0)), asked)
    return lowered


def _as_counted(size: float) -> float:
    """Return the GiB up to which jobs fit a GPU of that size."""
    return ClusterSpec(gpu_memory_gib=size).gpu_memory_mib / 1024


def exact_times(study: Study) -> Idea:
    """Try requested times that are right, where the present policy reads them."""
    if not study.knows_times or study.traces[0].requested == "exact":
        yield LeftOut("over-estimated requested times", "the trace has no requested times of its users")
        return
    ratio = study.column("requested_time") / study.column("run_time")
    about = (
        f"they are {np.median(ratio):.3g} times the run time in the median, above twice the run time for "
        f"{(ratio > 2).mean():.0%} of the jobs and below it for {(ratio < 1).mean():.0%}"
    )
    if not getattr(study.policy, "needs_requested_times", False):
        yield LeftOut("over-estimated requested times", f"{policy_name(study.policy)} reads none ({about})")
        return
    text = f"Get better requested times: {about}. Simulated as if each were exact, the most that there is to gain."
    after = study.setup.with_traces(lambda trace: trace.with_requested("exact"))
    yield Candidate("requested times", "exact requested times", text, "mean_jct", after)
