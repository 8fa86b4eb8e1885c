"""Many small measurements in parallel: written as they finish, continued where they stopped."""

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lepton_rl.core.atomic import replacing
from lepton_rl.errors import ConfigError
from lepton_rl.experiments.runs import say

_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_FEWEST_TO_SHARE = 8  # below that, starting a process costs more than it saves


@dataclass(frozen=True, slots=True)
class Contender:
    """Who is measured: one line of a table. No two of a benchmark have the same label, or all else the same.

    Attributes:
        label: in tables and pictures.
        policy: the policy's bare name, or the label that the experiment file gives it.
        rule: when the policy decides: "repick" anew at each event, or a published protocol's.
        blocking: in force; None where the policy decides without one.
        placement: in force; None where the policy chooses GPUs itself.
    """

    label: str
    policy: str
    rule: str
    blocking: str | None
    placement: str | None


@dataclass(frozen=True, slots=True)
class Task:
    """One measurement: who, on which window."""

    contender: Contender
    workload: str
    seed: int
    window: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """A finished task: its metrics, and its jobs' completion times as counts on a log grid."""

    task: Task
    metrics: dict[str, float]
    jct_counts: list[int]
    seconds: float

    def line(self) -> str:
        """Return one line of JSON."""
        task = self.task
        plain = asdict(task.contender) | {
            "workload": task.workload,
            "seed": task.seed,
            "window": task.window,
            "metrics": self.metrics,
            "jct_counts": self.jct_counts,
            "seconds": self.seconds,
        }
        return json.dumps(plain) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "Measurement":
        """Read what `line` wrote; ValueError, KeyError, TypeError or AttributeError if it is something else."""
        plain = json.loads(line)
        where = [plain.pop(name) for name in ("workload", "seed", "window")]
        rest = [plain.pop(name) for name in ("metrics", "jct_counts", "seconds")]
        return cls(Task(Contender(**plain), *where), *rest)


class Bench(Protocol):
    """What a worker process holds: everything that tasks speak of. It must be picklable."""

    def measure(self, task: Task) -> Measurement:
        """Carry out one task."""


def run_tasks(
    bench: Bench, tasks: Sequence[Task], rows_file: Path, processes: int | None, console: Console
) -> list[Measurement]:
    """Measure every task that `rows_file` does not hold yet, and return all measurements in the tasks' order.

    Raises:
        ConfigError: `rows_file` holds a line that is no row.
        LeptonError: a policy or workload cannot be used; what was measured before is kept.
    """
    done = _read_rows(rows_file, set(tasks))
    left = [task for task in tasks if task not in done]
    if done:
        say(console, f"{len(done):,} of {len(tasks):,} rows are there already")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(processes or available, max(1, len(left) // _FEWEST_TO_SHARE))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with rows_file.open("a", encoding="utf-8") as file, Progress(*columns, console=console) as progress:
            bar = progress.add_task("benchmark", total=len(tasks), completed=len(done))
            for measurement in _measured(bench, left, count):
                file.write(measurement.line())
                file.flush()
                done[measurement.task] = measurement
                progress.update(
                    bar, advance=1, description=f"{measurement.task.contender.label} on {measurement.task.workload}"
                )
            progress.update(bar, description="benchmark")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"finished rows are kept, --out {rows_file.parent} goes on from here") from None
    return [done[task] for task in tasks]


def _measured(bench: Bench, tasks: Sequence[Task], processes: int) -> Iterator[Measurement]:
    if processes == 1 or not tasks:
        yield from map(bench.measure, tasks)
        return
    # spawned, not forked: a process that has run numba or torch threads does not survive a fork
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with _one_thread_each(), ProcessPoolExecutor(processes, context, _start_worker, (bench,)) as pool:
        try:
            with _interrupts_held():  # a Ctrl-C is for the parent, which ends its workers
                futures = [pool.submit(_measure, task) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise ConfigError(
                "a worker process died (out of memory?); try processes=1, finished rows are kept"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back until this is done; processes that are begun meanwhile never hear of it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "pthread_sigmask"):  # no thread that it reaches, or no POSIX
        yield
        return
    came: list[int] = []
    # Both: the mask is what new processes inherit, and another thread of this one may still take the signal.
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


_bench: Bench


def _start_worker(bench: Bench) -> None:
    global _bench
    _bench = bench
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be held back
    sys.stdout = sys.stderr  # standard output is for results alone, and a user's policy may print


def _measure(task: Task) -> Measurement:
    return _bench.measure(task)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Limit the workers' numeric libraries to one thread while they start: they share the cores."""
    before = {name: os.environ.get(name) for name in _THREAD_LIMITS}
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _read_rows(file: Path, wanted: set[Task]) -> dict[Task, Measurement]:
    """Return the finished rows; a last line without its end was cut short and is dropped from the file.

    Raises:
        ConfigError: another line is no row.
    """
    if not file.is_file():
        return {}
    done: dict[Task, Measurement] = {}
    *lines, rest = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            measurement = Measurement.from_line(line.decode())
            if measurement.task in wanted:
                done[measurement.task] = measurement
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(
                f"{file}: line {number} is no row that this version of lepton_rl writes (written by another version, "
                "or damaged); choose another --out"
            ) from None
    if rest:
        with replacing(file) as draft:
            draft.write_bytes(b"".join(line + b"\n" for line in lines))
    return done
