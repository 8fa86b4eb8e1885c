"""What a scheduler can know at a decision point: read-only arrays, no true run times, no future jobs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action, Start
from lepton_rl.core.allocation import held_gpus, hold_gpu, hold_share, node_of, release, set_rate, share_memory
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.placement import Placement, available, place, takes_type
from lepton_rl.core.progress import served
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
        """Seconds of service before the present run."""
        return self.table[:, L.ATTAINED]

    @property
    def predicted_time(self) -> FloatArray:
        """Seconds that the present or next run is predicted to take, from the requested time."""
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
        return 1.0 - self.gpus[:, L.FREE] / L.MILLI

    @property
    def gpu_memory_free_gib(self) -> FloatArray:
        """Free memory of each GPU, GiB, shape (GPUs,)."""
        return self.gpus[:, L.MEMORY_FREE] / L.MIB_PER_GIB

    @property
    def gpu_power_w(self) -> FloatArray:
        """Draw of each GPU, idle + (max - idle) x load, watts, shape (GPUs,)."""
        return self.cluster.gpu_draw_w(self.gpu_load)

    def gpus_of(self, job: int) -> tuple[int, ...]:
        """Return the GPUs that a running job holds."""
        row = self._row(job, running=True)
        out = np.empty(len(self.gpus), np.int64)
        return tuple(out[: held_gpus(self.jobs, row, self.gpus, out)].tolist())

    def after(self, action: Action) -> "Snapshot":
        """Return the snapshot that follows when the action is applied now.

        Raises:
            IllegalAction: the action is not possible.
        """
        check_is_action(action)
        row = self._row(action.job, running=not isinstance(action, Start))
        jobs, gpus, nodes = self.jobs.copy(), self.gpus.copy(), self.nodes.copy()
        bits, totals = self.bits.copy(), self.totals.copy()
        if isinstance(action, Start):
            take_gpus(action, jobs, row, self.placement, gpus, nodes, bits, totals, self.hw)
            jobs[row, L.START] = self.time
            running = np.append(np.arange(self.running_count), row)
        else:
            check_quantum(action.job, self.time - jobs[row, L.START], self.quantum)
            service = served(jobs, row, self.time, self.hw)
            release(jobs, row, gpus, gpus, nodes, bits, totals, self.hw)
            jobs[row, L.FIRST_GPU] = -1
            jobs[row, L.ATTAINED] += service
            jobs[row, L.PREDICTED] += self.restart_cost - service
            running = np.delete(np.arange(self.running_count), row)
        waiting = np.setdiff1d(np.arange(len(jobs)), running)
        running = running[np.argsort(jobs[running, L.ID], kind="stable")]
        waiting = waiting[np.lexsort((jobs[waiting, L.ID], jobs[waiting, L.SUBMIT]))]
        jobs = jobs[np.concatenate((running, waiting))]
        totals[L.TOUCHED :] = -1
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


def check_is_action(action: object) -> None:
    """Refuse what is neither `Start` nor `Preempt`."""
    if not isinstance(action, Action):
        raise IllegalAction(f"{action!r} is not an action; use Start or Preempt")


def check_quantum(job: int, age: float, quantum: float) -> None:
    """Refuse to preempt a run that is younger than the quantum (both in seconds)."""
    if age < quantum:
        raise IllegalAction(f"job {job} has run {age:g} s of its {quantum:g} s quantum and cannot be preempted yet")


def take_gpus(
    action: Start,
    jobs: FloatArray,
    row: int,
    placement: Placement,
    gpus: NDArray[np.int32],
    nodes: NDArray[np.int32],
    bits: NDArray[np.uint64],
    totals: NDArray[np.int64],
    hw: Hardware,
) -> None:
    """Hold the GPUs that the action names, or those that the placement chooses; clusters of every kind start so.

    Raises:
        IllegalAction: they are not free, too few, too many or do not exist; nothing has changed.
    """
    demand = int(jobs[row, L.GPUS])
    needed = max(demand // L.MILLI, 1)
    if action.gpus is None:
        if not place(int(placement), jobs, row, gpus, nodes, bits, totals, hw):
            raise IllegalAction(_why_not_placed(action.job, jobs, row, placement, nodes, totals, hw))
        return
    chosen = action.gpus
    if len(set(chosen)) != len(chosen) or len(chosen) != needed:
        raise IllegalAction(f"job {action.job} needs {needed} different GPUs, the action names {chosen}")
    for gpu in chosen:
        if not 0 <= gpu < len(gpus):
            raise IllegalAction(f"job {action.job}: there is no GPU {gpu}; the cluster has GPUs 0 to {len(gpus) - 1}")
        if gpus[gpu, L.FREE] < min(demand, L.MILLI):
            free = gpus[gpu, L.FREE] / L.MILLI
            raise IllegalAction(
                f"job {action.job} needs {min(demand, L.MILLI) / L.MILLI:g} of GPU {gpu}, {free:g} is free"
            )
        node = node_of(gpu, gpus, nodes, hw)
        if demand < L.MILLI and gpus[gpu, L.MEMORY_FREE] < share_memory(jobs, row, node, nodes, totals, hw):
            free_gib = gpus[gpu, L.MEMORY_FREE] / L.MIB_PER_GIB
            raise IllegalAction(f"job {action.job} does not fit the {free_gib:g} GiB that are free on GPU {gpu}")
    if hw is not None:
        _check_nodes(action.job, chosen, jobs, row, gpus, nodes, hw)
    if demand < L.MILLI:
        hold_share(jobs, row, gpus, nodes, bits, totals, hw, chosen[0])
    else:
        tail = -1
        for gpu in chosen:
            hold_gpu(jobs, row, gpus, nodes, bits, totals, hw, tail, gpu)
            tail = gpu
    set_rate(jobs, row, gpus, nodes, hw)


def _check_nodes(
    job: int,
    chosen: tuple[int, ...],
    jobs: FloatArray,
    row: int,
    gpus: NDArray[np.int32],
    nodes: NDArray[np.int32],
    hw: Hardware,
) -> None:
    """Refuse nodes whose type of GPU will not do, or that lack what the job asks for beside its GPUs."""
    on = gpus[list(chosen), L.NODE]
    for node in np.unique(on).tolist():
        if not takes_type(jobs, row, node, nodes, hw):
            raise IllegalAction(f"job {job} cannot run on the type of GPU, or in the GPU memory, of node {node}")
        asked = jobs[row, L.ASKS :] * np.count_nonzero(on == node)
        room = nodes[node, L.ROOM :]
        if ((asked > room) & (room != L.UNCOUNTED)).any():
            raise IllegalAction(f"job {job} asks for more CPU, RAM or accelerators than node {node} has free")


def _why_not_placed(
    job: int,
    jobs: FloatArray,
    row: int,
    placement: Placement,
    nodes: NDArray[np.int32],
    totals: NDArray[np.int64],
    hw: Hardware,
) -> str:
    demand = int(jobs[row, L.GPUS])
    suiting = "" if hw is None else " of a type and on nodes that suit it"
    if demand < L.MILLI:
        return f"job {job} needs {demand / L.MILLI:g} of a GPU{suiting}, none has that much free (with its memory)"
    count = demand // L.MILLI
    free = int(totals[L.FREE_WHOLE])
    if hw is not None:
        free = sum(available(jobs, row, node, nodes, hw) for node in range(len(nodes)))
    if count > free:
        return f"job {job} needs {count} GPUs{suiting}, {free} are free"
    rule = placement.name.lower()
    return f"job {job} needs {count} GPUs on the fewest nodes ({rule}), {free} are free but spread too thin"
