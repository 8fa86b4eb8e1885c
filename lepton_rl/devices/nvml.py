"""Devices of NVIDIA's driver, through nvidia-ml-py: the one file that imports its module `pynvml`."""

import ctypes
import importlib
import importlib.util
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lepton_rl.devices.device import DeviceEvent, DeviceIdentity, DeviceProcess, Reading
from lepton_rl.devices.errors import (
    DriverMismatch,
    DriverMissing,
    InvalidLimit,
    NotSupported,
    UnknownDevice,
)
from lepton_rl.devices.nvml_errors import CODE_LOST, Answer, device_error, meaning_of
from lepton_rl.devices.nvml_events import NvmlEvents
from lepton_rl.devices.nvml_identity import enumerate_devices, handle_of, required
from lepton_rl.devices.nvml_queries import Interrupted, NvmlQueries
from lepton_rl.errors import counted, missing_extra

T = TypeVar("T")
_SONAME = "libnvidia-ml.so.1"


class NvmlDevices:
    """The NVIDIA GPUs of this machine, and the MIG instances of those in MIG mode.

    A value that a device does not support is asked for once and then left alone; a driver that restarts is initialised
    again at the next question. `failures` counts by NVML function the queries that failed for another reason.

    Args:
        library_path: the driver's libnvidia-ml.so.1, where the dynamic linker does not find it by itself.

    Raises:
        MissingExtra: nvidia-ml-py is not installed.
        DriverMissing: there is no driver, or it does not answer.
        DriverMismatch: driver, library and binding do not belong together.
    """

    def __init__(self, library_path: Path | str | None = None) -> None:
        self._nvml = _binding()
        if library_path is not None:
            _preload(Path(library_path))
        self._queries = NvmlQueries(self._nvml)
        self._restart_lock = threading.Lock()
        self._initialised, self._generation = 0, 0
        self._closed = threading.Event()
        self._events = NvmlEvents(self._nvml, self._whole_gpus, self._closed)
        self._initialise()
        try:
            self._driver_version = str(required(self._nvml, "nvmlSystemGetDriverVersion"))
            found = enumerate_devices(self._queries)
        except BaseException:
            self.close()
            raise
        self._identities = tuple(identity for identity, _ in found)
        self._handles = [handle for _, handle in found]

    # ---- what there is ----

    @property
    def driver_version(self) -> str:
        """Version of the driver."""
        return self._driver_version

    @property
    def simulated(self) -> bool:
        """Whether the driver or a device says that it is a fake."""
        return self._driver_version.endswith(".fake") or any(
            identity.name.startswith("Fake ") for identity in self._identities
        )

    @property
    def identities(self) -> tuple[DeviceIdentity, ...]:
        """Every GPU by the driver's index, then every MIG instance; as they were when this object was made."""
        return self._identities

    @property
    def failures(self) -> dict[str, int]:
        """Failed queries by NVML function, what is not supported left out."""
        return dict(self._queries.failures)

    # ---- asking ----

    def read(self, index: int) -> Reading:
        """Return what the device says now; a lost GPU is a reading, not an error.

        Raises:
            DriverMissing: the driver was unloaded and is not back.
        """
        identity = self._identity(index)

        def ask(handle: Any) -> Reading:
            now = time.time()
            if identity.parent_uuid is None:
                return self._queries.reading(identity.uuid, handle, now)
            parent = self._handles[self._parent(identity).index]
            if parent is None:
                raise Interrupted(CODE_LOST)
            shared = self._queries.shared(identity.parent_uuid, parent)
            return Reading(identity.uuid, now, **(shared | self._queries.memory(identity.uuid, handle)))

        try:
            return self._answered(index, f"read GPU {index}", ask)
        except Interrupted as interrupted:
            if interrupted.answer is Answer.RESET_REQUIRED:
                return Reading(identity.uuid, time.time(), recovery_action="gpu_reset")
            return Reading(identity.uuid, time.time(), lost=True)

    def processes(self, index: int) -> tuple[DeviceProcess, ...] | None:
        """Return the processes on the device by pid, or None where it does not say (a lost GPU does not)."""
        uuid = self._identity(index).uuid
        try:
            return self._answered(
                index, f"list the processes of GPU {index}", lambda handle: self._queries.processes(uuid, handle)
            )
        except Interrupted:
            return None

    def wait_for_event(self, timeout_s: float) -> DeviceEvent | None:
        """Return the next event, or None after `timeout_s` seconds or when the devices are closed."""
        return self._events.wait(timeout_s)

    # ---- setting ----

    def set_power_limit(self, index: int, power_limit_mw: int) -> None:
        """Limit the power that the device may draw.

        Raises:
            InvalidLimit: it lies outside the device's range.
            NoPermission: this user may not.
            NotSupported: the device has no limit to set, as a MIG instance.
            DeviceLost: the GPU is gone.
        """
        identity = self._identity(index)
        low, high = identity.min_power_limit_mw, identity.max_power_limit_mw
        if low is not None and high is not None and not low <= power_limit_mw <= high:
            raise InvalidLimit(
                f"a power limit of {power_limit_mw:,} mW is outside what GPU {index} ({identity.name}) allows: "
                f"{low:,} to {high:,} mW"
            )
        what = f"set the power limit to {power_limit_mw:,} mW"
        self._set(index, what, "nvmlDeviceSetPowerManagementLimit", power_limit_mw)

    def lock_clocks(self, index: int, min_mhz: int, max_mhz: int) -> None:
        """Keep the SM clock between two frequencies; raises as `set_power_limit` does."""
        if not 0 <= min_mhz <= max_mhz:
            raise InvalidLimit(
                f"clocks from {min_mhz} to {max_mhz} MHz are no range: the first may not exceed the second"
            )
        what = f"lock the clocks to {min_mhz} to {max_mhz} MHz"
        self._set(index, what, "nvmlDeviceSetGpuLockedClocks", min_mhz, max_mhz)

    def reset_clocks(self, index: int) -> None:
        """Undo `lock_clocks`; raises as `set_power_limit` does."""
        self._set(index, "reset the clocks", "nvmlDeviceResetGpuLockedClocks")

    def _set(self, index: int, what: str, function: str, *arguments: int) -> None:
        identity = self._identity(index)
        what = f"{what} of GPU {index} ({identity.name})"
        if identity.parent_uuid is not None:
            raise NotSupported(f"cannot {what}: it is a MIG instance; set it on GPU {self._parent(identity).index}")

        def change(handle: Any) -> None:
            try:
                getattr(self._nvml, function)(handle, *arguments)
            except self._nvml.NVMLError as error:
                if meaning_of(error.value).answer is Answer.RESTARTED:
                    raise Interrupted(error.value) from error
                raise device_error(error.value, what) from error

        try:
            self._answered(index, what, change)
        except Interrupted as interrupted:
            raise device_error(interrupted.code, what) from interrupted

    # ---- the driver's life ----

    def close(self) -> None:
        """Let go of the driver; calling it twice is harmless."""
        self._closed.set()
        with self._restart_lock, self._events.paused():
            self._shut_down()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _initialise(self) -> None:
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise device_error(error.value, "reach the NVIDIA driver") from error
        self._initialised += 1

    def _shut_down(self) -> None:
        for _ in range(self._initialised):
            with suppress(self._nvml.NVMLError):  # the driver may be gone
                self._nvml.nvmlShutdown()
        self._initialised = 0

    def _restart(self, seen: int) -> None:
        """Initialise again unless another thread did so since generation `seen`."""
        with self._restart_lock:
            if self._generation != seen or self._closed.is_set():
                return
            with self._events.paused():
                # A library that counts its users would not start anew while one is left.
                self._shut_down()
                self._initialise()
                self._queries.forget()
                self._handles = [handle_of(self._nvml, identity) for identity in self._identities]
                self._generation += 1

    def _answered(self, index: int, what: str, ask: Callable[[Any], T]) -> T:
        """Ask a device, once more where the driver restarted in between; Interrupted is left for other reasons."""
        seen = self._generation
        try:
            return self._asked(index, ask)
        except Interrupted as interrupted:
            if interrupted.answer is not Answer.RESTARTED:
                raise
        self._restart(seen)
        try:
            return self._asked(index, ask)
        except Interrupted as interrupted:
            if interrupted.answer is not Answer.RESTARTED:
                raise
            raise device_error(interrupted.code, what) from interrupted

    def _asked(self, index: int, ask: Callable[[Any], T]) -> T:
        handle = self._handles[index]
        if handle is None:
            raise Interrupted(CODE_LOST)
        return ask(handle)

    def _identity(self, index: int) -> DeviceIdentity:
        if not 0 <= index < len(self._identities):
            raise UnknownDevice(
                f"no device has index {index}: there are {counted(len(self._identities), 'device')}, from 0"
            )
        return self._identities[index]

    def _whole_gpus(self) -> dict[str, Any]:
        return {
            identity.uuid: handle
            for identity, handle in zip(self._identities, self._handles, strict=True)
            if handle is not None and identity.parent_uuid is None
        }

    def _parent(self, instance: DeviceIdentity) -> DeviceIdentity:
        return next(identity for identity in self._identities if identity.uuid == instance.parent_uuid)


def _binding() -> Any:
    """Return the module of nvidia-ml-py."""
    found = importlib.util.find_spec("pynvml")
    if found is None:
        raise missing_extra("nvidia-ml-py", "node")
    if found.submodule_search_locations is not None:  # nvidia-ml-py is one module, early releases of pynvml a package
        raise DriverMismatch(
            "the deprecated package 'pynvml' hides NVIDIA's nvidia-ml-py, whose module has the same name: run "
            "pip uninstall -y pynvml && pip install --force-reinstall nvidia-ml-py"
        )
    return importlib.import_module("pynvml")


def _preload(path: Path) -> None:
    """Load the driver's library by its path, so that the binding finds it under its bare name."""
    if not path.is_file():
        raise DriverMissing(f"devices.library_path: there is no file {path}; it should name the driver's {_SONAME}")
    try:
        ours = ctypes.CDLL(str(path.resolve()), mode=ctypes.RTLD_GLOBAL)
        named = ctypes.CDLL(_SONAME)
        same = _address(ours) == _address(named)
    except (OSError, AttributeError) as error:
        raise DriverMismatch(f"devices.library_path: {path} is no {_SONAME} of an NVIDIA driver: {error}") from error
    if not same:
        raise DriverMismatch(
            f"devices.library_path: this process has loaded another {_SONAME} already; set {path} before it does"
        )


def _address(library: ctypes.CDLL) -> int | None:
    return ctypes.cast(library.nvmlInitWithFlags, ctypes.c_void_p).value
