"""Recordings: what was recorded is played, by the same protocol, and never called hardware."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lepton_rl.devices import (
    DeviceEvent,
    DeviceIdentity,
    DeviceProcess,
    Devices,
    History,
    NvmlDevices,
    Reading,
    Recorder,
    RecordingError,
    ReplayDevices,
    TelemetryRow,
    UnknownDevice,
    export_recording,
    load_recording,
    read_history,
    read_identities,
    record,
)
from tests.fake_nvml import FakeNvml

_IDENTITIES = (
    DeviceIdentity(0, "GPU-0", "NVIDIA X", max_power_limit_mw=400_000),
    DeviceIdentity(1, "GPU-1", "NVIDIA X"),
)


class _Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Two devices over four seconds, with processes and an event."""
    path = tmp_path / "recording.jsonl"
    with Recorder(path, _IDENTITIES, "570.86", simulated=False) as recorder:
        for second in range(5):
            recorder.reading(Reading("GPU-0", 1000.0 + second, power_mw=100 * second, throttle_reasons=("sync_boost",)))
            recorder.reading(Reading("GPU-1", 1000.0 + second, lost=second >= 3))
        recorder.processes("GPU-0", 1002.0, [DeviceProcess(17, "compute", 2**20)])
        recorder.processes("GPU-0", 1004.0, None)
        recorder.event(DeviceEvent("GPU-1", 1002.5, "xid", 79))
    return path


def test_a_recording_is_played_by_the_clock(recording: Path) -> None:
    clock = _Clock()
    with ReplayDevices(recording, speed=2.0, clock=clock) as devices:
        assert devices.identities == _IDENTITIES
        assert devices.read(0) == Reading("GPU-0", 1000.0, power_mw=0, throttle_reasons=("sync_boost",))
        assert devices.processes(0) is None
        assert devices.processes(1) is None
        clock.now += 1.0
        assert devices.read(0).power_mw == 200
        assert devices.processes(0) == (DeviceProcess(17, "compute", 2**20),)
        assert not devices.read(1).lost
        clock.now += 0.9
        ended = [devices.ended]
        clock.now += 0.1
        assert devices.read(0).power_mw == 400
        assert devices.read(1).lost
        assert devices.processes(0) is None
        assert [*ended, devices.ended] == [False, True]
        clock.now += 1000.0
        assert devices.read(0).time == 1004.0


def test_events_come_when_it_is_their_turn(recording: Path) -> None:
    clock = _Clock()
    with ReplayDevices(recording, clock=clock) as devices:
        assert devices.wait_for_event(0.0) is None
        clock.now += 3.0
        assert devices.wait_for_event(0.0) == DeviceEvent("GPU-1", 1002.5, "xid", 79)
        assert devices.wait_for_event(0.0) is None
        devices.seek(1002.0)
        clock.now += 1.0
        assert devices.wait_for_event(0.0) is not None


def test_a_recording_that_stands_still_is_moved_by_hand(recording: Path) -> None:
    with ReplayDevices(recording, speed=0.0) as devices:
        assert devices.read(0).power_mw == 0
        devices.seek(devices.start_time + 3.5)
        assert devices.read(0).power_mw == 300
        assert (devices.start_time, devices.end_time) == (1000.0, 1004.0)


def test_a_recording_is_no_hardware(recording: Path) -> None:
    with ReplayDevices(recording) as devices:
        assert devices.simulated
        assert devices.recorded_from == "hardware"
        assert devices.driver_version == "570.86"


def test_settings_are_refused(recording: Path) -> None:
    with ReplayDevices(recording) as devices:
        refused = r"recording\.jsonl is a recording, only a device can be set"
        with pytest.raises(RecordingError, match=refused):
            devices.set_power_limit(0, 200_000)
        with pytest.raises(RecordingError, match=refused):
            devices.lock_clocks(0, 210, 900)
        with pytest.raises(RecordingError, match=refused):
            devices.reset_clocks(0)
        with pytest.raises(UnknownDevice, match="there are 2 devices, from 0"):
            devices.read(2)


def test_what_a_driver_said_is_recorded(fake: FakeNvml, devices: NvmlDevices, tmp_path: Path) -> None:
    fake.add_process(1, os.getpid(), 2**20)
    fake.fix_energy(0, 17)
    path = tmp_path / "recording.jsonl"
    assert record(devices, path, duration_s=0.03, period_s=0.01) >= 4
    read: Devices = devices
    played: Devices
    with ReplayDevices(path, speed=0.0) as played:
        assert played.identities == read.identities
        said, live = played.read(0), read.read(0)
        assert {**_fields(said), "time": 0} == {**_fields(live), "time": 0}
        assert played.processes(1) == read.processes(1)
        assert load_recording(path).recorded_from == "simulation"


def _fields(reading: Reading) -> dict[str, Any]:
    return {name: getattr(reading, name) for name in Reading.__dataclass_fields__}


def test_events_are_recorded_between_readings(fake: FakeNvml, devices: NvmlDevices, tmp_path: Path) -> None:
    devices.wait_for_event(0.0)
    fake.inject_xid(0, 31)
    path = tmp_path / "recording.jsonl"
    record(devices, path, duration_s=0.1, period_s=0.05)
    assert [event.xid for event in load_recording(path).events] == [31]


def test_a_history_becomes_a_recording(tmp_path: Path) -> None:
    raw = [Reading("GPU-0", 1000.0 + second, power_mw=second) for second in range(3)]
    smooth = Reading("GPU-0", 1000.0, power_mw=77)
    other = Reading("GPU-1", 1000.0)
    with History(tmp_path / "telemetry.db") as history:
        history.describe(_IDENTITIES)
        history.append([*(TelemetryRow(reading, smooth) for reading in raw), TelemetryRow(other, other)])
        assert history.flush()
    path = tmp_path / "recording.jsonl"
    rows, identities = read_history(history.path), read_identities(history.path)
    assert export_recording(rows, identities, path, driver_version="570", simulated=False) == 4
    assert load_recording(path).readings == (*raw, other)
    with ReplayDevices(path, speed=0.0) as devices:
        devices.seek(1002.0)
        assert devices.read(0).power_mw == 2


def test_a_recording_that_broke_off_is_played_up_to_there(recording: Path) -> None:
    recording.write_text(recording.read_text() + '{"reading": {"uuid": "GPU-')
    assert len(load_recording(recording).readings) == 10


def test_a_wall_clock_that_was_set_back_keeps_the_order(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    with Recorder(path, _IDENTITIES[:1], "570", simulated=False) as recorder:
        for time, power_mw in ((1000.0, 1), (1010.0, 2), (500.0, 3), (501.0, 4), (1011.0, 5)):
            recorder.reading(Reading("GPU-0", time, power_mw=power_mw))
    with ReplayDevices(path, speed=0.0) as devices:
        seen = []
        for moment in (1000.0, 1005.0, 1010.0, 1011.0):
            devices.seek(moment)
            seen.append(devices.read(0).power_mw)
        assert seen == [1, 1, 4, 5]


_HEADER = json.dumps(
    {"format": "lepton_rl device recording", "version": 1, "devices": [{"index": 0, "uuid": "G", "name": "N"}]}
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: this line is not JSON"),
        ("[]\n", "1: a line is one JSON object"),
        ('{"format": "other"}\n', "1: this is no lepton_rl device recording"),
        ('{"format": "lepton_rl device recording", "version": 9}\n', "1: this recording is of version 9, not 1"),
        (_HEADER + "\n{}\n", "2: a line holds a reading, processes or an event"),
        (_HEADER + '\n{"reading": 3}\n', "2: a Reading is one JSON object"),
        (_HEADER + '\n{"reading": {"uuid": "G", "time": 1, "watts": 3}}\n', "2: a Reading has no field 'watts'"),
        (_HEADER + '\n{"reading": {"uuid": "G"}}\n', "2: this Reading is not whole"),
        (_HEADER + '\n{"processes": {"uuid": "G"}}\n', "2: processes have uuid, time and list"),
        (_HEADER + "\n", "there is no reading of G"),
        (_HEADER + '\n{"reading": {"uuid": "H", "time": 1}}\n', "it speaks of H, which is none of its devices"),
    ],
)
def test_what_is_wrong_with_a_recording_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recording.jsonl"
    path.write_text(text)
    with pytest.raises(RecordingError, match=f"recording.jsonl:.?{said}"):
        ReplayDevices(path)


def test_a_recording_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"this recording cannot be read: No such file or directory$"):
        ReplayDevices(tmp_path / "none.jsonl")
    (tmp_path / "odd.jsonl").write_bytes(b"\xff")
    with pytest.raises(RecordingError, match=r"this recording cannot be read: it is not UTF-8 text$"):
        ReplayDevices(tmp_path / "odd.jsonl")


@pytest.mark.parametrize("speed", [-1.0, float("inf"), float("nan")])
def test_a_speed_is_a_number_from_zero_on(recording: Path, speed: float) -> None:
    with pytest.raises(RecordingError, match="a speed of 0 or more"):
        ReplayDevices(recording, speed=speed)
