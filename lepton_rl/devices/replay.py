"""Devices that play a recording: the same protocol, so that what runs on a node runs on a laptop."""

import bisect
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lepton_rl.devices.device import DeviceEvent, DeviceIdentity, DeviceProcess, Reading
from lepton_rl.devices.errors import RecordingError, UnknownDevice
from lepton_rl.devices.recording import load_recording
from lepton_rl.errors import counted

_POLL_S = 0.05


class _Track:
    """What one device said, by time."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._values: list[Any] = []

    def add(self, moment: float, value: Any) -> None:
        if self.times and moment < self.times[-1]:  # a wall clock that was set back while recording
            moment = self.times[-1]
        self.times.append(moment)
        self._values.append(value)

    def at(self, moment: float) -> Any:
        """Return the latest value up to a moment; before the first one, the first."""
        return self._values[max(0, bisect.bisect_right(self.times, moment) - 1)]


class ReplayDevices:
    """Plays a recording from the moment when every device has spoken; at the end each keeps saying its last reading.

    Args:
        path: of the recording (`lepton_rl.devices.recording` has the format).
        speed: seconds of the recording in a second of the clock; 0 stands still until `seek`.
        clock: seconds, never backwards.

    Raises:
        RecordingError: the recording cannot be played.
    """

    def __init__(self, path: Path, *, speed: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0.0 <= speed < float("inf"):
            raise RecordingError(f"a recording plays at a speed of 0 or more, not {speed}")
        self._path, self._speed, self._clock = path, speed, clock
        recording = load_recording(path)
        self._driver_version, self._identities = recording.driver_version, recording.identities
        self._recorded_from = recording.recorded_from
        self._readings = {identity.uuid: _Track() for identity in self._identities}
        self._processes = {identity.uuid: _Track() for identity in self._identities}
        for reading in recording.readings:
            self._track(self._readings, reading.uuid).add(reading.time, reading)
        for listed in recording.processes:
            self._track(self._processes, listed.uuid).add(listed.time, listed.processes)
        for identity in self._identities:
            if not self._readings[identity.uuid].times:
                raise RecordingError(f"{path}: there is no reading of {identity.uuid}; every device needs one")
        self._events = sorted(recording.events, key=lambda event: event.time)
        self._played_events = 0
        self._closed = threading.Event()
        self.start_time = max((track.times[0] for track in self._readings.values()), default=0.0)
        self.end_time = max((track.times[-1] for track in self._readings.values()), default=0.0)
        self._position, self._began = self.start_time, clock()

    # ---- playing ----

    @property
    def position(self) -> float:
        """Moment of the recording that is playing, in its seconds since the epoch."""
        return self._position + self._speed * (self._clock() - self._began)

    @property
    def ended(self) -> bool:
        """Whether the last reading has been reached."""
        return self.position >= self.end_time

    def seek(self, moment: float) -> None:
        """Go on playing from a moment, in the recording's seconds since the epoch; events before it are not told."""
        self._position, self._began = moment, self._clock()
        self._played_events = bisect.bisect_left([event.time for event in self._events], moment)

    # ---- devices ----

    @property
    def driver_version(self) -> str:
        """Version of the driver that was recorded."""
        return self._driver_version

    @property
    def recorded_from(self) -> str:
        """What was recorded: "hardware" or "simulation"."""
        return self._recorded_from

    @property
    def simulated(self) -> bool:
        """True: a recording is no hardware, whatever it was taken from."""
        return True

    @property
    def identities(self) -> tuple[DeviceIdentity, ...]:
        """The devices that were recorded."""
        return self._identities

    def read(self, index: int) -> Reading:
        """Return the latest reading up to the moment that is playing; its time is that of the recording."""
        reading: Reading = self._readings[self._identity(index).uuid].at(self.position)
        return reading

    def processes(self, index: int) -> tuple[DeviceProcess, ...] | None:
        """Return the processes up to the moment that is playing, or None where they were not recorded."""
        track = self._processes[self._identity(index).uuid]
        position = self.position
        if not track.times or position < track.times[0]:
            return None
        found: tuple[DeviceProcess, ...] | None = track.at(position)
        return found

    def wait_for_event(self, timeout_s: float) -> DeviceEvent | None:
        """Return the next event once it is its turn, or None after `timeout_s` seconds."""
        end = time.monotonic() + timeout_s
        while not self._closed.is_set():
            if self._played_events < len(self._events) and self._events[self._played_events].time <= self.position:
                self._played_events += 1
                return self._events[self._played_events - 1]
            left_s = end - time.monotonic()
            if left_s <= 0.0:
                return None
            self._closed.wait(min(_POLL_S, left_s))
        return None

    def set_power_limit(self, index: int, power_limit_mw: int) -> None:
        """Refused: raises RecordingError."""
        self._refuse("set the power limit", index)

    def lock_clocks(self, index: int, min_mhz: int, max_mhz: int) -> None:
        """Refused: raises RecordingError."""
        self._refuse("lock the clocks", index)

    def reset_clocks(self, index: int) -> None:
        """Refused: raises RecordingError."""
        self._refuse("reset the clocks", index)

    def close(self) -> None:
        """End the playing; a wait for an event returns."""
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _refuse(self, what: str, index: int) -> None:
        self._identity(index)
        raise RecordingError(f"cannot {what} of device {index}: {self._path} is a recording, only a device can be set")

    def _identity(self, index: int) -> DeviceIdentity:
        if not 0 <= index < len(self._identities):
            raise UnknownDevice(
                f"no device has index {index}: there are {counted(len(self._identities), 'device')}, from 0"
            )
        return self._identities[index]

    def _track(self, tracks: dict[str, _Track], uuid: str) -> _Track:
        if uuid not in tracks:
            raise RecordingError(f"{self._path}: it speaks of {uuid}, which is none of its devices")
        return tracks[uuid]
