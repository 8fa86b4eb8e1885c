"""Fixtures: a fake driver for each test, under the real binding. A conftest.py that imports them has them."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_rl.devices.nvml import NvmlDevices
from tests.fake_nvml import FakeNvml, build_fake_nvml, compiler
from tests.fake_nvml.control import VARIABLE


@pytest.fixture(scope="session")
def fake_library() -> Path:
    """The fake libnvidia-ml.so.1."""
    if compiler() is None:
        pytest.skip("the fake driver needs a C compiler")
    return build_fake_nvml(Path(tempfile.gettempdir()) / f"lepton_rl-fake-nvml-{os.getuid()}")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_library: Path) -> Iterator[FakeNvml]:
    """A fake driver with two GPUs."""
    with FakeNvml(tmp_path / "nvml-state", gpus=2) as fake:
        monkeypatch.setenv(VARIABLE, str(fake.path))
        yield fake


@pytest.fixture
def devices(fake: FakeNvml, fake_library: Path) -> Iterator[NvmlDevices]:
    """The devices of the fake driver."""
    with NvmlDevices(fake_library) as devices:
        yield devices
