"""The jobs of a node that have not ended, in memory: which wait, which hold GPUs, and where those go that are moved."""

from collections.abc import Sequence
from dataclasses import dataclass

from lepton_rl.core.arrays import Floats
from lepton_rl.node.hardware import NodeHardware
from lepton_rl.node.jobs import ACTIVE, JobRecord, JobState, RunRecord
from lepton_rl.node.journal import Journal
from lepton_rl.node.view import JobRows, RunningJob


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that has not ended.

    Attributes:
        record: of the journal.
        submitted: when it began to wait for the policy, seconds since the journal was begun.
        served: seconds that its earlier runs took.
    """

    record: JobRecord
    submitted: float
    served: float


class OpenJobs:
    """Follows the journal.

    Args:
        hardware: the node's GPUs.
        journal: has the jobs.
        rows: makes their rows of a snapshot.

    Attributes:
        created: when the journal was begun, Unix seconds.
        known: all that have not ended, by number.
        holding: the runs that hold GPUs, by job; orphans of lost jobs too.
        targets: UUIDs of the GPUs on which a job that is being moved goes on.
    """

    def __init__(self, hardware: NodeHardware, journal: Journal, rows: JobRows) -> None:
        self._hardware, self._journal, self._rows = hardware, journal, rows
        self.created = journal.created
        self.known: dict[int, OpenJob] = {}
        self.holding: dict[int, RunRecord] = {}
        self.targets: dict[int, tuple[str, ...]] = {}
        self.not_started: dict[int, str] = {}
        """Why a job could not be started when that was tried last."""

    def recall(self) -> None:
        """Take in all that the journal has."""
        for states in ([JobState.WAITING], ACTIVE):
            for record in self._journal.jobs(states):
                self.take_in(record)
        for run in self._journal.holding():
            self.holding[run.job] = run

    def take_in(self, record: JobRecord) -> None:
        """Follow a job from now on."""
        served = sum(run.run_s or 0.0 for run in self._journal.runs(record.id)) if record.run else 0.0
        arrived = max(record.submit_time, record.request.begin_time)  # before that it did not wait for the policy
        self.known[record.id] = OpenJob(record, arrived - self.created, served)

    def renew(self, job: int) -> None:
        """Take in what the journal has of a job now; one that has ended is not followed any more."""
        record = self._journal.job(job)
        if record.state is JobState.WAITING or record.state in ACTIVE:
            self.take_in(record)
        else:
            self.known.pop(job, None)

    def forget(self, job: int) -> None:
        """Follow a job no more."""
        self.known.pop(job, None)
        self.targets.pop(job, None)
        self.not_started.pop(job, None)

    def waiting(self) -> list[JobRecord]:
        """Return the jobs that wait, those that begin later too, in order of submission."""
        return [job.record for _, job in sorted(self.known.items()) if job.record.state is JobState.WAITING]

    def ready(self, wall: float) -> list[OpenJob]:
        """Return the jobs that could start at a time, Unix seconds."""
        return [
            known
            for number, known in self.known.items()
            if known.record.state is JobState.WAITING
            and number not in self.holding
            and number not in self.targets
            and known.record.request.begin_time <= wall
        ]

    def holders(self) -> dict[str, tuple[int, ...]]:
        """Return the jobs on each GPU that has some, by UUID."""
        found: dict[str, tuple[int, ...]] = {}
        for job, run in sorted(self.holding.items()):
            for uuid in run.gpu_uuids:
                found[uuid] = (*found.get(uuid, ()), job)
        return found

    def leaving(self) -> set[str]:
        """Return the UUIDs of the GPUs that runs hold which have been told to leave them."""
        return {uuid for run in self.holding.values() if run.stop_then is not None for uuid in run.gpu_uuids}

    def kept(self) -> set[str]:
        """Return the UUIDs of the GPUs that nobody may have: kept for a job that moves, or what is left of others'."""
        partly = [run.gpu_uuids for run in self.holding.values() if not self._is_whole(run)]
        return {uuid for uuids in (*self.targets.values(), *partly) for uuid in uuids}

    def row(self, known: OpenJob) -> Floats:
        """Return a job's row of a snapshot."""
        return self._rows.row(known.record.id, known.record.request, known.submitted, known.served)

    def running(self, time: float) -> Sequence[RunningJob]:
        """Return the runs that hold GPUs as a snapshot of that time shows them, seconds since the journal was begun."""
        return [self._running(number, run, time) for number, run in self.holding.items() if self._is_whole(run)]

    def _running(self, job: int, run: RunRecord, time: float) -> RunningJob:
        known = self.known.get(job)
        restartable = known is not None and known.record.request.restartable and run.stop_then is None
        if known is None:  # the orphan of a lost job
            record = self._journal.job(job)
            known = OpenJob(record, record.submit_time - self.created, 0.0)
        started = (run.started_time or run.starting_time) - self.created
        return RunningJob(
            self.row(known),
            min(started, time),
            tuple(map(self._hardware.number_of, run.gpu_uuids)),
            restartable,
        )

    def _is_whole(self, run: RunRecord) -> bool:
        """Whether all GPUs of a run are GPUs of this node: one may have been taken out under it, or divided."""
        return bool(run.gpu_uuids) and all(uuid in self._hardware.uuids for uuid in run.gpu_uuids)
