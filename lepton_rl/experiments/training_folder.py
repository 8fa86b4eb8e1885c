"""The run folder of a training: who may use it, and the record that stands in it from the start.

experiment.yaml      the resolved file          run.json           seed, versions, commit, files, what became of it
learning_curve.csv   held-out metrics           tensorboard/       the same and the losses
checkpoint.pt        to resume from             bundle/            the best policy, runs without torch
model.zip            Stable-Baselines3's own file
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from lepton_rl.agents.bundle import BUNDLE_FOLDER
from lepton_rl.agents.sb3 import CHECKPOINT_FILE, CURVE_FILE
from lepton_rl.core.atomic import remove_all_of
from lepton_rl.errors import ConfigError, LeptonError, shown
from lepton_rl.experiments.outputs import check_run_folder
from lepton_rl.experiments.runs import (
    EXPERIMENT_FILE,
    RECORD_FILE,
    digest_of,
    provenance,
    read_record,
    write_atomically,
    write_json,
)
from lepton_rl.workloads import resolve_data_path

TENSORBOARD_FOLDER = "tensorboard"
MODEL_FILE = "model.zip"
ALL_FILES = (
    EXPERIMENT_FILE,
    RECORD_FILE,
    CURVE_FILE,
    CHECKPOINT_FILE,
    TENSORBOARD_FOLDER,
    BUNDLE_FOLDER,
    MODEL_FILE,
)
Status = Literal["running", "interrupted", "failed", "finished"]
"""A killed training stays "running"."""


@dataclass(frozen=True)
class TrainingFolder:
    """A folder and the one experiment that may be trained in it.

    Attributes:
        path: the folder.
        experiment: the resolved file.
        files: digests of the workloads' files by their names in the experiment.
    """

    path: Path
    experiment: str
    files: Mapping[str, str]

    def check_free(self, overwrite: bool) -> None:
        """Refuse a folder that holds another run, or no run but other files; nothing is written.

        Raises:
            ConfigError: it does; another run may be overwritten, other files never.
        """
        check_run_folder(self.path)
        held = [name for name in ALL_FILES if (self.path / name).exists()]
        if held and not overwrite:
            raise ConfigError(
                f"{self.path} already holds a run ({held[0]}); use --resume, --overwrite or another --out"
            )

    def check_resumable(self) -> None:
        """Refuse a folder that no training of this experiment can be continued in.

        Raises:
            ConfigError: there is no checkpoint, or the experiment or a file of its workloads has changed.
        """
        if not (self.path / CHECKPOINT_FILE).is_file():
            raise ConfigError(
                f"{self.path}: there is no checkpoint to resume from; train anew (--overwrite replaces a run)"
            )
        recorded = self.path / EXPERIMENT_FILE
        if not recorded.is_file() or recorded.read_text(encoding="utf-8") != self.experiment:
            told = _first_difference(recorded, self.experiment)
            raise ConfigError(
                f"{self.path}: the experiment differs from the one recorded there{told}; resume with the same file"
            )
        begun_with = read_record(self.path / RECORD_FILE).get("files", self.files)
        for name, digest in self.files.items():
            if begun_with.get(name) != digest:
                raise ConfigError(
                    f"{name} has changed since {self.path} was begun; resume with the file as it was, "
                    "or train anew with --overwrite"
                )

    def claim(self, about: Mapping[str, Any]) -> None:
        """Make the folder, which is there, this run's: what an earlier one left in it goes.

        A kill at any moment leaves a folder that `check_run_folder` knows: an earlier run's record and experiment stay
        until this one's take their places, and in a new folder the record is first.
        """
        for name in ALL_FILES:
            if name not in (EXPERIMENT_FILE, RECORD_FILE):
                remove_all_of(self.path / name)
        self._write_record("running", _now(), about)
        write_atomically(self.path / EXPERIMENT_FILE, self.experiment)

    def record(self, status: Status, about: Mapping[str, Any]) -> None:
        """Write run.json: what the run is made of, and how far it has come; the time it began stays."""
        self._write_record(status, read_record(self.path / RECORD_FILE).get("begun", _now()), about)

    def close(self, status: Status) -> None:
        """Say in run.json what became of a training that it calls running; all else stays."""
        path = self.path / RECORD_FILE
        with suppress(OSError, LeptonError):  # an error is on its way already
            record = read_record(path)
            if record.get("status") == "running":
                write_json(path, {**record, "status": status, "written": _now()})

    def _write_record(self, status: Status, begun: str, about: Mapping[str, Any]) -> None:
        value = {"status": status, "begun": begun, "written": _now(), **about, "files": self.files, **provenance()}
        write_json(self.path / RECORD_FILE, value)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def digests(names: Sequence[str | None]) -> dict[str, str]:
    """Return a digest of each workload file that exists; None stands for a generated workload."""
    paths = {name: resolve_data_path(name, Path()) for name in names if name is not None}
    return {name: digest_of(path) for name, path in sorted(paths.items()) if path.is_file()}


def _first_difference(recorded: Path, experiment: str) -> str:
    """Return in words the first key in which two resolved experiments differ; nothing where that cannot be told."""
    try:
        then, now = (_flat(yaml.safe_load(text)) for text in (recorded.read_text(encoding="utf-8"), experiment))
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    for key in (*now, *then):
        if then.get(key) != now.get(key):
            return f" in {key}: {shown(then.get(key))} there, {shown(now.get(key))} now"
    return ""


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings and lists by their dotted keys."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inside is None:
        return {key: value}
    return {name: leaf for part, entry in inside for name, leaf in _flat(entry, f"{key}.{part}".lstrip(".")).items()}
