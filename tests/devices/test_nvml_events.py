"""Events: what the driver tells of its own accord reaches the one who waits."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lepton_rl.devices.device import DeviceEvent
from lepton_rl.devices.nvml import NvmlDevices
from tests.fake_nvml import FakeNvml

_GENEROUS_S = 30.0


def test_no_event_is_none(devices: NvmlDevices) -> None:
    assert devices.wait_for_event(0.0) is None
    assert devices.wait_for_event(0.01) is None


def test_xids_come_in_order_with_their_gpu(fake: FakeNvml, devices: NvmlDevices) -> None:
    devices.wait_for_event(0.0)  # events from here on
    fake.inject_xid(1, 79)
    fake.inject_xid(0, 31)
    fake.inject_event(0, 0x2)
    before = time.time()
    events = [devices.wait_for_event(_GENEROUS_S) for _ in range(3)]
    assert [(event.uuid, event.kind, event.xid) for event in events if event] == [
        (fake.uuid(1), "xid", 79),
        (fake.uuid(0), "xid", 31),
        (fake.uuid(0), "ecc_uncorrected", None),
    ]
    assert all(event and event.time >= before for event in events)


def test_an_event_wakes_the_waiting_thread(fake: FakeNvml, devices: NvmlDevices) -> None:
    devices.wait_for_event(0.0)
    got: list[DeviceEvent | None] = []
    thread = threading.Thread(target=lambda: got.append(devices.wait_for_event(_GENEROUS_S)))
    thread.start()
    fake.inject_xid(0, 48)
    thread.join(_GENEROUS_S)
    assert [event.xid for event in got if event] == [48]


def test_closing_ends_a_wait(fake: FakeNvml, fake_library: Path) -> None:
    devices = NvmlDevices(fake_library)
    devices.wait_for_event(0.0)
    got: list[DeviceEvent | None] = []
    thread = threading.Thread(target=lambda: got.append(devices.wait_for_event(10 * _GENEROUS_S)))
    thread.start()
    devices.close()
    thread.join(_GENEROUS_S)
    assert got == [None]


def test_events_follow_a_driver_that_restarts(fake: FakeNvml, devices: NvmlDevices) -> None:
    devices.wait_for_event(0.0)
    fake.restart_driver()
    devices.read(0)
    devices.wait_for_event(0.0)
    fake.inject_xid(0, 13)
    event = devices.wait_for_event(_GENEROUS_S)
    assert event is not None
    assert (event.uuid, event.xid) == (fake.uuid(0), 13)


def test_a_lost_gpu_does_not_silence_the_others(fake: FakeNvml, devices: NvmlDevices) -> None:
    devices.wait_for_event(0.0)
    fake.lose(0)
    fake.fail("nvmlEventSetWait_v2", "gpu_is_lost")
    assert devices.wait_for_event(0.05) is None
    fake.heal("nvmlEventSetWait_v2")
    devices.wait_for_event(0.0)
    fake.inject_xid(1, 63)
    event = devices.wait_for_event(_GENEROUS_S)
    assert event is not None
    assert (event.uuid, event.xid) == (fake.uuid(1), 63)


def test_a_device_without_events_is_waited_on_in_vain(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.fail("nvmlDeviceRegisterEvents", "not_supported")
    fake.watch("nvmlEventSetWait_v2")
    assert devices.wait_for_event(0.05) is None
    assert fake.hits("nvmlEventSetWait_v2") == 0


def test_another_process_sees_the_same_event_and_limit(
    fake: FakeNvml, fake_library: Path, devices: NvmlDevices
) -> None:
    script = (
        "from lepton_rl.devices.nvml import NvmlDevices\n"
        "with NvmlDevices() as devices:\n"
        "    devices.wait_for_event(0.0)\n"
        "    devices.set_power_limit(0, 150_000)\n"
        "    print('ready', flush=True)\n"
        f"    print(devices.wait_for_event({_GENEROUS_S}).xid)\n"
    )
    arguments = [sys.executable, "-c", script]
    environment = fake.environment(fake_library)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert devices.read(0).power_limit_mw == 150_000
        fake.add_process(0, child.pid, 2**20)
        assert [process.pid for process in devices.processes(0) or ()] == [child.pid]
        fake.inject_xid(1, 94)
        assert child.stdout.read() == "94\n"
    assert child.returncode == 0
    assert devices.processes(0) == ()  # the driver forgets processes that have ended


@pytest.mark.parametrize("gpus", [0, 16])
def test_the_binding_agrees_on_the_number_of_gpus(
    gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_library: Path
) -> None:
    with FakeNvml(tmp_path / "other-state", gpus=gpus) as fake:
        monkeypatch.setenv("LEPTON_RL_FAKE_NVML", os.fspath(fake.path))
        with NvmlDevices(fake_library) as devices:
            assert len(devices.identities) == gpus
            if gpus:
                fake.set(gpus - 1, temperature_c=77)
                assert devices.read(gpus - 1).temperature_c == 77
            assert devices.wait_for_event(0.0) is None


def test_c_and_python_agree_on_the_layout(fake: FakeNvml) -> None:
    from tests.fake_nvml import layout

    header = layout.c_header()
    # The compiler has held every one of these against its own offsets, or there would be no library to test with.
    assert header.count("_Static_assert(offsetof") == sum(
        len(structure._fields_)
        for structure in (layout.Process, layout.Instance, layout.Gpu, layout.Rule, layout.Event, layout.State)
    )
    assert fake.path.stat().st_size == ctypes.sizeof(layout.State)
