"""What a scheduler can know at a decision point: read-only arrays, no true run times, no future jobs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action, Migrate, SetPowerLimit, Start
from lepton_rl.core.allocation import held_gpus
from lepton_rl.core.carrying_out import check_is_action, check_quantum, forget_rates, limit_power, move_gpus, take_gpus
from lepton_rl.core.hardware.tables import IDLE_MW, Hardware
from lepton_rl.core.placement import Placement
from lepton_rl.core.progress import begin_run, end_run
from lepton_rl.core.rates import change_rates_seen
from lepton_rl.errors import IllegalAction

if TYPE_CHECKING:
    from lepton_rl.core.cluster import ClusterSpec

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class JobView:
    """Jobs of a snapshot as named columns, each of shape (jobs,)."""

    table: FloatArray  # (jobs, layout.JOB_COLUMNS)

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[int]:
        return iter(self.id.tolist())

    @property
    def id(self) -> NDArray[np.int64]:
        """The number by which actions name the job."""
        return self.table[:, L.ID].astype(np.int64)

    @property
    def submit_time(self) -> FloatArray:
        """Seconds."""
        return self.table[:, L.SUBMIT]

    @property
    def requested_time(self) -> FloatArray:
        """Seconds; NaN where the workload has none."""
        return self.table[:, L.REQUESTED]

    @property
    def gpus(self) -> FloatArray:
        """Whole GPUs, or a share below 1."""
        return self.table[:, L.GPUS] / L.MILLI

    @property
    def gpu_memory_gib(self) -> FloatArray:
        """GiB on each GPU; 0 where the job gives no figure."""
        return self.table[:, L.MEMORY] / L.MIB_PER_GIB

    @property
    def compute_intensity(self) -> FloatArray:
        """In the unit of the workload."""
        return self.table[:, L.COMPUTE]

    @property
    def time_sensitivity(self) -> FloatArray:
        """In the unit of the workload."""
        return self.table[:, L.TIME_SENSITIVITY]

    @property
    def queue(self) -> NDArray[np.int64]:
        """Code of the queue, -1 unknown."""
        return self.table[:, L.QUEUE].astype(np.int64)

    @property
    def user(self) -> NDArray[np.int64]:
        """Code of the user, -1 unknown."""
        return self.table[:, L.USER].astype(np.int64)

    @property
    def deadline(self) -> FloatArray:
        """When the job should have finished, seconds; infinity where it has no deadline."""
        if self.table.shape[1] > L.DEADLINE:
            return self.table[:, L.DEADLINE]
        return np.full(len(self.table), np.inf)

    @property
    def start_time(self) -> FloatArray:
        """Start of the present run, seconds (running jobs)."""
        return self.table[:, L.START]

    @property
    def attained_service(self) -> FloatArray:
        """Seconds of service before the present run; where rates change, before the last change (see `layout`)."""
        return self.table[:, L.ATTAINED]

    @property
    def predicted_time(self) -> FloatArray:
        """Seconds that the present or next run is predicted to take, from the requested time; of the same moment."""
        return self.table[:, L.PREDICTED]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A cluster at one instant.

    The arrays are packed as in `layout`, so that compiled policies and codecs read them without conversion; people
    read `queue`, `running` and the GPU properties. All arrays are read-only.
    """

    time: float  # seconds
    cluster: "ClusterSpec"
    placement: Placement  # what `Start` without GPUs uses
    restart_cost: float  # seconds that a preemption adds
    quantum: float  # seconds for which a run cannot be preempted
    jobs: FloatArray  # (running + waiting, JOB_COLUMNS): running jobs by id, then waiting jobs by submission
    running_count: int
    gpus: NDArray[np.int32]  # (GPUs, GPU_COLUMNS)
    nodes: NDArray[np.int32]  # (nodes, NODE_COLUMNS)
    bits: NDArray[np.uint64]  # (nodes, words)
    totals: NDArray[np.int64]  # (TOTAL_COLUMNS,)
    hw: Hardware = None  # tables by GPU type where the nodes differ
    migration_cost: float = 0.0  # seconds that a migration adds
    temperatures: FloatArray | None = None  # (GPUs,), degrees Celsius, where heat is counted
    pinned: frozenset[int] = frozenset()  # ids of running jobs that the cluster refuses to preempt or move

    @property
    def queue(self) -> JobView:
        """Waiting jobs, in order of submission."""
        return JobView(self.jobs[self.running_count :])

    @property
    def running(self) -> JobView:
        """Running jobs, by id."""
        return JobView(self.jobs[: self.running_count])

    @property
    def free_gpus(self) -> int:
        """Wholly free GPUs."""
        return int(self.totals[L.FREE_WHOLE])

    @property
    def gpu_load(self) -> FloatArray:
        """Share of each GPU that jobs hold, 0 to 1, shape (GPUs,)."""
        load: FloatArray = 1.0 - self.gpus[:, L.FREE] / L.MILLI
        return load if self.hw is None else np.where(self.gpus[:, L.DOWN] > 0, 0.0, load)

    @property
    def gpu_memory_free_gib(self) -> FloatArray:
        """Free memory of each GPU, GiB, shape (GPUs,)."""
        return self.gpus[:, L.MEMORY_FREE] / L.MIB_PER_GIB

    @property
    def gpu_power_w(self) -> FloatArray:
        """Draw of each GPU, idle + (max - idle) x load under its power limit, watts, shape (GPUs,).

        A GPU that is down draws nothing; what a throttling one does not draw is not counted here.
        """
        if self.hw is None:
            return self.cluster.gpu_draw_w(self.gpu_load)
        idle = self.hw.power_mw[self.nodes[self.gpus[:, L.NODE], L.TYPE], IDLE_MW] * 1e-3
        draw: FloatArray = np.where(self.gpu_up, idle + self.gpus[:, L.LOAD] * 1e-3 * self.gpu_load, 0.0)
        return draw

    @property
    def gpu_up(self) -> NDArray[np.bool_]:
        """Which GPUs no failure keeps down, shape (GPUs,)."""
        if self.hw is None:
            return np.ones(len(self.gpus), np.bool_)
        up: NDArray[np.bool_] = self.gpus[:, L.DOWN] == 0
        return up

    @property
    def gpu_power_limit_w(self) -> FloatArray:
        """Power limit of each GPU, watts, shape (GPUs,); on GPUs without a type what they draw at most."""
        if self.hw is None:
            return np.full(len(self.gpus), self.cluster.max_power_w)
        return self.gpus[:, L.LIMIT].astype(np.float64) * 1e-3

    @property
    def gpu_temperature_c(self) -> FloatArray:
        """Temperature of each GPU, degrees Celsius, shape (GPUs,); NaN where heat is not counted."""
        return np.full(len(self.gpus), np.nan) if self.temperatures is None else self.temperatures

    @property
    def service(self) -> FloatArray:
        """Seconds of service that each row of `jobs` has had by now."""
        service: FloatArray = self.jobs[:, L.ATTAINED].copy()
        running = self.jobs[: self.running_count]
        if self.hw is None:
            service[: self.running_count] += self.time - running[:, L.START]
        else:
            service[: self.running_count] += (self.time - running[:, L.SINCE]) * running[:, L.RATE]
        return service

    def gpus_of(self, job: int) -> tuple[int, ...]:
        """Return the GPUs that a running job holds."""
        row = self._row(job, running=True)
        out = np.empty(len(self.gpus), np.int64)
        return tuple(out[: held_gpus(self.jobs, row, self.gpus, out)].tolist())

    def after(self, action: Action) -> "Snapshot":
        """Return the snapshot that follows when the action is applied now.

        What a changed load or limit does to the heat of a GPU shows only when time has passed.

        Raises:
            IllegalAction: the action is not possible.
        """
        check_is_action(action)
        jobs, gpus, nodes = self.jobs.copy(), self.gpus.copy(), self.nodes.copy()
        bits, totals = self.bits.copy(), self.totals.copy()
        running = np.arange(self.running_count)
        if isinstance(action, SetPowerLimit):
            limit_power(action, self.cluster, gpus, nodes, totals, self.hw)
        else:
            row = self._row(action.job, running=not isinstance(action, Start))
            if isinstance(action, Start):
                take_gpus(action, jobs, row, self.placement, gpus, nodes, bits, totals, self.hw)
                begin_run(jobs, row, self.time, self.hw)
                running = np.append(running, row)
            else:
                check_quantum(action, self.time - jobs[row, L.START], self.quantum)
                if isinstance(action, Migrate):
                    move_gpus(
                        action, jobs, row, self.placement, gpus, nodes, bits, totals, self.hw, self.time,
                        self.migration_cost,
                    )  # fmt: skip
                else:
                    end_run(jobs, row, self.restart_cost, self.time, gpus, nodes, bits, totals, self.hw)
                    running = np.delete(running, row)
        waiting = np.setdiff1d(np.arange(len(jobs)), running)
        running = running[np.argsort(jobs[running, L.ID], kind="stable")]
        waiting = waiting[np.lexsort((jobs[waiting, L.ID], jobs[waiting, L.SUBMIT]))]
        jobs = jobs[np.concatenate((running, waiting))]
        if self.hw is not None and totals[L.STIRRED_GPUS] > 0:
            change_rates_seen(jobs, len(running), gpus, nodes, totals, self.hw, self.time)
        if self.hw is not None:
            forget_rates(jobs[len(running) :])
        totals[L.TOUCHED : L.TOTAL_COLUMNS] = -1
        for array in (jobs, gpus, nodes, bits, totals):
            array.setflags(write=False)
        return replace(self, jobs=jobs, running_count=len(running), gpus=gpus, nodes=nodes, bits=bits, totals=totals)

    def _row(self, job: int, running: bool) -> int:
        """Row of a job that must be running (or waiting)."""
        rows = np.flatnonzero(self.jobs[:, L.ID] == job)
        if len(rows) == 0:
            raise IllegalAction(f"job {job} is neither waiting nor running")
        row = int(rows[0])
        if running != (row < self.running_count):
            raise IllegalAction(f"job {job} is {'waiting, not running' if running else 'running already'}")
        return row
