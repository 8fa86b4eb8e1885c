"""Run folders: what made a result, enough to make it again."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from lepton_rl import __version__
from lepton_rl.agents.bundle import BUNDLE_FILE, BUNDLE_FOLDER
from lepton_rl.core.atomic import replacing
from lepton_rl.errors import ConfigError

EXPERIMENT_FILE = "experiment.yaml"
RECORD_FILE = "run.json"
"""The two that a training writes when it starts; `experiments.training_folder` has the others."""
BENCHMARK_FILE = "benchmark.yaml"
RUN_FILE = "benchmark_run.json"
"""The two that a benchmark writes when it starts. Of either two the record is first: it shows whose the folder is."""
PROBE_FILE = ".writable"
LOCK_FILE = ".lock"
_PACKAGES = ("numpy", "numba", "gymnasium", "torch", "stable-baselines3", "sb3-contrib", "pymoo")


def is_training_run(folder: Path) -> bool:
    """Return whether a training left its record here: a benchmark of its bundle may stand beside it."""
    return (folder / EXPERIMENT_FILE).is_file() and (folder / RECORD_FILE).is_file()


def is_record(path: Path) -> bool:
    """Return whether a file is what `provenance` went into."""
    try:
        return "lepton_rl" in read_record(path)
    except (ConfigError, OSError):
        return False


def read_record(path: Path) -> dict[str, Any]:
    """Return a run's record, or nothing where there is none.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is damaged: it holds no JSON object")
    if not isinstance(found.get("files", {}), dict):
        raise ConfigError(f"{path} is damaged: files is no JSON object")
    return found


def provenance() -> dict[str, Any]:
    """Return versions, commit and machine."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "lepton_rl": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": versions,
    }


def new_folder(name: str) -> Path:
    """Return a folder in `runs/` that is not there yet, named after the experiment and the time."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path("runs") / f"{name}-{stamp}"
    count = 1
    while folder.exists():
        count += 1
        folder = Path("runs") / f"{name}-{stamp}-{count}"
    return folder


def say(console: Console, text: str) -> None:
    """Print one line as it is, unwrapped."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def make_folder(folder: Path) -> None:
    """Make the folder, or say why not.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / PROBE_FILE
        probe.touch()
        probe.unlink()
    except FileExistsError:
        raise ConfigError(f"{folder}: is a file; a run needs a folder") from None
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror or error}") from None


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is never seen half done."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def digest_of(path: Path) -> str:
    """Return a digest of a file's content, or of all files of a folder."""
    digest = sha256()
    if (path / BUNDLE_FOLDER / BUNDLE_FILE).is_file():
        path = path / BUNDLE_FOLDER  # a run folder stands for its bundle: benchmarks write beside it
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        name = str(file.relative_to(path)) if path.is_dir() else file.name
        digest.update(name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _commit() -> str | None:
    """Return the commit of the checkout that this code runs from, with + for changes; None in a wheel."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
