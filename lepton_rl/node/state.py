"""The state of a node now: its open jobs, its GPUs and who has reserved them, and the snapshots that show it."""

from collections.abc import Collection, Iterable

from lepton_rl.core.snapshot import Snapshot
from lepton_rl.node.clock import Clock
from lepton_rl.node.gpu_watch import GpuWatch
from lepton_rl.node.hardware import NodeHardware
from lepton_rl.node.jobs import JobRecord, JobRequest
from lepton_rl.node.journal import Journal
from lepton_rl.node.open_jobs import OpenJob, OpenJobs
from lepton_rl.node.reservations import Ahead, next_reservations
from lepton_rl.node.view import GpuView, JobRows, RunningJob, Views


class NodeState:
    """What is known of one node.

    Args:
        hardware: its GPUs.
        journal: has its reservations.
        jobs: the open ones.
        gpus: what its GPUs are doing.
        rows: makes rows of jobs.
        views: builds its snapshots.
        clock: the machine's clocks.
    """

    def __init__(
        self,
        hardware: NodeHardware,
        journal: Journal,
        jobs: OpenJobs,
        gpus: GpuWatch,
        rows: JobRows,
        views: Views,
        clock: Clock,
    ) -> None:
        self.hardware, self.journal, self.jobs, self.gpus, self.clock = hardware, journal, jobs, gpus, clock
        self._rows, self._views = rows, views

    @property
    def time(self) -> float:
        """Seconds since the journal was begun: what policies take for the time."""
        return self.clock.wall() - self.jobs.created

    def snapshot(self, waiting: Iterable[OpenJob], out: Collection[int]) -> Snapshot:
        """Return these jobs that wait, and all that runs, where some GPUs, by number, take no new work."""
        now = self.time
        rows = [self.jobs.row(known) for known in waiting]
        view = GpuView(frozenset(out), self.gpus.power_limits_mw())
        return self._views.build(now, rows, self.jobs.running(now), view)

    def snapshot_of(self, record: JobRecord) -> Snapshot:
        """Return all jobs that wait, and the GPUs as one of them could have them: what tells why it waits."""
        wall = self.clock.wall()
        return self.snapshot(self.jobs.ready(wall), self.out() | self.run_into(record, wall).keys())

    def examples(self) -> list[Snapshot]:
        """Return made-up states of this node: jobs of several sizes wait, on idle GPUs and beside one that runs."""
        gpus = self.hardware.cluster.gpus
        asked = [JobRequest(argv=("example",), cwd="/", gpu_milli=milli) for milli in (1000, 500, 1000 * gpus)]
        rows = [self._rows.row(number, request, 0.0, 0.0) for number, request in enumerate(asked, 1)]
        runs = [RunningJob(self._rows.row(9, asked[0], 0.0, 0.0), 0.0, (0,))]
        return [self._views.build(1.0, rows, running, GpuView()) for running in ([], runs)]

    def out(self) -> set[int]:
        """Return the GPUs, by number, that take no new work, whatever asks for them."""
        status, kept = self.gpus.status, self.jobs.kept()
        return {
            number for number, uuid in enumerate(self.hardware.uuids) if not status[uuid].takes_work or uuid in kept
        }

    def unavailable(self, record: JobRecord | None = None) -> list[str]:
        """Return which GPUs take no new work now, or not this job, and why, a sentence each."""
        moving = {uuid for uuids in self.jobs.targets.values() for uuid in uuids}
        found = {} if record is None else self.run_into(record, self.clock.wall())
        for number, uuid in enumerate(self.hardware.uuids):
            status = self.gpus.status[uuid]
            if uuid in moving:
                found[number] = f"GPU {number} is kept for a job that moves"
            elif not status.takes_work:
                found[number] = f"GPU {number} is {status.state}: {status.reason}"
        return [why for _, why in sorted(found.items())]

    def end(self, request: JobRequest, wall: float) -> float:
        """Return when a job would end if it started at a time, both Unix seconds."""
        return wall + self._rows.requested_s(request)

    def ahead(self, wall: float) -> Ahead:
        """Return the reservations in force and ahead at a time, Unix seconds."""
        found = next_reservations(self.journal.ledger, wall)
        return Ahead(
            wall, {self.hardware.number_of(uuid): found[uuid] for uuid in self.hardware.uuids if uuid in found}
        )

    def run_into(self, record: JobRecord, wall: float) -> dict[int, str]:
        """Return the GPUs, by number, that are reserved before a job would end on them, and that in words."""
        said = record.request.requested_s is not None
        return self.ahead(wall).run_into(self._rows.requested_s(record.request), said=said)
