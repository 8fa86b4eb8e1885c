"""Where compiled kernels are kept, and that they compile where nothing can be kept."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import lepton_rl
from lepton_rl.core import jit

PACKAGE = Path(lepton_rl.__file__).parent


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Forget the folder that was chosen; home and the temporary folder lie under `tmp_path`."""
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    jit.kernel_cache_folder.cache_clear()
    yield tmp_path
    jit.kernel_cache_folder.cache_clear()


def unwritable(folder: Path) -> Path:
    """A folder that cannot come to be: a file stands in its way (for root, too)."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    return folder


def test_the_package_folder_comes_first(fresh: Path) -> None:
    assert jit.kernel_cache_folder() == PACKAGE / "__pycache__" / "kernels"


def test_numba_cache_dir_goes_before_all(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(fresh / "named"))
    assert jit.kernel_cache_folder() == fresh / "named"
    assert (fresh / "named").is_dir()


def test_a_read_only_package_uses_the_home(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_PACKAGE", unwritable(fresh / "package"))
    assert jit.kernel_cache_folder() == fresh / "home" / ".cache" / "lepton_rl"
    jit.kernel_cache_folder.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "xdg"))
    assert jit.kernel_cache_folder() == fresh / "xdg" / "lepton_rl"


def test_a_read_only_home_uses_a_private_temporary_folder(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_PACKAGE", unwritable(fresh / "package"))
    unwritable(fresh / "home" / ".cache")
    folder = jit.kernel_cache_folder()
    assert folder == fresh / "temporary" / f"lepton_rl-{os.getuid()}"
    assert folder.stat().st_mode & 0o077 == 0


def test_an_account_without_a_home(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(jit, "_PACKAGE", unwritable(fresh / "package"))
    monkeypatch.setattr(Path, "home", no_home)
    assert jit.kernel_cache_folder() == fresh / "temporary" / f"lepton_rl-{os.getuid()}"


def test_a_temporary_folder_that_others_may_write_is_not_trusted(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(unwritable(fresh / "named")))
    theirs = fresh / "temporary" / f"lepton_rl-{os.getuid()}"
    theirs.mkdir()
    theirs.chmod(0o777)
    assert jit.kernel_cache_folder() is None


def test_nowhere_at_all(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(unwritable(fresh / "named")))
    monkeypatch.setattr("tempfile.tempdir", str(unwritable(fresh / "no_temporary")))
    assert jit.kernel_cache_folder() is None


def run(code: str, environment: Mapping[str, str], folder: Path) -> str:
    """What a fresh interpreter, started in `folder`, prints; any warning is an error."""
    command = [sys.executable, "-B", "-W", "error", "-c", code]
    inherited = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    result = subprocess.run(
        command, env={**inherited, **environment}, cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return str(result.stdout).strip()


COMPILES = """
from lepton_rl.core.jit import kernel_cache_folder, njit
@njit
def double(value):
    return 2.0 * value
print(kernel_cache_folder(), double(3.5))
"""


def test_kernels_compile_in_memory_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A copy of the package without any folder to write to, as in a read-only container."""
    shutil.copytree(PACKAGE / "core", tmp_path / "lepton_rl" / "core", ignore=lambda *_: ["__pycache__"])
    for name in ("__init__.py", "errors.py"):
        shutil.copy(PACKAGE / name, tmp_path / "lepton_rl" / name)
    unwritable(tmp_path / "lepton_rl" / "__pycache__")
    home, temporary = unwritable(tmp_path / "home"), unwritable(tmp_path / "temporary")
    nowhere = {"PYTHONPATH": str(tmp_path), "HOME": str(home), "NUMBA_CACHE_DIR": ""}
    # tempfile falls back to /tmp and the like: keep it from there.
    code = f"import tempfile; tempfile.tempdir = {str(temporary)!r}\n{COMPILES}"
    assert run(code, nowhere, tmp_path) == "None 7.0"


def test_kernels_are_found_again_where_the_folder_can_be_written(tmp_path: Path) -> None:
    code = """
from lepton_rl.core.allocation import _lowest_bit, empty_allocation
from lepton_rl.core.placement import place
from lepton_rl.core import layout as L
import numpy as np
jobs = np.zeros((1, L.JOB_COLUMNS)); jobs[0, L.GPUS] = 2000
place(0, jobs, 0, *empty_allocation(1, 4, 80), None)
print(sum(place.stats.cache_hits.values()), jobs[0, L.FIRST_GPU])
"""
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    assert run(code, environment, tmp_path.parent) == "0 0.0"
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert any(name.startswith("placement.place-") for name in kept)
    assert run(code, environment, tmp_path.parent) == "1 0.0"
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], bool]:
    """Whether an edit of one source file changes the stamp of the kernels of another."""

    def stamp(kernels: Path) -> str:
        jit._read_source.cache_clear()
        return jit.kernel_sources_stamp.__wrapped__(kernels)

    def is_seen(source: str, kernels: str) -> bool:
        copy = tmp_path / "lepton_rl"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(jit, "_PACKAGE", copy)
        before = stamp(copy / kernels)
        (copy / source).write_text((copy / source).read_text() + "CHANGED = 1\n")
        return stamp(copy / kernels) != before

    return is_seen


@pytest.mark.parametrize(
    ("source", "kernels"),
    [
        ("core/allocation.py", "core/allocation.py"),
        ("core/memory.py", "simulator/waiting.py"),
        ("core/layout.py", "simulator/scores.py"),  # `from lepton_rl.core import layout as L`
        ("core/hardware/thermal.py", "envs/batch_kernel.py"),  # over five files
        ("simulator/blocking.py", "envs/power_kernel.py"),
        ("core/placement.py", "agents/plan_kernels.py"),
    ],
)
def test_the_stamp_follows_helpers_and_constants(source: str, kernels: str, edited: Callable[[str, str], bool]) -> None:
    """Kernels cached before an edit of what they use are not taken for those after it."""
    assert edited(source, kernels)


@pytest.mark.parametrize(
    ("source", "kernels"), [("envs/render.py", "core/placement.py"), ("simulator/events.py", "core/allocation.py")]
)
def test_the_stamp_knows_no_more(source: str, kernels: str, edited: Callable[[str, str], bool]) -> None:
    assert not edited(source, kernels)


def test_names_behind_a_package_are_looked_for_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "lepton_rl"
    (package / "core").mkdir(parents=True)
    (package / "core" / "__init__.py").write_text("from lepton_rl.core.deep import NUMBER\n")
    (package / "core" / "deep.py").write_text("import lepton_rl.core.deeper\nNUMBER = 1\n")
    (package / "core" / "deeper.py").write_text("")
    kernels = package / "kernels.py"
    kernels.write_text("def f():\n    from lepton_rl.core import (\n        NUMBER as ONE,  # a reason\n    )\n")
    monkeypatch.setattr(jit, "_PACKAGE", package)
    stamps = set()
    for _ in range(2):
        jit._read_source.cache_clear()
        stamps.add(jit.kernel_sources_stamp.__wrapped__(kernels))
        (package / "core" / "deeper.py").write_text("CHANGED = 1\n")
    assert len(stamps) == 2
