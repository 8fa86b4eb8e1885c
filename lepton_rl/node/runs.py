"""Runs of jobs as processes: launched at most once, watched, stopped, and found again by the next daemon.

Intent goes to the journal before anything is done, and what happened goes there before anyone is told. One descriptor
(`fileno`) becomes readable when there may be something to `poll` for. Linux only: pidfd, flock, /proc.
"""

import os
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from lepton_rl.errors import IllegalAction, JobError
from lepton_rl.node.accounts import StartRefused
from lepton_rl.node.clock import Clock, SystemClock
from lepton_rl.node.events import EventKind, RunEvent, verdict
from lepton_rl.node.jobs import ACTIVE, JobState, RunEnd, RunRecord, StopHow
from lepton_rl.node.journal import Journal
from lepton_rl.node.orphans import Orphans
from lepton_rl.node.paths import JOBS
from lepton_rl.node.processes import Process, boot_id
from lepton_rl.node.run_folder import RunFolder, Started
from lepton_rl.node.starter import Begun, OwnStarter, Starter
from lepton_rl.node.supervisors import Supervisors

_START_PATIENCE_S = 5.0  # for supervisors that a former daemon had just started


class Runs:
    """The runs of one node: files in `state_dir`/jobs/ID/RUN, facts in the journal."""

    def __init__(
        self,
        state_dir: Path,
        journal: Journal,
        clock: Clock | None = None,
        starter: Starter | None = None,
    ) -> None:
        """Watch nothing yet: call `adopt` first to find what a former daemon left."""
        self.state_dir = state_dir.absolute()
        self._journal = journal
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._boot_id = boot_id()
        self._epoll = select.epoll()
        self.starter: Starter = starter or OwnStarter(journal.node_id)
        self._supervisors = Supervisors(self._epoll, self.starter)
        self._orphans = Orphans(self._epoll, self.starter)
        self._unsettled: dict[int, RunRecord] = {}  # neither watched nor known to have ended: tried again by each poll
        self._events: list[RunEvent] = []

    def __enter__(self) -> Self:
        """Return itself; leaving the block stops watching, and no job."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Stop watching; jobs and supervisors go on and the next daemon adopts them."""
        self._supervisors.close()
        self._orphans.close()
        self._epoll.close()

    def fileno(self) -> int:
        """Return the descriptor to wait on: readable when `poll` may have something to tell."""
        return self._epoll.fileno()

    def folder(self, job: int, run: int) -> Path:
        """Return where a run's stdout, stderr and exit.json lie."""
        return self.state_dir / JOBS / str(job) / str(run)

    def launch(
        self,
        job: int,
        gpu_uuids: Sequence[str],
        *,
        decided: float | None = None,
        gpu_minors: Sequence[int] | None = None,
    ) -> RunRecord:
        """Start a waiting job on these GPUs, given by full UUID; the intent is durable before anything is started.

        `gpu_minors` are the GPUs' device minor numbers: where control groups can, all
        others are closed to the job. The journal must not be in a transaction: the intent would not be durable yet.

        Raises:
            JobError: there is no such job, or it cannot be started now and waits again; one that may never run here
                has failed.
            IllegalTransition: it is not waiting.
            JournalFull: the intent could not be written; nothing was started.
        """
        assert not self._journal.in_transaction, "the intent would not be durable before the job starts"
        self.starter.check()
        now = self._clock.wall()
        run = self._journal.begin_run(job, gpu_uuids, now if decided is None else decided, now, self._boot_id)
        try:
            self._spawn(run, gpu_minors)
        except (OSError, JobError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._unsettled[job] = run  # should the journal be full too
            end = RunEnd(ended_time=self._clock.wall(), run_s=0.0, reason=f"could not be started: {reason}")
            to = JobState.FAILED if isinstance(error, StartRefused) else JobState.WAITING
            self._journal.end_run(job, run.run, to, end, outcome=EventKind.NOT_LAUNCHED)
            del self._unsettled[job]
            if to is JobState.FAILED:
                self._tell(EventKind.NOT_LAUNCHED, run)
                raise JobError(f"job {job} could not be started: {reason}; it has failed") from error
            raise JobError(f"job {job} could not be started: {reason}; it waits again") from error
        return run

    def stop(
        self,
        job: int,
        why: str,
        *,
        then: JobState = JobState.CANCELLED,
        how: StopHow = StopHow.STOP,
    ) -> None:
        """End a job that is starting or running; `then` is what it becomes: CANCELLED, FAILED, or WAITING (preempted).

        The intent is durable before the signal. Stopping again may only be harsher. A job that ends by itself before
        the signal is DONE or FAILED by its exit code. A restartable job that exits 0 after its checkpoint signal waits
        again: it must bear being restarted when it had just finished.

        Raises:
            IllegalAction: it is not running, or is to wait again and is not restartable.
        """
        record = self._journal.job(job)
        if record.state not in ACTIVE:
            raise IllegalAction(f"job {job} is {record.state}: only a starting or running job can be stopped")
        if then is JobState.WAITING and not record.request.restartable:
            raise IllegalAction(
                f"job {job} is not declared restartable and is never preempted; submit it as restartable"
            )
        before = self._journal.run(job)
        if before.stop_then is not None:
            if then is JobState.WAITING:
                then = before.stop_then  # a cancelled job does not come back because a policy preempts it
            if before.stop_how is not None and list(StopHow).index(how) < list(StopHow).index(before.stop_how):
                how = before.stop_how
        self._journal.intend_stop(job, how, then, why, self._clock.wall())
        self._supervisors.signal(self._journal.run(job))

    def end_orphan(self, job: int, how: StopHow = StopHow.STOP) -> int:
        """Signal what is left of a lost run, SIGTERM or for `KILL` SIGKILL; return how many processes there were."""
        if job not in self._orphans:
            raise IllegalAction(f"job {job} has no orphan processes")
        return self._orphans.end(job, how)

    def adopt(self) -> list[RunEvent]:
        """Settle what a former daemon left: watch what runs, write down what ended, start again what never began."""
        for run in self._journal.holding():
            if self._journal.job(run.job).state in ACTIVE:
                self._unsettled[run.job] = run
            else:
                self._orphans.add(run)
        self._orphans.look(set(), self._orphan_gone)
        deadline = time.monotonic() + _START_PATIENCE_S
        while True:
            self._settle_all(relaunch=True)
            if not self._unsettled or time.monotonic() > deadline:
                return self._take_events()
            time.sleep(0.005)

    def poll(self) -> list[RunEvent]:
        """Return what happened since the last call, at once; each event is in the journal already.

        Raises:
            JournalFull: something happened that cannot be written yet; nothing is lost, call again.
        """
        ready = {number for number, _ in self._epoll.poll(0)}
        for job in self._supervisors:
            if self._supervisors.told(job, ready):
                self._look_at(job)
        for job in tuple(self._supervisors.untold):
            self._supervisors.signal(self._journal.run(job))
        self._settle_all(relaunch=False)
        self._orphans.look(ready, self._orphan_gone)
        return self._take_events()

    def watching(self) -> set[int]:
        """Return the jobs whose supervisors are alive and watched."""
        return set(self._supervisors)

    def _take_events(self) -> list[RunEvent]:
        taken, self._events = self._events, []
        return taken

    def _tell(self, kind: EventKind, run: RunRecord) -> None:
        holds = self._journal.run(run.job, run.run).holds_gpus
        self._events.append(RunEvent(kind, run.job, run.run, self._journal.job(run.job).state, holds))

    def _folder(self, run: RunRecord) -> RunFolder:
        return RunFolder(self.folder(run.job, run.run))

    def _spawn(self, run: RunRecord, gpu_minors: Sequence[int] | None) -> None:
        folder, job = self._folder(run), self._journal.job(run.job)
        if folder.begun():
            raise JobError(f"{folder.path} holds files of a job of another journal; move it away")
        self._watch_begun(run, self.starter.start(job, run, folder, gpu_minors))

    def _watch_begun(self, run: RunRecord, begun: Begun | None) -> bool:
        """Watch a supervisor that was just started; False for one that cannot be: it is found by its folder."""
        if begun is not None:
            try:
                self._supervisors.watch(run.job, begun.pidfd, begun.ready)
            except OSError:
                os.close(begun.ready)
            else:
                return True
        self._unsettled[run.job] = run
        return False

    def _look_at(self, job: int) -> None:
        """Take note of a start, and of the end of a supervisor."""
        run = self._journal.run(job)
        self._note_start(run, self._folder(run).started())
        self._supervisors.start_noted(job)
        if self._supervisors.ended(job) and self._settle(self._journal.run(job), relaunch=False):
            self._supervisors.forget(job)

    def _note_start(self, run: RunRecord, started: Started | None) -> None:
        """Write down that a run has begun, once."""
        if started is None or self._journal.run(run.job, run.run).started_time is not None:
            return
        supervisor, child = started.supervisor, started.child
        self._journal.run_started(
            run.job,
            run.run,
            started.started_time,
            (supervisor.pid, supervisor.start_ticks),
            (child.pid, child.start_ticks),
        )
        self._tell(EventKind.STARTED, run)

    def _settle_all(self, *, relaunch: bool) -> None:
        for run in list(self._unsettled.values()):
            if self._settle(self._journal.run(run.job, run.run), relaunch=relaunch):
                del self._unsettled[run.job]

    def _settle(self, run: RunRecord, *, relaunch: bool) -> bool:
        """Find out what became of a run, write it down or watch it; False where it cannot be told at this moment."""
        folder = self._folder(run)
        if run.boot_id != self._boot_id:
            return self._settle_folder(run, folder, relaunch=relaunch)
        if not folder.path.is_dir():  # somebody removed it
            return self._watch_living(run, None) or self._settle_folder(run, folder, relaunch=relaunch)
        lock = folder.lock()
        if lock is None:
            return self._watch_living(run, folder.started())
        try:
            return self._settle_folder(run, folder, relaunch=relaunch, lock=lock)
        finally:
            os.close(lock)

    def _watch_living(self, run: RunRecord, started: Started | None) -> bool:
        """Watch a run's supervisor, known from its folder or else from the journal; False where it does not live."""
        supervisor = started.supervisor if started is not None else None
        if supervisor is None and run.supervisor_pid is not None and run.supervisor_ticks is not None:
            supervisor = Process(run.supervisor_pid, run.supervisor_ticks, run.boot_id)
        if supervisor is None or run.job in self._supervisors or not supervisor.alive():
            return False
        pidfd = supervisor.open()
        if pidfd is None:
            return False
        self._note_start(run, started)
        self._supervisors.watch(run.job, pidfd)
        self._supervisors.signal(run)
        return True

    def _settle_folder(self, run: RunRecord, folder: RunFolder, *, relaunch: bool, lock: int | None = None) -> bool:
        """Settle a run that no supervisor holds, by what its folder says."""
        found, started = folder.exit(), folder.started()
        self._note_start(run, started)
        if found is not None:
            to, reason = verdict(run, found.end)
            self._end(EventKind.ENDED, run, to, reason, found.end, orphans=found.left_processes > 0)
        elif folder.begun() or run.started_time is not None:
            self._lose(run, started)
        elif relaunch and lock is not None and run.stop_then is None and folder.prepared() and self.starter.restarts:
            return self._watch_begun(run, self.starter.start_again(run, folder, lock))
        else:
            self.starter.give_up(folder)
            reason = (
                run.stop_reason
                or f"its supervisor did not start it: {folder.trouble() or 'it was killed, or the disk is full'}"
            )
            nothing = RunEnd(ended_time=self._clock.wall(), run_s=0.0)
            self._end(EventKind.NOT_LAUNCHED, run, run.stop_then or JobState.WAITING, reason, nothing)
        return True

    def _lose(self, run: RunRecord, started: Started | None) -> None:
        """Settle a run that began and whose supervisor is gone without a word."""
        now = self._clock.wall()
        if run.boot_id != self._boot_id:
            again = self._journal.job(run.job).request.restartable
            to = run.stop_then or (JobState.WAITING if again else JobState.LOST)
            end = RunEnd(ended_time=now, run_s=0.0)
            self._end(EventKind.REBOOTED, run, to, "the machine went down while it ran", end)
            return
        run_s = 0.0 if started is None else self._clock.monotonic() - started.started_monotonic_s
        end = RunEnd(ended_time=now, run_s=run_s)
        reason = "its supervisor died, so how it ended is not known"
        self._end(EventKind.LOST, run, JobState.LOST, reason, end, orphans=True)
        if run.stop_then is not None and run.job in self._orphans:
            with suppress(JobError):  # then somebody has to cancel it once more
                self.end_orphan(run.job)

    def _end(
        self, kind: EventKind, run: RunRecord, to: JobState, reason: str | None, end: RunEnd, *, orphans: bool = False
    ) -> None:
        holds_gpus = orphans and bool(self.starter.left(self._journal.run(run.job, run.run)))
        self._journal.end_run(run.job, run.run, to, replace(end, reason=reason), outcome=kind, holds_gpus=holds_gpus)
        if holds_gpus:
            self._orphans.add(self._journal.run(run.job, run.run))
        else:
            self.starter.clear(run)
        self._tell(kind, run)

    def _orphan_gone(self, run: RunRecord) -> None:
        self._journal.release_gpus(run.job, run.run)
        self.starter.clear(run)
        self._tell(EventKind.ORPHAN_GONE, run)
