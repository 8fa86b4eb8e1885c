"""NvmlDevices, through the real pynvml, on the fake driver."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_rl.devices.errors import (
    DeviceError,
    DeviceLost,
    DriverMismatch,
    DriverMissing,
    InvalidLimit,
    NoPermission,
    NotSupported,
    UnknownDevice,
)
from lepton_rl.devices.nvml import NvmlDevices
from tests.fake_nvml import FakeNvml
from tests.fake_nvml.control import MIB


def test_identities_say_who_is_there(fake: FakeNvml, devices: NvmlDevices) -> None:
    first, second = devices.identities
    assert (first.index, second.index) == (0, 1)
    assert (first.uuid, second.uuid) == (fake.uuid(0), fake.uuid(1))
    assert first.name == "Fake A100-SXM4-80GB"
    assert second.pci_bus_id == "00000000:02:00.0"
    assert first.memory_total_bytes == 81920 * MIB
    assert (first.min_power_limit_mw, first.max_power_limit_mw) == (100_000, 400_000)
    assert first.default_power_limit_mw == 400_000
    assert first.parent_uuid is None
    assert not first.divided


def test_a_fake_driver_is_called_simulated(devices: NvmlDevices) -> None:
    assert devices.simulated
    assert devices.driver_version == "999.01.fake"


def test_a_reading_is_what_was_set(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.set(
        1,
        utilisation_percent=37,
        memory_utilisation_percent=12,
        memory_other_bytes=5000 * MIB,
        power_mw=251_000,
        power_limit_mw=300_000,
        temperature_c=-3,
        sm_clock_mhz=1200,
        memory_clock_mhz=1500,
        throttle_reasons=0x4 | 0x40 | 0x1,
        ecc_corrected=7,
        ecc_uncorrected=2,
        remapped_corrected=1,
        remapped_uncorrected=3,
        remap_pending=1,
        recovery_action=4,
    )
    fake.fix_energy(1, 2**40)
    reading = devices.read(1)
    assert reading.uuid == fake.uuid(1)
    assert not reading.lost
    assert (reading.utilisation, reading.memory_utilisation) == (0.37, 0.12)
    assert reading.memory_total_bytes == 81920 * MIB
    assert reading.memory_used_bytes == 5000 * MIB
    assert reading.memory_reserved_bytes == 600 * MIB
    assert reading.memory_free_bytes == (81920 - 5000 - 600) * MIB
    assert (reading.power_mw, reading.power_limit_mw) == (251_000, 300_000)
    assert reading.temperature_c == -3
    assert (reading.sm_clock_mhz, reading.memory_clock_mhz) == (1200, 1500)
    assert reading.energy_mj == 2**40
    assert reading.throttle_reasons == ("sw_power_cap", "hw_thermal_slowdown")
    assert (reading.ecc_corrected, reading.ecc_uncorrected) == (7, 2)
    assert (reading.remapped_rows, reading.remap_pending, reading.remap_failed) == (4, True, False)
    assert reading.recovery_action == "drain_and_reset"


def test_an_idle_gpu_is_not_throttled(devices: NvmlDevices) -> None:
    assert devices.read(0).throttle_reasons == ()


def test_a_reason_without_a_name_is_kept_by_number(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.set(0, throttle_reasons=0x4 | 0x10000)
    assert devices.read(0).throttle_reasons == ("sw_power_cap", "reasons_0x10000")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("nvmlDeviceGetUtilizationRates", "utilisation"),
        ("nvmlDeviceGetPowerUsage", "power_mw"),
        ("nvmlDeviceGetTotalEnergyConsumption", "energy_mj"),
        ("nvmlDeviceGetTotalEccErrors", "ecc_uncorrected"),
        ("nvmlDeviceGetRemappedRows", "remap_pending"),
        ("nvmlDeviceGetFieldValues", "recovery_action"),
        ("nvmlDeviceGetClockInfo", "sm_clock_mhz"),
    ],
)
def test_what_a_device_does_not_support_is_missing_and_not_asked_again(
    fake: FakeNvml, devices: NvmlDevices, query: str, field: str
) -> None:
    fake.fail(query, "not_supported", gpu=0)
    assert getattr(devices.read(0), field) is None
    hits = fake.hits(query, gpu=0)
    assert hits > 0
    for _ in range(5):
        assert getattr(devices.read(0), field) is None
    assert fake.hits(query, gpu=0) == hits
    assert getattr(devices.read(1), field) is not None
    assert devices.failures == {}


def test_a_query_that_fails_once_is_asked_again_and_counted(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.fail("nvmlDeviceGetPowerUsage", "timeout")
    reading = devices.read(0)
    assert reading.power_mw is None
    assert reading.temperature_c == 31
    fake.heal("nvmlDeviceGetPowerUsage")
    assert devices.read(0).power_mw == 62_000
    assert devices.failures == {"nvmlDeviceGetPowerUsage": 1}


def test_older_drivers_are_asked_by_the_older_names(fake: FakeNvml, devices: NvmlDevices) -> None:
    for query in ("MemoryInfo_v2", "TemperatureV", "CurrentClocksEventReasons", "PowerManagementLimit"):
        fake.fail(f"nvmlDeviceGet{query}", "function_not_found")
    fake.set(0, throttle_reasons=0x8, temperature_c=-3)
    reading = devices.read(0)
    assert reading.memory_used_bytes == (4 + 600) * MIB  # the old call counts what the driver reserves
    assert reading.memory_reserved_bytes is None
    assert reading.temperature_c == -3
    assert reading.throttle_reasons == ("hw_slowdown",)
    assert reading.power_limit_mw == 400_000


def test_a_failure_of_the_new_name_does_not_bring_the_old_meaning(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.fail("nvmlDeviceGetMemoryInfo_v2", "unknown")
    assert devices.read(0).memory_used_bytes is None


def test_a_lost_gpu_is_a_state(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.lose(0)
    reading = devices.read(0)
    assert reading.lost
    assert reading.power_mw is None
    assert devices.processes(0) is None
    with pytest.raises(DeviceLost, match=r"power limit to 200,000 mW of GPU 0 \(Fake A100-SXM4-80GB\)"):
        devices.set_power_limit(0, 200_000)
    assert not devices.read(1).lost


def test_a_gpu_lost_before_the_start_is_listed(fake: FakeNvml, fake_library: Path) -> None:
    fake.lose(0)
    with NvmlDevices(fake_library) as devices:
        assert [identity.uuid for identity in devices.identities] == ["unknown-0", fake.uuid(1)]
        assert devices.read(0).lost
        assert not devices.read(1).lost
        assert devices.wait_for_event(0.0) is None


def test_a_gpu_that_needs_a_reset_says_so(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.fail("nvmlDeviceGetUtilizationRates", "reset_required", gpu=0)
    reading = devices.read(0)
    assert not reading.lost
    assert reading.recovery_action == "gpu_reset"


def test_processes_with_their_memory(fake: FakeNvml, devices: NvmlDevices) -> None:
    assert devices.processes(0) == ()
    fake.add_process(0, os.getpid(), 100 * MIB)
    fake.add_process(0, os.getppid(), None, kind="graphics")
    listed = {process.pid: process for process in devices.processes(0) or ()}
    assert sorted(listed) == sorted((os.getpid(), os.getppid()))
    own, parent = listed[os.getpid()], listed[os.getppid()]
    assert (own.kind, own.memory_used_bytes, own.instance) == ("compute", 100 * MIB, None)
    assert (parent.kind, parent.memory_used_bytes) == ("graphics", None)
    assert devices.read(0).memory_used_bytes == 104 * MIB
    fake.remove_process(0, os.getpid())
    assert [process.pid for process in devices.processes(0) or ()] == [os.getppid()]


def test_processes_that_the_driver_does_not_name_are_unknown_not_none(fake: FakeNvml, devices: NvmlDevices) -> None:
    for kind in ("Compute", "Graphics", "MPSCompute"):
        fake.fail(f"nvmlDeviceGet{kind}RunningProcesses_v3", "no_permission")
    assert devices.processes(0) is None


def test_a_power_limit_is_seen_by_everyone(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.set(0, power_mw=350_000)
    devices.set_power_limit(0, 250_000)
    assert fake.get(0, "power_limit_mw") == 250_000
    reading = devices.read(0)
    assert (reading.power_limit_mw, reading.power_mw) == (250_000, 250_000)


@pytest.mark.parametrize("limit_mw", [99_999, 400_001, 0, -1])
def test_a_limit_outside_the_range_is_refused(fake: FakeNvml, devices: NvmlDevices, limit_mw: int) -> None:
    with pytest.raises(InvalidLimit, match="allows: 100,000 to 400,000 mW"):
        devices.set_power_limit(0, limit_mw)
    assert fake.get(0, "power_limit_mw") == 400_000


def test_a_limit_that_the_driver_refuses(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.set(0, max_power_limit_mw=300_000)  # changed since the identity was read
    with pytest.raises(InvalidLimit, match="does not accept the value"):
        devices.set_power_limit(0, 350_000)


def test_clocks_are_locked_and_let_go(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.set(0, sm_clock_mhz=1410)
    devices.lock_clocks(0, 210, 900)
    assert devices.read(0).sm_clock_mhz == 900
    devices.reset_clocks(0)
    assert devices.read(0).sm_clock_mhz == 1410
    for low, high in ((900, 210), (-1, 900), (210, 5000)):
        with pytest.raises(InvalidLimit):
            devices.lock_clocks(0, low, high)


def test_a_user_without_rights_hears_what_would_help(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.refuse_setters()
    with pytest.raises(NoPermission, match="run it as root"):
        devices.set_power_limit(0, 200_000)
    with pytest.raises(NoPermission):
        devices.lock_clocks(0, 210, 900)
    with pytest.raises(NoPermission):
        devices.reset_clocks(0)


def test_an_unknown_index(devices: NvmlDevices) -> None:
    for index in (2, -1):
        with pytest.raises(UnknownDevice, match=r"there are 2 devices, from 0"):
            devices.read(index)


def test_a_driver_that_restarts_is_initialised_again(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.fail("nvmlDeviceGetPowerUsage", "not_supported", gpu=0)
    assert devices.read(0).power_mw is None
    fake.heal("nvmlDeviceGetPowerUsage", gpu=0)
    fake.restart_driver()
    assert devices.read(0).power_mw == 62_000  # a new driver may know more
    fake.restart_driver()
    devices.set_power_limit(1, 200_000)
    assert fake.get(1, "power_limit_mw") == 200_000


def test_a_driver_that_went_away_comes_back(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.unload_driver()
    with pytest.raises(DriverMissing, match="kernel module is not loaded"):
        devices.read(0)
    fake.load_driver()
    assert devices.read(0).temperature_c == 31


def test_mig_instances_are_devices(fake: FakeNvml, fake_library: Path) -> None:
    uuids = [fake.add_instance(0), fake.add_instance(0)]
    fake.set(0, temperature_c=55, ecc_uncorrected=1)
    fake.add_process(0, os.getpid(), 300 * MIB, instance=1)
    with NvmlDevices(fake_library) as devices:
        gpu, whole, first, second = devices.identities
        assert gpu.divided
        assert not whole.divided
        assert [first.uuid, second.uuid] == uuids
        assert first.parent_uuid == gpu.uuid
        assert "MIG 1g.10gb" in first.name
        assert first.memory_total_bytes == 9728 * MIB
        reading = devices.read(second.index)
        assert reading.memory_used_bytes == 300 * MIB
        assert (reading.temperature_c, reading.ecc_uncorrected) == (55, 1)
        assert reading.power_mw is reading.energy_mj is reading.utilisation is None
        assert devices.read(first.index).memory_used_bytes == 0
        assert devices.read(gpu.index).utilisation is None  # NVML does not say it in MIG mode
        assert [process.instance for process in devices.processes(second.index) or ()] == [8]
        assert devices.processes(first.index) == ()
        with pytest.raises(NotSupported, match="it is a MIG instance; set it on GPU 0"):
            devices.set_power_limit(second.index, 200_000)
        fake.lose(0)
        assert devices.read(second.index).lost


def test_closing_twice_is_harmless(fake: FakeNvml, fake_library: Path) -> None:
    devices = NvmlDevices(fake_library)
    devices.close()
    devices.close()


def test_one_sick_gpu_does_not_hide_the_others(fake: FakeNvml, fake_library: Path) -> None:
    fake.fail("nvmlDeviceGetHandleByIndex_v2", "unknown", gpu=0)
    with NvmlDevices(fake_library) as devices:
        assert devices.identities[0].name == "unknown: the driver met an internal error: see dmesg"
        assert devices.read(0).lost
        assert devices.read(1).temperature_c == 31


def test_a_gpu_that_needs_a_reset_from_the_start_keeps_its_name(fake: FakeNvml, fake_library: Path) -> None:
    fake.fail("nvmlDeviceGetPciInfo_v3", "reset_required", gpu=0)
    fake.fail("nvmlDeviceGetMemoryInfo_v2", "reset_required", gpu=0)
    with NvmlDevices(fake_library) as devices:
        assert devices.identities[0].uuid == fake.uuid(0)
        assert devices.read(0).recovery_action == "gpu_reset"


def test_a_driver_that_was_upgraded_beneath_us_is_told(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.fail("nvmlDeviceGetUtilizationRates", "version_mismatch")
    with pytest.raises(DriverMismatch, match="cannot read GPU 0: library and kernel module of the driver differ"):
        devices.read(0)


def test_readers_setters_and_waiters_survive_restarts_together(fake: FakeNvml, devices: NvmlDevices) -> None:
    stop = threading.Event()
    problems: list[DeviceError] = []

    def loop(work: Callable[[], object]) -> None:
        while not stop.is_set():
            try:
                work()
            except DriverMissing:  # the test restarts faster than any driver
                continue
            except DeviceError as error:
                problems.append(error)

    works: list[Callable[[], object]] = [
        lambda: devices.read(0),
        lambda: devices.processes(1),
        lambda: devices.wait_for_event(0.01),
        lambda: devices.set_power_limit(1, 200_000),
    ]
    threads = [threading.Thread(target=loop, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for _ in range(30):
        fake.restart_driver()
        stop.wait(0.02)
    stop.set()
    for thread in threads:
        thread.join(30.0)
    assert not any(thread.is_alive() for thread in threads)
    assert problems == []
    assert devices.read(0).temperature_c == 31
