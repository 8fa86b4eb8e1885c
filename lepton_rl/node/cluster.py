"""A real node behind the `Cluster` protocol: the face that policies act on.

`advance` waits for the next decision point and serves everything else meanwhile; `apply` starts, stops and moves
processes. What a GPU is doing comes from telemetry, what a job is doing from the journal.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.core.arrays import Floats
from lepton_rl.core.placement import Placement
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.devices import DeviceError, Telemetry
from lepton_rl.errors import IllegalAction, JobError, JournalError, LeptonError, NodeError
from lepton_rl.node.actions import plain
from lepton_rl.node.clock import Clock, SystemClock
from lepton_rl.node.estimates import EstimateRules, RunTimes
from lepton_rl.node.events import RunEvent
from lepton_rl.node.gpu_watch import GpuWatch
from lepton_rl.node.hardware import NodeHardware
from lepton_rl.node.jobs import ACTIVE, JobRecord, JobRequest, JobState, RunRecord, StopHow
from lepton_rl.node.journal import Journal
from lepton_rl.node.lifecycle import GpuState, GpuStatus
from lepton_rl.node.reservations import (
    Window,
    begin_of,
    entitled,
    in_force,
    next_reservations,
    runs_into,
    windows,
)
from lepton_rl.node.runs import Runs
from lepton_rl.node.throughput import ThroughputRules
from lepton_rl.node.time_limits import TimeLimits, over_limit
from lepton_rl.node.view import GpuView, JobRows, RunningJob, Views

_log = logging.getLogger(__name__)
TICK_S = 1.0
"""How often the node looks at its telemetry, at reservations and at jobs that begin later."""
PROCESSES_AGE_S = 1.0
"""A list of processes older than this is asked for anew before a job starts: somebody else may be on the GPU."""
SERVED_TURNS = 8
"""Of the loop between two starts: enough for a request that has come to be read, answered and written."""
METERING_S = 30.0
"""How often what runs use goes to the journal."""


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
        limit_requested: whether a job may run no longer than it asks for, where it names no limit of its own.
        throughput: what a GPU must compute before it takes work; None asks for nothing.
        timer_s: seconds after which waiting jobs are decided on again although nothing happened.
    """

    placement: Placement = Placement.FIRST
    restart_cost: float = 60.0
    quantum: float = 0.0
    default_time_s: float = 86_400.0
    limit_requested: bool = False
    throughput: ThroughputRules | None = None
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
        self._created = journal.created
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
        self._windows, self._step, self._planned = [Window(0.0)], 0, 0.0  # of the decision; when it was planned
        self.starving: Callable[[Snapshot], tuple[int, float] | None] = lambda snapshot: None
        self._decided_at = -float("inf")
        self._due = asyncio.Event()
        self._closing = False
        self.gpus = GpuWatch(hardware, journal, telemetry, self.clock, self._holding, self.rules.throughput)
        self._limits = TimeLimits(runs, self.clock)
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
            self._targets.pop(job, None)
        elif record.state in ACTIVE:
            self.runs.stop(job, why, how=how)
            self._holding[job] = self.journal.run(job)
        elif job in self._holding:  # lost, but some of its processes live
            self.runs.end_orphan(job, how)
        else:
            raise IllegalAction(f"job {job} is {record.state} already")
        self.decide()
        return self.journal.job(job).state

    def drain(self, uuid: str, reason: str) -> None:
        """Let a GPU take no new work from now on; what runs on it goes on."""
        self.gpus.drain(uuid, reason)
        self.look()

    def resume(self, uuid: str) -> None:
        """Undo `drain`, forget the errors of a GPU that was repaired, and let it be accepted anew."""
        self.gpus.resume(uuid)
        self.look()

    def verify(self, *, throughput: bool = False) -> None:
        """Let all GPUs on which nothing runs pass their acceptance once more, with `throughput` be measured too."""
        self.gpus.verify(throughput=throughput)
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
        self.gpus.close()
        with suppress(JournalError):
            self.gpus.write_use()
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

    def unavailable(self, record: JobRecord | None = None) -> list[str]:
        """Return which GPUs take no new work now, or not this job, and why, a sentence each."""
        status = self.gpus.status
        out = {uuid: f"{status[uuid].state}: {status[uuid].reason}" for uuid in status if not status[uuid].takes_work}
        moving = {uuid for uuids in self._targets.values() for uuid in uuids}
        why = {
            uuid: f"is {reason}" for uuid, reason in (out | dict.fromkeys(moving, "kept for a job that moves")).items()
        }
        found = {number: f"GPU {number} {why[uuid]}" for number, uuid in enumerate(self.hardware.uuids) if uuid in why}
        if record is not None:
            found = self._run_into(record, self.clock.wall()) | found
        return [why for _, why in sorted(found.items())]

    def check_gpus(self, job: int, gpus: Sequence[int]) -> None:
        """Refuse GPUs that are reserved before a job would end on them.

        Raises:
            IllegalAction: names the first of them.
        """
        known = self._jobs.get(job)
        taken = {} if known is None else self._run_into(known.record, self._planned)
        for gpu in gpus:
            if gpu in taken:
                raise IllegalAction(f"job {job}: {taken[gpu]}")

    def gpu_of(self, uuid: str) -> GpuStatus:
        """Return the state of a GPU."""
        return self.gpus.status[uuid]

    # The Cluster protocol ---------------------------------------------------------------------------------------

    def advance(self) -> bool:
        """Wait until there is something to decide; False when the daemon is to end.

        Where GPUs are reserved ahead and jobs that wait would run into that, the jobs that would not are a decision
        of their own, right after that on all jobs.
        """
        if not self._closing and self.narrow():
            return True
        self.loop.run_until_complete(self._due.wait())
        self._due.clear()
        self._decided_at = self.clock.monotonic()
        if not self._closing:
            self._start_reserved()
        return not self._closing

    def serve(self) -> bool:
        """Give those who ask something their answer, between two of the many actions of a decision.

        Returns:
            False when the daemon is to end: what has not been done is the next one's to decide.
        """
        self.loop.run_until_complete(_turn(SERVED_TURNS))
        return not self._closing

    def narrow(self) -> bool:
        """Go on to the jobs that end before the next reservation ahead; False, and back to all, if there are none."""
        self._step = (self._step + 1) % len(self._windows)
        self._view = None
        return self._step > 0

    def snapshot(self) -> Snapshot:
        """Return what a policy can know now; what was applied since the last event is in it."""
        if self._view is None:
            if self._step == 0:
                self._plan()
            self._view = self._seen(self._windows[self._step])
        return self._view

    def snapshot_of(self, record: JobRecord) -> Snapshot:
        """Return all jobs that wait, and the GPUs as one of them could have them: what tells why it waits."""
        wall = self.clock.wall()
        running = [self._running(number, run) for number, run in self._holding.items() if self._is_whole(run)]
        waiting = [self._row(known) for known in self._ready(wall)]
        out = self._out() | self._run_into(record, wall).keys()
        return self._views.build(self.time, waiting, running, GpuView(frozenset(out), self.gpus.power_limits_mw()))

    def apply(self, action: Action) -> None:
        """Carry an action out: processes are started, signalled or moved.

        A start on GPUs that a preempted job has not left yet is put off: the node decides again when they are free.

        Raises:
            IllegalAction: it is not possible, or the job is not declared restartable; nothing has changed.
        """
        action = plain(action)
        before = self.snapshot()
        after = before.after(action)
        if isinstance(action, Preempt | Migrate):
            self._check_restartable(action)
        if isinstance(action, Start | Migrate):
            self.check_gpus(action.job, after.gpus_of(action.job))
        if isinstance(action, Start):
            uuids = self._uuids(after.gpus_of(action.job))
            self._check_alone(action.job, uuids)
            self._start(action.job, uuids)
        elif isinstance(action, Preempt):
            self._stop(action.job, "preempted by the policy")
        elif isinstance(action, Migrate):
            self._targets[action.job] = self._uuids(after.gpus_of(action.job))
            self._stop(action.job, "moved by the policy")
        else:
            self._limit(action)
        self._view = after if self._view is before else None  # it may have turned out to be another node meanwhile

    # Inside -----------------------------------------------------------------------------------------------------

    def _start(self, job: int, uuids: tuple[str, ...]) -> None:
        leaving = {uuid for run in self._holding.values() if run.stop_then is not None for uuid in run.gpu_uuids}
        if job in self._holding or leaving.intersection(uuids):
            return
        try:
            minors = [self.hardware.minors[uuid] for uuid in uuids if uuid in self.hardware.minors]
            known = minors if len(minors) == len(uuids) else None
            self._holding[job] = self.runs.launch(job, uuids, decided=self.clock.wall(), gpu_minors=known)
        except (JobError, JournalError) as error:
            _log.error("job %d was not started: %s", job, error)
            self.loop.call_later(TICK_S, self.decide)
        self._renew(job)

    def _check_alone(self, job: int, uuids: tuple[str, ...]) -> None:
        """Look once more whether somebody else is on these GPUs, where the last look was a while ago.

        Raises:
            IllegalAction: one of them takes no work any more.
        """
        if not self.gpus.processes_are_newer(uuids, PROCESSES_AGE_S):
            try:
                self.telemetry.refresh(PROCESSES_AGE_S)
            except DeviceError as error:
                raise IllegalAction(f"job {job} is not started blindly: {error}") from error
        self.look()
        for uuid in uuids:
            status = self.gpus.status[uuid]
            if not status.takes_work:
                number = self.hardware.number_of(uuid)
                raise IllegalAction(f"job {job}: GPU {number} is {status.state} now: {status.reason}")

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

    def _plan(self) -> None:
        """Work out the steps of the next decision."""
        self._planned = wall = self.clock.wall()
        ready = [known.record.request for known in self._ready(wall)]
        asked = {(self._end(request, wall), max(1, -(-request.gpu_milli // 1000))) for request in ready}
        runs = [self._jobs[job].record.request for job in self._holding if job in self._jobs]
        movable = [self._end(request, wall) for request in runs if request.restartable]
        ahead = next_reservations(self.journal.ledger, wall)
        found = windows(asked, [begin_of(ahead.get(uuid)) for uuid in self.hardware.uuids], movable)
        late = None if len(found) == 1 else self.starving(self._seen(found[0]))
        for step in found[1:]:  # a shorter job may need GPUs that the first step gives away again and again
            alone = Window(step.until)
            starves = self.starving(self._seen(alone))
            if starves is not None and (late is None or starves[1] > late[1]):
                found, late = [alone], starves
        self._windows = found

    def _seen(self, window: Window) -> Snapshot:
        """Return what one step of a decision is about."""
        wall, ahead = self._planned, next_reservations(self.journal.ledger, self._planned)
        waiting = [
            self._row(known) for known in self._ready(wall) if window.shows(self._end(known.record.request, wall))
        ]
        running = [self._running(number, run) for number, run in self._holding.items() if self._is_whole(run)]
        withheld = {
            number for number, uuid in enumerate(self.hardware.uuids) if not window.offers(begin_of(ahead.get(uuid)))
        }
        view = GpuView(frozenset(self._out() | withheld), self.gpus.power_limits_mw())
        return self._views.build(self.time, waiting, running, view)

    def _ready(self, wall: float) -> list[_Job]:
        """The jobs that could start."""
        return [
            known
            for number, known in self._jobs.items()
            if known.record.state is JobState.WAITING
            and number not in self._holding
            and number not in self._targets
            and known.record.request.begin_time <= wall
        ]

    def _row(self, known: _Job) -> Floats:
        return self.rows.row(known.record.id, known.record.request, known.submitted, known.served)

    def _end(self, request: JobRequest, wall: float) -> float:
        """When a job would end if it started now."""
        return wall + self.rows.requested_s(request)

    def _run_into(self, record: JobRecord, wall: float) -> dict[int, str]:
        """The GPUs, by number, that are reserved before a job would end on them, and that in words."""
        asked_s, said = self.rows.requested_s(record.request), record.request.requested_s is not None
        ahead = next_reservations(self.journal.ledger, wall)
        return {
            number: runs_into(number, ahead[uuid], asked_s, said=said)
            for number, uuid in enumerate(self.hardware.uuids)
            if wall + asked_s > begin_of(ahead.get(uuid))
        }

    def _is_whole(self, run: RunRecord) -> bool:
        """Whether all GPUs of a run are GPUs of this node: one may have been taken out under it, or divided."""
        return bool(run.gpu_uuids) and all(uuid in self.hardware.uuids for uuid in run.gpu_uuids)

    def _running(self, job: int, run: RunRecord) -> RunningJob:
        known = self._jobs.get(job)
        record = known.record if known is not None else self.journal.job(job)
        served = 0.0 if known is None else known.served
        submitted = record.submit_time - self._created if known is None else known.submitted
        row = self.rows.row(job, record.request, submitted, served)
        started = (run.started_time or run.starting_time) - self._created
        return RunningJob(row, min(started, self.time), tuple(map(self.hardware.number_of, run.gpu_uuids)))

    def _out(self) -> set[int]:
        """GPUs that take no new work, whatever asks for them."""
        status = self.gpus.status
        partly = [run for run in self._holding.values() if not self._is_whole(run)]
        kept = {uuid for uuids in (*self._targets.values(), *(run.gpu_uuids for run in partly)) for uuid in uuids}
        return {n for n, uuid in enumerate(self.hardware.uuids) if not status[uuid].takes_work or uuid in kept}

    def _start_reserved(self) -> None:
        """Start the jobs for whom GPUs are reserved: where they run is no matter of the policy's."""
        wall = self.clock.wall()
        for reservation in in_force(self.journal.ledger, wall):
            for record in entitled(reservation, self.waiting()):
                uuids = tuple(
                    uuid
                    for uuid in reservation.gpu_uuids
                    if uuid in self.hardware.uuids
                    and self.gpus.status[uuid].state is GpuState.RESERVED
                    and not any(uuid in run.gpu_uuids for run in self._holding.values())
                )[: max(record.request.gpu_milli // 1000, 1)]
                if record.id in self._holding or record.request.begin_time > wall or not self._suits(record, uuids):
                    continue
                _log.info("job %d starts on GPUs that are reserved for it", record.id)
                self._start(record.id, uuids)
                self._view = None

    def _suits(self, record: JobRecord, uuids: tuple[str, ...]) -> bool:
        """Whether a job could start on exactly these GPUs, were they not reserved."""
        known, gpus = self._jobs[record.id], tuple(map(self.hardware.number_of, uuids))
        running = [self._running(number, run) for number, run in self._holding.items() if self._is_whole(run)]
        others = frozenset(range(len(self.hardware.uuids))).difference(gpus)
        try:
            self._views.build(self.time, [self._row(known)], running, GpuView(others)).after(Start(record.id, gpus))
        except IllegalAction:
            return False
        return True

    def _recall_jobs(self) -> None:
        for event in self.runs.adopt():
            _log.info("found job %d: %s", event.job, event.kind)
        for record in self.journal.jobs([JobState.WAITING]):
            self._take_in(record)
        for record in self.journal.jobs(ACTIVE):
            self._take_in(record)
        for run in self.journal.holding():
            self._holding[run.job] = run
        self.gpus.recall()
        self.telemetry.wake()
        self.look()
        self._due.set()

    def _take_in(self, record: JobRecord) -> None:
        served = sum(run.run_s or 0.0 for run in self.journal.runs(record.id)) if record.run else 0.0
        arrived = max(record.submit_time, record.request.begin_time)  # before that it did not wait for the policy
        self._jobs[record.id] = _Job(record, arrived - self._created, served)

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
        except JournalError as error:
            _log.error("%s", error)
            # The descriptor stays readable: listening on would ask again at once, and without end.
            self.loop.remove_reader(self.runs.fileno())
            self.loop.call_later(TICK_S, self._listen)
            return
        for event in events:
            self._on_run(event)
        if events:
            self.look()
            self.on_change()
            self.decide()

    def _listen(self) -> None:
        if not self._closing:
            self.loop.add_reader(self.runs.fileno(), self._on_runs)

    def _on_run(self, event: RunEvent) -> None:
        _log.info("job %d, run %d: %s, now %s", event.job, event.run, event.kind, event.state)
        before = self._holding.get(event.job)
        self._renew(event.job)
        if event.holds_gpus:
            self._holding[event.job] = self.journal.run(event.job, event.run)
            return
        if before is not None and before.run == event.run:
            del self._holding[event.job]
            use = self.gpus.release(before)
            with suppress(JournalError):  # what is known since the last time is lost, and nothing else
                self.journal.set_run_usage(event.job, event.run, round(use.energy_mj), use.peak_memory_mib)
        if event.state is JobState.DONE:
            seconds = sum(run.run_s or 0.0 for run in self.journal.runs(event.job))
            self.run_times.learn(self.journal.job(event.job).request, seconds)
        if event.state is not JobState.WAITING:
            self._targets.pop(event.job, None)

    def _arrive(self) -> None:
        """Start the jobs that were moved on the GPUs that are kept for them, once all of these take work."""
        for job, uuids in list(self._targets.items()):
            known = self._jobs.get(job)
            if known is None or known.record.state is not JobState.WAITING or job in self._holding:
                continue
            states = [self.gpus.status[uuid] for uuid in uuids]
            if all(status.takes_work for status in states):
                del self._targets[job]
                self._start(job, uuids)
            elif not all(status.takes_work or status.state is GpuState.RELEASING for status in states):
                del self._targets[job]  # something has happened to one of them: it waits like others
                self.decide()

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.tick()
            except LeptonError as error:
                _log.error("%s", error)
            except Exception:  # without it power leases would lapse, and nothing would be looked at any more
                _log.exception("the node could not look after itself; it goes on")

    def tick(self) -> None:
        """Look at reservations, at jobs whose time to begin has come, and at the timer."""
        self._on_runs()
        self.look()
        if self.power is not None:
            self.power.renew(self.clock.monotonic())
        if self.clock.monotonic() - self.gpus.written_at > METERING_S:
            self.gpus.write_use()
        wall, since = self.clock.wall(), self.clock.monotonic() - self._decided_at
        waiting = [record.request for record in self.waiting()]
        begun = any(wall - TICK_S - 1.0 < request.begin_time <= wall for request in waiting)
        if begun or (waiting and since >= self.rules.timer_s):
            self.decide()
        self._end_overdue()  # last: a full disk is in its way, and must be in the way of nothing else

    def _end_overdue(self) -> None:
        """End the jobs that have run for longer than they may."""
        known = {number: (job.record, job.served) for number, job in self._jobs.items() if number in self._holding}
        for job in list(self._limits.overrun(self._holding, known)):
            limit_s = known[job][0].request.time_limit_s
            assert limit_s is not None
            _log.info("job %d %s", job, over_limit(limit_s))
            self.runs.stop(job, over_limit(limit_s), then=JobState.FAILED)
            self._holding[job] = self.journal.run(job)
            self.decide()

    def look(self) -> None:
        """Work out the states of the GPUs; where one changed, that is a decision point."""
        if self.gpus.look():
            self._arrive()
            self.decide()
            self.gpus.write()
            self.on_change()


async def _turn(times: int) -> None:
    """Let a loop look at its descriptors so many times, and call what is due."""
    for _ in range(times):
        await asyncio.sleep(0)
