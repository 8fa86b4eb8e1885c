"""Recordings of devices: one JSON object a line, first who the devices are, then what they said.

    {"format": "lepton_rl device recording", "version": 1, "driver_version": "570.86", "recorded_from": "hardware",
     "devices": [{"index": 0, "uuid": "GPU-...", "name": "...", ...}]}
    {"reading": {"uuid": "GPU-...", "time": 1763766000.0, "power_mw": 62000, ...}}
    {"processes": {"uuid": "GPU-...", "time": 1763766000.0, "list": [{"pid": 17, "kind": "compute", ...}]}}
    {"event": {"uuid": "GPU-...", "time": 1763766001.2, "kind": "xid", "xid": 31}}

The fields are those of DeviceIdentity, Reading, DeviceProcess and DeviceEvent; one that is left out or null is what the
device did not say. Lines are in order of time for each device.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lepton_rl.devices.device import DeviceEvent, DeviceIdentity, DeviceProcess, Devices, Reading
from lepton_rl.devices.errors import RecordingError
from lepton_rl.devices.history import TelemetryRow

FORMAT, VERSION = "lepton_rl device recording", 1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProcessList:
    """The processes on a device at one moment; None: the device did not say."""

    uuid: str
    time: float
    processes: tuple[DeviceProcess, ...] | None


@dataclass(frozen=True, slots=True)
class Recording:
    """What a recording holds, each in the order of the file.

    Attributes:
        recorded_from: "hardware" or "simulation": what the readings were taken from.
    """

    driver_version: str
    recorded_from: str
    identities: tuple[DeviceIdentity, ...]
    readings: tuple[Reading, ...]
    processes: tuple[ProcessList, ...]
    events: tuple[DeviceEvent, ...]


class Recorder:
    """Writes a recording line by line; what is written so far can be played if it breaks off."""

    def __init__(
        self, path: Path, identities: Iterable[DeviceIdentity], driver_version: str, *, simulated: bool
    ) -> None:
        self._file = path.open("w", encoding="utf-8")
        header = {
            "format": FORMAT,
            "version": VERSION,
            "driver_version": driver_version,
            "recorded_from": "simulation" if simulated else "hardware",
            "devices": [asdict(identity) for identity in identities],
        }
        self._write(header)

    def reading(self, reading: Reading) -> None:
        """Write a reading."""
        self._write({"reading": _said(reading)})

    def processes(self, uuid: str, time: float, processes: Iterable[DeviceProcess] | None) -> None:
        """Write a list of processes."""
        listed = None if processes is None else [_said(process) for process in processes]
        self._write({"processes": {"uuid": uuid, "time": time, "list": listed}})

    def event(self, event: DeviceEvent) -> None:
        """Write an event."""
        self._write({"event": _said(event)})

    def close(self) -> None:
        """End the recording."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, allow_nan=False) + "\n")


def record(devices: Devices, path: Path, duration_s: float, period_s: float = 1.0) -> int:
    """Record devices for some seconds, events as they come; returns the number of readings."""
    count, end = 0, time.monotonic() + duration_s
    with Recorder(path, devices.identities, devices.driver_version, simulated=devices.simulated) as recorder:
        while True:
            due = time.monotonic() + period_s
            for identity in devices.identities:
                reading = devices.read(identity.index)
                recorder.reading(reading)
                recorder.processes(identity.uuid, reading.time, devices.processes(identity.index))
                count += 1
            if due >= end:
                return count
            while (left_s := due - time.monotonic()) > 0.0:
                event = devices.wait_for_event(left_s)
                if event is not None:
                    recorder.event(event)


def export_recording(
    rows: Iterable[TelemetryRow],
    identities: Iterable[DeviceIdentity],
    path: Path,
    *,
    driver_version: str,
    simulated: bool,
) -> int:
    """Write a recording of the raw readings of a telemetry history and return their number."""
    count = 0
    with Recorder(path, identities, driver_version, simulated=simulated) as recorder:
        for row in rows:
            recorder.reading(row.raw)
            count += 1
    return count


def load_recording(path: Path) -> Recording:
    """Return what a recording holds.

    Raises:
        RecordingError: the file is no recording, or a line of it is wrong; an unfinished last line is left out.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise RecordingError(f"{path}: this recording cannot be read: {why}") from error
    header = _parsed(path, 1, lines[0])
    if header.get("format") != FORMAT:
        raise RecordingError(f"{path}:1: this is no {FORMAT}; lepton_rl.devices.record writes one")
    if header.get("version") != VERSION:
        raise RecordingError(f"{path}:1: this recording is of version {header.get('version')}, not {VERSION}")
    identities = tuple(_made(path, 1, DeviceIdentity, device) for device in header.get("devices", ()))
    readings: list[Reading] = []
    processes: list[ProcessList] = []
    events: list[DeviceEvent] = []
    for number, text in enumerate(lines[1:-1], start=2):  # what follows the last line's end was not finished
        line = _parsed(path, number, text)
        if "reading" in line:
            readings.append(_reading(_made(path, number, Reading, line["reading"])))
        elif "event" in line:
            events.append(_made(path, number, DeviceEvent, line["event"]))
        elif "processes" in line:
            processes.append(_process_list(path, number, line["processes"]))
        else:
            raise RecordingError(f"{path}:{number}: a line holds a reading, processes or an event")
    return Recording(
        str(header.get("driver_version", "unknown")),
        str(header.get("recorded_from", "simulation")),
        identities,
        tuple(readings),
        tuple(processes),
        tuple(events),
    )


def _said(value: Reading | DeviceProcess | DeviceEvent) -> dict[str, Any]:
    return {name: field for name, field in asdict(value).items() if field is not None}


def _parsed(path: Path, number: int, text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecordingError(f"{path}:{number}: this line is not JSON: {error.msg}") from error
    if not isinstance(line, dict):
        raise RecordingError(f"{path}:{number}: a line is one JSON object")
    return line


def _made(path: Path, number: int, kind: type[T], values: Any) -> T:
    if not isinstance(values, dict):
        raise RecordingError(f"{path}:{number}: a {kind.__name__} is one JSON object")
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise RecordingError(f"{path}:{number}: a {kind.__name__} has no field {unknown[0]!r}")
    try:
        return kind(**values)
    except TypeError as error:
        raise RecordingError(f"{path}:{number}: this {kind.__name__} is not whole: {error}") from error


def _reading(reading: Reading) -> Reading:
    reasons = reading.throttle_reasons
    return reading if reasons is None else replace(reading, throttle_reasons=tuple(reasons))


def _process_list(path: Path, number: int, values: Any) -> ProcessList:
    if not isinstance(values, dict) or not {"uuid", "time", "list"} <= set(values):
        raise RecordingError(f"{path}:{number}: processes have uuid, time and list")
    listed = values["list"]
    processes = None if listed is None else tuple(_made(path, number, DeviceProcess, entry) for entry in listed)
    return ProcessList(values["uuid"], values["time"], processes)
