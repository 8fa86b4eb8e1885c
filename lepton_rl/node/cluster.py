"""A real node behind the `Cluster` protocol: the face that policies act on.

`advance` waits for the next decision point and serves everything else meanwhile; `apply` starts, stops and moves
processes. What a GPU is doing comes from telemetry, what a job is doing from the journal.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.core.placement import Placement
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.devices import DeviceError, Telemetry
from lepton_rl.errors import IllegalAction, JournalError, LeptonError, NodeError
from lepton_rl.node.actions import plain
from lepton_rl.node.clock import Clock, SystemClock
from lepton_rl.node.estimates import EstimateRules, RunTimes
from lepton_rl.node.gpu_watch import GpuWatch
from lepton_rl.node.hardware import NodeHardware
from lepton_rl.node.jobs import ACTIVE, JobRequest, JobState, StopHow
from lepton_rl.node.journal import Journal
from lepton_rl.node.lifecycle import GpuState, GpuStatus
from lepton_rl.node.open_jobs import OpenJobs
from lepton_rl.node.power import PowerControl
from lepton_rl.node.reserved_starts import reserved_starts
from lepton_rl.node.run_control import RunControl
from lepton_rl.node.runs import Runs
from lepton_rl.node.state import NodeState
from lepton_rl.node.steps import DecisionSteps
from lepton_rl.node.throughput import ThroughputRules
from lepton_rl.node.view import JobRows, Views

_log = logging.getLogger(__name__)
TICK_S = 1.0
"""How often the node looks at its telemetry, at reservations and at jobs that begin later."""
PROCESSES_AGE_S = 1.0
"""A list of processes older than this is asked for anew before a job starts: somebody else may be on the GPU."""
SERVED_TURNS = 8
"""Of the loop between two starts: enough for a request that has come to be read, answered and written."""
METERING_S = 30.0
"""How often what runs use goes to the journal."""


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
        self.clock: Clock = clock or SystemClock()
        self.loop = loop or asyncio.new_event_loop()
        self.on_change: Callable[[], None] = lambda: None
        self.run_times = RunTimes(EstimateRules(default_s=self.rules.default_time_s))
        self.run_times.recall(journal)
        self.rows = JobRows(hardware.cluster, self.rules.default_time_s, self.run_times.of)
        self.jobs = OpenJobs(hardware, journal, self.rows)
        self.gpus = GpuWatch(hardware, journal, telemetry, self.clock, self.jobs.holding, self.rules.throughput)
        views = Views(hardware.cluster, self.rules.placement, self.rules.restart_cost, self.rules.quantum)
        self.state = NodeState(hardware, journal, self.jobs, self.gpus, self.rows, views, self.clock)
        self.steps = DecisionSteps(self.state)
        self._decided_at = -float("inf")
        self._ticked_at = self.clock.wall()  # Unix seconds
        self._due = asyncio.Event()
        self._closing = False
        self._control = RunControl(hardware, journal, runs, self.jobs, self.gpus, self.run_times, self.clock)
        self._recall()
        self.loop.add_reader(runs.fileno(), self._on_runs)
        self._ticking = self.loop.create_task(self._tick_for_ever())

    # What the daemon serves ------------------------------------------------------------------------------------

    def check(self, request: JobRequest) -> None:
        """Refuse a job that no GPU of this node can ever run.

        Raises:
            JobError: says what it asks for and what there is.
        """
        self.rows.row(0, request, 0.0, 0.0)

    def submitted(self, job: int) -> None:
        """Take in a job that the journal has."""
        self.jobs.take_in(self.journal.job(job))
        self.decide()

    def cancel(self, job: int, why: str, how: StopHow = StopHow.STOP) -> JobState:
        """Cancel a job that waits or runs; return the state that it is in now.

        Raises:
            IllegalAction: it has ended.
        """
        record = self.journal.job(job)
        if record.state is JobState.WAITING:
            self.journal.cancel_waiting(job, self.clock.wall(), why)
            self.jobs.forget(job)
        elif record.state in ACTIVE:
            self._control.stop(job, why, how=how)
        elif job in self.jobs.holding:  # lost, but some of its processes live
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
        self.steps.forget()
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
        return self.steps.narrow()

    def snapshot(self) -> Snapshot:
        """Return what a policy can know now; what was applied since the last event is in it."""
        return self.steps.snapshot()

    def apply(self, action: Action) -> None:
        """Carry an action out: processes are started, signalled or moved.

        A start on GPUs that a preempted job has not left yet is put off: the node decides again when they are free.

        Raises:
            IllegalAction: it is not possible, or not allowed; nothing has changed.
        """
        action = plain(action)
        before = self.snapshot()
        after = before.after(action)
        self.steps.allowance().check(action, after, "the policy")
        if isinstance(action, Start):
            uuids = self._uuids(after.gpus_of(action.job))
            self._check_alone(action.job, uuids)
            self._start(action.job, uuids)
        elif isinstance(action, Preempt):
            self._control.give_up(action.job, "preempted by the policy")
        elif isinstance(action, Migrate):
            self._control.give_up(action.job, "moved by the policy")
            self.jobs.targets[action.job] = self._uuids(after.gpus_of(action.job))
        else:
            self._limit(action)
        self.steps.follow(before, after)

    # Inside -----------------------------------------------------------------------------------------------------

    def _start(self, job: int, uuids: tuple[str, ...]) -> None:
        if not self._control.start(job, uuids):
            self.loop.call_later(TICK_S, self.decide)

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

    def _limit(self, action: SetPowerLimit) -> None:
        if self.power is None:
            raise IllegalAction("this node sets no power limits; `power.mode` in its configuration turns that on")
        limit = None if action.watts is None else round(action.watts * 1e3)
        try:
            self.power.set_limit(self.hardware.uuids[action.gpu], limit, self.clock.monotonic())
        except (DeviceError, NodeError) as error:
            raise IllegalAction(str(error)) from None

    def _uuids(self, gpus: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self.hardware.uuids[gpu] for gpu in gpus)

    def _start_reserved(self) -> None:
        """Start the jobs for whom GPUs are reserved: where they run is no matter of the policy's."""
        for job, uuids in reserved_starts(self.state):
            _log.info("job %d starts on GPUs that are reserved for it", job)
            self._start(job, uuids)
            self.steps.forget()

    def _recall(self) -> None:
        """Go on from what the journal has."""
        for event in self.runs.adopt():
            _log.info("found job %d: %s", event.job, event.kind)
        self.jobs.recall()
        self.gpus.recall()
        self.telemetry.wake()
        self.look()
        self._due.set()

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
            self._control.take_in(event)
        if events:
            self.look()
            self.on_change()
            self.decide()

    def _listen(self) -> None:
        if not self._closing:
            self.loop.add_reader(self.runs.fileno(), self._on_runs)

    def _arrive(self) -> None:
        """Start the jobs that were moved on the GPUs that are kept for them, once all of these take work."""
        for job, uuids in list(self.jobs.targets.items()):
            known = self.jobs.known.get(job)
            if known is None or known.record.state is not JobState.WAITING or job in self.jobs.holding:
                continue
            states = [self.gpus.status[uuid] for uuid in uuids]
            if all(status.takes_work for status in states):
                del self.jobs.targets[job]
                self._start(job, uuids)
            elif not all(status.takes_work or status.state is GpuState.RELEASING for status in states):
                del self.jobs.targets[job]  # something has happened to one of them: it waits like others
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
        waiting = [record.request for record in self.jobs.waiting()]
        begun = any(self._ticked_at < request.begin_time <= wall for request in waiting)
        self._ticked_at = wall
        if begun or (waiting and since >= self.rules.timer_s):
            self.decide()
        for _ in self._control.end_overdue():  # last: a full disk is in its way, and must be in nothing else's
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
