"""Daemons as an operator has them: processes, started and asked by the command line, on a fake driver."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import BytesIO, TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lepton_rl.cli import main
from lepton_rl.errors import JournalError
from lepton_rl.node.client import NodeClient
from lepton_rl.node.journal import Journal
from lepton_rl.node.paths import JOURNAL, SOCKET
from lepton_rl.node.processes import Process
from tests.fake_nvml import FakeNvml

PATIENCE_S = 600.0  # the first daemon on a machine compiles


class DaemonNode:
    """The state folder of a node and the commands on it."""

    def __init__(self, folder: Path, fake: FakeNvml, library: Path, config: str = "") -> None:
        self.folder, self.state, self.fake = folder, folder / "node", fake
        self.environment = fake.environment(library) | {"LEPTON_RL_NODE": str(self.state)}
        self.environment.pop("PYTHONWARNINGS", None)
        self.config = folder / "node.yaml"
        self.config.write_text(config or "policy: {name: fcfs, blocking: easy}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        if (self.state / JOURNAL).is_file():
            with suppress(JournalError):  # some tests damage it
                self.kill_jobs()

    def kill_jobs(self) -> None:
        """Kill what still runs."""
        with Journal(self.state / JOURNAL) as journal:
            for run in journal.holding():
                for pid, ticks in ((run.supervisor_pid, run.supervisor_ticks), (run.child_pid, run.child_ticks)):
                    if pid is not None and ticks is not None:
                        Process(pid, ticks, run.boot_id).signal(signal.SIGKILL)

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, in this process: importing all anew for each would take most of the time."""
        out, err = (TextIOWrapper(BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with self._its_environment(), chdir(self.folder), redirect_stdout(out), redirect_stderr(err):
            code = main(words)
        said, complained = (stream.detach().getvalue().decode() for stream in (out, err))
        return subprocess.CompletedProcess(words, code, said, complained)

    def process(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command as a process of its own, under the fake driver."""
        return subprocess.run(
            [sys.executable, "-m", "lepton_rl.cli", *words],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip

    @contextmanager
    def _its_environment(self) -> Iterator[None]:
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def node(self, *words: str) -> str:
        """Run a command of `lepton-rl node` that must do; return what it prints."""
        done = self.command("node", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *words: str) -> str:
        """Run a command that must be refused by one sentence and exit code 2; return the sentence."""
        run = self.process if words[0] == "deploy" else self.command
        done = run(*words)
        assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")

    def start(self, *words: str) -> None:
        """Start the daemon."""
        self.node("start", "--config", str(self.config), *words)

    def submit(self, *words: str) -> int:
        """Submit a job."""
        return int(self.node("submit", *words))

    def status(self) -> dict[str, Any]:
        """Return what `status --json` says."""
        found: dict[str, Any] = json.loads(self.node("status", "--json"))
        return found

    def job(self, number: int) -> dict[str, Any]:
        """Return what `job` says."""
        found: dict[str, Any] = json.loads(self.node("job", str(number)))
        return found

    def client(self) -> NodeClient:
        """Return a connection to the daemon."""
        return NodeClient(self.state / SOCKET, timeout_s=60.0)

    def pid(self) -> int | None:
        """Return the daemon's process, if one holds the journal."""
        try:
            return int((self.state / f"{JOURNAL}.lock").read_text())
        except (OSError, ValueError):
            return None

    def kill(self) -> None:
        """Kill -9 the daemon, if there is one, and wait until it is gone."""
        pid = self.pid()
        if pid is None:
            return
        with suppress(OSError):
            if str(self.state).encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
                return
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30.0
        while (process := Process.of(pid)) is not None and process.alive():
            assert time.monotonic() < deadline
            time.sleep(0.002)
