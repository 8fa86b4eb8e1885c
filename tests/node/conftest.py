"""A journal and a place for runs, for the tests of the node."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lepton_rl.node.cgroup import Cgroups, cgroup2_mount
from lepton_rl.node.events import RunEvent
from lepton_rl.node.jobs import JobRequest
from lepton_rl.node.journal import Journal
from lepton_rl.node.runs import Runs
from tests.fake_nvml import FakeNvml
from tests.fake_nvml.control import VARIABLE
from tests.fake_nvml.fixtures import devices, fake, fake_library

__all__ = ["devices", "fake", "fake_library"]
PATIENCE_S = 30.0  # for what a busy machine does late


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for: {what}"
        time.sleep(0.005)


def shell(script: str, **settings: object) -> JobRequest:
    """Return a job that runs a shell script for a short grace."""
    values: dict[str, object] = {"cwd": "/", "env": {"PATH": os.environ["PATH"]}, "stop_grace_s": 5.0} | settings
    return JobRequest(argv=("sh", "-c", script), **values)  # type: ignore[arg-type]


def fill_disk(ballast: Path, leave: int = 0) -> None:
    """Write a file until its disk is full, then give some bytes back."""
    with ballast.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(file.tell() - leave)


def drain(runs: Runs) -> list[RunEvent]:
    """Wait by the descriptor, as the daemon does, until no run is watched; return the events."""
    events: list[RunEvent] = []
    deadline = time.monotonic() + PATIENCE_S
    while runs.watching():
        assert time.monotonic() < deadline, f"still running: {runs.watching()}"
        select.select([runs], [], [], 1.0)
        events += runs.poll()
    return events


class Node:
    """A state folder whose daemon can be ended, as by kill -9, and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder / "journal.sqlite", now=time.time())
        self.runs = Runs(folder, self.journal)

    def crash(self) -> None:
        """Forget all that is only in memory."""
        self.runs.close()
        self.journal.close()

    def restart(self) -> list[RunEvent]:
        """Start the next daemon; return what it found."""
        self.journal = Journal(self.folder / "journal.sqlite")
        self.runs = Runs(self.folder, self.journal)
        return self.runs.adopt()

    def start(self, request: JobRequest, gpus: tuple[str, ...] = ("GPU-a",)) -> int:
        """Submit a job and launch it."""
        job = self.journal.submit(request, time.time())
        self.runs.launch(job, gpus)
        return job

    def run_to_end(self, request: JobRequest) -> int:
        """Submit a job, launch it, and wait for its end."""
        job = self.start(request)
        drain(self.runs)
        return job

    def wait_for_output(self, job: int, text: str, run: int = 1) -> None:
        """Wait until a job has written something to its stdout."""
        out = self.runs.folder(job, run) / "stdout"
        until(lambda: out.exists() and text in out.read_text(), f"{text!r} in {out}")

    def supervisor(self, job: int) -> int:
        """Wait until a job has started and return the number of its supervisor."""
        until(lambda: bool(self.runs.poll()) or self.journal.run(job).supervisor_pid is not None, "a start")
        pid = self.journal.run(job).supervisor_pid
        assert pid is not None
        return pid


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """An empty node; what is left running at the end is killed."""
    node = Node(tmp_path)
    yield node
    for run in node.journal.holding():
        for pid in (run.supervisor_pid, run.child_pid):
            if pid is not None:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
    node.crash()


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    """A parent group of this test's own."""
    mounted = cgroup2_mount()
    if mounted is None:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    parent = mounted / f"lepton-test-{os.getpid()}"
    try:
        found = Cgroups(parent)
    except OSError as error:
        pytest.skip(f"the cgroup v2 hierarchy is not ours to write: {error}")
    yield found
    for group in parent.iterdir():
        if group.is_dir():
            found.remove(group.name)
    parent.rmdir()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False).returncode == 0
    )
    if not mounted:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a failed test may leave a process on it


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    """A fake driver with four GPUs."""
    with FakeNvml(tmp_path / "nvml-state", gpus=4) as fake:
        monkeypatch.setenv(VARIABLE, str(fake.path))
        yield fake
