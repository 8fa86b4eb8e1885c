"""The folder of one run, from the daemon's side: what it asks of the supervisor, and what the supervisor answers."""

import fcntl
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_rl.node import supervisor
from lepton_rl.node.database import fsync
from lepton_rl.node.jobs import RunEnd, StopHow
from lepton_rl.node.processes import Process

_SUPERVISOR = Path(supervisor.__file__)
_NONE = type(None)
_STARTED: dict[str, tuple[type, ...]] = {
    "supervisor": (list,),
    "child": (list,),
    "boot_id": (str,),
    "started_time": (int, float),
    "started_monotonic_s": (int, float),
}
_COPIED: dict[str, tuple[type, ...]] = {
    "ended_time": (int, float),
    "run_s": (int, float),
    "exit_code": (int, _NONE),
    "signal": (int, _NONE),
    "reason": (str, _NONE),
    "cpu_s": (int, float),
    "max_rss_kib": (int,),
    "log_bytes_dropped": (int,),
}
_EXIT = {"stopped": (str, _NONE), "left_processes": (int,), **_COPIED}


@dataclass(frozen=True, slots=True)
class Started:
    """What started.json says."""

    supervisor: Process
    child: Process
    started_time: float  # Unix seconds
    started_monotonic_s: float


@dataclass(frozen=True, slots=True)
class Exit:
    """What exit.json says; `left_processes` could not be ended, not even by SIGKILL."""

    end: RunEnd
    left_processes: int


def spawn_supervisor(folder: str, lock: int) -> tuple[int, int]:
    """Start the supervisor of a folder, whose lock is a descriptor of it that it gets.

    Returns:
        Its process id, and a descriptor that reads as ended once the job has started.

    Raises:
        OSError: there is no process or memory to be had.
    """
    ready, told = os.pipe()
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(_SUPERVISOR), folder, str(lock), str(told)],
            {"PATH": os.defpath, "LANG": "C.UTF-8"},
            # Onto itself: that keeps a descriptor open in the new program, and in no other that starts meanwhile.
            file_actions=[(os.POSIX_SPAWN_DUP2, lock, lock), (os.POSIX_SPAWN_DUP2, told, told)],
            setsid=True,
            setsigmask=[signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2],  # a stop that comes early waits
            setsigdef=[signal.SIGCHLD],
        )
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(told)
    return pid, ready


class RunFolder:
    """Where one run's supervisor is told what to do and says what it did."""

    def __init__(self, path: Path) -> None:
        """Name the folder; it need not be there yet."""
        self.path = path

    def prepare(self, request: dict[str, Any]) -> None:
        """Make the folder and write request.json, durably."""
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True, mode=0o711)
        draft = self.path / ".request.json"
        opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(opened, "w") as file:
            json.dump(request, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path / "request.json")
        fsync(self.path)
        for folder in made:
            fsync(folder.parent)

    def prepared(self) -> bool:
        """Return whether request.json is there, whole."""
        return (self.path / "request.json").is_file()

    def lock(self) -> int | None:
        """Return a descriptor that holds the run for us, or None where a supervisor has it: living, or about to start.

        A supervisor is given our descriptor, so that there is no moment between the two in which nobody holds the run.
        """
        opened = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            return None
        return opened

    def spawn(self, lock: int) -> tuple[int, int]:
        """Start the supervisor, as `spawn_supervisor` does."""
        return spawn_supervisor(str(self.path), lock)

    def begun(self) -> bool:
        """Return whether the job may have begun: nothing is ever started again where started.json is."""
        return (self.path / "started.json").exists()

    def started(self) -> Started | None:
        """Return what the supervisor wrote before it let the job begin; None where it is not there, or not its own."""
        found = self._read("started.json", _STARTED)
        if found is None:
            return None
        try:
            pid, ticks, child_pid, child_ticks = (int(number) for number in (*found["supervisor"], *found["child"]))
        except (TypeError, ValueError):
            return None
        return Started(
            Process(pid, ticks, found["boot_id"]),
            Process(child_pid, child_ticks, found["boot_id"]),
            found["started_time"],
            found["started_monotonic_s"],
        )

    def exit(self) -> Exit | None:
        """Return how the run ended, or None where that is not written (yet)."""
        found = self._read("exit.json", _EXIT)
        if found is None:
            return None
        stopped = StopHow(found["stopped"]) if found["stopped"] in list(StopHow) else None
        end = RunEnd(stopped=stopped, **{name: found[name] for name in _COPIED})
        return Exit(end, found["left_processes"])

    def trouble(self) -> str:
        """Return the last line that the supervisor wrote about itself, or an empty string."""
        with suppress(OSError):
            lines = (self.path / "supervisor.log").read_text(errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""

    def _read(self, name: str, kinds: Mapping[str, tuple[type, ...]]) -> dict[str, Any] | None:
        """Return what a file holds, or None for one that no supervisor wrote: a job may be able to write here."""
        try:
            found = json.loads((self.path / name).read_text())
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(found, dict):
            return None
        return found if all(isinstance(found.get(key, self), allowed) for key, allowed in kinds.items()) else None
