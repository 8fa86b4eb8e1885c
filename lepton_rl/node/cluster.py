"""A real node behind the `Cluster` protocol: the face that policies act on.

`advance` waits for the next decision point and serves everything else meanwhile; `apply` starts, stops and moves
processes. What a GPU is doing comes from telemetry, what a job is doing from the journal.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.core.placement import Placement
from lepton_rl.core.snapshot import Snapshot, check_is_action
from lepton_rl.devices import DeviceError, Telemetry
from lepton_rl.errors import IllegalAction, JobError, JournalFull, NodeError
from lepton_rl.node.clock import Clock, SystemClock
from lepton_rl.node.environment import MARK
from lepton_rl.node.estimates import EstimateRules, RunTimes
from lepton_rl.node.events import RunEvent
from lepton_rl.node.hardware import NodeHardware
from lepton_rl.node.jobs import ACTIVE, JobRecord, JobRequest, JobState, RunRecord, StopHow
from lepton_rl.node.journal import Journal
from lepton_rl.node.lifecycle import GpuState, GpuStatus, Lifecycle
from lepton_rl.node.metering import RunMeter
from lepton_rl.node.runs import Runs
from lepton_rl.node.view import GpuView, JobRows, RunningJob, Views

_log = logging.getLogger(__name__)
TICK_S = 1.0
"""How often the node looks at its telemetry, at reservations and at jobs that begin later."""


class PowerControl(Protocol):
    """Sets power limits of GPUs, and takes them back."""

    def set_limit(self, uuid: str, limit_mw: int | None, now: float) -> None:
        """Limit the draw of a GPU from now on; None takes the limit back to its default."""

    def renew(self, now: float) -> None:
        """Renew the limits that are in force."""

    def close(self) -> None:
        """Give back what was changed."""


@dataclass(frozen=True, slots=True)
class NodeRules:
    """How a node schedules.

    Attributes:
        placement: what `Start` without GPUs uses.
        restart_cost: seconds that policies are told a preemption costs.
        quantum: seconds for which a run cannot be preempted.
        default_time_s: what a job without a requested time counts as asking for.
        timer_s: seconds after which waiting jobs are decided on again although nothing happened.
    """

    placement: Placement = Placement.FIRST
    restart_cost: float = 60.0
    quantum: float = 0.0
    default_time_s: float = 86_400.0
    timer_s: float = 30.0


@dataclass(slots=True)
class _Job:
    record: JobRecord
    submitted: float
    served: float  # seconds of earlier runs


class NodeCluster:
    """The jobs and GPUs of one node.

    Args:
        hardware: its GPUs.
        journal: its memory.
        runs: its processes; `adopt` is called here.
        telemetry: its readings.
        rules: how it schedules.
        power: sets power limits; without it a policy that asks is refused.
        clock: the machine's clocks.
        loop: where `advance` waits.
    """

    def __init__(
        self,
        hardware: NodeHardware,
        journal: Journal,
        runs: Runs,
        telemetry: Telemetry,
        rules: NodeRules | None = None,
        *,
        power: PowerControl | None = None,
        clock: Clock | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.hardware, self.journal, self.runs, self.telemetry = hardware, journal, runs, telemetry
        self.rules = rules or NodeRules()
        self.power = power
        self._created, self._node_id = journal.created, journal.node_id
        self.clock: Clock = clock or SystemClock()
        self.loop = loop or asyncio.new_event_loop()
        self.on_change: Callable[[], None] = lambda: None
        self.run_times = RunTimes(EstimateRules(default_s=self.rules.default_time_s))
        self.run_times.recall(journal)
        self.rows = JobRows(hardware.cluster, self.rules.default_time_s, self.run_times.of)
        self._views = Views(hardware.cluster, self.rules.placement, self.rules.restart_cost, self.rules.quantum)
        self._jobs: dict[int, _Job] = {}  # all that are not final
        self._holding: dict[int, RunRecord] = {}  # by job; orphans of lost jobs too
        self._targets: dict[int, tuple[str, ...]] = {}  # where a job that is being moved goes
        self._view: Snapshot | None = None
        self._decided_at = -float("inf")
        self._due = asyncio.Event()
        self._closing = False
        self.meter = RunMeter(self._owner_of)
        self.lifecycle = self._recall_gpus()
        self._recall_jobs()
        self.loop.add_reader(runs.fileno(), self._on_runs)
        self._ticking = self.loop.create_task(self._tick_for_ever())

    # What the daemon serves ------------------------------------------------------------------------------------

    @property
    def time(self) -> float:
        """Seconds since the journal was begun: what policies take for the time."""
        return self.clock.wall() - self._created

    def check(self, request: JobRequest) -> None:
        """Refuse a job that no GPU of this node can ever run.

        Raises:
            JobError: says what it asks for and what there is.
        """
        self.rows.row(0, request, 0.0, 0.0)

    def submitted(self, job: int) -> None:
        """Take in a job that the journal has."""
        self._take_in(self.journal.job(job))
        self.decide()

    def cancel(self, job: int, why: str, how: StopHow = StopHow.STOP) -> JobState:
        """Cancel a job that waits or runs; return the state that it is in now.

        Raises:
            IllegalAction: it has ended.
        """
        record = self.journal.job(job)
        if record.state is JobState.WAITING:
            self.journal.cancel_waiting(job, self.clock.wall(), why)
            self._jobs.pop(job, None)
        elif record.state in ACTIVE:
            self.runs.stop(job, why, how=how)
        elif job in self._holding:  # lost, but some of its processes live
            self.runs.end_orphan(job, how)
        else:
            raise IllegalAction(f"job {job} is {record.state} already")
        self.decide()
        return self.journal.job(job).state

    def drain(self, uuid: str, reason: str) -> None:
        """Let a GPU take no new work from now on; what runs on it goes on."""
        self.lifecycle.drained[uuid] = reason
        self.look()

    def resume(self, uuid: str) -> None:
        """Undo `drain`, forget the errors of a GPU that was repaired, and let it be accepted anew."""
        self.lifecycle.drained.pop(uuid, None)
        self.lifecycle.verify(uuid)
        self.telemetry.acknowledge(uuid)
        self.journal.ledger.set_gpu(uuid, GpuState.UNVERIFIED, "resumed", self.clock.wall())
        self.look()

    def decide(self) -> None:
        """Make this a decision point."""
        self._view = None
        self._due.set()

    def close(self) -> None:
        """Let `advance` return False: the daemon ends, jobs go on."""
        self._closing = True
        self._due.set()

    def shut(self) -> None:
        """Let go of the loop, once `advance` has returned False."""
        self._ticking.cancel()
        self.loop.run_until_complete(asyncio.gather(self._ticking, return_exceptions=True))
        self.loop.remove_reader(self.runs.fileno())

    def examples(self) -> list[Snapshot]:
        """Return made-up states of this node: jobs of several sizes wait, on idle GPUs and beside one that runs."""
        gpus = self.hardware.cluster.gpus
        asked = [JobRequest(argv=("example",), cwd="/", gpu_milli=milli) for milli in (1000, 500, 1000 * gpus)]
        rows = [self.rows.row(number, request, 0.0, 0.0) for number, request in enumerate(asked, 1)]
        runs = [RunningJob(self.rows.row(9, asked[0], 0.0, 0.0), 0.0, (0,))]
        return [self._views.build(1.0, rows, running, GpuView()) for running in ([], runs)]

    def waiting(self) -> list[JobRecord]:
        """Return the jobs that wait, those that begin later too, in order of submission."""
        return [job.record for _, job in sorted(self._jobs.items()) if job.record.state is JobState.WAITING]

    def gpu_of(self, uuid: str) -> GpuStatus:
        """Return the state of a GPU."""
        return self.lifecycle.status[uuid]

    # The Cluster protocol ---------------------------------------------------------------------------------------

    def advance(self) -> bool:
        """Wait until there is something to decide; False when the daemon is to end."""
        self.loop.run_until_complete(self._due.wait())
        self._due.clear()
        self._decided_at = self.clock.monotonic()
        return not self._closing

    def snapshot(self) -> Snapshot:
        """Return what a policy can know now; what was applied since the last event is in it."""
        if self._view is None:
            self._view = self._look()
        return self._view

    def apply(self, action: Action) -> None:
        """Carry an action out: processes are started, signalled or moved.

        A start on GPUs that a preempted job has not left yet is put off: the node decides again when they are free.

        Raises:
            IllegalAction: it is not possible, or the job is not declared restartable; nothing has changed.
        """
        check_is_action(action)
        before = self.snapshot()
        if isinstance(action, Preempt | Migrate):
            self._check_restartable(action)
        after = before.after(action)
        if isinstance(action, Start):
            self._start(action.job, after.gpus_of(action.job))
        elif isinstance(action, Preempt):
            self._stop(action.job, "preempted by the policy")
        elif isinstance(action, Migrate):
            self._targets[action.job] = self._uuids(after.gpus_of(action.job))
            self._stop(action.job, "moved by the policy")
        else:
            self._limit(action)
        self._view = after

    # Inside -----------------------------------------------------------------------------------------------------

    def _start(self, job: int, gpus: tuple[int, ...]) -> None:
        uuids = self._uuids(gpus)
        leaving = {uuid for run in self._holding.values() if run.stop_then is not None for uuid in run.gpu_uuids}
        if leaving.intersection(uuids):
            return
        try:
            self._holding[job] = self.runs.launch(job, uuids, decided=self.clock.wall())
        except (JobError, JournalFull) as error:
            _log.error("job %d was not started: %s", job, error)
            self.loop.call_later(TICK_S, self.decide)
        self._renew(job)

    def _stop(self, job: int, why: str) -> None:
        if self._holding[job].stop_then is None:
            self.runs.stop(job, why, then=JobState.WAITING, how=StopHow.CHECKPOINT)
            self._holding[job] = self.journal.run(job)

    def _limit(self, action: SetPowerLimit) -> None:
        if self.power is None:
            raise IllegalAction("this node sets no power limits; `power.mode` in its configuration turns that on")
        limit = None if action.watts is None else round(action.watts * 1e3)
        try:
            self.power.set_limit(self.hardware.uuids[action.gpu], limit, self.clock.monotonic())
        except (DeviceError, NodeError) as error:
            raise IllegalAction(str(error)) from None

    def _check_restartable(self, action: Preempt | Migrate) -> None:
        known = self._jobs.get(action.job)
        if known is not None and not known.record.request.restartable:
            raise IllegalAction(f"job {action.job} is not declared restartable and is never preempted or moved")

    def _uuids(self, gpus: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self.hardware.uuids[gpu] for gpu in gpus)

    def _look(self) -> Snapshot:
        now, wall = self.time, self.clock.wall()
        waiting = [
            self.rows.row(number, job.record.request, job.submitted, job.served)
            for number, job in self._jobs.items()
            if job.record.state is JobState.WAITING
            and number not in self._holding
            and job.record.request.begin_time <= wall
        ]
        running = [self._running(number, run) for number, run in self._holding.items()]
        return self._views.build(now, waiting, running, self._gpu_view(wall))

    def _running(self, job: int, run: RunRecord) -> RunningJob:
        known = self._jobs.get(job)
        record = known.record if known is not None else self.journal.job(job)
        served = 0.0 if known is None else known.served
        row = self.rows.row(job, record.request, record.submit_time - self._created, served)
        started = (run.started_time or run.starting_time) - self._created
        gpus = tuple(self.hardware.number_of(uuid) for uuid in run.gpu_uuids if uuid in self.hardware.uuids)
        return RunningJob(row, min(started, self.time), gpus)

    def _gpu_view(self, wall: float) -> GpuView:
        status = self.lifecycle.status
        out = {number for number, uuid in enumerate(self.hardware.uuids) if not status[uuid].takes_work}
        out |= {self.hardware.number_of(uuid) for uuid in self._kept_free(wall)}
        out |= {self.hardware.number_of(uuid) for uuids in self._targets.values() for uuid in uuids}
        return GpuView(frozenset(out), self._power_limits())

    def _power_limits(self) -> Mapping[int, int]:
        """Limits that differ from the group's own, within the card's range."""
        found = {}
        for device in self.telemetry.latest().devices:
            uuid, limit = device.identity.uuid, device.raw.power_limit_mw
            if limit is None or uuid not in self.hardware.uuids:
                continue
            number = self.hardware.number_of(uuid)
            group = self.hardware.cluster.group_of(number)
            lowest, highest = group.gpu.min_power_limit_w * 1e3, group.gpu.max_power_limit_w * 1e3
            if lowest <= limit <= highest and limit != round(group.limit_w * 1e3):
                found[number] = limit
        return found

    def _kept_free(self, wall: float) -> set[str]:
        """GPUs with a reservation ahead into which a job that waits could run."""
        longest = max((self.rows.requested_s(record.request) for record in self.waiting()), default=0.0)
        return {
            uuid
            for reservation in self.journal.ledger.reservations(wall)
            for uuid in reservation.gpu_uuids
            if wall + longest > reservation.begin_time and uuid in self.hardware.uuids
        }

    def _recall_gpus(self) -> Lifecycle:
        known = self.journal.ledger.gpus()
        cluster = self.hardware.cluster
        memory = {uuid: cluster.group_of(gpu).gpu.memory_gib for gpu, uuid in enumerate(self.hardware.uuids)}
        never = (GpuState.UNVERIFIED, GpuState.LOST, GpuState.UNHEALTHY)
        accepted = [uuid for uuid, record in known.items() if record.state not in never]
        drained = {uuid: record.reason or "" for uuid, record in known.items() if record.state == GpuState.DRAINED}
        return Lifecycle(memory, accepted, {uuid: why for uuid, why in drained.items() if uuid in memory})

    def _recall_jobs(self) -> None:
        for event in self.runs.adopt():
            _log.info("found job %d: %s", event.job, event.kind)
        for record in self.journal.jobs([JobState.WAITING]):
            self._take_in(record)
        for record in self.journal.jobs(ACTIVE):
            self._take_in(record)
        for run in self.journal.holding():
            self._holding[run.job] = run
        self.look()
        self._due.set()

    def _take_in(self, record: JobRecord) -> None:
        served = sum(run.run_s or 0.0 for run in self.journal.runs(record.id)) if record.run else 0.0
        self._jobs[record.id] = _Job(record, record.submit_time - self._created, served)

    def _renew(self, job: int) -> None:
        record = self.journal.job(job)
        if record.state is JobState.WAITING or record.state in ACTIVE:
            self._take_in(record)
        else:
            self._jobs.pop(job, None)

    def _on_runs(self) -> None:
        """Take in what became of runs."""
        try:
            events = self.runs.poll()
        except JournalFull as error:
            _log.error("%s", error)
            return
        for event in events:
            self._on_run(event)
        if events:
            self.look()
            self.on_change()
            self.decide()

    def _on_run(self, event: RunEvent) -> None:
        _log.info("job %d, run %d: %s, now %s", event.job, event.run, event.kind, event.state)
        before = self._holding.get(event.job)
        self._renew(event.job)
        if event.holds_gpus:
            self._holding[event.job] = self.journal.run(event.job, event.run)
            return
        if before is not None and before.run == event.run:
            del self._holding[event.job]
            used = self.meter.forget(before)
            self.journal.set_run_usage(event.job, event.run, round(used.energy_mj), used.peak_memory_mib)
            for uuid in before.gpu_uuids:
                if not any(uuid in run.gpu_uuids for run in self._holding.values()):
                    self.lifecycle.release(uuid, self.clock.monotonic())
            self.telemetry.wake()
        if event.state is JobState.DONE:
            record = self.journal.job(event.job)
            seconds = sum(run.run_s or 0.0 for run in self.journal.runs(event.job))
            self.run_times.learn(record.request, seconds)
        target = self._targets.pop(event.job, None)
        if target is not None and event.state is JobState.WAITING:
            self._arrive(event.job, target)

    def _arrive(self, job: int, uuids: tuple[str, ...]) -> None:
        """Start a job that was moved on the GPUs that were kept for it, where they still take work."""
        if all(self.lifecycle.status[uuid].takes_work for uuid in uuids):
            self._start(job, tuple(self.hardware.number_of(uuid) for uuid in uuids))

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.tick()
            except JournalFull as error:
                _log.error("%s", error)

    def tick(self) -> None:
        """Look at reservations, at jobs whose time to begin has come, and at the timer."""
        self._on_runs()
        self.look()
        if self.power is not None:
            self.power.renew(self.clock.monotonic())
        wall, since = self.clock.wall(), self.clock.monotonic() - self._decided_at
        waiting = [record.request for record in self.waiting()]
        begun = any(wall - TICK_S - 1.0 < request.begin_time <= wall for request in waiting)
        if begun or (waiting and since >= self.rules.timer_s):
            self.decide()

    def look(self) -> None:
        """Work out the states of the GPUs; where one changed, that is a decision point."""
        snapshot, wall = self.telemetry.latest(), self.clock.wall()
        devices = {device.identity.uuid: device for device in snapshot.devices}
        self.meter.add(snapshot.devices, self._holding.values())
        held = {uuid for run in self._holding.values() for uuid in run.gpu_uuids}
        reserved = {
            uuid: f"reserved for {reservation.user or reservation.project} until its end"
            for reservation in self.journal.ledger.reservations(wall)
            if reservation.begin_time <= wall
            for uuid in reservation.gpu_uuids
        }
        changed = self.lifecycle.update(devices, held, reserved, self._is_ours, wall, snapshot.monotonic_s)
        if changed:
            with self.journal.transaction():
                for status in changed:
                    self.journal.ledger.set_gpu(status.uuid, status.state, status.reason, status.since)
            for status in changed:
                _log.info("GPU %s is %s%s", status.uuid, status.state, status.reason and f": {status.reason}")
            self.on_change()
            self.decide()

    def _is_ours(self, pid: int) -> bool:
        """Whether a process was started by a run of this node."""
        return self._owner_of(pid) is not None

    def _owner_of(self, pid: int) -> tuple[int, int] | None:
        """The job and run that a process was started by, as its environment tells."""
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return None
        mark = f"{MARK}={self._node_id}:".encode()
        for variable in variables:
            words = variable.removeprefix(mark).split(b":") if variable.startswith(mark) else []
            if len(words) == 2 and all(word.isdigit() for word in words):
                return int(words[0]), int(words[1])
        return None
