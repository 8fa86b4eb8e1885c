"""Rows of the daemon of a node, on eight GPUs of the fake driver: what it costs as it watches, how fast it answers.

The driver is fake: what a real one takes for its answers is not in these figures.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, at_least, at_most
from lepton_rl.node.client import NodeClient
from lepton_rl.node.jobs import JobState
from lepton_rl.node.journal import Journal
from lepton_rl.node.paths import JOURNAL, SOCKET
from tests.fake_nvml import FakeNvml, build_fake_nvml, compiler
from tests.fake_nvml.control import VARIABLE

GPUS = 8
WAITING = 200
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def _daemon() -> Iterator[tuple[Path, int]]:
    """A daemon on the fake driver: its state folder and its process."""
    folder = Path(tempfile.mkdtemp())
    environment = {**os.environ, VARIABLE: str(folder / "nvml")}
    state = folder / "n"
    try:
        with FakeNvml(folder / "nvml", gpus=GPUS):
            library = build_fake_nvml(folder / "driver")
            (folder / "node.yaml").write_text(
                f"policy: {{name: saf, blocking: easy}}\ndevices: {{library_path: {library}}}\n"
            )
            words = ["node", "start", "--config", str(folder / "node.yaml"), "--state", str(state)]
            subprocess.run([sys.executable, "-m", "lepton_rl.cli", *words], env=environment, check=True)
            with NodeClient(state / SOCKET) as client:
                pid = int(client.call("ping")["pid"])
            yield state, pid
            _end(state, pid)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end(state: Path, pid: int) -> None:
    """End the daemon and what it runs."""
    os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
    with Journal(state / JOURNAL, read_only=True) as journal:
        for record in journal.jobs([JobState.RUNNING, JobState.STARTING]):
            supervisor = journal.run(record.id).supervisor_pid
            if supervisor is not None:
                with suppress(ProcessLookupError):
                    os.kill(supervisor, signal.SIGUSR2)


def _cpu_seconds(pid: int) -> float:
    columns = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(columns[11]) + int(columns[12])) / TICKS


def _resident_mib(pid: int, key: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return float("nan")


def _job(seconds: float, gpus: float = 1.0, **more: Any) -> tuple[str, dict[str, Any]]:
    return "submit", {"argv": ["sleep", str(seconds)], "cwd": "/", "gpus": gpus, "requested_s": seconds, **more}


def _least_seconds(call: Callable[[], object], repeats: int) -> float:
    least = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - began)
    return least


def daemon(quick: bool) -> Iterator[Row]:
    """What a daemon costs while it watches, and how fast it takes jobs and answers."""
    if compiler() is None:
        print(" left out: the fake driver needs a C compiler", file=sys.stderr, end="")
        return
    seconds, many = (3.0, 500) if quick else (60.0, 10_000)
    with _daemon() as (state, pid), NodeClient(state / SOCKET, timeout_s=None) as client:
        list(client.call_each([_job(100_000.0) for _ in range(GPUS + WAITING)]))
        while client.call("status")["jobs"]["running"] < GPUS:
            time.sleep(0.1)
        time.sleep(2.0)
        before, began = _cpu_seconds(pid), time.perf_counter()
        time.sleep(seconds)
        share = (_cpu_seconds(pid) - before) / (time.perf_counter() - began)
        yield Row(
            f"daemon that watches {GPUS} GPUs, {GPUS} running and {WAITING} waiting jobs", 100 * share, "% of a core",
            at_most(1.0), details={"seconds watched": seconds},
        )  # fmt: skip
        own, shared = _resident_mib(pid, "Private_Dirty:"), _resident_mib(pid, "Pss:")
        yield Row(
            "daemon, memory", _resident_mib(pid, "Rss:"), "MiB", at_most(150.0),
            details={"its own, MiB": own, "in proportion, MiB": shared},
        )  # fmt: skip
        decision = client.call("status")["decision_p50_s"]
        yield Row("daemon, one decision (saf, EASY), median, thread and checks not counted", 1e6 * decision, "µs")
        later = {"begin_time": time.time() + 86_400.0}
        count = 100 if quick else 1000
        began = time.perf_counter()
        for _ in range(count):
            list(client.call_each([_job(1.0, **later)]))
        one_by_one = count / (time.perf_counter() - began)
        yield Row(
            "submit over one connection, each acknowledged before the next", one_by_one, "jobs/s", at_least(200.0)
        )
        began = time.perf_counter()
        list(client.call_each([_job(1.0, **later) for _ in range(many)]))
        at_once = many / (time.perf_counter() - began)
        yield Row(f"submit of {many:,} jobs at once over one connection", at_once, "jobs/s")
        status, queue = (_least_seconds(lambda verb=verb: client.call(verb), 5) for verb in ("status", "queue"))  # type: ignore[misc]
        jobs = many + count + WAITING + GPUS
        yield Row(f"status with {jobs:,} jobs", 1e3 * status, "ms", at_most(200.0), details={"queue, ms": 1e3 * queue})
    yield from _burst(quick)


def _burst(quick: bool) -> Iterator[Row]:
    """How fast a daemon answers while it starts many short jobs that came at once."""
    count = 200 if quick else 1000
    with _daemon() as (state, _), NodeClient(state / SOCKET, timeout_s=None) as client:
        list(client.call_each([_job(1.0, 0.1) for _ in range(count)]))
        began, done = time.perf_counter(), 0
        seconds: list[float] = []
        while done < count:
            asked = time.perf_counter()
            done = client.call("status")["jobs"]["done"]
            seconds.append(time.perf_counter() - asked)
            time.sleep(0.05)
        seconds.sort()
        yield Row(
            f"status while {count:,} jobs start", 1e3 * seconds[-1], "ms", at_most(500.0),
            details={
                "median, ms": 1e3 * seconds[len(seconds) // 2],
                "jobs/s from start to end": count / (time.perf_counter() - began),
            },
        )  # fmt: skip
