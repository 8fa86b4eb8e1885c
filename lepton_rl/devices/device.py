"""What a device is to the rest of lepton_rl: identity, readings, processes, events, and three settings."""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """What does not change about a device while the driver runs.

    Attributes:
        index: position in `Devices.identities`; GPUs come first under the driver's own numbers, MIG instances follow.
        uuid: the driver's name for it, "GPU-..." or "MIG-..."; "unknown-INDEX" for a GPU that was lost from the start.
        parent_uuid: for a MIG instance, the GPU that it is a part of.
        minor: number of its device file, as in /dev/nvidia0; None for a MIG instance.
        divided: a GPU in MIG mode: its instances take work, it takes none itself.
    """

    index: int
    uuid: str
    name: str
    pci_bus_id: str | None = None
    memory_total_bytes: int | None = None
    min_power_limit_mw: int | None = None
    max_power_limit_mw: int | None = None
    default_power_limit_mw: int | None = None
    parent_uuid: str | None = None
    divided: bool = False
    minor: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One device at one moment; None is what the device does not say.

    A MIG instance says its own memory. What it shares with its siblings and a health check needs (temperature, clocks,
    throttling, ECC, remapped rows) is the parent's; what would be counted twice (power, energy) is None.

    Attributes:
        time: seconds since the epoch, by the wall clock.
        lost: the GPU has fallen off the bus; everything else is then None.
        utilisation: share of the driver's last sample period (1/6 to 1 s) in which any kernel ran, 0 to 1.
        memory_utilisation: share of that period in which memory was read or written, 0 to 1.
        memory_used_bytes: in use, `memory_reserved_bytes` not counted.
        memory_reserved_bytes: held by the driver for itself.
        power_mw: drawn power; an average over about a second on recent GPUs.
        energy_mj: counter of the driver since it was loaded.
        throttle_reasons: why the clocks are lower than asked for, by name; empty: they are not.
        ecc_corrected: memory errors corrected since the driver was loaded.
        ecc_uncorrected: memory errors that were not.
        remapped_rows: memory rows that spare ones replace.
        remap_pending: a row waits for a reset to be replaced.
        remap_failed: a row could not be replaced.
        recovery_action: what the driver asks for, by name ("none", "gpu_reset", ...).
    """

    uuid: str
    time: float
    lost: bool = False
    utilisation: float | None = None
    memory_utilisation: float | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    power_mw: int | None = None
    power_limit_mw: int | None = None
    temperature_c: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    energy_mj: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    remapped_rows: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    recovery_action: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceProcess:
    """A process that holds a device.

    Attributes:
        pid: in the namespace of the host, which is not a container's own.
        kind: "compute", "graphics" or "mps".
        memory_used_bytes: None where the driver does not say.
        instance: number of the MIG GPU instance it runs on; None on a whole GPU.
    """

    pid: int
    kind: str
    memory_used_bytes: int | None = None
    instance: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """Something that the driver told of its own accord.

    Attributes:
        uuid: of the GPU (a MIG instance's events come from its GPU).
        time: seconds since the epoch, by the wall clock.
        kind: "xid", "ecc_uncorrected", "recovery_action", "unavailable", "retirement", "retirement_failure",
            "poison", "poison_fatal".
        xid: the number of an XID error.
    """

    uuid: str
    time: float
    kind: str
    xid: int | None = None


class Devices(Protocol):
    """The GPUs of one machine, or a recording of them.

    `read`, `processes` and the setters may be called from one thread each, `wait_for_event` from another one.
    """

    @property
    def driver_version(self) -> str:
        """Version of the driver."""

    @property
    def simulated(self) -> bool:
        """Whether these are no hardware: a fake driver or a recording. No report may call them hardware."""

    @property
    def identities(self) -> tuple[DeviceIdentity, ...]:
        """Every device, by index."""

    def read(self, index: int) -> Reading:
        """Return what the device says now; a lost GPU is a reading, not an error."""

    def processes(self, index: int) -> tuple[DeviceProcess, ...] | None:
        """Return the processes on the device, by pid, or None where it does not say."""

    def wait_for_event(self, timeout_s: float) -> DeviceEvent | None:
        """Return the next event, or None after `timeout_s` seconds without one."""

    def set_power_limit(self, index: int, power_limit_mw: int) -> None:
        """Limit the power that the device may draw, within its identity's minimum and maximum."""

    def lock_clocks(self, index: int, min_mhz: int, max_mhz: int) -> None:
        """Keep the SM clock between two frequencies."""

    def reset_clocks(self, index: int) -> None:
        """Undo `lock_clocks`."""

    def close(self) -> None:
        """Let go of the driver; calling it twice is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None
    ) -> None: ...
