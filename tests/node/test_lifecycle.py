"""The life of a GPU, told by what telemetry, holders and operators say."""

import os
from dataclasses import replace

import pytest

from lepton_rl.devices import DeviceIdentity, DeviceProcess, DeviceTelemetry, Energy, Health, HealthState, Reading
from lepton_rl.node.accounts import user_name
from lepton_rl.node.lifecycle import LEFT_MEMORY_MIB, RELEASE_PATIENCE_S, GpuState, Lifecycle, acceptance

GIB = 1 << 30
GPU = "GPU-1"
IDENTITY = DeviceIdentity(0, GPU, "A", None, 80 * GIB, 100_000, 400_000, 400_000)
OURS = 4242


def device(
    *processes: DeviceProcess, used: int = 0, state: HealthState = HealthState.OK, reason: str = "", at: float = 0.0
) -> DeviceTelemetry:
    """Return a device as telemetry has it."""
    reading = Reading(GPU, 0.0, memory_total_bytes=80 * GIB, memory_used_bytes=used, ecc_uncorrected=0)
    return DeviceTelemetry(IDENTITY, reading, reading, Energy(), Health(state, reason), tuple(processes), at)


def process(pid: int, kind: str = "compute", used: int = 0) -> DeviceProcess:
    """Return a process on the device."""
    return DeviceProcess(pid, kind, used)


class Life:
    """One GPU that is looked at again and again."""

    def __init__(self, **settings: object) -> None:
        self.cycle = Lifecycle({GPU: 80.0}, **settings)  # type: ignore[arg-type]

    def look(
        self, seen: DeviceTelemetry | None, *, held: bool = False, reserved: bool = False, at: float = 0.0
    ) -> tuple[GpuState, str]:
        """Return state and reason after a look at a second of the monotonic clock."""
        self.cycle.update(
            {GPU: seen} if seen else {}, [GPU] if held else [], {GPU: "reserved for ada"} if reserved else {},
            lambda pid: pid == OURS, 1000.0 + at, at,
        )  # fmt: skip
        status = self.cycle.status[GPU]
        return status.state, status.reason


def test_a_good_gpu_goes_from_unverified_through_allocated_and_releasing_to_available() -> None:
    life = Life()
    assert life.cycle.status[GPU].state is GpuState.UNVERIFIED
    assert not life.cycle.status[GPU].takes_work
    assert life.look(device()) == (GpuState.AVAILABLE, "")
    assert life.cycle.accepted == {GPU}
    assert life.look(device(process(OURS)), held=True)[0] is GpuState.ALLOCATED
    assert life.cycle.status[GPU].takes_work  # for shares of what is free of it
    life.cycle.release(GPU, 10.0)
    assert life.look(device(at=9.0), at=9.0) == (GpuState.RELEASING, "its memory was not read since its job ended")
    assert life.look(device(at=9.0), at=11.0)[0] is GpuState.RELEASING  # the processes are still those of before
    assert life.look(device(process(OURS), at=11.0), at=11.0)[1] == f"process {OURS} of its last job is still on it"
    assert life.look(device(used=GIB, at=12.0), at=12.0) == (
        GpuState.RELEASING, "1024 MiB of its memory are still in use",
    )  # fmt: skip
    assert life.look(device(used=LEFT_MEMORY_MIB << 20, at=13.0), at=13.0) == (GpuState.AVAILABLE, "")


def test_memory_that_is_never_freed_is_a_fault() -> None:
    life = Life()
    life.look(device())
    life.cycle.release(GPU, 0.0)
    late = RELEASE_PATIENCE_S + 1
    assert life.look(device(used=GIB, at=late), at=late) == (
        GpuState.UNHEALTHY, "1024 MiB of its memory are still in use 61 s after its job ended: it needs a reset",
    )  # fmt: skip


def test_what_the_screen_shows_is_nobodys_job() -> None:
    life = Life()
    screen = process(7, "graphics", 2 * GIB)
    assert life.look(device(screen, process(8, "mps"))) == (GpuState.AVAILABLE, "")
    life.cycle.release(GPU, 0.0)
    assert life.look(device(screen, used=2 * GIB, at=1.0), at=1.0) == (GpuState.AVAILABLE, "")


def test_a_stranger_makes_a_gpu_foreign_even_beside_our_job() -> None:
    life = Life()
    gone = 1 << 23  # above all that a kernel gives
    sentence = "uses it and is no job of this node"
    assert life.look(device(process(gone))) == (GpuState.FOREIGN, f"process {gone} {sentence}")
    whose = user_name(os.geteuid())
    assert life.look(device(process(os.getpid()))) == (GpuState.FOREIGN, f"process {os.getpid()} of {whose} {sentence}")
    assert life.look(device(process(OURS), process(7)), held=True)[0] is GpuState.FOREIGN
    assert life.look(device(process(OURS)), held=True)[0] is GpuState.ALLOCATED


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (None, (GpuState.LOST, "the driver no longer lists it")),
        (device(state=HealthState.LOST, reason="off the bus"), (GpuState.LOST, "off the bus")),
        (device(state=HealthState.UNHEALTHY, reason="XID 95"), (GpuState.UNHEALTHY, "XID 95")),
        (device(state=HealthState.DEGRADED, reason="hot"), (GpuState.AVAILABLE, "hot")),
    ],
)
def test_health_counts_before_all_but_an_operator(seen: DeviceTelemetry | None, expected: tuple[GpuState, str]) -> None:
    life = Life()
    assert life.look(seen) == expected
    if expected[0] is not GpuState.AVAILABLE:
        assert life.look(seen, held=True, reserved=True) == expected
        life.cycle.drained[GPU] = "dust"
        assert life.look(seen) == (GpuState.DRAINED, f"dust; {expected[1]}")


def test_a_reserved_gpu_is_kept_once_its_job_is_gone() -> None:
    life = Life()
    assert life.look(device(), held=True, reserved=True)[0] is GpuState.ALLOCATED
    assert life.look(device(), reserved=True) == (GpuState.RESERVED, "reserved for ada")
    assert not life.cycle.status[GPU].takes_work


def test_since_is_when_the_state_began_whatever_the_reason() -> None:
    life = Life()
    life.look(device(), at=1.0)
    life.look(device(state=HealthState.DEGRADED, reason="hot"), at=2.0)
    assert (life.cycle.status[GPU].reason, life.cycle.status[GPU].since) == ("hot", 1001.0)
    life.look(device(), held=True, at=3.0)
    assert life.cycle.status[GPU].since == 1003.0


def test_only_changes_are_told() -> None:
    cycle = Lifecycle({GPU: 80.0})
    told = [len(cycle.update({GPU: device()}, [], {}, lambda pid: False, 0.0, 0.0)) for _ in range(3)]
    assert told == [1, 0, 0]


@pytest.mark.parametrize(
    ("seen", "against"),
    [
        (device(), ""),
        (replace(device(), problem="no answer"), "it does not answer: no answer"),
        (device(state=HealthState.UNHEALTHY, reason="XID 95"), "XID 95"),
        (
            replace(device(), raw=Reading(GPU, 0.0, memory_total_bytes=40 * GIB)),
            "it has 40.0 GiB of memory, its type has 80",
        ),
        (replace(device(), raw=Reading(GPU, 0.0, ecc_uncorrected=2)), "2 uncorrectable memory errors"),
        (
            replace(device(), identity=replace(IDENTITY, min_power_limit_mw=500_000)),
            "the driver gives it power limits of 500 to 400 W, which cannot be",
        ),
    ],
)
def test_acceptance_says_what_speaks_against_a_gpu(seen: DeviceTelemetry, against: str) -> None:
    said = acceptance(seen, 80.0)
    assert said.startswith(against)
    assert bool(said) is bool(against)


def test_an_accepted_gpu_is_not_accepted_again_until_asked() -> None:
    life = Life(accepted=[GPU])
    small = replace(device(), raw=Reading(GPU, 0.0, memory_total_bytes=GIB))
    assert life.look(small)[0] is GpuState.AVAILABLE
    life.cycle.verify(GPU)
    assert life.look(small)[0] is GpuState.UNVERIFIED


@pytest.mark.parametrize("sick", [None, device(state=HealthState.LOST), device(state=HealthState.UNHEALTHY)])
def test_a_gpu_that_was_sick_is_accepted_and_measured_anew(sick: DeviceTelemetry | None) -> None:
    life = Life(accepted=[GPU], measures=True)
    assert life.look(device())[0] is GpuState.AVAILABLE
    life.look(sick)
    assert life.look(device(), held=True) == (
        GpuState.UNVERIFIED, "its throughput is measured when the job on it has ended",
    )  # fmt: skip
    assert life.look(device()) == (GpuState.UNVERIFIED, "its throughput is being measured")
    life.cycle.measure(GPU)
    life.look(sick)
    life.cycle.measured(GPU, "", 1.0)  # of a sick GPU: it counts for nothing
    assert life.look(device(at=2.0), at=2.0)[0] is GpuState.UNVERIFIED
    assert life.cycle.to_measure() == [GPU]
    life.cycle.measure(GPU)
    life.cycle.measured(GPU, "", 3.0)
    assert life.look(device(at=4.0), at=4.0) == (GpuState.AVAILABLE, "")


def test_a_gpu_that_was_sick_is_accepted_anew_where_nothing_is_measured() -> None:
    life = Life(accepted=[GPU])
    small = replace(device(), raw=Reading(GPU, 0.0, memory_total_bytes=GIB))
    assert life.look(small)[0] is GpuState.AVAILABLE
    life.look(None)
    assert life.look(small) == (GpuState.UNVERIFIED, "it has 1.0 GiB of memory, its type has 80")
    assert life.look(device(), held=True)[0] is GpuState.ALLOCATED
