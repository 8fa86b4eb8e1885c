"""What the GPUs of a node are doing, from telemetry: states, strangers' processes, power limits, what runs use."""

import logging
from collections.abc import Iterable, Mapping

from lepton_rl.devices import Telemetry
from lepton_rl.errors import NodeError
from lepton_rl.node.clock import Clock
from lepton_rl.node.hardware import NodeHardware
from lepton_rl.node.jobs import RunRecord, RunUse
from lepton_rl.node.journal import Journal
from lepton_rl.node.ledger import MeasuredThroughput
from lepton_rl.node.lifecycle import GpuState, GpuStatus, Lifecycle
from lepton_rl.node.metering import RunMeter
from lepton_rl.node.ownership import Ownership
from lepton_rl.node.reservations import reasons
from lepton_rl.node.throughput import Measurement, ThroughputRules, end_left

_log = logging.getLogger(__name__)
_IDLE = frozenset({GpuState.UNVERIFIED, GpuState.AVAILABLE, GpuState.RESERVED, GpuState.RELEASING})


class GpuWatch:
    """Follows a node's GPUs and lets the journal know.

    Args:
        hardware: the GPUs.
        journal: keeps their states, and what runs use.
        telemetry: the readings.
        clock: the machine's clocks.
        holding: the runs that hold GPUs now, orphans of lost jobs too, by job; read at every look.
        throughput: what a GPU must compute before it takes work; None asks for nothing.
    """

    def __init__(
        self,
        hardware: NodeHardware,
        journal: Journal,
        telemetry: Telemetry,
        clock: Clock,
        holding: Mapping[int, RunRecord],
        throughput: ThroughputRules | None = None,
    ) -> None:
        self._hardware, self._journal, self._telemetry, self._clock = hardware, journal, telemetry, clock
        self._holding = holding
        self._throughput = throughput
        self._measurement: Measurement | None = None
        self._asked_at: float | None = None  # for the processes on the next GPU to be measured, monotonic seconds
        self._lifecycle = _recalled(hardware, journal, measures=throughput is not None)
        self._unwritten: dict[str, GpuStatus] = {}
        self._measured = {uuid: found for uuid, found in journal.ledger.throughputs().items() if uuid in self.status}
        self._unwritten_figures: set[str] = set()
        self._ownership = Ownership(journal.node_id)
        self._meter = RunMeter()
        self.written_at = 0.0
        """When `write_use` last did, seconds of the monotonic clock."""

    @property
    def status(self) -> Mapping[str, GpuStatus]:
        """Each GPU's state, by UUID."""
        return self._lifecycle.status

    @property
    def measured(self) -> Mapping[str, MeasuredThroughput]:
        """What each GPU computed when that was measured last, by UUID; by a former daemon too."""
        return self._measured

    def held(self) -> set[str]:
        """Return the UUIDs of the GPUs that runs hold."""
        return {uuid for run in self._holding.values() for uuid in run.gpu_uuids}

    def recall(self) -> None:
        """Go on from what the journal has: what runs have used, and which GPUs were let go of while nobody looked."""
        for run in self._holding.values():
            self._meter.begin(run)
        end_left(self._journal.node_id)  # of a former daemon, whatever its rules were
        held = self.held()
        for uuid, gpu in self._journal.ledger.gpus().items():
            if gpu.state in (GpuState.ALLOCATED, GpuState.RELEASING) and uuid not in held:
                self._lifecycle.release(uuid, self._clock.monotonic())

    def close(self) -> None:
        """End a measurement that runs."""
        if self._measurement is not None:
            self._measurement.close()

    def drain(self, uuid: str, reason: str) -> None:
        """Let a GPU take no new work from the next look on."""
        self._lifecycle.drained[uuid] = reason

    def resume(self, uuid: str) -> None:
        """Undo `drain`, forget the errors of a GPU that was repaired, and let it be accepted anew."""
        self._lifecycle.drained.pop(uuid, None)
        self._lifecycle.verify(uuid, measure=self._throughput is not None)
        self._telemetry.acknowledge(uuid)
        self._journal.ledger.set_gpu(uuid, GpuState.UNVERIFIED, "resumed", self._clock.wall())

    def verify(self, *, throughput: bool = False) -> None:
        """Let all GPUs on which nothing runs pass their acceptance once more, at the next look.

        Raises:
            NodeError: their throughput is to be measured, and the configuration does not say how.
        """
        if throughput and self._throughput is None:
            raise NodeError(
                "the node's configuration asks for no throughput: name the least figure there, as "
                "acceptance: {throughput: {least_tflops: 100}}, and start the daemon anew"
            )
        for uuid, status in self.status.items():
            if status.state in _IDLE:
                self._lifecycle.verify(uuid, measure=throughput)

    def release(self, run: RunRecord) -> RunUse:
        """Take in that a run has let go of its GPUs; return what it has used."""
        for uuid in set(run.gpu_uuids) - self.held():
            self._lifecycle.release(uuid, self._clock.monotonic())
        self._telemetry.wake()
        return self._meter.end(run.job, run.run)

    def look(self) -> bool:
        """Work out the states of the GPUs; return whether there is something that `write` has not written."""
        self._end_measurement()
        snapshot, wall = self._telemetry.latest(), self._clock.wall()
        self._ownership.expect(self._holding.values())
        self._meter.add(snapshot, self._holding.values(), self._ownership.run_of)
        devices = {device.identity.uuid: device for device in snapshot.devices}
        reserved = reasons(self._journal.ledger, wall)
        changed = self._lifecycle.update(devices, self.held(), reserved, self._is_ours, wall, snapshot.monotonic_s)
        for status in changed:
            self._unwritten[status.uuid] = status
            _log.info("GPU %s is %s%s", status.uuid, status.state, status.reason and f": {status.reason}")
        self._begin_measurement()
        return bool(self._unwritten or self._unwritten_figures)

    def write(self) -> None:
        """Let the journal know the states that have changed, and what was measured."""
        with self._journal.transaction():
            for status in self._unwritten.values():
                # Of a drained one only what the operator said: that is read again by the next daemon.
                reason = self._lifecycle.drained.get(status.uuid, status.reason)
                self._journal.ledger.set_gpu(status.uuid, status.state, reason, status.since)
            for uuid in self._unwritten_figures:
                self._journal.ledger.set_throughput(uuid, self._measured[uuid])
        self._unwritten.clear()
        self._unwritten_figures.clear()

    def write_use(self) -> None:
        """Let the journal know what the runs have used so far, should this daemon not see their ends."""
        self.written_at = self._clock.monotonic()
        with self._journal.transaction():
            for run in self._holding.values():
                self._journal.set_run_usage(run.job, run.run, self._meter.of(run.job, run.run))

    def _begin_measurement(self) -> None:
        """Measure a GPU that has to be, one at a time, where nothing is on it by a list of processes made for this."""
        waiting = self._lifecycle.to_measure()
        if self._throughput is None or self._measurement is not None or not waiting:
            self._asked_at = None
            return
        uuid, now = waiting[0], self._clock.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            self._telemetry.wake()
        if not self.processes_are_newer([uuid], now - self._asked_at):
            return
        self._asked_at = None
        self._lifecycle.measure(uuid)
        self._measurement = Measurement(self._throughput, uuid, self._journal.node_id, self._clock.monotonic)

    def _end_measurement(self) -> None:
        if self._measurement is not None and self._measurement.poll():
            found, self._measurement = self._measurement, None
            counts = self._lifecycle.measured(found.uuid, found.against or "", self._clock.monotonic())
            if counts and found.tflops is not None:
                self._measured[found.uuid] = MeasuredThroughput(found.tflops, self._clock.wall())
                self._unwritten_figures.add(found.uuid)
            self._telemetry.wake()

    def processes_are_newer(self, uuids: Iterable[str], age_s: float) -> bool:
        """Whether the processes on all of these GPUs were listed less than `age_s` ago."""
        listed = {device.identity.uuid: device.processes_at for device in self._telemetry.latest().devices}
        now = self._clock.monotonic()
        return all((at := listed.get(uuid)) is not None and now - at < age_s for uuid in uuids)

    def power_limits_mw(self) -> dict[int, int]:
        """Return the limits that differ from the group's own, within the card's range, by number of the GPU."""
        found = {}
        for device in self._telemetry.latest().devices:
            uuid, limit = device.identity.uuid, device.raw.power_limit_mw
            if limit is None or uuid not in self._hardware.uuids:
                continue
            number = self._hardware.number_of(uuid)
            group = self._hardware.cluster.group_of(number)
            lowest, highest = group.gpu.min_power_limit_w * 1e3, group.gpu.max_power_limit_w * 1e3
            if lowest <= limit <= highest and limit != round(group.limit_w * 1e3):
                found[number] = limit
        return found

    def _is_ours(self, pid: int) -> bool:
        return self._ownership.run_of(pid) is not None


def _recalled(hardware: NodeHardware, journal: Journal, *, measures: bool) -> Lifecycle:
    """The states as the journal has them."""
    known = journal.ledger.gpus()
    memory = {uuid: hardware.cluster.group_of(gpu).gpu.memory_gib for gpu, uuid in enumerate(hardware.uuids)}
    never = (GpuState.UNVERIFIED, GpuState.LOST, GpuState.UNHEALTHY)
    accepted = [uuid for uuid, record in known.items() if record.state not in never]
    drained = {uuid: record.reason or "" for uuid, record in known.items() if record.state == GpuState.DRAINED}
    return Lifecycle(
        memory, accepted, {uuid: why for uuid, why in drained.items() if uuid in memory}, measures=measures
    )
