"""Power limits on the fake driver: given back after the end, a crash and silence; the helper trusts nobody."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_rl.devices import NoPermission, NvmlDevices
from lepton_rl.errors import NodeError
from lepton_rl.node.client import NodeClient
from lepton_rl.node.power import FILE, DryPower, OwnPower, PowerLeases
from lepton_rl.node.power_helper import HelperPower, run_power_helper
from tests.fake_nvml import FakeNvml
from tests.node.conftest import until

LIMIT_MW = 400_000


def uuid(fake: FakeNvml, index: int = 0) -> str:
    return str(fake.get(index, "uuid").decode())


def limit(fake: FakeNvml, index: int = 0) -> int:
    return int(fake.get(index, "power_limit_mw"))


def test_what_a_gpu_had_is_on_the_disk_before_it_is_changed(
    fake: FakeNvml, devices: NvmlDevices, tmp_path: Path
) -> None:
    fake.set(0, power_limit_mw=350_000)  # an operator's own choice, which is not the default
    fake.refuse_setters()
    leases = PowerLeases(devices, tmp_path / "p")
    with pytest.raises(NoPermission):
        leases.set_limit(uuid(fake), 200_000, 0.0)
    (kept,) = json.loads((tmp_path / "p" / FILE).read_text())
    assert kept == {"uuid": uuid(fake), "limit_mw": 350_000, "clocks": False}


def test_limits_are_clamped_to_the_card_and_given_back(fake: FakeNvml, devices: NvmlDevices, tmp_path: Path) -> None:
    leases = PowerLeases(devices, tmp_path)
    assert leases.set_limit(uuid(fake), 1, 0.0) == 100_000
    assert leases.set_limit(uuid(fake), 10**8, 0.0) == LIMIT_MW
    assert leases.set_limit(uuid(fake), 250_000, 0.0) == 250_000
    assert limit(fake) == 250_000
    assert leases.set_limit(uuid(fake), None, 0.0) is None
    assert limit(fake) == LIMIT_MW
    assert leases.leases == ()
    assert not (tmp_path / FILE).exists()


def test_a_crash_is_mended_by_the_next_holder(fake: FakeNvml, devices: NvmlDevices, tmp_path: Path) -> None:
    PowerLeases(devices, tmp_path).set_limit(uuid(fake), 200_000, 0.0)
    crashed = PowerLeases(devices, tmp_path)  # what the former one had is restored before anything else
    assert limit(fake) == LIMIT_MW
    assert crashed.leases == ()


def test_what_cannot_be_given_back_now_is_kept(fake: FakeNvml, devices: NvmlDevices, tmp_path: Path) -> None:
    leases = PowerLeases(devices, tmp_path)
    leases.set_limit(uuid(fake), 200_000, 0.0)
    leases.set_limit(uuid(fake, 1), 200_000, 0.0)
    fake.fail("nvmlDeviceSetPowerManagementLimit", "timeout")
    leases.restore()
    assert len(leases.leases) == 2
    fake.heal("nvmlDeviceSetPowerManagementLimit")
    leases.restore()
    assert [lease.uuid for lease in leases.leases] == []
    assert limit(fake) == limit(fake, 1) == LIMIT_MW


def test_leases_end_where_they_are_not_renewed(fake: FakeNvml, devices: NvmlDevices, tmp_path: Path) -> None:
    leases = PowerLeases(devices, tmp_path, lease_s=60.0)
    leases.set_limit(uuid(fake), 200_000, 1000.0)
    leases.renew(1050.0)
    assert not leases.expire(1110.0)
    assert limit(fake) == 200_000
    assert leases.expire(1110.1)
    assert limit(fake) == LIMIT_MW


def test_clocks_are_given_back_too(fake: FakeNvml, devices: NvmlDevices, tmp_path: Path) -> None:
    leases = PowerLeases(devices, tmp_path)
    with pytest.raises(NodeError, match="not 1400 to 300"):
        leases.lock_clocks(uuid(fake), 1400, 300, 0.0)
    leases.lock_clocks(uuid(fake), 300, 900, 0.0)
    assert fake.get(0, "locked_max_mhz") == 900
    leases.restore()
    assert fake.get(0, "locked_max_mhz") == 0


def test_an_unreadable_file_is_one_sentence(devices: NvmlDevices, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[{")
    with pytest.raises(NodeError, match="set the GPUs' limits to their defaults by hand"):
        PowerLeases(devices, tmp_path)


def test_an_unknown_gpu_is_refused(devices: NvmlDevices, tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="no GPU 'GPU-x'"):
        PowerLeases(devices, tmp_path).set_limit("GPU-x", 200_000, 0.0)


def test_a_dry_run_sets_nothing(fake: FakeNvml) -> None:
    DryPower().set_limit(uuid(fake), 200_000, 0.0)
    assert limit(fake) == LIMIT_MW


def test_the_daemons_own_power_gives_back_at_its_end(fake: FakeNvml, devices: NvmlDevices, tmp_path: Path) -> None:
    power = OwnPower(PowerLeases(devices, tmp_path))
    power.set_limit(uuid(fake), 200_000, 0.0)
    power.close()
    assert limit(fake) == LIMIT_MW


class Helper:
    """The helper as the process that an operator starts."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.socket, self.state, self.library = folder / "s", folder / "state", library
        self.process = self._start()

    def _start(self, lease: str = "60s") -> "subprocess.Popen[bytes]":
        words = [
            "node", "power-helper", "--user", "root", "--socket", str(self.socket), "--folder",
            str(self.state), "--library", str(self.library), "--lease", lease,
        ]  # fmt: skip
        process = subprocess.Popen([sys.executable, "-m", "lepton_rl.cli", *words], stderr=subprocess.DEVNULL)
        until(self._answers, "the helper")
        return process

    def _answers(self) -> bool:
        try:
            NodeClient(self.socket).close()
        except NodeError:
            return False
        return True

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(30)

    def restart(self, lease: str = "60s") -> None:
        self.process = self._start(lease)


@pytest.fixture
def helper(fake: FakeNvml, fake_library: Path, tmp_path: Path) -> Iterator[Helper]:
    if os.geteuid() != 0:
        pytest.skip("the helper runs as root")
    helper = Helper(tmp_path, fake_library)
    yield helper
    if helper.process.poll() is None:
        helper.end(signal.SIGKILL)


def test_the_helper_sets_and_gives_back_at_its_end(helper: Helper, fake: FakeNvml) -> None:
    power = HelperPower(helper.socket)
    power.set_limit(uuid(fake), 200_000, 0.0)
    power.set_limit(uuid(fake, 1), 150_000, 0.0)
    assert (limit(fake), limit(fake, 1)) == (200_000, 150_000)
    power.set_limit(uuid(fake), None, 0.0)
    assert (limit(fake), limit(fake, 1)) == (LIMIT_MW, 150_000)
    helper.end(signal.SIGTERM)
    assert limit(fake, 1) == LIMIT_MW
    power.renew(0.0)  # said in the log, and no error
    power.close()


def test_a_second_helper_undoes_nothing_of_the_first(helper: Helper, fake: FakeNvml) -> None:
    power = HelperPower(helper.socket)
    power.set_limit(uuid(fake), 200_000, 0.0)
    with NvmlDevices(helper.library) as devices, pytest.raises(NodeError, match="listens here already; end it before"):
        run_power_helper(devices, helper.state, helper.socket, 0)
    assert limit(fake) == 200_000
    power.close()


def test_the_helper_gives_back_after_it_was_killed(helper: Helper, fake: FakeNvml) -> None:
    power = HelperPower(helper.socket)
    power.set_limit(uuid(fake), 200_000, 0.0)
    helper.end(signal.SIGKILL)
    assert limit(fake) == 200_000
    helper.restart()
    assert limit(fake) == LIMIT_MW
    power.renew(0.0)
    power.renew(0.0)  # over a new connection
    power.set_limit(uuid(fake), 200_000, 0.0)
    assert limit(fake) == 200_000
    power.close()
    assert limit(fake) == LIMIT_MW


def test_the_helper_gives_back_when_its_user_falls_silent(helper: Helper, fake: FakeNvml) -> None:
    helper.end(signal.SIGTERM)
    helper.restart(lease="1s")
    with NodeClient(helper.socket) as client:
        client.call("set", uuid=uuid(fake), limit_mw=200_000)
        assert limit(fake) == 200_000
        until(lambda: limit(fake) == LIMIT_MW, "the end of the lease")


@pytest.mark.parametrize(
    "request_",
    [
        {"verb": "shell"},
        {"verb": "set", "uuid": "GPU-x", "limit_mw": 1},
        {"verb": "set", "uuid": 3, "limit_mw": 1},
        {"verb": "set", "uuid": "GPU-x", "limit_mw": -1},
        {"verb": "set", "uuid": "GPU-x", "limit_mw": True},
        {"verb": "set", "uuid": "GPU-x", "limit_mw": 1e9},
        {"verb": "renew", "uuid": "GPU-x"},
        {"verb": ["set"]},
        {},
    ],
)
def test_the_helper_knows_its_verbs_alone(helper: Helper, request_: dict[str, object], fake: FakeNvml) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(helper.socket))
        raw.sendall(json.dumps(request_).encode() + b"\n")
        assert json.loads(raw.recv(4096))["ok"] is False
    assert limit(fake) == LIMIT_MW


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=6000))
def test_noise_does_not_end_the_helper(helper: Helper, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(helper.socket))
        raw.sendall(data)
    with NodeClient(helper.socket) as client:
        client.call("renew")
