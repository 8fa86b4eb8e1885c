"""One way in for every format: what a workload file is, is seen from its content."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lepton_rl.errors import ConfigError, TraceError, nearest
from lepton_rl.workloads.files import read_bytes
from lepton_rl.workloads.pai import PAI_COLUMNS, read_pai
from lepton_rl.workloads.philly import PHILLY_COLUMNS, read_philly
from lepton_rl.workloads.plain_csv import PLAIN_COLUMNS, read_csv
from lepton_rl.workloads.swf import read_swf
from lepton_rl.workloads.trace import Trace

DATA_VARIABLE = "LEPTON_RL_DATA"
DATA_PREFIX = "data:"

_HEAD_BYTES = 65536
_NUMBERS = re.compile(r"([-+.\d]+\s+){4}")  # a row of SWF has 18


@dataclass(frozen=True)
class Format:
    """A kind of workload file: what a person calls it, and who reads it."""

    help: str
    read: Callable[[str | Path], Trace]


FORMATS = {
    "swf": Format("Standard Workload Format, 18 numbers in each row", read_swf),
    "philly": Format(f"CSV with columns {','.join(PHILLY_COLUMNS)}", read_philly),
    "pai": Format(f"CSV with columns {','.join(PAI_COLUMNS)}", read_pai),
    "csv": Format("plain CSV, see: lepton-rl traces template", read_csv),
    "npz": Format("a trace saved by lepton_rl", Trace.load),
    "parquet": Format("a trace saved by lepton_rl", Trace.load),
}


def read_trace(path: str | Path, format: str | None = None) -> Trace:
    """Read a workload file, plain or gzip; the format is seen from the content unless it is named."""
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise ConfigError(
            f"no trace format is called {format!r}{nearest(format, FORMATS)}; known: {', '.join(FORMATS)}"
        )
    return FORMATS[format or detect_format(path)].read(path)


def detect_format(path: Path) -> str:
    """Return the key in FORMATS that the file's first lines show."""
    head = read_bytes(path, limit=_HEAD_BYTES)
    if head.startswith(b"PK\x03\x04"):
        return "npz"
    if head.startswith(b"PAR1"):
        return "parquet"
    if not head.strip():
        raise TraceError(f"{path}: the file is empty")
    text = head.decode("utf-8-sig", "replace")
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if first.startswith(";") or _NUMBERS.match(first):
        return "swf"
    names = {name.strip().strip('"') for name in first.split(",")}
    if names >= {"timestamp", "duration"}:
        return "philly"
    if names >= {"arrival_time", "length"}:
        return "pai"
    if names & {column.name for column in PLAIN_COLUMNS}:
        return "csv"
    named = Path(path.name.removesuffix(".gz")).suffix.removeprefix(".")
    if named in FORMATS:  # its reader says what is wrong with it, and in which line
        return named
    known = "; ".join(f"{key}: {form.help}" for key, form in FORMATS.items())
    raise TraceError(f"{path}: the format is not known from the first lines. Known formats: {known}")


def data_folder() -> Path | None:
    """Return the folder of real traces: LEPTON_RL_DATA, else ../shared/data; None where there is none."""
    named = os.environ.get(DATA_VARIABLE)
    if named:
        places = [Path(named)]
    else:
        repository = Path(__file__).resolve().parents[2]
        places = [Path.cwd() / "../shared/data", repository / "../shared/data"]
    return next((place.resolve() for place in places if place.is_dir()), None)


def resolve_data_path(text: str, relative_to: Path) -> Path:
    """Return the path that `text` means: "data:REST" is in the data folder, others start at `relative_to`."""
    if not text.startswith(DATA_PREFIX):
        return Path(relative_to) / Path(text).expanduser()
    folder = data_folder()
    if folder is None:
        named = os.environ.get(DATA_VARIABLE)
        found = f"{DATA_VARIABLE} is {named!r}, which is no folder" if named else "there is no ../shared/data"
        raise TraceError(
            f"{text}: {found}; set {DATA_VARIABLE} to the folder that holds philly/, hpc_swf/ and the others"
        )
    return folder / text.removeprefix(DATA_PREFIX)
