"""What a schedule was worth: one record of its outcome, and the metrics computed from it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.physics import energy_joules, mean_utilization, power_w
from lepton_rl.core.slowdown import bounded_slowdown
from lepton_rl.core.units import JOULES_PER_KWH, SECONDS_PER_HOUR

ROUNDING_S = 1e-6
"""A job is late from this many seconds on: sums of large times round."""

SMALLEST = 1e-9
"""Differences of large times round to less than this: a smaller figure is 0."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metered:
    """What the GPUs of a detailed cluster drew over a run, and what that cost."""

    joules: float
    electricity_usd: float
    carbon_g: float

    def costs(self, cluster: ClusterSpec, makespan: float) -> dict[str, float]:
        """Return the costs for which the cluster names prices, by metric."""
        costs: dict[str, float] = {}
        if cluster.tariffs.electricity is not None:
            costs["electricity_usd"] = self.electricity_usd
        if cluster.tariffs.carbon is not None:
            costs["carbon_kg"] = self.carbon_g / 1000.0
        rent = cluster.rent_usd_per_hour
        if rent is not None:
            costs["rent_usd"] = rent * makespan / SECONDS_PER_HOUR
        return costs


@dataclass(frozen=True, eq=False)
class Disturbed:
    """What failures did to each job; arrays of shape (jobs,)."""

    strikes: NDArray[np.int64]  # failures of a GPU on which it ran
    lost_seconds: FloatArray  # seconds of service that failures undid

    def of(self, jobs: slice) -> "Disturbed":
        """Return what became of some of the jobs."""
        return Disturbed(self.strikes[jobs], self.lost_seconds[jobs])


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
    metered: "Metered | None" = None  # of a cluster whose nodes differ
    disturbed: "Disturbed | None" = None  # of a cluster whose GPUs fail
    migrations: NDArray[np.int64] | None = None  # None where nobody moves jobs
    deadline: FloatArray | None = None  # seconds after submission, NaN none; None where no job has one

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
        """Exact integral of every GPU's power over the makespan.

        On identical GPUs it follows from the utilisation, for the power is linear in the load.
        """
        if self.metered is not None:
            return self.metered.joules
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
        return mean_power_w(self.cluster, self.utilization, self.makespan, self.metered)

    @property
    def tardiness(self) -> FloatArray:
        """Seconds by which each job with a deadline missed it, 0 where it was met; empty where no job has one."""
        if self.deadline is None:
            return np.zeros(0)
        late = self.jct - self.deadline
        return np.where(late > ROUNDING_S, late, 0.0)[~np.isnan(self.deadline)]

    def finish_time_fairness(self) -> FloatArray:
        """Rho of each job: JCT over what it would be on an equal share of the cluster, see `finish_time_fairness`."""
        return finish_time_fairness(self.submit, self.finish, self.run, self.gpus, self.cluster.gpus)

    def bounded_slowdown(self) -> FloatArray:
        """`max(1, (wait + run) / max(run, 10))` of each job."""
        return bounded_slowdown(self.wait, self.run)

    def metrics(self) -> dict[str, float]:
        """Return every metric by name; the units are in DESCRIPTIONS."""
        jct, wait, slowdown = self.jct, self.wait, self.bounded_slowdown()
        makespan, tardiness, rho = self.makespan, self.tardiness, self.finish_time_fairness()
        figures = {
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
            "mean_rho": float(rho.mean()),
            "max_rho": float(rho.max()),
            "deadlines_met": float((tardiness == 0.0).mean()) if len(tardiness) else 1.0,
            "mean_tardiness": float(tardiness.mean()) if len(tardiness) else 0.0,
            "preemptions": float(self.preemptions.sum()),
            "migrations": 0.0 if self.migrations is None else float(self.migrations.sum()),
            "throughput": len(jct) / (makespan / SECONDS_PER_HOUR),
            "energy_kwh": self.energy_joules / JOULES_PER_KWH,
            "mean_power_w": self.mean_power_w,
        }
        if self.metered is not None:
            figures |= self.metered.costs(self.cluster, makespan)
        if self.disturbed is not None:
            lost = float(self.disturbed.lost_seconds @ self.gpus)
            figures |= {"strikes": float(self.disturbed.strikes.sum()), "lost_gpu_hours": lost / SECONDS_PER_HOUR}
        return figures


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
    "mean_rho": "mean finish-time fairness (JCT over JCT on an equal share of the cluster; Themis)",
    "max_rho": "worst finish-time fairness of a job",
    "deadlines_met": "share of the jobs with a deadline that met it, 1 where none has one",
    "mean_tardiness": "mean time by which jobs with a deadline missed it, s",
    "preemptions": "running jobs stopped by a decision",
    "migrations": "running jobs moved to other GPUs",
    "throughput": "jobs finished per hour",
    "energy_kwh": "energy of all GPUs over the makespan, kWh",
    "mean_power_w": "mean power of all GPUs together, W",
    "electricity_usd": "cost of that energy at each hour's price, USD",
    "carbon_kg": "carbon of that energy at each hour's intensity, kg CO2eq",
    "rent_usd": "rent of all GPUs over the makespan, USD",
    "strikes": "running jobs that lost a GPU to a failure",
    "lost_gpu_hours": "GPU-hours of service that failures undid",
}


PRICED = ("electricity_usd", "carbon_kg", "rent_usd")
"""Metrics that only a cluster with prices has."""
OF_FAULTS = ("strikes", "lost_gpu_hours")
"""Metrics that only a cluster whose GPUs fail has."""
UNITS = {
    **dict.fromkeys(
        ("mean_jct", "mean_wait", "p50_jct", "p90_jct", "p99_jct", "p99_wait", "max_wait", "makespan"), "s"
    ),
    "mean_tardiness": "s",
    "throughput": "jobs/h",
}
"""Of the metrics that have one and do not end in it."""


def mean_power_w(cluster: ClusterSpec, utilization: float, makespan: float, metered: Metered | None) -> float:
    """Return the mean power of all GPUs together, watts: metered, or of identical GPUs by their utilisation."""
    if metered is not None:
        return metered.joules / makespan
    return cluster.gpus * power_w(utilization, cluster.max_power_w, cluster.idle_power_w)


def finish_time_fairness(
    submit: FloatArray, finish: FloatArray, run: FloatArray, gpus: FloatArray, cluster_gpus: int
) -> FloatArray:
    """Return `rho = JCT / (run x max(1, n N / P))` of each job (Mahajan et al., Themis, NSDI 2020).

    N is the mean number of jobs in the system over the job's own life, P the cluster's GPUs: on 1/N of the cluster a
    gang of n GPUs runs n N / P times as long where it does not fit, speed being proportional to GPUs. At 1 or below
    the job was served no worse than by an equal share.
    """
    jobs = _mean_jobs_in_system(submit, finish)
    share: FloatArray = (finish - submit) / (run * np.maximum(1.0, gpus * jobs / cluster_gpus))
    return share


def _mean_jobs_in_system(submit: FloatArray, finish: FloatArray) -> FloatArray:
    """Return the time average of the number of jobs that are submitted and not finished, over each job's life."""
    times = np.concatenate((submit, finish))
    order = np.argsort(times, kind="stable")
    times = times[order]
    present = np.cumsum(np.where(order < len(submit), 1.0, -1.0))
    area = np.concatenate(([0.0], np.cumsum(present[:-1] * np.diff(times))))
    at = (np.interp(moment, times, area) for moment in (finish, submit))
    mean: FloatArray = np.maximum((next(at) - next(at)) / (finish - submit), 1.0)
    return mean


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
