"""NVML read by two clients, ours and nvitop: the same numbers from the fake driver and, where there is one, a real one.

Nothing is ever set here on a real driver.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fake_nvml import LIBRARY, FakeNvml
from tests.fake_nvml.control import MIB

_OURS = """
import json
from dataclasses import asdict
from lepton_rl.devices import NvmlDevices
with NvmlDevices() as devices:
    print(json.dumps({
        "driver": devices.driver_version,
        "simulated": devices.simulated,
        "devices": [
            {
                "identity": asdict(identity),
                "reading": asdict(devices.read(identity.index)),
                "processes": [asdict(process) for process in devices.processes(identity.index) or ()],
            }
            for identity in devices.identities
        ],
        "failures": devices.failures,
    }))
"""
_NVITOP = """
import json
import nvitop
def known(value):
    return None if value is nvitop.NA else value
def seen(device):
    return {
        "name": known(device.name()), "uuid": known(device.uuid()), "bus": known(device.bus_id()),
        "memory_total": known(device.memory_total()), "memory_used": known(device.memory_used()),
        "memory_free": known(device.memory_free()),
        "power": known(device.power_usage()), "limit": known(device.power_limit()),
        "temperature": known(device.temperature()), "gpu": known(device.gpu_utilization()),
        "memory_utilisation": known(device.memory_utilization()), "sm": known(device.sm_clock()),
        "memory_clock": known(device.memory_clock()), "ecc": known(device.total_volatile_uncorrected_ecc_errors()),
        "processes": sorted((pid, known(process.gpu_memory())) for pid, process in device.processes().items()),
    }
print(json.dumps({"driver": nvitop.Device.driver_version(), "devices": [seen(d) for d in nvitop.Device.all()]}))
"""
_SHARE = 0.05


@dataclass(frozen=True)
class _Driver:
    """A driver to read: the environment that leads to it, and whether two readings must agree to the digit."""

    environment: dict[str, str]
    stands_still: bool

    def read(self, script: str) -> Any:
        """Return what a process on this driver prints."""
        arguments = [sys.executable, "-c", script]
        done = subprocess.run(arguments, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "ERROR" not in done.stderr
        return json.loads(done.stdout)


def _real_environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "LEPTON_RL_FAKE_NVML"}
    probe = [sys.executable, "-c", f"import ctypes; ctypes.CDLL({LIBRARY!r})"]
    if subprocess.run(probe, env=environment, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"no {LIBRARY} of a real driver on this machine")
    return environment


@pytest.fixture(params=["fake", "real"])
def driver(request: pytest.FixtureRequest) -> Iterator[_Driver]:
    """Each driver at hand; on the fake, four GPUs with different numbers and a process."""
    if request.param == "real":
        yield _Driver(_real_environment(), stands_still=False)
        return
    fake: FakeNvml = request.getfixturevalue("busy_fake")
    yield _Driver(fake.environment(request.getfixturevalue("fake_library")), stands_still=True)


@pytest.fixture
def busy_fake(tmp_path: Path, fake_library: Path) -> Iterator[FakeNvml]:
    """Four GPUs: one at its limit with a process, one warm, one with errors, one idle."""
    with FakeNvml(tmp_path / "busy", gpus=4) as fake, subprocess.Popen(["sleep", "600"]) as process:
        fake.set(0, utilisation_percent=63, power_mw=300_000, power_limit_mw=250_000, sm_clock_mhz=1300)
        fake.add_process(0, process.pid, 1234 * MIB)
        fake.set(1, temperature_c=66, memory_other_bytes=777 * MIB, memory_utilisation_percent=9)
        fake.set(2, ecc_uncorrected=5)
        yield fake
        process.kill()


def _near(ours: float | None, theirs: float | None, stands_still: bool, slack: float) -> bool:
    if ours is None or theirs is None:
        return ours is None and theirs is None
    return ours == theirs if stands_still else abs(ours - theirs) <= slack + _SHARE * abs(theirs)


@pytest.mark.skipif(importlib.util.find_spec("nvitop") is None, reason="nvitop is not installed")
def test_two_clients_read_the_same(driver: _Driver) -> None:
    ours, theirs = driver.read(_OURS), driver.read(_NVITOP)
    assert ours["driver"] == theirs["driver"]
    gpus = [device for device in ours["devices"] if device["identity"]["parent_uuid"] is None]
    assert len(gpus) == len(theirs["devices"])
    for mine, other in zip(gpus, theirs["devices"], strict=True):
        identity, reading = mine["identity"], mine["reading"]
        for field, key in (
            ("name", "name"),
            ("uuid", "uuid"),
            ("pci_bus_id", "bus"),
            ("memory_total_bytes", "memory_total"),
        ):
            assert identity[field] == other[key], field
        for field, key, scale, slack in (
            ("memory_used_bytes", "memory_used", 1, 1024 * MIB),
            ("memory_free_bytes", "memory_free", 1, 1024 * MIB),
            ("power_mw", "power", 1, 100_000),
            ("power_limit_mw", "limit", 1, 0),
            ("temperature_c", "temperature", 1, 10),
            ("utilisation", "gpu", 100, 100),
            ("memory_utilisation", "memory_utilisation", 100, 100),
            ("sm_clock_mhz", "sm", 1, 3000),
            ("memory_clock_mhz", "memory_clock", 1, 3000),
            ("ecc_uncorrected", "ecc", 1, 0),
        ):
            value = None if reading[field] is None else reading[field] * scale
            assert _near(value, other[key], driver.stands_still, slack), (field, value, other[key])
        if driver.stands_still:
            listed = sorted([process["pid"], process["memory_used_bytes"]] for process in mine["processes"])
            assert listed == other["processes"]


def test_what_a_driver_says_is_possible(driver: _Driver) -> None:
    seen = driver.read(_OURS)
    assert seen["devices"]
    assert seen["simulated"] is driver.stands_still
    assert seen["failures"] == {}
    for device in seen["devices"]:
        identity, reading = device["identity"], device["reading"]
        assert identity["uuid"].startswith(("GPU-", "MIG-"))
        assert not reading["lost"]
        assert 0 < reading["memory_total_bytes"] == identity["memory_total_bytes"]
        parts = [reading[f"memory_{part}_bytes"] for part in ("used", "free", "reserved")]
        assert abs(sum(parts) - reading["memory_total_bytes"]) <= 64 * MIB
        assert reading["temperature_c"] is None or -20 <= reading["temperature_c"] <= 125
        assert reading["utilisation"] is None or 0 <= reading["utilisation"] <= 1
        if identity["parent_uuid"] is None and reading["power_mw"] is not None:
            assert 0 < reading["power_mw"] <= 1.5 * identity["max_power_limit_mw"]
            assert identity["min_power_limit_mw"] <= reading["power_limit_mw"] <= identity["max_power_limit_mw"]


@pytest.mark.skipif(importlib.util.find_spec("nvitop") is None, reason="nvitop is not installed")
def test_the_screen_of_nvitop(busy_fake: FakeNvml, fake_library: Path) -> None:
    busy_fake.lose(3)
    busy_fake.add_instance(2)
    done = subprocess.run(
        [sys.executable, "-m", "nvitop", "-1"],
        env=busy_fake.environment(fake_library) | {"COLUMNS": "100", "LINES": "60"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    words = " ".join(done.stdout.split())
    assert "Driver Version: 999.01.fake" in words
    assert "250W / 250W" in words  # drawn power stops at the limit
    assert "1238MiB / 80.00GiB" in words
    assert "66C" in words
    assert "ERROR: GPU is Lost" in words
    assert "sleep 600" in words
    assert "1g.10gb" in words
