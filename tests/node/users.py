"""Real processes as real users: numbers without accounts, so that no test depends on this machine's accounts."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

from lepton_rl.node.accounts import JobUsers
from lepton_rl.node.environment import RunSettings
from lepton_rl.node.journal import Journal
from lepton_rl.node.launcher import LauncherRules
from lepton_rl.node.processes import Process
from tests.node.conftest import until

SERVICE, ADA, BOB, OPERATORS = 20001, 20002, 20003, 20009
PLACES = [place for place in sys.path if place and Path(place).is_dir()]


def need_root() -> None:
    """Skip a test that must become other users."""
    if os.geteuid() != 0:
        pytest.skip("only root may run processes as other users")


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Make files and connections of this process those of another user, for a while."""
    before = os.geteuid(), os.getegid(), os.getgroups()
    become(uid, uid, [uid])
    try:
        yield
    finally:
        become(*before)


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Act as a user from now on; the real user stays root."""
    os.seteuid(0)
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)


@cache
def python_for_others() -> tuple[str, dict[str, str]]:
    """Return a Python that other users can run, and the variables with which it finds what this one finds.

    This one may lie in a home that is closed to them.
    """
    root, version = str(Path(__file__).parents[2]), f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = [place for place in PLACES if "site-packages" in place]
    paths, site = ({"PYTHONPATH": os.pathsep.join([root, *places])} for places in (PLACES, packages))
    for program, variables in ((sys.executable, paths), (f"/usr/bin/{version}", site)):
        with suppress(OSError):
            tried = subprocess.run(
                [program, "-c", "import json, ssl, numba, pydantic, lepton_rl.node.client"],
                env={"PATH": os.defpath, **variables, "NUMBA_CACHE_DIR": tempfile.gettempdir()},
                user=ADA, group=ADA, extra_groups=[], cwd="/", capture_output=True, check=False,
            )  # fmt: skip
            if tried.returncode == 0:
                return program, variables
    pytest.skip("no Python of this version can be run by other users")


class SharedPlace:
    """Folders as systemd makes them: state of the service's, a socket's folder that users reach, one of root's."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="lepton-"))
        self.base.chmod(0o755)
        self.state, self.public, self.private = (self.base / name for name in ("state", "run", "root"))
        for folder, owner, group, mode in (
            (self.state, SERVICE, SERVICE, 0o700),
            (self.public, SERVICE, SERVICE, 0o755),
            (self.private, 0, SERVICE, 0o750),
        ):
            folder.mkdir()
            os.chown(folder, owner, group)
            folder.chmod(mode)
        self.launcher_socket, self.socket = self.private / "launcher.sock", self.public / "node.sock"

    def rules(self, **users: object) -> LauncherRules:
        """Return the rules of a launcher."""
        known = {"service_uid": SERVICE, "min_uid": 20000, "without_account": True, **users}
        allowed = JobUsers(**known)  # type: ignore[arg-type]
        return LauncherRules(self.state, self.launcher_socket, allowed, SERVICE, RunSettings(umask=0o077))

    def close(self) -> None:
        """Kill what still runs and remove all."""
        with suppress(Exception), Journal(self.state / "journal.sqlite3") as journal:
            for run in journal.holding():
                for pid, ticks in ((run.supervisor_pid, run.supervisor_ticks), (run.child_pid, run.child_ticks)):
                    if pid is not None and ticks is not None:
                        Process(pid, ticks, run.boot_id).signal(signal.SIGKILL)
        shutil.rmtree(self.base, ignore_errors=True)


class LauncherProcess:
    """The launcher as the process that an operator starts."""

    def __init__(self, rules: LauncherRules, log: Path) -> None:
        self.rules, self.log = rules, log
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        words = [sys.executable, "-P", "-m", "lepton_rl.node.launcher", self.rules.to_json()]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, stderr=log, start_new_session=True)
        until(self._listens, "the launcher")

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return f"on {self.rules.socket}" in self.log.read_text()[self.log.read_text().rfind("Users:") :]

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it, however."""
        self.process.send_signal(number)
        self.process.wait(30)
