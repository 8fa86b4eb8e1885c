"""The handle on a fake driver: it makes the state file and changes what every process on it sees."""

import ctypes
import mmap
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fake_nvml import layout

VARIABLE = "LEPTON_RL_FAKE_NVML"
DRIVER_VERSION = "999.01.fake"
MIB = 2**20
ERRORS = {
    "uninitialized": 1,
    "invalid_argument": 2,
    "not_supported": 3,
    "no_permission": 4,
    "not_found": 6,
    "driver_not_loaded": 9,
    "timeout": 10,
    "function_not_found": 13,
    "gpu_is_lost": 15,
    "reset_required": 16,
    "version_mismatch": 18,
    "unknown": 999,
}
SETTERS = (
    "nvmlDeviceSetPowerManagementLimit",
    "nvmlDeviceSetGpuLockedClocks",
    "nvmlDeviceResetGpuLockedClocks",
)
XID_EVENT = 0x8
_A100: dict[str, Any] = {
    "name": b"Fake A100-SXM4-80GB",
    "memory_total_bytes": 81920 * MIB,
    "memory_reserved_bytes": 600 * MIB,
    "memory_other_bytes": 4 * MIB,
    "power_mw": 62_000,
    "power_limit_mw": 400_000,
    "min_power_limit_mw": 100_000,
    "max_power_limit_mw": 400_000,
    "default_power_limit_mw": 400_000,
    "temperature_c": 31,
    "fan_percent": 0,
    "sm_clock_mhz": 210,
    "memory_clock_mhz": 1593,
    "max_sm_clock_mhz": 1410,
    "max_memory_clock_mhz": 1593,
    "throttle_reasons": 0x1,
}


class FakeNvml:
    """A fake driver with 1 to 16 GPUs, in the file `path`.

    Fields of a GPU are those of `layout.Gpu`, set by `set` and read by `get`. A query is the name of an NVML symbol.
    """

    def __init__(self, path: Path, gpus: int = 1, **fields: Any) -> None:
        if not 0 <= gpus <= layout.MAX_GPUS:
            raise ValueError(f"a fake driver has 0 to {layout.MAX_GPUS} GPUs, not {gpus}")
        path.write_bytes(bytes(ctypes.sizeof(layout.State)))
        self._map(path)
        state = self._state
        state.driver_version = DRIVER_VERSION.encode()
        state.driver_loaded, state.generation, state.gpu_count = 1, 1, gpus
        for index in range(gpus):
            gpu = state.gpus[index]
            gpu.uuid = f"GPU-fa4e0000-0000-4000-8000-{index:012x}".encode()
            gpu.serial = f"{1_000_000 + index}".encode()
            gpu.pci_bus, gpu.energy_base_ns = index + 1, time.monotonic_ns()
            self.set(index, **(_A100 | fields))
        state.magic = layout.MAGIC

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Return a handle on a fake driver that another process made."""
        fake = cls.__new__(cls)
        fake._map(path)
        return fake

    def _map(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._state = layout.State.from_buffer(self._memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; what was set stays in it."""
        if hasattr(self, "_state"):
            del self._state
            self._memory.close()

    def environment(self, library: Path) -> dict[str, str]:
        """Return the variables under which a new process finds this fake as its driver."""
        return dict(os.environ) | {VARIABLE: str(self.path), "LD_LIBRARY_PATH": str(library.parent)}

    # ---- GPUs ----

    def set(self, gpu: int, **fields: Any) -> None:
        """Set fields of a GPU; the energy counter goes on from where it stands."""
        struct = self._gpu(gpu)
        known = {field[0] for field in layout.Gpu._fields_}
        if unknown := set(fields) - known:
            raise ValueError(f"a fake GPU has no field {', '.join(sorted(unknown))}")
        if not struct.energy_fixed:
            struct.energy_base_mj, struct.energy_base_ns = self.energy_mj(gpu), time.monotonic_ns()
        for name, value in fields.items():
            setattr(struct, name, value.encode() if isinstance(value, str) else value)

    def get(self, gpu: int, field: str) -> Any:
        """Return one field of a GPU, as any process last set it."""
        return getattr(self._gpu(gpu), field)

    def uuid(self, gpu: int) -> str:
        """Return the UUID of a GPU."""
        return str(self.get(gpu, "uuid").decode())

    def energy_mj(self, gpu: int) -> int:
        """Return the energy counter, which adds up the drawn power unless it is fixed."""
        struct = self._gpu(gpu)
        if struct.energy_fixed:
            return int(struct.energy_base_mj)
        drawn_mw = min(struct.power_mw, struct.power_limit_mw)
        return int(struct.energy_base_mj + (time.monotonic_ns() - struct.energy_base_ns) * 1e-9 * drawn_mw)

    def fix_energy(self, gpu: int, energy_mj: int) -> None:
        """Let the energy counter stand still at a value."""
        self.set(gpu, energy_fixed=1, energy_base_mj=energy_mj)

    def lose(self, gpu: int) -> None:
        """Let the GPU fall off the bus: every query of it answers GPU_IS_LOST from now on."""
        self._gpu(gpu).lost = 1

    def add_process(
        self, gpu: int, pid: int, used_bytes: int | None = 0, *, kind: str = "compute", instance: int | None = None
    ) -> None:
        """Put a process on a GPU (or on its MIG instance number `instance`); None: the driver does not say how much."""
        struct = self._gpu(gpu)
        if struct.process_count == layout.MAX_PROCESSES:
            raise ValueError(f"a fake GPU holds {layout.MAX_PROCESSES} processes")
        entry = struct.processes[struct.process_count]
        entry.pid, entry.kind = pid, ("compute", "graphics", "mps").index(kind)
        entry.used_bytes = layout.UNKNOWN_MEMORY if used_bytes is None else used_bytes
        entry.gpu_instance = entry.compute_instance = layout.NO_INSTANCE
        if instance is not None:
            part = struct.instances[instance]
            entry.gpu_instance, entry.compute_instance = part.gpu_instance, part.compute_instance
        struct.process_count += 1

    def remove_process(self, gpu: int, pid: int) -> None:
        """Take a process off a GPU."""
        struct = self._gpu(gpu)
        size = ctypes.sizeof(layout.Process)
        kept = [bytes(entry) for entry in struct.processes[: struct.process_count] if entry.pid != pid]
        struct.process_count = len(kept)
        ctypes.memmove(struct.processes, b"".join(kept), size * len(kept))

    def add_instance(self, gpu: int, memory_total_bytes: int = 9728 * MIB) -> str:
        """Put the GPU into MIG mode with one instance more; its UUID is returned."""
        struct = self._gpu(gpu)
        number = struct.instance_count
        part = struct.instances[number]
        part.uuid = f"MIG-fa4e0000-{gpu:04x}-4000-8000-{number:012x}".encode()
        part.name = struct.name + b" MIG 1g.10gb"
        part.gpu_instance, part.compute_instance, part.memory_total_bytes = 7 + number, 0, memory_total_bytes
        struct.mig_enabled, struct.instance_count = 1, number + 1
        return str(part.uuid.decode())

    # ---- events and faults ----

    def inject_event(self, gpu: int, kind: int, data: int = 0) -> None:
        """Send an event (a bit of nvmlEventType*) to the event sets of all processes."""
        state = self._state
        entry = state.events[state.event_count % layout.MAX_EVENTS]
        entry.gpu, entry.type, entry.data = gpu, kind, data
        state.event_count += 1

    def inject_xid(self, gpu: int, xid: int) -> None:
        """Send an XID error to the event sets of all processes."""
        self.inject_event(gpu, XID_EVENT, xid)

    def fail(self, query: str, error: str = "unknown", *, gpu: int | None = None) -> None:
        """Let a query answer with an error (a key of ERRORS) until `heal`."""
        self._rule(query, gpu).error = ERRORS[error]

    def slow(self, query: str, milliseconds: int, *, gpu: int | None = None) -> None:
        """Let a query take its time until `heal`."""
        self._rule(query, gpu).delay_ms = milliseconds

    def watch(self, query: str, *, gpu: int | None = None) -> None:
        """Count how often a query is asked; it answers as before."""
        self._rule(query, gpu)

    def heal(self, query: str, *, gpu: int | None = None) -> None:
        """Let a query answer again, at once; its count goes on."""
        rule = self._rule(query, gpu)
        rule.error = rule.delay_ms = 0

    def hits(self, query: str, *, gpu: int | None = None) -> int:
        """Return how often a watched, slowed or failing query was asked."""
        return int(self._rule(query, gpu).hits)

    def refuse_setters(self) -> None:
        """Let every setter answer NO_PERMISSION, as for a user without rights."""
        for query in SETTERS:
            self.fail(query, "no_permission")

    def restart_driver(self) -> None:
        """Let every process find the library uninitialised until it initialises again."""
        self._state.generation += 1

    def unload_driver(self) -> None:
        """Take the driver away: queries answer UNINITIALIZED, initialising answers DRIVER_NOT_LOADED."""
        self._state.driver_loaded = 0

    def load_driver(self) -> None:
        """Bring the driver back, as one that was started anew."""
        self._state.driver_loaded = 1
        self.restart_driver()

    def _gpu(self, gpu: int) -> layout.Gpu:
        if not 0 <= gpu < self._state.gpu_count:
            raise IndexError(f"no fake GPU {gpu}: there are {self._state.gpu_count}")
        found: layout.Gpu = self._state.gpus[gpu]
        return found

    def _rule(self, query: str, gpu: int | None) -> layout.Rule:
        state, number = self._state, -1 if gpu is None else gpu
        rule: layout.Rule
        for rule in state.rules[: state.rule_count]:
            if rule.query == query.encode() and rule.gpu == number:
                return rule
        if state.rule_count == layout.MAX_RULES:
            raise ValueError(f"a fake driver holds {layout.MAX_RULES} rules")
        rule = state.rules[state.rule_count]
        rule.query, rule.gpu = query.encode(), number
        state.rule_count += 1
        return rule
