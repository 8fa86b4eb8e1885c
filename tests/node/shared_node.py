"""A shared node on a fake driver, as an operator has it: launcher, daemon and clients are several users'."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lepton_rl.core.jit import kernel_cache_folder
from lepton_rl.errors import NodeError
from lepton_rl.node.client import NodeClient
from lepton_rl.node.paths import SOCKET_VARIABLE
from lepton_rl.node.processes import Process
from tests.fake_nvml import FakeNvml
from tests.node.conftest import until
from tests.node.users import ADA, BOB, SERVICE, LauncherProcess, SharedPlace, become, python_for_others

OPERATOR, STRANGER, USERS, OPERATORS = 20004, 20005, 20010, 20011
GROUPS = {SERVICE: [USERS], ADA: [USERS], BOB: [USERS], OPERATOR: [USERS, OPERATORS], STRANGER: []}
START_S = 600.0  # where no kernels were compiled yet


class SharedDaemon:
    """Folders, launcher and daemon; what users do is done by processes of theirs."""

    def __init__(self, library: Path) -> None:
        self.program, variables = python_for_others()
        self.place = SharedPlace()
        base = self.place.base
        self.fake = FakeNvml(base / "nvml-state", gpus=4)
        self.fake.path.chmod(0o666)
        self.config = base / "node.yaml"
        self.config.write_text(
            f"mode: shared\nstate_dir: {self.place.state}\npolicy: {{name: fcfs, blocking: easy}}\n"
            f"shared: {{account: {SERVICE}, group: {USERS}, operators_group: {OPERATORS}, min_uid: 20000, "
            f"without_account: true, socket: {self.place.socket}, launcher: {self.place.launcher_socket}}}\n"
            "jobs: {umask: 0o077}\n"
        )
        self.environment = {
            "PATH": os.defpath, "LANG": "C.UTF-8", "HOME": "/nonexistent", **variables,
            **{name: value for name, value in self.fake.environment(library).items() if name not in os.environ},
            "LD_LIBRARY_PATH": str(library.parent), SOCKET_VARIABLE: str(self.place.socket),
            "NUMBA_CACHE_DIR": str(self._kernels(base / "kernels")), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.launcher = LauncherProcess(self.place.rules(), base / "launcher.log")
        self.log = base / "daemon.log"
        self.start()

    def _kernels(self, folder: Path) -> Path:
        """Give the service the kernels that were compiled already, in a folder that it can write."""
        compiled = kernel_cache_folder()
        folder.mkdir()
        for file in compiled.iterdir() if compiled is not None else ():
            try:
                os.link(file, folder / file.name)
            except OSError:
                shutil.copy(file, folder / file.name)
        for place in (folder, *folder.iterdir()):
            place.chmod(0o755 if place.is_dir() else 0o644)
        os.chown(folder, SERVICE, SERVICE)
        return folder

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        words = ["node", "start", "--foreground", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = self.spawn(SERVICE, words, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill -9 the daemon."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def close(self) -> None:
        """End all and remove it."""
        if self.process.poll() is None:
            self.kill()
        self.place.close()
        if self.launcher.process.poll() is None:
            self.launcher.end(signal.SIGKILL)
        self.fake.close()

    def spawn(self, uid: int, words: Sequence[str], **streams: Any) -> "subprocess.Popen[bytes]":
        """Start `lepton-rl` as a user, in a folder that all can enter."""
        return subprocess.Popen(
            [self.program, "-m", "lepton_rl.cli", *words], env=self.environment, cwd=self.place.base,
            user=uid, group=uid, extra_groups=GROUPS.get(uid, []), umask=0o022, **streams,
        )  # fmt: skip

    def run(self, uid: int, *words: str) -> tuple[int, str, str]:
        """Run a command of `lepton-rl node` as a user; return exit code, output and complaints."""
        with self.spawn(uid, ["node", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            out, err = process.communicate(timeout=120)
        return process.returncode, out.decode(), err.decode()

    def does(self, uid: int, *words: str) -> str:
        """Run a command that must do; return what it prints."""
        code, out, err = self.run(uid, *words)
        assert code == 0, err
        return out

    def refused(self, uid: int, *words: str) -> str:
        """Run a command that must be refused in one sentence; return it."""
        code, _, err = self.run(uid, *words)
        assert code == 2, err
        (line,) = err.splitlines()
        return line.removeprefix("error: ")

    def connect(self, uid: int) -> NodeClient:
        """Return a connection of this process that is made as a user."""
        before = os.geteuid(), os.getegid(), os.getgroups()
        become(uid, uid, GROUPS.get(uid, []))
        try:
            return NodeClient(self.place.socket, timeout_s=60.0)
        finally:
            become(*before)

    def ask(self, uid: int, verb: str, **arguments: Any) -> Any:
        """Ask as a user."""
        with self.connect(uid) as client:
            return client.call(verb, **arguments)

    def _answers(self) -> bool:
        try:
            self.ask(0, "ping")
        except NodeError:
            return False
        return True

    def submit(self, uid: int, script: str, **more: Any) -> int:
        """Submit a shell script as a user."""
        asked = {"argv": ["sh", "-c", script], "cwd": "/", "env": {"PATH": os.defpath, "SECRET": f"of-{uid}"}, **more}
        return int(self.ask(uid, "submit", **asked)["job"])

    def running(self, uid: int, job: int) -> dict[str, Any]:
        """Wait until a job runs and has said something; return what its user is told of it."""
        until(lambda: self.state(uid, job) == "running" and "ready" in self.does(uid, "logs", str(job)), "a start")
        found: dict[str, Any] = self.ask(uid, "job", job=job)
        return found

    def state(self, uid: int, job: int) -> str:
        """Return the state of a job."""
        return str(self.ask(uid, "job", job=job)["state"])

    def processes(self, job: int, run: int = 1) -> dict[str, Process]:
        """Return supervisor and first process of a run."""
        found = json.loads((self.place.state / "jobs" / str(job) / str(run) / "started.json").read_text())
        identities = {name: tuple(found[name]) for name in ("supervisor", "child")}
        return {name: Process(pid, ticks, found["boot_id"]) for name, (pid, ticks) in identities.items()}

    def drained(self) -> None:
        """Cancel what a test has left."""
        for job in self.ask(0, "queue"):
            with suppress(Exception):
                self.ask(0, "cancel", job=job["job"], kill=True)
        until(lambda: self.ask(0, "queue") == [], "an empty queue")
