"""The life of each GPU of a node: from unverified over available, reserved and allocated to releasing, and out of it.

States are worked out anew from what is known now (telemetry, who holds the GPU, what an operator decided); only what
an operator decided, and that a GPU was accepted, is carried on.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from lepton_rl.devices import DeviceTelemetry, HealthState
from lepton_rl.node.accounts import user_name

ACCEPT_MEMORY = 0.9
"""Least part of the catalogue's memory that a healthy card has."""
LEFT_MEMORY_MIB = 512
"""What a driver keeps on a GPU without processes, beyond what it reserves; more than this belongs to somebody."""
RELEASE_PATIENCE_S = 60.0
"""How long memory may stay in use on a GPU after its job ended before that counts as a fault."""
MIB = 1 << 20


class GpuState(StrEnum):
    """Where a GPU is; only an available one takes whole-GPU work, an allocated one more shares."""

    UNVERIFIED = "unverified"  # its acceptance has failed, or it has not answered yet
    AVAILABLE = "available"
    RESERVED = "reserved"  # kept for somebody now
    ALLOCATED = "allocated"
    RELEASING = "releasing"  # its job ended and its memory is not free yet
    DRAINED = "drained"  # an operator takes it out
    UNHEALTHY = "unhealthy"
    LOST = "lost"  # off the bus
    FOREIGN = "foreign"  # a process uses it that is not ours


OUT = frozenset(
    {GpuState.UNVERIFIED, GpuState.RESERVED, GpuState.DRAINED, GpuState.UNHEALTHY, GpuState.LOST, GpuState.FOREIGN}
)
"""States in which a GPU takes no new work."""


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """The state of one GPU, why in a sentence, and since when (Unix seconds).

    `measuring` is one whose throughput is being measured, or will be when those before it are done: nothing is on it,
    and it takes no work.
    """

    uuid: str
    state: GpuState
    reason: str
    since: float
    measuring: bool = False

    @property
    def takes_work(self) -> bool:
        """Whether a job may start on what is free of it."""
        return self.state in (GpuState.AVAILABLE, GpuState.ALLOCATED)


def acceptance(device: DeviceTelemetry, memory_gib: float) -> str:
    """Return what speaks against a GPU that is new to the node, in a sentence, or nothing.

    Args:
        device: as it is now.
        memory_gib: of its type.
    """
    reading, identity = device.raw, device.identity
    if device.problem is not None:
        return f"it does not answer: {device.problem}"
    if not device.health.takes_work:
        return device.health.reason
    total = reading.memory_total_bytes
    if total is not None and total < ACCEPT_MEMORY * memory_gib * 1024 * MIB:
        return f"it has {total / MIB / 1024:.1f} GiB of memory, its type has {memory_gib:.0f}"
    lowest, highest = identity.min_power_limit_mw, identity.max_power_limit_mw
    if lowest is not None and highest is not None and not 0 < lowest <= highest:
        return f"the driver gives it power limits of {lowest / 1e3:g} to {highest / 1e3:g} W, which cannot be"
    if reading.ecc_uncorrected:
        return f"{reading.ecc_uncorrected} uncorrectable memory errors since the driver was loaded: reset it first"
    return ""


class Lifecycle:
    """Follows the states of a node's GPUs.

    Args:
        memory_gib: of each GPU's type, by UUID.
        accepted: GPUs that were accepted before, by UUID.
        drained: why an operator takes GPUs out, by UUID.
        measures: whether a GPU is to be measured before it is accepted.
    """

    def __init__(
        self,
        memory_gib: Mapping[str, float],
        accepted: Collection[str] = (),
        drained: Mapping[str, str] | None = None,
        *,
        measures: bool = False,
    ) -> None:
        self._memory_gib = dict(memory_gib)
        self._accepted = set(accepted)
        self.drained = dict(drained or {})
        self._measures = measures
        self._unmeasured = set(memory_gib) - self._accepted if measures else set()
        self._measuring: str | None = None
        self._slow: dict[str, str] = {}  # what a measurement has found
        self._released_at: dict[str, float] = {}
        self._status = {uuid: GpuStatus(uuid, GpuState.UNVERIFIED, "not looked at yet", 0.0) for uuid in memory_gib}

    @property
    def status(self) -> Mapping[str, GpuStatus]:
        """Each GPU's state, by UUID."""
        return self._status

    @property
    def accepted(self) -> Collection[str]:
        """GPUs that have passed their acceptance."""
        return self._accepted

    def verify(self, uuid: str, *, measure: bool = False) -> None:
        """Let a GPU pass its acceptance once more, and with `measure` be measured for that."""
        self._accepted.discard(uuid)
        if measure:
            self._slow.pop(uuid, None)
            self._unmeasured.add(uuid)

    def to_measure(self) -> list[str]:
        """Return the GPUs on which a measurement can begin now: nothing is on them, and they take no work."""
        return [uuid for uuid, status in self._status.items() if status.measuring]

    def measure(self, uuid: str) -> None:
        """Take in that a GPU is being measured: the process on it is the measurement's."""
        self._measuring = uuid

    def measured(self, uuid: str, against: str, monotonic_s: float) -> bool:
        """Take in what a measurement speaks against a GPU, in a sentence, or nothing; its memory is to be seen free.

        Returns:
            False where the GPU fell sick meanwhile: the measurement counts for nothing.
        """
        self.release(uuid, monotonic_s)
        if self._measuring != uuid:
            return False
        self._measuring = None
        self._unmeasured.discard(uuid)
        if against:
            self._slow[uuid] = against
        return True

    def release(self, uuid: str, monotonic_s: float) -> None:
        """A run of ours has let go of a GPU: it takes work again once its memory is seen free after this moment."""
        self._released_at[uuid] = monotonic_s

    def update(
        self,
        devices: Mapping[str, DeviceTelemetry],
        held: Collection[str],
        reserved: Mapping[str, str],
        is_ours: Callable[[int], bool],
        now: float,
        read_at: float,
    ) -> list[GpuStatus]:
        """Work out all states; return those that changed.

        Args:
            devices: telemetry by UUID.
            held: GPUs that runs of ours hold, with those of orphans.
            reserved: for whom a GPU is kept now, by UUID.
            is_ours: whether a process belongs to a run of ours.
            now: Unix seconds.
            read_at: when the telemetry was taken, seconds of the monotonic clock.
        """
        changed = []
        for uuid, before in self._status.items():
            found = self._state_of(uuid, devices.get(uuid), uuid in held, reserved, is_ours, read_at)
            since = before.since if found.state is before.state else now
            status = GpuStatus(uuid, found.state, found.reason, since, found.measuring)
            if status != before:
                self._status[uuid] = status
                changed.append(status)
        return changed

    def _doubt(self, uuid: str) -> None:
        """Let a GPU that is sick pass its acceptance once more when it is well, as the next daemon would."""
        self.verify(uuid, measure=self._measures)
        if self._measuring == uuid:
            self._measuring = None

    def _state_of(
        self,
        uuid: str,
        device: DeviceTelemetry | None,
        held: bool,
        reserved: Mapping[str, str],
        is_ours: Callable[[int], bool],
        read_at: float,
    ) -> "_Found":
        sick = _sickness(device)
        if sick is not None:
            self._doubt(uuid)
        if uuid in self.drained:  # first: what an operator decided outlasts what befalls the GPU meanwhile
            return _Found(GpuState.DRAINED, f"{self.drained[uuid]}{f'; {sick.reason}' if sick else ''}")
        if sick is not None:
            return sick
        assert device is not None
        # What the X server draws, and the server of MPS itself, are nobody's job.
        foreign = [process for process in device.processes or () if process.kind == "compute"]
        foreign = [process for process in foreign if not is_ours(process.pid)]
        if uuid not in self._accepted:
            against = acceptance(device, self._memory_gib[uuid]) or self._slow.get(uuid, "")
            if not against and uuid in self._unmeasured:
                in_the_way = "" if uuid == self._measuring else _in_the_way(device, held)
                if not in_the_way:
                    return _Found(GpuState.UNVERIFIED, "its throughput is being measured", measuring=True)
                against = f"its throughput is measured when {in_the_way}"
            if against:
                return _Found(GpuState.UNVERIFIED, against)
            self._accepted.add(uuid)
        if foreign:
            pid = foreign[0].pid
            return _Found(GpuState.FOREIGN, f"process {pid}{_whose(pid)} uses it and is no job of this node")
        if held:
            return _Found(GpuState.ALLOCATED, device.health.reason)
        if uuid in self._released_at:
            listed_at = read_at if device.processes_at is None else min(read_at, device.processes_at)
            waited = listed_at - self._released_at[uuid]
            if waited < 0.0:
                return _Found(GpuState.RELEASING, "its memory was not read since its job ended")
            left = _left_behind(device)
            if left:
                if waited > RELEASE_PATIENCE_S:
                    why = f"{left} {waited:.0f} s after its job ended: it needs a reset"
                    return _Found(GpuState.UNHEALTHY, why)
                return _Found(GpuState.RELEASING, left)
            del self._released_at[uuid]
        if uuid in reserved:
            return _Found(GpuState.RESERVED, reserved[uuid])
        return _Found(GpuState.AVAILABLE, device.health.reason)


class _Found(NamedTuple):
    """What a look at one GPU has found."""

    state: GpuState
    reason: str
    measuring: bool = False


def _in_the_way(device: DeviceTelemetry, held: bool) -> str:
    """What a measurement has to wait for, or nothing."""
    if held:
        return "the job on it has ended"
    left = _left_behind(device, "another job")
    return f"it is free: {left}" if left else ""


def _whose(pid: int) -> str:
    """Whose a process is, where it can be seen from here: a driver lists those of other containers too."""
    try:
        return f" of {user_name(Path(f'/proc/{pid}').stat().st_uid)}"
    except OSError:
        return ""


def _sickness(device: DeviceTelemetry | None) -> _Found | None:
    """In which way a GPU is unfit for work, and why."""
    if device is None:
        return _Found(GpuState.LOST, "the driver no longer lists it")
    if device.health.state is HealthState.LOST:
        return _Found(GpuState.LOST, device.health.reason)
    return None if device.health.takes_work else _Found(GpuState.UNHEALTHY, device.health.reason)


def _left_behind(device: DeviceTelemetry, whose: str = "its last job") -> str:
    """What an ended job has left on its GPU."""
    ours = [process for process in device.processes or () if process.kind == "compute"]
    if ours:
        return f"process {ours[0].pid} of {whose} is still on it"
    others = sum(process.memory_used_bytes or 0 for process in device.processes or ())
    used = max(0, device.raw.memory_used_bytes - others) if device.raw.memory_used_bytes is not None else None
    if used is not None and used > LEFT_MEMORY_MIB * MIB:
        return f"{used / MIB:.0f} MiB of its memory are still in use"
    return ""
