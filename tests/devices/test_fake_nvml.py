"""The fake driver itself: what the other tests lean on."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lepton_rl.devices import NvmlDevices
from tests.fake_nvml import FakeNvml, build_fake_nvml, compiler
from tests.fake_nvml.layout import MAX_EVENTS, MAX_PROCESSES

_GENEROUS_S = 30.0


def test_the_library_is_built_once(tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("the fake driver needs a C compiler")
    first = build_fake_nvml(tmp_path)
    made = first.stat().st_mtime_ns
    assert build_fake_nvml(tmp_path) == first
    assert first.stat().st_mtime_ns == made
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["libnvidia-ml.so.1"]


def test_the_energy_counter_adds_up_the_drawn_power(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.set(0, power_mw=400_000)
    begun, before = time.monotonic(), devices.read(0).energy_mj
    assert before is not None
    time.sleep(0.05)
    after = devices.read(0).energy_mj
    most_mj = (time.monotonic() - begun) * 400_000
    assert after is not None
    assert 0.05 * 400_000 - 1 <= after - before <= most_mj + 1


def test_the_energy_counter_never_falls_when_settings_change(fake: FakeNvml, devices: NvmlDevices) -> None:
    last = 0
    for limit_mw in (400_000, 100_000, 250_000, 100_000):
        fake.set(0, power_mw=limit_mw)
        devices.set_power_limit(0, limit_mw)
        now = devices.read(0).energy_mj
        assert now is not None
        assert now >= last
        last = now


def test_a_process_that_ended_is_forgotten_before_it_is_reaped(fake: FakeNvml, devices: NvmlDevices) -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        fake.add_process(0, child.pid, 2**20)
        assert len(devices.processes(0) or ()) == 1
        child.kill()
        end = time.monotonic() + _GENEROUS_S
        while devices.processes(0) and time.monotonic() < end:
            time.sleep(0.001)
        assert devices.processes(0) == ()  # it is a zombie still: nobody waited for it
        assert child.returncode is None


def test_a_reader_that_slept_through_the_ring_gets_the_latest(fake: FakeNvml, devices: NvmlDevices) -> None:
    devices.wait_for_event(0.0)
    for xid in range(MAX_EVENTS + 10):
        fake.inject_xid(0, xid)
    xids = []
    while (event := devices.wait_for_event(0.0)) is not None:
        xids.append(event.xid)
    assert xids == list(range(10, MAX_EVENTS + 10))


def test_another_handle_changes_the_same_device(fake: FakeNvml, devices: NvmlDevices) -> None:
    with FakeNvml.attach(fake.path) as other:
        other.set(1, temperature_c=88)
    assert devices.read(1).temperature_c == 88
    assert fake.get(1, "temperature_c") == 88


def test_rules_count_and_heal(fake: FakeNvml, devices: NvmlDevices) -> None:
    fake.slow("nvmlDeviceGetPowerUsage", 20, gpu=1)
    begun = time.monotonic()
    devices.read(1)
    assert time.monotonic() - begun >= 0.02
    devices.read(0)
    assert fake.hits("nvmlDeviceGetPowerUsage", gpu=1) == 1
    fake.heal("nvmlDeviceGetPowerUsage", gpu=1)
    devices.read(1)
    assert fake.hits("nvmlDeviceGetPowerUsage", gpu=1) == 2


def test_what_cannot_be_is_refused(fake: FakeNvml, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 to 16 GPUs, not 17"):
        FakeNvml(tmp_path / "many", gpus=17)
    with pytest.raises(ValueError, match="no field watts"):
        fake.set(0, watts=3)
    with pytest.raises(IndexError, match="no fake GPU 2: there are 2"):
        fake.lose(2)
    for pid in range(MAX_PROCESSES):
        fake.add_process(0, 10**6 + pid)
    with pytest.raises(ValueError, match="holds 64 processes"):
        fake.add_process(0, 1)


def test_the_printed_lines_lead_a_shell_to_it(tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("the fake driver needs a C compiler")
    read = "from lepton_rl.devices import NvmlDevices; print([d.name for d in NvmlDevices().identities])"
    make = f'lines="$({sys.executable} -m tests.fake_nvml {tmp_path} --gpus 3)"'
    script = f'{make} && eval "$lines" && {sys.executable} -c "{read}"'
    root = Path(__file__).parents[2]
    done = subprocess.run(["bash", "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["Fake A100-SXM4-80GB"] * 3)
