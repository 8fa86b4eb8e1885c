"""Saved traces: NumPy's .npz, or Parquet for tools that read it."""

import importlib
import json
import zipfile
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lepton_rl.core.atomic import replacing
from lepton_rl.errors import TraceError, missing_extra
from lepton_rl.workloads.columns import ASKED, COLUMNS
from lepton_rl.workloads.dependencies import AFTER, edges_of_lists, predecessor_lists
from lepton_rl.workloads.files import read_bytes
from lepton_rl.workloads.trace import Dropped, MachineHeader, Trace

FORMAT = 1
SUFFIXES = (".npz", ".parquet")
_META = "lepton_rl"


def save_trace(trace: Trace, path: Path) -> None:
    """Write `trace`; the file appears whole or not at all."""
    if path.suffix not in SUFFIXES:
        raise TraceError(f"{path}: a trace is saved as {' or '.join(SUFFIXES)}; use write_csv for a CSV")
    arrays: dict[str, Any] = {column: getattr(trace, column) for column in COLUMNS}
    arrays |= {name + ASKED: array for name, array in trace.asks.items()}
    meta = json.dumps(
        {
            "format": FORMAT,
            "name": trace.name,
            "labels": {column: list(names) for column, names in trace.labels.items()},
            "origin": trace.origin,
            "machine": asdict(trace.machine) if trace.machine else None,
            "requested": trace.requested,
            "dropped": [asdict(entry) for entry in trace.dropped],
            "notes": list(trace.notes),
        }
    )
    pyarrow = _pyarrow() if path.suffix == ".parquet" else None
    try:
        with replacing(path) as draft, draft.open("wb") as file:
            if pyarrow is None:
                stored: dict[str, Any] = {**arrays, _META: np.array(meta)}
                if len(trace.after):
                    stored[AFTER] = trace.after
                np.savez(file, **stored)
            else:
                if len(trace.after):
                    arrays[AFTER] = predecessor_lists(trace.after, len(trace))
                table = pyarrow.table(arrays).replace_schema_metadata({_META: meta})
                importlib.import_module("pyarrow.parquet").write_table(table, file)
    except OSError as error:
        raise TraceError(f"{path}: cannot be written: {error.strerror or error}") from None


def load_trace(path: Path) -> Trace:
    """Read what `save_trace` wrote, and check it as if it were new."""
    if path.suffix == ".parquet":
        arrays, text = _read_parquet(path)
    else:
        arrays, text = _read_npz(path)
    try:
        meta = json.loads(text)
        if meta["format"] != FORMAT:
            raise TraceError(f"{path}: saved in format {meta['format']}; this version reads format {FORMAT}")
        edges = arrays.pop(AFTER, ())
        return Trace.from_columns(
            arrays,
            edges=edges,
            name=meta["name"],
            labels=meta["labels"],
            origin=meta["origin"],
            machine=MachineHeader(**meta["machine"]) if meta["machine"] else None,
            requested=meta["requested"],
            dropped=[Dropped(d["reason"], d["count"], tuple(d["examples"])) for d in meta["dropped"]],
            notes=meta["notes"],
            locate=lambda row: f"{path}: row {row + 1}",
        )
    except (KeyError, TypeError, ValueError):
        raise TraceError(f"{path}: not a trace saved by lepton_rl: its description is damaged") from None


def _columns(stored: Collection[str]) -> list[str]:
    """Return the columns to read; those that came later are not in traces saved before."""
    later = ("deadline", "job_class", "gpu_type", "stage", "gpu_utilization")
    asked = [column for column in stored if column.endswith(ASKED)]
    return [column for column in COLUMNS if column not in later or column in stored] + asked


def _read_npz(path: Path) -> tuple[dict[str, Any], str]:
    read_bytes(path, limit=4)  # names a missing file or a folder before NumPy does
    try:
        # opened here: NumPy leaves a damaged file open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {column: stored[column] for column in _columns(stored.files)}
            if AFTER in stored.files:
                arrays[AFTER] = stored[AFTER]
            return arrays, str(stored[_META])
    except (KeyError, ValueError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile):
        raise TraceError(f"{path}: not a trace saved by lepton_rl, or cut short") from None


def _read_parquet(path: Path) -> tuple[dict[str, Any], str]:
    read_bytes(path, limit=4)
    pyarrow = _pyarrow()
    try:
        table = importlib.import_module("pyarrow.parquet").read_table(path)
        arrays: dict[str, Any] = {column: table[column].to_numpy() for column in _columns(table.column_names)}
        if AFTER in table.column_names:
            arrays[AFTER] = edges_of_lists(table[AFTER].to_pylist())
        return arrays, table.schema.metadata[_META.encode()].decode()
    except (KeyError, TypeError, UnicodeDecodeError, OSError, pyarrow.ArrowException):
        raise TraceError(f"{path}: not a trace saved by lepton_rl, or cut short") from None


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise missing_extra("pyarrow", "parquet") from None
