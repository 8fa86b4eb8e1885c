"""Jobs and GPUs of a node as the packed arrays of a snapshot."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Start
from lepton_rl.core.arrays import Floats
from lepton_rl.core.carrying_out import hold_these, take_gpus
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.machine import empty_cluster, hardware_tables
from lepton_rl.core.outages import take_down
from lepton_rl.core.placement import Placement
from lepton_rl.core.power import set_limit
from lepton_rl.core.progress import begin_run
from lepton_rl.core.rates import change_rates_seen
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import JobError
from lepton_rl.node.hardware import CPU, RAM
from lepton_rl.node.jobs import JobRequest, in_words
from lepton_rl.workloads import Trace
from lepton_rl.workloads.job_table import job_table, runnable

_FIRST_TIME = 1.0  # of a trace of one job; any will do


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A run that holds GPUs: when it began (seconds of the snapshot's clock), the numbers of its GPUs, and whether it
    may be preempted and moved.
    """

    row: Floats
    started: float
    gpus: tuple[int, ...]
    restartable: bool = True


@dataclass(frozen=True, slots=True)
class GpuView:
    """What else a snapshot shows of the GPUs, each by number."""

    out: frozenset[int] = frozenset()  # take no new work
    power_limit_mw: Mapping[int, int] = field(default_factory=dict)


class JobRows:
    """Makes the row of each job once.

    Args:
        cluster: the node.
        default_time_s: what a job without a requested time counts as asking for.
        estimate: says that instead, for each job, whether it asks for a time or not.
    """

    def __init__(
        self, cluster: ClusterSpec, default_time_s: float, estimate: Callable[[JobRequest], float] | None = None
    ) -> None:
        self.cluster = cluster
        self.default_time_s = default_time_s
        self._estimate = estimate
        self._by_demand: dict[tuple[float | None, ...], Floats] = {}
        self._codes: dict[str, dict[str, int]] = {"queue": {}, "user": {}, "project": {}}

    def code(self, column: str, name: str) -> int:
        """Return the number by which snapshots call a queue, user or project; -1 for none."""
        return self._codes[column].setdefault(name, len(self._codes[column])) if name else -1

    def requested_s(self, request: JobRequest) -> float:
        """Return what a job counts as asking for, seconds."""
        if self._estimate is not None:
            return self._estimate(request)
        return self.default_time_s if request.requested_s is None else request.requested_s

    def row(self, job: int, request: JobRequest, submitted: float, served: float) -> Floats:
        """Return a job's row.

        Args:
            job: its number.
            request: what it asks for.
            submitted: seconds of the snapshot's clock.
            served: seconds that its earlier runs gave it.

        Raises:
            JobError: no GPU of this node can ever run it.
        """
        row = self._template(request).copy()
        requested = self.requested_s(request)
        row[L.ID], row[L.SUBMIT], row[L.REQUESTED] = job, submitted, requested
        row[L.QUEUE] = self.code("queue", request.queue)
        row[L.USER] = self.code("user", request.user)
        row[L.PROJECT] = self.code("project", request.project)
        row[L.COMPUTE] = 1.0 if request.compute_intensity is None else request.compute_intensity
        row[L.TIME_SENSITIVITY] = 1.0 if request.time_sensitivity is None else request.time_sensitivity
        row[L.ATTAINED] = served
        row[L.PREDICTED] = max(requested - served, 1.0)
        return row

    def _template(self, request: JobRequest) -> Floats:
        demand = (request.gpu_milli, request.gpu_memory_mib, request.cpus, request.ram_mib)
        if demand not in self._by_demand:
            self._by_demand[demand] = self._make(request)
        return self._by_demand[demand]

    def _make(self, request: JobRequest) -> Floats:
        gpus = request.gpu_milli / L.MILLI
        if gpus <= 0:
            raise JobError("a job asks for at least a share of a GPU; run the command itself where it needs none")
        count = max(gpus, 1.0)
        columns = {
            "submit_time": [_FIRST_TIME],
            "run_time": [_FIRST_TIME],
            "gpus": [gpus],
            "gpu_memory_gib": [np.nan if request.gpu_memory_mib is None else request.gpu_memory_mib / L.MIB_PER_GIB],
            f"{CPU}_per_gpu": [(request.cpus or 0.0) / count],
            f"{RAM}_per_gpu": [(request.ram_mib or 0.0) / L.MIB_PER_GIB / count],
        }
        trace = Trace.from_columns(columns, name="submit")
        if not runnable(trace, self.cluster)[0]:
            cores, memory = (self._offered(name) for name in (CPU, RAM))
            raise JobError(
                f"no GPU of this node can ever run a job that asks for {in_words(request)}; it has {self.cluster}, "
                f"{cores:g} CPU cores and {memory:.0f} GiB of memory, divided among its GPUs"
            )
        row: Floats = job_table(trace, self.cluster)[0]
        return row

    def _offered(self, name: str) -> float:
        return sum(group.nodes * dict(group.offers).get(name, 0.0) for group in self.cluster.groups)


class Views:
    """Builds snapshots of one node.

    Args:
        cluster: the node.
        placement: what `Start` without GPUs uses.
        restart_cost: seconds that a preemption adds.
        quantum: seconds for which a run cannot be preempted.
    """

    def __init__(self, cluster: ClusterSpec, placement: Placement, restart_cost: float, quantum: float) -> None:
        self._cluster, self._placement = cluster, placement
        self._restart_cost, self._quantum = restart_cost, quantum
        self._hw = hardware_tables(cluster)
        self._empty = empty_cluster(cluster)
        self._columns = L.ASKS + len(cluster.resources)

    def build(self, time: float, waiting: Sequence[Floats], running: Sequence[RunningJob], view: GpuView) -> Snapshot:
        """Return the node as a policy sees it.

        A GPU that takes no new work counts as down where nothing runs on it; where a share runs, its free part counts
        as held.
        """
        gpus, nodes, bits, totals = self._empty
        gpus, nodes, bits, totals = gpus.copy(), nodes.copy(), bits.copy(), totals.copy()
        running = sorted(running, key=lambda job: job.row[L.ID])
        waiting = sorted(waiting, key=lambda row: (row[L.SUBMIT], row[L.ID]))
        jobs = np.array([*(job.row for job in running), *waiting]).reshape(-1, self._columns)
        held = {gpu for job in running for gpu in job.gpus}
        for gpu, limit in view.power_limit_mw.items():
            set_limit(gpu, limit, gpus, nodes, totals, self._hw)
        for gpu in view.out - held:
            take_down(gpu, gpus, nodes, bits, totals, self._hw)
        for row, job in enumerate(running):
            start = Start(int(job.row[L.ID]), job.gpus)
            take_gpus(start, jobs, row, self._placement, gpus, nodes, bits, totals, self._hw)
            begin_run(jobs, row, job.started, self._hw)
        for gpu in view.out & held:
            free = int(gpus[gpu, L.FREE])
            if 0 < free < L.MILLI:
                filler = np.zeros((1, self._columns))
                filler[0, L.GPUS], filler[0, L.MEMORY] = free, max(int(gpus[gpu, L.MEMORY_FREE]), 1)
                hold_these(filler, 0, (gpu,), gpus, nodes, bits, totals, self._hw)
        change_rates_seen(jobs, len(running), gpus, nodes, totals, self._hw, time)
        totals[L.TOUCHED : L.TOTAL_COLUMNS] = -1
        for array in (jobs, gpus, nodes, bits, totals):
            array.setflags(write=False)
        return Snapshot(
            time=time, cluster=self._cluster, placement=self._placement, restart_cost=self._restart_cost,
            quantum=self._quantum, jobs=jobs, running_count=len(running), gpus=gpus, nodes=nodes, bits=bits,
            totals=totals, hw=self._hw, migration_cost=self._restart_cost,
            pinned=frozenset(int(job.row[L.ID]) for job in running if not job.restartable),
        )  # fmt: skip
