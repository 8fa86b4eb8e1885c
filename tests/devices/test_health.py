"""Health: what makes a GPU lose its work, and what does not."""

from dataclasses import replace

import pytest

from lepton_rl.devices import DeviceEvent, Health, HealthState, Reading, XidAction, judge, xid_table

_WELL = Reading("GPU-0", 0.0, throttle_reasons=(), ecc_uncorrected=3, recovery_action="none", remap_pending=False)


def _xid(number: int) -> DeviceEvent:
    return DeviceEvent("GPU-0", 1.0, "xid", number)


def _after(*xids: int, reading: Reading = _WELL) -> Health:
    return judge([_WELL, reading], [_xid(number) for number in xids])


def test_a_well_gpu_needs_no_reason() -> None:
    assert judge([_WELL]) == Health(HealthState.OK)
    assert judge([]) == Health(HealthState.OK)
    assert judge([Reading("GPU-0", 0.0, memory_total_bytes=1)]) == Health(HealthState.OK)  # it says little of itself


def test_a_gpu_of_which_nothing_is_known_takes_no_work() -> None:
    health = judge([_WELL, Reading("GPU-0", 1.0)])
    assert health == Health(HealthState.UNHEALTHY, "the driver says nothing of the GPU: see dmesg")


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 63, 68])
def test_an_application_fault_keeps_the_gpu_in_use(xid: int) -> None:
    assert _after(xid).state is HealthState.OK


@pytest.mark.parametrize("xid", [48, 64, 74, 95, 119, 120, 140])
def test_what_needs_a_reset_takes_no_work(xid: int) -> None:
    health = _after(xid)
    assert health.state is HealthState.UNHEALTHY
    assert not health.takes_work
    assert health.reason.startswith(f"XID {xid}, ")
    assert health.reason.endswith("it needs a GPU reset")


def test_a_gpu_off_the_bus_needs_someone() -> None:
    assert _after(79).reason == "XID 79, GPU has fallen off the bus: it needs a look at the machine"


def test_a_lost_gpu_is_lost_whatever_else() -> None:
    lost = Reading("GPU-0", 1.0, lost=True)
    assert _after(13, reading=lost).state is HealthState.LOST
    assert not _after(reading=lost).takes_work


def test_a_contained_error_keeps_the_gpu_until_a_reset_suits() -> None:
    health = _after(94, reading=replace(_WELL, ecc_uncorrected=4))
    assert health.state is HealthState.DEGRADED
    assert health.takes_work
    assert _after(94, 95, reading=replace(_WELL, ecc_uncorrected=4)).state is HealthState.UNHEALTHY


def test_new_uncorrectable_errors_take_the_gpu_out() -> None:
    health = _after(reading=replace(_WELL, ecc_uncorrected=5))
    assert health.state is HealthState.UNHEALTHY
    assert health.reason.startswith("2 uncorrectable memory errors")
    assert _after(reading=replace(_WELL, ecc_uncorrected=3)).state is HealthState.OK  # old ones are old


def test_what_the_driver_asks_for_comes_first() -> None:
    health = _after(48, reading=replace(_WELL, recovery_action="drain_and_reset"))
    assert health == Health(HealthState.UNHEALTHY, "the driver asks for: drain and reset")


def test_remapping() -> None:
    assert _after(reading=replace(_WELL, remap_pending=True)).state is HealthState.DEGRADED
    assert _after(63, reading=replace(_WELL, remap_pending=True)).takes_work
    assert _after(reading=replace(_WELL, remap_failed=True)).state is HealthState.UNHEALTHY


def test_throttling_by_hardware_has_to_last() -> None:
    slow = replace(_WELL, throttle_reasons=("sw_power_cap", "hw_thermal_slowdown"))
    assert judge([_WELL] * 9 + [slow]).state is HealthState.OK
    health = judge([_WELL] * 4 + [slow] * 4)
    assert health.state is HealthState.DEGRADED
    assert health.reason == "slowed down by hardware (hw thermal slowdown): see cooling and power supply"
    capped = replace(_WELL, throttle_reasons=("sw_power_cap", "sw_thermal_slowdown"))
    assert judge([capped] * 10).state is HealthState.OK


def test_an_xid_that_nobody_knows_is_told() -> None:
    health = _after(9999)
    assert health.state is HealthState.DEGRADED
    assert "XID 9999" in health.reason


def test_an_unavailable_gpu() -> None:
    assert judge([_WELL], [DeviceEvent("GPU-0", 1.0, "unavailable")]).state is HealthState.UNHEALTHY
    assert judge([_WELL], [DeviceEvent("GPU-0", 1.0, "ecc_corrected")]).state is HealthState.OK


def test_the_table_is_whole() -> None:
    table = xid_table()
    assert set(table) >= {13, 31, 43, 45, 48, 63, 64, 68, 74, 79, 94, 95, 119, 120}
    assert all(row.meaning and row.xid == number for number, row in table.items())
    assert {row.action for row in table.values()} == set(XidAction)
