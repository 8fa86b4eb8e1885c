"""What a schedule was worth: one record of its outcome, and the metrics computed from it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.physics import energy_joules, mean_utilization, power_w

SECONDS_PER_HOUR = 3600.0
JOULES_PER_KWH = 3.6e6
SLOWDOWN_FLOOR = 10.0
"""Run times below this many seconds count as this long in the bounded slowdown (Feitelson 2001)."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcome:
    """When each job of a workload started and finished; arrays of shape (jobs,), times in seconds."""

    cluster: ClusterSpec
    submit: FloatArray
    run: FloatArray
    gpus: FloatArray
    first_start: FloatArray
    finish: FloatArray
    preemptions: NDArray[np.int64]
    groups: NDArray[np.int32]  # user or queue of each job, -1 unknown; fairness is measured between them
    busy_gpu_seconds: float
    stranded_gpu_seconds: float

    @cached_property
    def jct(self) -> FloatArray:
        """Job completion time: finish - submit, seconds."""
        return self.finish - self.submit

    @cached_property
    def wait(self) -> FloatArray:
        """JCT less the run time, seconds (after a preemption the time off the GPUs counts as waiting)."""
        return np.maximum(self.jct - self.run, 0.0)  # a difference of large times may round below 0

    @cached_property
    def makespan(self) -> float:
        """From the first submission to the last finish, seconds."""
        return float(self.finish.max() - self.submit.min())

    @property
    def energy_joules(self) -> float:
        """Exact integral of every GPU's power over the makespan: the power is linear in the load."""
        return energy_joules(self.mean_power_w, self.makespan)

    @property
    def utilization(self) -> float:
        """Busy GPU-seconds / (GPUs x makespan)."""
        return mean_utilization(self.busy_gpu_seconds, self.cluster.gpus, self.makespan)

    @property
    def fragmentation(self) -> float:
        """Free GPU-seconds on partly used nodes / (GPUs x makespan); 0 on a pool, which has no nodes to share."""
        if self.cluster.nodes == 1:
            return 0.0
        return self.stranded_gpu_seconds / (self.cluster.gpus * self.makespan)

    @property
    def mean_power_w(self) -> float:
        """Mean power of all GPUs together, watts."""
        spec = self.cluster
        return spec.gpus * power_w(self.utilization, spec.max_power_w, spec.idle_power_w)

    def bounded_slowdown(self) -> FloatArray:
        """`max(1, (wait + run) / max(run, 10))` of each job."""
        return bounded_slowdown(self.wait, self.run)

    def metrics(self) -> dict[str, float]:
        """Return every metric by name; the units are in DESCRIPTIONS."""
        jct, wait, slowdown = self.jct, self.wait, self.bounded_slowdown()
        makespan = self.makespan
        return {
            "mean_jct": float(jct.mean()),
            "mean_wait": float(wait.mean()),
            "p50_jct": float(np.percentile(jct, 50)),
            "p90_jct": float(np.percentile(jct, 90)),
            "p99_jct": float(np.percentile(jct, 99)),
            "p99_wait": float(np.percentile(wait, 99)),
            "max_wait": float(wait.max()),
            "makespan": makespan,
            "mean_bounded_slowdown": float(slowdown.mean()),
            "p99_bounded_slowdown": float(np.percentile(slowdown, 99)),
            "utilization": self.utilization,
            "fragmentation": self.fragmentation,
            "fairness": fairness(slowdown, self.groups),
            "preemptions": float(self.preemptions.sum()),
            "throughput": len(jct) / (makespan / SECONDS_PER_HOUR),
            "energy_kwh": self.energy_joules / JOULES_PER_KWH,
            "mean_power_w": self.mean_power_w,
        }


DESCRIPTIONS = {
    "mean_jct": "mean job completion time, s",
    "mean_wait": "mean wait, s",
    "p50_jct": "median job completion time, s",
    "p90_jct": "90th percentile of job completion time, s",
    "p99_jct": "99th percentile of job completion time, s",
    "p99_wait": "99th percentile of wait, s",
    "max_wait": "longest wait, s",
    "makespan": "first submission to last finish, s",
    "mean_bounded_slowdown": "mean bounded slowdown (floor 10 s)",
    "p99_bounded_slowdown": "99th percentile of bounded slowdown",
    "utilization": "busy GPU-seconds / (GPUs x makespan)",
    "fragmentation": "free GPU-seconds on partly used nodes / (GPUs x makespan), 0 on a pool",
    "fairness": "Jain index of mean bounded slowdown between users, else queues, else jobs (1 = equal)",
    "preemptions": "running jobs stopped by a decision",
    "throughput": "jobs finished per hour",
    "energy_kwh": "energy of all GPUs over the makespan, kWh",
    "mean_power_w": "mean power of all GPUs together, W",
}


UNITS = {
    **dict.fromkeys(
        ("mean_jct", "mean_wait", "p50_jct", "p90_jct", "p99_jct", "p99_wait", "max_wait", "makespan"), "s"
    ),
    "throughput": "jobs/h",
}
"""Of the metrics that have one and do not end in it."""


def bounded_slowdown(wait: FloatArray, run: FloatArray, floor: float = SLOWDOWN_FLOOR) -> FloatArray:
    """Return `max(1, (wait + run) / max(run, floor))`, element by element."""
    return np.maximum(1.0, (wait + run) / np.maximum(run, floor))


def fairness(slowdown: FloatArray, groups: NDArray[np.int32]) -> float:
    """Jain's index of the groups' mean slowdown (Jain, Chiu, Hawe 1984): 1 when equal, 1/groups at worst.

    Jobs are compared with each other where no job names its group; where some do, the others are left out. A group
    that is alone is equal to itself: 1.
    """
    known = groups >= 0
    if not known.any():
        shares = slowdown
    else:
        counts = np.bincount(groups[known])
        sums = np.bincount(groups[known], weights=slowdown[known])
        shares = sums[counts > 0] / counts[counts > 0]
    return float(shares.sum() ** 2 / (len(shares) * (shares**2).sum()))
