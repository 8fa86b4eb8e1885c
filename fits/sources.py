"""Readers of the measurements: single and paired throughputs, epoch times under power limits, placements, prices."""

import ast
import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Job = tuple[str, int]
"""A job of gavel_throughputs: model with batch size, number of GPUs."""


@dataclass(frozen=True, slots=True)
class ZeusRow:
    """One setting of zeus_power: a job, a power limit, and what they took."""

    gpu: str
    dataset: str
    network: str
    batch_size: int
    optimizer: str
    limit_w: float
    epoch_seconds: float
    power_w: float

    @property
    def job(self) -> tuple[str, str, int, str]:
        """What was trained, and how."""
        return self.dataset, self.network, self.batch_size, self.optimizer


ZEUS_GPUS = {"p100": "P100-PCIe", "v100": "V100-PCIe-32GB", "rtx6000": "Quadro RTX 6000", "a40": "A40"}
"""Files of zeus_power by the GPU type of the catalogue."""


def zeus_rows(data: Path) -> list[ZeusRow]:
    """Return every setting of zeus_power."""
    return [
        ZeusRow(
            gpu,
            row["dataset"],
            row["network"],
            int(row["batch_size"]),
            row["optimizer"],
            float(row["power_limit"]),
            float(row["time_per_epoch"]),
            float(row["average_power"]),
        )
        for file, gpu in ZEUS_GPUS.items()
        for row in csv_rows(data / "zeus_power" / f"summary_power_{file}.csv")
    ]


def gavel_throughputs(data: Path, file: str) -> dict[str, dict[Job, dict[Job | None, Any]]]:
    """Return gavel's steps per second by GPU type, job, and the job beside it; None stands for none."""
    with gzip.open(data / file, "rt", encoding="utf-8") as text:
        stored = json.load(text)
    return {
        gpu: {
            ast.literal_eval(job): {
                None if beside == "null" else ast.literal_eval(beside): speed for beside, speed in entries.items()
            }
            for job, entries in jobs.items()
        }
        for gpu, jobs in stored.items()
    }


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)
