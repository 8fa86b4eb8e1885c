"""Readers of measured pairs of jobs on one GPU, for `PairTable`.

Three forms are known: Lucid's `colocate_info.csv`, Gavel's throughput JSON (jobs of one GPU), and a plain CSV
`job1,speed1,job2,speed2` with speeds relative to running alone. Speeds above 1 count as 1.
"""

import ast
import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lepton_rl.core.hardware.interference import PairTable, pair_table
from lepton_rl.errors import TraceError, nearest
from lepton_rl.workloads.files import read_text

Pair = tuple[str, str]
PLAIN = ("job1", "speed1", "job2", "speed2")
LUCID = ("model", "dataset", "batchsize", "amp", "speed")


def read_pair_table(path: Path, gpu: str | None = None) -> PairTable:
    """Read measured pairs; pairs measured more than once are averaged.

    Args:
        path: plain or gzip.
        gpu: which GPU type of a Gavel file to read ("v100", ...); other forms hold one.

    Raises:
        TraceError: the file is none of the three forms, or a value in it is wrong.
    """
    text = read_text(path)
    found = _gavel(path, text, gpu) if text.lstrip().startswith("{") else _csv(path, text)
    speeds: dict[Pair, list[tuple[float, float]]] = defaultdict(list)
    for pair, both in found:
        speeds[pair].append(both)
    if not speeds:
        raise TraceError(f"{path}: there are no pairs in it")
    return pair_table({pair: _mean(values) for pair, values in speeds.items()})


def _mean(values: list[tuple[float, float]]) -> tuple[float, float]:
    first, second = zip(*values, strict=True)
    return sum(first) / len(first), sum(second) / len(second)


def _csv(path: Path, text: str) -> Iterator[tuple[Pair, tuple[float, float]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        lucid = all(f"{name}{number}" in header for name in LUCID for number in (1, 2))
        missing = [name for name in PLAIN if name not in header]
        if missing and not lucid:
            raise TraceError(f"{path}:1: column {missing[0]!r} is missing; required: {', '.join(PLAIN)}")
        reader.fieldnames = header
        for row in reader:
            place = f"{path}:{reader.line_num}"
            names = [_lucid_name(row, number) if lucid else row[f"job{number}"] for number in (1, 2)]
            speeds = [_speed(place, row[f"speed{number}"]) for number in (1, 2)]
            yield (names[0], names[1]), (speeds[0], speeds[1])
    except csv.Error as error:
        raise TraceError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _lucid_name(row: Mapping[str, str], number: int) -> str:
    precision = " amp" if row[f"amp{number}"] == "1" else ""
    return f"{row[f'model{number}']} {row[f'dataset{number}']} batch {row[f'batchsize{number}']}{precision}"


def _speed(place: str, text: str | None) -> float:
    try:
        speed = float(text or "")
    except ValueError:
        speed = math.nan
    if not 0 <= speed < math.inf:
        raise TraceError(f"{place}: a speed must be a number from 0 upwards, not {text!r}")
    return speed


def _gavel(path: Path, text: str, gpu: str | None) -> Iterator[tuple[Pair, tuple[float, float]]]:
    try:
        stored: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise TraceError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    if gpu is None:
        raise TraceError(f"{path}: this file holds several GPU types; name one of: {', '.join(stored)}")
    if gpu not in stored:
        raise TraceError(f"{path}: no GPU type is called {gpu!r}{nearest(gpu, stored)}; known: {', '.join(stored)}")
    try:
        yield from _gavel_pairs(stored[gpu])
    except (KeyError, TypeError, ValueError, SyntaxError):
        raise TraceError(f"{path}: not a table of throughputs as Gavel publishes it") from None


def _gavel_pairs(table: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Pair, tuple[float, float]]]:
    for job, entries in table.items():
        name, gpus = ast.literal_eval(job)
        for beside, speeds in entries.items():
            if beside == "null" or gpus != 1:
                continue
            other, other_gpus = ast.literal_eval(beside)
            alone = entries["null"], table[beside]["null"]
            if other_gpus == 1 and min(alone) > 0:
                yield (name, other), (float(speeds[0]) / alone[0], float(speeds[1]) / alone[1])
