"""The few rows of real traces that the tests compare figures on, read in the plainest way."""

import csv
import gzip
import os
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.reference.simulator import Job

REPOSITORY = Path(__file__).resolve().parents[2]


class SwfRow(NamedTuple):
    id: int
    submit: float
    run: float
    requested: float
    procs: int


def data_file(name: str) -> Path:
    """The path of a file of the data folder; the test is skipped where there is no such folder."""
    folder = Path(os.environ.get("LEPTON_RL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no folder of real traces at {folder}; set LEPTON_RL_DATA")
    return folder / name


def swf_rows(name: str) -> list[SwfRow]:
    """The jobs of an SWF file by the row rules of the published RLScheduler evaluation."""
    rows = []
    with gzip.open(data_file(name), "rt") as file:
        for line in file:
            if line.strip() and not line.startswith(";"):
                field = [float(text) for text in line.split()]
                run = field[3] if field[3] >= 0 else 10.0
                requested = field[8] if field[8] != -1 else run
                rows.append(SwfRow(int(field[0]), field[1], run, requested, int(max(field[4], field[7]))))
    return sorted(row for row in rows if row.run > 0)


def philly_jobs(count: int) -> list[Job]:
    """The first jobs of the Philly trace by submit time; 0 is the first one's."""
    with gzip.open(data_file("philly/philly.csv.gz"), "rt") as file:
        rows = [(datetime.fromisoformat(row["timestamp"]), row) for row in csv.DictReader(file)]
    rows = sorted(rows, key=lambda pair: pair[0])[:count]
    jobs = []
    for number, (stamp, row) in enumerate(rows):
        run = float(row["duration"])
        submit = (stamp - rows[0][0]).total_seconds()
        jobs.append(Job(number, submit, run, requested=run, gpus=float(row["num_gpus"])))
    return jobs
