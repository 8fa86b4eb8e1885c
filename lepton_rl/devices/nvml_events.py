"""Events of NVML: XID errors, ECC errors and their kin, waited for in a thread of the caller's."""

import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from lepton_rl.devices.device import DeviceEvent
from lepton_rl.devices.nvml_errors import Answer, meaning_of

# Corrected memory errors come in storms and are counted in readings: they are not waited for.
EVENT_KINDS: Mapping[int, str] = {
    0x0002: "ecc_uncorrected",
    0x0008: "xid",
    0x0400: "retirement",
    0x0800: "retirement_failure",
    0x1000: "poison",
    0x2000: "poison_fatal",
    0x4000: "unavailable",
    0x8000: "recovery_action",
}
_XID = 0x0008
_TIMEOUT = 10
# How long a pause may have to wait for a wait that is under way.
_SLICE_S = 0.25


class NvmlEvents:
    """An event set that follows the driver through restarts and does without GPUs that are lost.

    Handles are told apart by address, as NVML gives the same ones back with an event.

    Args:
        nvml: the binding.
        handles: gives the present handles of the GPUs by UUID.
        closed: ends every wait.
    """

    def __init__(self, nvml: Any, handles: Callable[[], Mapping[str, Any]], closed: threading.Event) -> None:
        self._nvml, self._handles, self._closed = nvml, handles, closed
        self._lock = threading.Lock()
        self._set: Any = None
        self._uuids: dict[int, str] = {}

    def wait(self, timeout_s: float) -> DeviceEvent | None:
        """Return the next event, or None after `timeout_s` seconds."""
        end = time.monotonic() + timeout_s
        while not self._closed.is_set():
            with self._lock:
                if self._closed.is_set():
                    return None
                if self._set is None:
                    self._create()
                left_s = end - time.monotonic()
                event = self._wait_once(max(0.0, min(left_s, _SLICE_S))) if self._uuids else None
            if event is not None:
                return event
            if time.monotonic() >= end:
                return None
            if self._set is None or not self._uuids:  # nothing to wait on: the driver is away, or knows no events
                self._closed.wait(min(_SLICE_S, max(0.0, end - time.monotonic())))
        return None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Free the event set, once the wait that is under way has ended, and make no new one meanwhile."""
        with self._lock:
            self._free()
            yield

    def _create(self) -> None:
        try:
            self._set = self._nvml.nvmlEventSetCreate()
        except self._nvml.NVMLError:
            return
        self._uuids = {}
        for uuid, handle in self._handles().items():
            try:
                known = self._nvml.nvmlDeviceGetSupportedEventTypes(handle)
                wanted = known & sum(EVENT_KINDS)
                if wanted:
                    self._nvml.nvmlDeviceRegisterEvents(handle, wanted, self._set)
                    self._uuids[ctypes.cast(handle, ctypes.c_void_p).value or 0] = uuid
            except self._nvml.NVMLError as error:
                if meaning_of(error.value).answer is Answer.RESTARTED:
                    self._free()
                    return

    def _wait_once(self, timeout_s: float) -> DeviceEvent | None:
        try:
            data = self._nvml.nvmlEventSetWait_v2(self._set, round(timeout_s * 1000))
        except self._nvml.NVMLError as error:
            if error.value != _TIMEOUT:
                # A lost GPU makes the whole set fail: a new one is made of those that are left.
                self._free()
            return None
        address = ctypes.cast(data.device, ctypes.c_void_p).value or 0
        kind = int(data.eventType)
        return DeviceEvent(
            uuid=self._uuids.get(address, "unknown"),
            time=time.time(),
            kind=EVENT_KINDS.get(kind, f"event_{kind:#x}"),
            xid=int(data.eventData) if kind == _XID else None,
        )

    def _free(self) -> None:
        if self._set is not None:
            with suppress(self._nvml.NVMLError):  # it may have gone with the driver
                self._nvml.nvmlEventSetFree(self._set)
        self._set, self._uuids = None, {}
