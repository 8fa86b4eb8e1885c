"""Where a user wants results: a file or a run folder. Nothing of theirs that is there is lost."""

import re
from pathlib import Path

from lepton_rl.core.atomic import draft_of
from lepton_rl.errors import ConfigError
from lepton_rl.experiments.runs import (
    BENCHMARK_FILE,
    EXPERIMENT_FILE,
    LOCK_FILE,
    PROBE_FILE,
    RECORD_FILE,
    RUN_FILE,
    is_record,
    is_training_run,
)

_RECORDS = (RECORD_FILE, RUN_FILE)
_TRACES_OF_A_START = {
    PROBE_FILE, LOCK_FILE, *(draft_of(Path(name)).name for name in (*_RECORDS, EXPERIMENT_FILE, BENCHMARK_FILE)),
}  # fmt: skip


def check_output_file(
    path: Path, overwrite: bool = False, inputs: tuple[Path, ...] = (), in_new_folder: bool = False
) -> None:
    """Refuse a file that cannot be written or may not be replaced; a device or pipe may be written to.

    Args:
        path: the file to write.
        overwrite: replace a file that is there.
        inputs: files and folders that the command reads: it replaces none, and writes into none.
        in_new_folder: its folder will be made.

    Raises:
        ConfigError: it is a folder, is in none, is an input or in one, or is there already.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file")
    if not in_new_folder and not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}")
    for folder in inputs:
        if folder.is_dir() and folder.resolve() in path.resolve().parents:
            raise ConfigError(f"{path}: is in {folder}, which this command reads; name another file")
    if not path.is_file():
        return
    if any(source.is_file() and path.samefile(source) for source in inputs):
        raise ConfigError(f"{path}: is what this command reads; name another file")
    if not overwrite:
        raise ConfigError(f"{path}: is there already; --overwrite replaces it")


def check_run_folder(folder: Path) -> None:
    """Refuse a folder that holds something, but no run of lepton_rl, not even one that was killed as it began.

    Raises:
        ConfigError: it does.
    """
    ours = is_training_run(folder) or ((folder / BENCHMARK_FILE).is_file() and (folder / RUN_FILE).is_file())
    if not ours and folder.is_dir() and not all(map(_is_left_of_a_start, folder.iterdir())):
        raise ConfigError(f"{folder}: is not empty and holds no run of lepton_rl; choose another --out")


def _is_left_of_a_start(path: Path) -> bool:
    """Return whether a run writes this before all else: its record, or the draft of a first file."""
    return path.name in _TRACES_OF_A_START or (path.name in _RECORDS and is_record(path))


def file_part(name: str) -> str:
    """Return the name of a policy or workload as part of a file's name: other signs become `-`."""
    return re.sub(r"[^\w.-]+", "-", name)
