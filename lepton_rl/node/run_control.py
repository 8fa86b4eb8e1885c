"""Runs and the open jobs in step: what is started or stopped is known at once, and so is what became of it."""

import logging
from collections.abc import Iterator
from contextlib import suppress

from lepton_rl.errors import JobError, JournalError
from lepton_rl.node.clock import Clock
from lepton_rl.node.estimates import RunTimes
from lepton_rl.node.events import RunEvent
from lepton_rl.node.gpu_watch import GpuWatch
from lepton_rl.node.hardware import NodeHardware
from lepton_rl.node.jobs import JobState, StopHow
from lepton_rl.node.journal import Journal
from lepton_rl.node.open_jobs import OpenJobs
from lepton_rl.node.runs import Runs
from lepton_rl.node.time_limits import TimeLimits, over_limit

_log = logging.getLogger(__name__)


class RunControl:
    """Starts and stops the runs of a node's jobs.

    Args:
        hardware: the node's GPUs.
        journal: has jobs and runs.
        runs: the processes.
        jobs: the open ones; kept in step.
        gpus: told which are let go of.
        run_times: learns from jobs that are done.
        clock: the machine's clocks.
    """

    def __init__(
        self,
        hardware: NodeHardware,
        journal: Journal,
        runs: Runs,
        jobs: OpenJobs,
        gpus: GpuWatch,
        run_times: RunTimes,
        clock: Clock,
    ) -> None:
        self._hardware, self._journal, self._runs, self._jobs = hardware, journal, runs, jobs
        self._gpus, self._run_times, self._clock = gpus, run_times, clock
        self._limits = TimeLimits(runs, clock)

    def start(self, job: int, uuids: tuple[str, ...]) -> bool:
        """Start a run of a job on these GPUs; False where it could not be started and is worth another try.

        Where it, or who was told to leave the GPUs, still holds them, nothing is done: their end is a decision point.
        """
        if job in self._jobs.holding or self._jobs.leaving().intersection(uuids):
            return True
        minors = [self._hardware.minors[uuid] for uuid in uuids if uuid in self._hardware.minors]
        known = minors if len(minors) == len(uuids) else None
        self._jobs.not_started.pop(job, None)
        try:
            self._jobs.holding[job] = self._runs.launch(job, uuids, decided=self._clock.wall(), gpu_minors=known)
        except (JobError, JournalError) as error:
            _log.error("job %d was not started: %s", job, error)
            self._jobs.not_started[job] = str(error)
        self._jobs.renew(job)
        return job in self._jobs.holding

    def give_up(self, job: int, why: str) -> None:
        """Let a run, if one has begun, save itself and its job wait again, unless it is being stopped already."""
        run = self._jobs.holding.get(job)
        if run is not None and run.stop_then is None:
            self.stop(job, why, then=JobState.WAITING, how=StopHow.CHECKPOINT)

    def stop(self, job: int, why: str, then: JobState = JobState.CANCELLED, how: StopHow = StopHow.STOP) -> None:
        """Stop the run of a job."""
        self._runs.stop(job, why, then=then, how=how)
        self._jobs.holding[job] = self._journal.run(job)

    def end_overdue(self) -> Iterator[int]:
        """End the jobs that have run for longer than they may, and yield each."""
        open_jobs, holding = self._jobs.known, self._jobs.holding
        known = {job: (open_jobs[job].record, open_jobs[job].served) for job in holding if job in open_jobs}
        for job in list(self._limits.overrun(holding, known)):
            limit_s = known[job][0].request.time_limit_s
            assert limit_s is not None
            _log.info("job %d %s", job, over_limit(limit_s))
            self.stop(job, over_limit(limit_s), then=JobState.FAILED)
            yield job

    def take_in(self, event: RunEvent) -> None:
        """Take in what became of a run."""
        _log.info("job %d, run %d: %s, now %s", event.job, event.run, event.kind, event.state)
        before = self._jobs.holding.get(event.job)
        self._jobs.renew(event.job)
        if event.holds_gpus:
            self._jobs.holding[event.job] = self._journal.run(event.job, event.run)
            return
        if before is not None and before.run == event.run:
            del self._jobs.holding[event.job]
            use = self._gpus.release(before)
            with suppress(JournalError):  # what is known since the last time is lost, and nothing else
                self._journal.set_run_usage(event.job, event.run, use)
        if event.state is JobState.DONE:
            seconds = sum(run.run_s or 0.0 for run in self._journal.runs(event.job))
            self._run_times.learn(self._journal.job(event.job).request, seconds)
        if event.state is not JobState.WAITING:
            self._jobs.targets.pop(event.job, None)
