"""Telemetry: one reader for all, which nothing stops."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_rl.devices import (
    DeviceError,
    DeviceEvent,
    HealthState,
    History,
    NvmlDevices,
    Recorder,
    ReplayDevices,
    Sampler,
    Telemetry,
    TelemetrySnapshot,
)
from lepton_rl.devices.device import DeviceIdentity, Reading
from tests.fake_nvml import FakeNvml
from tests.fake_nvml.control import MIB

_GENEROUS_S = 30.0


def _eventually(telemetry: Telemetry, wanted: Callable[[TelemetrySnapshot], bool]) -> TelemetrySnapshot:
    end = time.monotonic() + _GENEROUS_S
    while time.monotonic() < end:
        if wanted(snapshot := telemetry.latest()):
            return snapshot
        time.sleep(0.005)
    raise AssertionError(f"did not come about: {telemetry.latest()}")


def test_there_is_a_snapshot_from_the_start(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.add_process(0, os.getpid(), 100 * MIB)
    with Telemetry(devices) as telemetry:
        snapshot = telemetry.latest()
        assert snapshot.number == 1
        first, second = snapshot.devices
        assert first.identity == devices.identities[0]
        assert [process.pid for process in first.processes or ()] == [os.getpid()]
        assert second.raw.temperature_c == second.filtered.temperature_c == 31
        assert second.health.state is HealthState.OK
        assert snapshot.device(fake.uuid(1)) is second
        with pytest.raises(KeyError):
            snapshot.device("GPU-none")


def test_snapshots_follow_the_device(fake: FakeNvml, devices: NvmlDevices) -> None:
    with Telemetry(devices, period_s=0.01) as telemetry:
        fake.set(1, temperature_c=70)
        snapshot = _eventually(telemetry, lambda now: now.devices[1].filtered.temperature_c == 70)
        assert snapshot.number > 1
        assert telemetry.latest().monotonic_s >= snapshot.monotonic_s


def test_processes_are_asked_for_less_often(fake: FakeNvml, devices: NvmlDevices) -> None:
    query = "nvmlDeviceGetComputeRunningProcesses_v3"
    with Telemetry(devices, period_s=0.01, process_period_s=3600.0) as telemetry:
        fake.watch(query, gpu=0)
        _eventually(telemetry, lambda now: now.number > 20)
        assert fake.hits(query, gpu=0) == 0
        fake.add_process(0, os.getpid(), MIB)
        listed = telemetry.refresh().devices[0].processes
        assert [process.pid for process in listed or ()] == [os.getpid()]
        assert fake.hits(query, gpu=0) > 0


def test_a_refresh_sees_what_has_just_ended(fake: FakeNvml, devices: NvmlDevices) -> None:
    with Telemetry(devices, period_s=3600.0) as telemetry:
        for _ in range(5):
            with subprocess.Popen(["sleep", "60"]) as child:
                fake.add_process(0, child.pid, 500 * MIB)
                snapshot = telemetry.refresh(_GENEROUS_S)
                assert [process.pid for process in snapshot.devices[0].processes or ()] == [child.pid]
                assert snapshot.devices[0].raw.memory_used_bytes == 504 * MIB
                child.kill()
            snapshot = telemetry.refresh(_GENEROUS_S)
            assert snapshot.devices[0].processes == ()
            assert snapshot.devices[0].raw.memory_used_bytes == 4 * MIB


def test_an_event_reaches_the_health_without_waiting_for_the_next_turn(fake: FakeNvml, devices: NvmlDevices) -> None:
    with Telemetry(devices, period_s=3600.0) as telemetry:
        _subscribed(fake, telemetry)
        fake.inject_xid(1, 48)
        snapshot = _eventually(telemetry, lambda now: 48 in [event.xid for event in now.events])
        assert snapshot.devices[1].health.state is HealthState.UNHEALTHY
        assert snapshot.devices[0].health.state is HealthState.OK
        telemetry.acknowledge(fake.uuid(1))
        _eventually(telemetry, lambda now: now.devices[1].health.state is HealthState.OK)


def _subscribed(fake: FakeNvml, telemetry: Telemetry) -> None:
    """Wait until the thread for events listens: events before that are not for it."""
    end = time.monotonic() + _GENEROUS_S
    while not telemetry.latest().events:
        assert time.monotonic() < end
        fake.inject_xid(0, 45)
        time.sleep(0.01)


def test_a_lost_gpu_shows_and_the_other_goes_on(fake: FakeNvml, devices: NvmlDevices) -> None:
    with Telemetry(devices, period_s=0.01) as telemetry:
        fake.lose(0)
        snapshot = _eventually(telemetry, lambda now: now.devices[0].raw.lost)
        assert snapshot.devices[0].health.state is HealthState.LOST
        assert snapshot.devices[0].filtered.power_mw is None
        assert snapshot.devices[1].raw.power_mw == 62_000


def test_a_driver_that_goes_and_comes(fake: FakeNvml, devices: NvmlDevices, tmp_path: Path) -> None:
    with History(tmp_path / "telemetry.db") as history, Telemetry(devices, history, period_s=0.01) as telemetry:
        fake.unload_driver()
        snapshot = _eventually(telemetry, lambda now: now.devices[0].problem is not None)
        assert "kernel module is not loaded" in str(snapshot.devices[0].problem)
        assert snapshot.devices[0].raw.power_mw is None
        fake.load_driver()
        _eventually(telemetry, lambda now: now.devices[0].problem is None)
        assert history.flush()
        assert all(row.raw.power_mw is not None for row in history.rows())


def test_queries_that_fail_leave_holes_not_crashes(fake: FakeNvml, devices: NvmlDevices) -> None:
    with Telemetry(devices, period_s=0.01) as telemetry:
        fake.fail("nvmlDeviceGetPowerUsage", "timeout")
        fake.fail("nvmlDeviceGetTemperatureV", "unknown")
        snapshot = _eventually(telemetry, lambda now: now.devices[0].raw.power_mw is None)
        assert snapshot.devices[0].filtered.power_mw is None
        assert snapshot.devices[0].filtered.memory_used_bytes == 4 * MIB
        fake.heal("nvmlDeviceGetPowerUsage")
        recovered = _eventually(telemetry, lambda now: now.devices[0].raw.power_mw == 62_000)
        assert recovered.devices[0].energy.missing_s > 0.0


def test_a_slow_driver_is_told_and_does_not_hold_up_readers(fake: FakeNvml, devices: NvmlDevices) -> None:
    with Telemetry(devices, period_s=0.01) as telemetry:
        fake.slow("nvmlDeviceGetPowerUsage", 100)
        snapshot = _eventually(telemetry, lambda now: now.missed > 10 and now.duration_s >= 0.2)
        assert telemetry.latest().number >= snapshot.number
        fake.heal("nvmlDeviceGetPowerUsage")


def test_a_refresh_that_takes_too_long_says_so(fake: FakeNvml, devices: NvmlDevices) -> None:
    with Telemetry(devices, period_s=3600.0) as telemetry:
        fake.slow("nvmlDeviceGetPowerUsage", 500)
        with pytest.raises(DeviceError, match=r"did not answer within 0\.05 s"):
            telemetry.refresh(0.05)
        fake.heal("nvmlDeviceGetPowerUsage")


def test_rows_go_to_the_history(fake: FakeNvml, devices: NvmlDevices, tmp_path: Path) -> None:
    with History(tmp_path / "telemetry.db") as history:
        with Telemetry(devices, history, period_s=0.01) as telemetry:
            _eventually(telemetry, lambda now: now.number >= 5)
        assert history.flush()
        rows = list(history.rows(uuid=fake.uuid(1)))
        assert len(rows) >= 5
        assert all(row.raw.power_mw == 62_000 for row in rows)


def test_closing_twice_is_harmless(devices: NvmlDevices) -> None:
    telemetry = Telemetry(devices)
    telemetry.close()
    telemetry.close()
    assert telemetry.latest().number >= 1


# ---- the sampler, by hand ----


def _recording(path: Path, *readings: Reading) -> Path:
    identity = DeviceIdentity(0, "GPU-0", "NVIDIA X", max_power_limit_mw=400_000)
    with Recorder(path, [identity], "570", simulated=False) as recorder:
        for reading in readings:
            recorder.reading(reading)
    return path


def test_raw_and_filtered_are_both_kept(tmp_path: Path) -> None:
    powers = (100_000, 100_000, 9_000_000, 130_000)
    path = _recording(
        tmp_path / "r", *(Reading("GPU-0", 1000.0 + second, power_mw=power) for second, power in enumerate(powers))
    )
    with ReplayDevices(path, speed=0.0) as devices:
        sampler, seen = Sampler(devices), []
        for second in range(4):
            devices.seek(1000.0 + second)
            seen.append(sampler.sample(0.0, float(second), with_processes=False).devices[0])
    assert [look.raw.power_mw for look in seen] == list(powers)
    assert [look.filtered.power_mw for look in seen] == [100_000, 100_000, 100_000, 100_000]
    # The outlier is a hole: one second of 100 W, then two seconds that are not known.
    assert seen[-1].energy.integrated_mj == 100_000
    assert seen[-1].energy.missing_s == 2.0


def test_a_wall_clock_that_jumps_changes_no_energy(tmp_path: Path) -> None:
    path = _recording(tmp_path / "r", Reading("GPU-0", 1000.0, power_mw=100_000, energy_mj=0))
    with ReplayDevices(path, speed=0.0) as devices:
        sampler = Sampler(devices)
        for number, wall in enumerate((5000.0, 100.0, 1e9, 0.0)):
            snapshot = sampler.sample(wall, 10.0 + number, with_processes=False)
    assert snapshot.devices[0].energy.integrated_mj == 300_000


def test_error_counters_that_begin_anew_are_no_errors(tmp_path: Path) -> None:
    counts = (7, 7, 0, 0, 1)
    path = _recording(
        tmp_path / "r", *(Reading("GPU-0", 1000.0 + second, ecc_uncorrected=n) for second, n in enumerate(counts))
    )
    states = []
    with ReplayDevices(path, speed=0.0) as devices:
        sampler = Sampler(devices)
        for second in range(len(counts)):
            devices.seek(1000.0 + second)
            states.append(sampler.sample(0.0, float(second), with_processes=False).devices[0].health.state)
    assert states == [HealthState.OK] * 4 + [HealthState.UNHEALTHY]


def test_a_gpus_events_count_for_its_mig_instances(fake: FakeNvml, fake_library: Path) -> None:
    fake.add_instance(0)
    with NvmlDevices(fake_library) as devices:
        sampler = Sampler(devices)
        devices.wait_for_event(0.0)
        fake.inject_xid(0, 95)
        event = devices.wait_for_event(_GENEROUS_S)
        assert event is not None
        sampler.add_event(event)
        states = [look.health.takes_work for look in sampler.sample(0.0, 0.0, with_processes=False).devices]
        assert states == [False, True, False]


def test_each_event_is_new_once(devices: NvmlDevices) -> None:
    sampler = Sampler(devices)

    def looked(*xids: int) -> TelemetrySnapshot:
        for xid in xids:
            sampler.add_event(DeviceEvent("GPU-0", 1.0, "xid", xid))
        return sampler.sample(0.0, 0.0, with_processes=False)

    first = looked(13, 31)
    assert [event.xid for event in first.new_events(0)] == [13, 31]
    assert first.new_events(first.event_count) == ()
    second = looked(45)
    assert [event.xid for event in second.new_events(first.event_count)] == [45]
    flood = looked(*range(1000))
    newest = [event.xid for event in flood.new_events(second.event_count)]
    assert newest == list(range(1000 - len(newest), 1000))
    assert 100 <= len(newest) < 1000


def test_a_storm_of_events_does_not_keep_the_reader_busy(fake: FakeNvml, devices: NvmlDevices) -> None:
    with Telemetry(devices, period_s=3600.0) as telemetry:
        _subscribed(fake, telemetry)
        begun, before = time.monotonic(), telemetry.latest().number
        for _ in range(200):
            fake.inject_xid(0, 45)
            time.sleep(0.001)
        seen = _eventually(telemetry, lambda now: now.event_count >= 200)
        assert seen.number - before <= 2 + (time.monotonic() - begun) / 0.05


def test_an_age_is_told_by_the_monotonic_clock(devices: NvmlDevices) -> None:
    snapshot = Sampler(devices).sample(0.0, time.monotonic() - 10.0, with_processes=False)
    assert 10.0 <= snapshot.age_s < 10.0 + _GENEROUS_S
