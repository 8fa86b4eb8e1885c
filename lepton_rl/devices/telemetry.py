"""Telemetry of a node: one thread reads all devices once a second for everyone."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from lepton_rl.devices.device import Devices
from lepton_rl.devices.errors import DeviceError
from lepton_rl.devices.history import History, TelemetryRow
from lepton_rl.devices.sampler import Sampler, TelemetrySnapshot

_log = logging.getLogger(__name__)
_EVENT_WAIT_S = 0.25  # how long `close` may have to wait
_MIN_GAP_S = 0.05
_HANGING_S = 10.0


class Telemetry:
    """Reads devices in a thread of its own and shares what it saw; another thread waits for events.

    It begins at once: when the constructor returns there is a first snapshot. It survives devices that fail, a driver
    that goes away and a wall clock that jumps; what went wrong stands in the snapshot.

    Args:
        devices: to read; they stay the caller's to close, after the telemetry.
        history: gets a row for each device and reading, where given; it stays the caller's to close as well.
        sampler: how to look at the devices, where the usual way does not fit.
        period_s: seconds between readings.
        process_period_s: seconds between lists of processes, which cost the driver a thousand times more.
        on_snapshot: called by the reader's thread after each new snapshot.
    """

    def __init__(
        self,
        devices: Devices,
        history: History | None = None,
        *,
        sampler: Sampler | None = None,
        period_s: float = 1.0,
        process_period_s: float = 5.0,
        on_snapshot: Callable[[], None] = lambda: None,
    ) -> None:
        self._devices, self._history = devices, history
        self._sampler = sampler or Sampler(devices)
        self._period_s, self._process_period_s = period_s, process_period_s
        self._on_snapshot = on_snapshot
        self._closing, self._wake = threading.Event(), threading.Event()
        self._asked_at, self._listed_at = 0.0, 0.0
        self._published = threading.Condition()
        self._missed = 0
        if history is not None:
            history.describe(devices.identities)
        self._latest = self._look(late_s=0.0)
        self._threads = [
            threading.Thread(target=self._read, name="telemetry-reader", daemon=True),
            threading.Thread(target=self._listen, name="telemetry-events", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def latest(self) -> TelemetrySnapshot:
        """Return the latest snapshot, at once and without holding up the reader."""
        return self._latest

    def refresh(self, timeout_s: float = 10.0) -> TelemetrySnapshot:
        """Read now, processes included, and return the new snapshot.

        Raises:
            DeviceError: the devices did not answer within `timeout_s` seconds.
        """
        self.wake()
        asked_at = self._asked_at

        def is_new() -> bool:
            return all((device.processes_at or 0.0) >= asked_at or device.problem for device in self._latest.devices)

        with self._published:
            if not self._published.wait_for(lambda: self._latest.monotonic_s >= asked_at and is_new(), timeout_s):
                raise DeviceError(f"the devices did not answer within {timeout_s:g} s: see dmesg for driver errors")
            return self._latest

    def wake(self) -> None:
        """Read now, processes included, without waiting for it."""
        self._asked_at = time.monotonic()
        self._wake.set()

    def acknowledge(self, uuid: str) -> None:
        """Forget the events of a device and count its memory errors from now on, as after a reset or a repair."""
        self._sampler.acknowledge(uuid)
        self._wake.set()

    def close(self) -> None:
        """Stop both threads, or leave them when the driver hangs; calling it twice is harmless."""
        self._closing.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(_HANGING_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read(self) -> None:
        due = time.monotonic() + self._period_s
        while not self._closing.is_set():
            self._wake.wait(max(0.0, due - time.monotonic()))
            if self._closing.is_set():
                return
            self._wake.clear()
            # Events come in storms: they bring the next reading forward, but not without end.
            gap_s = min(_MIN_GAP_S, self._period_s)
            self._closing.wait(max(0.0, self._latest.monotonic_s + gap_s - time.monotonic()))
            late_s = time.monotonic() - due
            try:
                snapshot = self._look(late_s=max(0.0, late_s))
            except Exception:  # whatever a driver comes up with: the next turn may go better, and the age tells
                _log.exception("reading the devices failed")
            else:
                with self._published:
                    self._latest = snapshot
                    self._published.notify_all()
                self._on_snapshot()
            if late_s >= 0.0:  # woken before its turn, it has its turn as well
                due += self._period_s
                behind = int(max(0.0, time.monotonic() - due) // self._period_s)
                self._missed += behind
                due += behind * self._period_s

    def _look(self, late_s: float) -> TelemetrySnapshot:
        began = time.monotonic()
        with_processes = self._asked_at >= self._listed_at or began >= self._listed_at + self._process_period_s
        if with_processes:
            self._listed_at = began
        snapshot = self._sampler.sample(time.time(), began, with_processes=with_processes)
        if self._history is not None:
            self._history.append(
                TelemetryRow(device.raw, device.filtered) for device in snapshot.devices if device.problem is None
            )
        return replace(snapshot, duration_s=time.monotonic() - began, late_s=late_s, missed=self._missed)

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                event = self._devices.wait_for_event(_EVENT_WAIT_S)
            except Exception:
                _log.exception("waiting for device events failed")
                self._closing.wait(_EVENT_WAIT_S)
                continue
            if event is not None:
                self._sampler.add_event(event)
                self._wake.set()
