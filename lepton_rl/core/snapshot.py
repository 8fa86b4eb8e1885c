"""What a scheduler can know at a decision point: read-only arrays, no true run times, no future jobs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.core.allocation import held_gpus, hold_gpu, hold_share, node_of, release, set_rate, share_memory
from lepton_rl.core.hardware.tables import IDLE_MW, Hardware
from lepton_rl.core.placement import Placement, available, lasts_for, place, takes_type
from lepton_rl.core.power import set_limit
from lepton_rl.core.progress import begin_run, end_run, planned_seconds, settle
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


def forget_rates(waiting: FloatArray) -> None:
    """Blank what the last run of jobs that wait has left of its rate."""
    waiting[:, L.RATE] = 1.0
    waiting[:, L.SINCE] = 0.0


def check_is_action(action: object) -> None:
    """Refuse what is no action."""
    if not isinstance(action, Action):
        raise IllegalAction(f"{action!r} is not an action; use Start, Preempt, Migrate or SetPowerLimit")


def check_quantum(action: Preempt | Migrate, age: float, quantum: float) -> None:
    """Refuse to stop a run that is younger than the quantum (both in seconds)."""
    if age < quantum:
        done = "preempted" if isinstance(action, Preempt) else "migrated"
        raise IllegalAction(f"job {action.job} has run {age:g} s of its {quantum:g} s quantum and cannot be {done} yet")


def limit_power(
    action: SetPowerLimit,
    cluster: "ClusterSpec",
    gpus: NDArray[np.int32],
    nodes: NDArray[np.int32],
    totals: NDArray[np.int64],
    hw: Hardware,
) -> None:
    """Give a GPU the power limit of the action.

    Raises:
        IllegalAction: there is no such GPU, its type is not known, or the limit is outside the card's range.
    """
    gpu = action.gpu
    if not isinstance(gpu, int | np.integer) or not 0 <= gpu < len(gpus):
        raise IllegalAction(f"there is no GPU {gpu}; the cluster has GPUs 0 to {len(gpus) - 1}")
    if hw is None:
        raise IllegalAction(f"GPU {gpu} is of no type whose power limits are known; give the cluster as groups")
    group = cluster.group_of(int(gpu))
    watts = group.limit_w if action.watts is None else action.watts
    if not isinstance(watts, int | float | np.integer | np.floating) or math.isnan(watts):
        raise IllegalAction(f"a power limit is a number of watts, or None for the group's own, not {watts!r}")
    lowest, highest = group.gpu.min_power_limit_w, group.gpu.max_power_limit_w
    if not lowest <= watts <= highest and watts != group.limit_w:
        if lowest == highest:
            raise IllegalAction("this cluster's GPUs have no adjustable power limit; give it as groups of known types")
        raise IllegalAction(
            f"a power limit of {watts:g} W is outside the range of GPU {gpu} ({group.gpu.name}): {lowest:g} to "
            f"{highest:g} W"
        )
    set_limit(int(gpu), round(watts * 1e3), gpus, nodes, totals, hw)


def move_gpus(
    action: Migrate,
    jobs: FloatArray,
    row: int,
    placement: Placement,
    gpus: NDArray[np.int32],
    nodes: NDArray[np.int32],
    bits: NDArray[np.uint64],
    totals: NDArray[np.int64],
    hw: Hardware,
    now: float,
    cost: float,
) -> float:
    """Give a running job the GPUs that the action names, or that the placement finds once it has left its own.

    It owes `cost` seconds more from then on. Returns the seconds of service that it was given until now, which are
    counted as attained.

    Raises:
        IllegalAction: it cannot be moved there; nothing has changed.
    """
    changed = (jobs[row], gpus, nodes, bits, totals)
    before = [array.copy() for array in changed]
    service = settle(jobs, row, now, hw)
    jobs[row, L.PREDICTED] += cost
    release(jobs, row, gpus, gpus, nodes, bits, totals, hw)
    try:
        take_gpus(Start(action.job, action.gpus), jobs, row, placement, gpus, nodes, bits, totals, hw)
    except IllegalAction:
        for array, was in zip(changed, before, strict=True):
            array[...] = was
        raise
    begin_run(jobs, row, now, hw)
    return service


def hold_these(
    jobs: FloatArray,
    row: int,
    chosen: tuple[int, ...],
    gpus: NDArray[np.int32],
    nodes: NDArray[np.int32],
    bits: NDArray[np.uint64],
    totals: NDArray[np.int64],
    hw: Hardware,
) -> None:
    """Hold GPUs that have room for the job."""
    if jobs[row, L.GPUS] < L.MILLI:
        hold_share(jobs, row, gpus, nodes, bits, totals, hw, chosen[0])
        return
    tail = -1
    for gpu in chosen:
        hold_gpu(jobs, row, gpus, nodes, bits, totals, hw, tail, gpu)
        tail = gpu


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
    if not isinstance(chosen, Sequence) or not all(isinstance(gpu, int | np.integer) for gpu in chosen):
        raise IllegalAction(f"job {action.job}: GPUs are named by whole numbers, as in (0, 1), not {chosen!r}")
    if len(set(chosen)) != len(chosen) or len(chosen) != needed:
        raise IllegalAction(f"job {action.job} needs {needed} different GPUs, the action names {chosen}")
    for gpu in chosen:
        if not 0 <= gpu < len(gpus):
            raise IllegalAction(f"job {action.job}: there is no GPU {gpu}; the cluster has GPUs 0 to {len(gpus) - 1}")
        if hw is not None and gpus[gpu, L.DOWN] > 0:
            raise IllegalAction(f"job {action.job}: GPU {gpu} is down")
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
    hold_these(jobs, row, chosen, gpus, nodes, bits, totals, hw)
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
        if not lasts_for(jobs, row, node, nodes, hw):
            begin, left = int(nodes[node, L.LASTS]), int(nodes[node, L.LASTS]) - int(nodes[0, L.CLOCK])
            raise IllegalAction(
                f"job {job} is planned to run {planned_seconds(jobs, row, hw):g} s; node {node} is "
                + ("reserved now" if begin == L.RESERVED else f"reserved in {left} s")
            )
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
