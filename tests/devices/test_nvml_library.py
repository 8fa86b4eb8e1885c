"""Finding the driver and its binding; each in a fresh process, since a library once loaded stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_nvml import LIBRARY, FakeNvml, compiler

_OPEN = """
import sys
from lepton_rl.devices.nvml import NvmlDevices
from lepton_rl.errors import LeptonError
try:
    with NvmlDevices(*sys.argv[1:]) as devices:
        print(len(devices.identities), devices.driver_version)
except LeptonError as error:
    print(f"{type(error).__name__}: {error}")
"""


def _run(*arguments: str, **environment: str) -> str:
    """Open the devices in a process that finds no driver of the machine's own, and return what it says."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LD_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _OPEN, *arguments],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.strip()


def _real_driver() -> bool:
    done = subprocess.run(
        [sys.executable, "-c", f"import ctypes; ctypes.CDLL({LIBRARY!r})"],
        env={name: value for name, value in os.environ.items() if not name.startswith("LD_")},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def _compiled(folder: Path, source: str) -> Path:
    command = compiler()
    if command is None:
        pytest.skip("needs a C compiler")
    file, library = folder / "part.c", folder / LIBRARY
    file.write_text(source)
    subprocess.run([command, "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}", "-o", library, file], check=True)
    return library


def test_a_library_path_is_used(fake: FakeNvml, fake_library: Path) -> None:
    assert _run(str(fake_library), LEPTON_RL_FAKE_NVML=str(fake.path)) == "2 999.01.fake"


@pytest.mark.skipif(_real_driver(), reason="this machine has a driver of its own")
def test_no_driver_at_all() -> None:
    said = _run()
    assert said.startswith("DriverMissing: cannot reach the NVIDIA driver: libnvidia-ml.so.1 was not found")
    assert "library_path" in said


def test_a_library_path_without_a_file(tmp_path: Path) -> None:
    path = tmp_path / LIBRARY
    assert _run(str(path)).startswith(f"DriverMissing: devices.library_path: there is no file {path}")


def test_a_library_path_to_something_else(tmp_path: Path) -> None:
    path = tmp_path / LIBRARY
    path.write_text("no library")
    assert f"{path} is no {LIBRARY}" in _run(str(path))


def test_a_driver_that_is_not_loaded(fake: FakeNvml, fake_library: Path) -> None:
    fake.unload_driver()
    said = _run(str(fake_library), LEPTON_RL_FAKE_NVML=str(fake.path))
    assert said.startswith("DriverMissing: cannot reach the NVIDIA driver: the driver's kernel module is not loaded")


def test_library_and_kernel_module_that_differ(fake: FakeNvml, fake_library: Path) -> None:
    fake.fail("nvmlSystemGetDriverVersion", "version_mismatch")
    said = _run(str(fake_library), LEPTON_RL_FAKE_NVML=str(fake.path))
    assert said.startswith("DriverMismatch:")
    assert "reboot the machine" in said


def test_a_library_that_lacks_a_function(tmp_path: Path) -> None:
    library = _compiled(
        tmp_path, "int nvmlInitWithFlags(unsigned f) { return f; } int nvmlShutdown(void) { return 0; }"
    )
    assert _run(str(library)) == (
        "DriverMismatch: the driver's libnvidia-ml.so.1 lacks the function for nvmlSystemGetDriverVersion: "
        "update the driver"
    )


def test_another_library_that_is_loaded_already(tmp_path: Path, fake: FakeNvml, fake_library: Path) -> None:
    (tmp_path / "other").mkdir()
    other = _compiled(tmp_path / "other", "int nvmlInitWithFlags(unsigned f) { return f; }")
    said = _run(
        str(fake_library), LEPTON_RL_FAKE_NVML=str(fake.path), LD_PRELOAD=str(other), LD_LIBRARY_PATH=str(other.parent)
    )
    assert said.startswith(f"DriverMismatch: devices.library_path: this process has loaded another {LIBRARY} already")


def test_the_deprecated_package_is_named(tmp_path: Path, fake: FakeNvml, fake_library: Path) -> None:
    package = tmp_path / "shadow" / "pynvml"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    path = os.pathsep.join((str(package.parent), os.environ.get("PYTHONPATH", "")))
    said = _run(str(fake_library), LEPTON_RL_FAKE_NVML=str(fake.path), PYTHONPATH=path)
    assert said.startswith("DriverMismatch: the deprecated package 'pynvml' hides NVIDIA's nvidia-ml-py")
    assert "pip uninstall -y pynvml" in said


def test_without_the_binding_the_extra_is_named_and_the_package_imports() -> None:
    script = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'pynvml' else find(name, *rest)\n"
        "import lepton_rl.devices\n"
        "from lepton_rl.devices.nvml import NvmlDevices\n"
        "assert 'pynvml' not in sys.modules\n"
        "try:\n"
        "    NvmlDevices()\n"
        "except Exception as error:\n"
        "    print(f'{type(error).__name__}: {error}')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        "MissingExtra: nvidia-ml-py is not installed; install it with: pip install 'lepton-rl[node]'"
    )
