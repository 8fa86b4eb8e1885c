"""Rows of the command line: a whole `simulate` process, and `--help`."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.rows import Row, at_most
from benchmarks.timing import children_cpu_seconds
from benchmarks.workloads import workload
from lepton_rl.workloads.swf import write_swf

RULES = (("FCFS, head", ("fcfs", "head"), 8.0), ("SJF + EASY", ("sjf", "easy"), 15.0))


def _run(arguments: Sequence[str]) -> tuple[float, float]:
    """Run one command and return its (CPU seconds, wall seconds), the interpreter's start included."""
    before, began = children_cpu_seconds(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lepton_rl.cli", *arguments], check=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return children_cpu_seconds() - before, time.perf_counter() - began


def _best(arguments: Sequence[str], repeats: int) -> tuple[float, float]:
    """Return a command's least (CPU seconds, wall seconds), after one run that fills the caches."""
    _run(arguments)
    runs = [_run(arguments) for _ in range(repeats)]
    return min(cpu for cpu, _ in runs), min(wall for _, wall in runs)


def simulate_process(quick: bool) -> Iterator[Row]:
    """CPU seconds of `lepton-rl simulate` on an SWF file of a million rows."""
    jobs = 20_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.swf"
        write_swf(workload(jobs, 512, 0.9), path)
        size = path.stat().st_size / 1e6
        for name, (policy, blocking), most in RULES:
            arguments = (
                "simulate", "--trace", os.fspath(path), "--policy", policy, "--blocking", blocking,
                "--nodes", "64", "--gpus-per-node", "8", "--json",
            )  # fmt: skip
            cpu, wall = _best(arguments, 1 if quick else 2)
            yield Row(
                f"lepton-rl simulate, SWF of {jobs:,} rows, {name}, whole process",
                cpu,
                "CPU-s",
                at_most(most),
                details={"wall, s": wall, "file, MB": size},
            )


def help_screen(quick: bool) -> Iterator[Row]:
    """Seconds until `lepton-rl --help` has printed."""
    cpu, wall = _best(("--help",), 2 if quick else 7)
    yield Row("lepton-rl --help", wall, "s", at_most(0.5), details={"CPU-s": cpu})
