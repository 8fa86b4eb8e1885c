"""Starting and stopping jobs through the launcher: the daemon of a shared node, which is not root itself."""

import json
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lepton_rl.errors import JobError
from lepton_rl.node.accounts import StartRefused
from lepton_rl.node.environment import MARK, run_key, supervisor_request
from lepton_rl.node.handover import retire_run
from lepton_rl.node.jobs import JobRecord, RunRecord, StopHow
from lepton_rl.node.processes import Process, members
from lepton_rl.node.run_folder import RunFolder
from lepton_rl.node.starter import NOBODY, Begun

_TIMEOUT_S = 10.0
_MOST_BYTES = 1 << 20
_DESCRIPTORS = 2


class LauncherSilent(JobError):
    """The launcher has heard a request, and it is not known what came of it."""


class LauncherStarter:
    """Supervisors are root's, jobs their users'; the launcher starts and signals them.

    One connection for each request: they are rare, and a launcher that was started anew is found without more ado.

    Args:
        path: of the launcher's socket.
        node_id: of the journal.
        mps_pipe_directory: where an operator's MPS has its pipes.
    """

    restarts = False

    def __init__(self, path: Path, node_id: str, mps_pipe_directory: Path | None = None) -> None:
        self._path, self._node_id, self._mps_pipe_directory = path, node_id, mps_pipe_directory

    def check(self) -> None:
        """Raise JobError where the launcher does not answer, before anything is written down."""
        with self._connected():
            pass

    def start(self, job: JobRecord, run: RunRecord, folder: RunFolder, minors: Sequence[int] | None) -> Begun | None:
        """Prepare a run's folder and have its supervisor started; None where its folder must tell what happened."""
        asked = supervisor_request(job, run, self._node_id, self._mps_pipe_directory)
        request, uid = job.request, job.request.uid
        limits = {
            "ram_mib": request.ram_mib, "cpus": request.cpus, "gpu_minors": None if minors is None else list(minors),
        }  # fmt: skip
        folder.prepare(asked | {"uid": uid, "limits": limits})
        try:
            answer, descriptors = self._call("start", job=run.job, run=run.run, uid=uid)
        except LauncherSilent:
            return None
        if "trouble" in answer:
            raise JobError(f"the launcher could not start it: {answer['trouble']}")
        if len(descriptors) != _DESCRIPTORS:
            _close(descriptors)
            return None
        return Begun(*descriptors)

    def start_again(self, run: RunRecord, folder: RunFolder, lock: int) -> Begun | None:
        """Not done: a run that was prepared and never begun gives way to the next run of its job."""
        raise NotImplementedError

    def tell(self, run: RunRecord, pidfd: int, how: StopHow) -> bool:
        """Have a supervisor told to stop its job; False where the launcher does not answer now."""
        try:
            self._call("signal", job=run.job, run=run.run, how=how)
        except JobError:
            return False
        return True

    def left(self, run: RunRecord) -> list[Process]:
        """Return the living processes of a run whose supervisor is dead.

        Where the launcher does not answer, those that did not leave the session of the job's first process.
        """
        try:
            answer, _ = self._call("reap", job=run.job, run=run.run)
        except JobError:
            child = Process(run.child_pid or NOBODY, run.child_ticks or 0, run.boot_id)
            return members(child, f"{MARK}={run_key(self._node_id, run)}")
        return [Process(pid, ticks, run.boot_id) for pid, ticks in answer["left"]]

    def end_left(self, run: RunRecord, how: StopHow) -> int:
        """Have the processes of a run whose supervisor is dead signalled; return how many there were.

        Raises:
            JobError: the launcher does not answer.
        """
        answer, _ = self._call("signal", job=run.job, run=run.run, how=how)
        return int(answer["signalled"])

    def give_up(self, folder: RunFolder) -> None:
        """Take away what the launcher would need to start a run, should it still have our request before it."""
        retire_run(folder.path)

    def clear(self, run: RunRecord) -> None:
        """Have a run's control group removed."""
        try:
            self._call("reap", job=run.job, run=run.run)
        except JobError:
            return  # an empty group stays behind

    def remove(self, folder: Path) -> None:
        """Remove the folder of an ended job; those of its runs that are root's the launcher removes.

        Raises:
            OSError, JobError: something of it is still there.
        """
        for run in [place for place in folder.iterdir() if place.name.isdecimal()]:
            if run.lstat().st_uid == os.geteuid():  # never taken
                shutil.rmtree(run)
            else:
                self._call("remove", job=int(folder.name), run=int(run.name))
        folder.rmdir()

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            try:
                connection.connect(str(self._path))
            except OSError as error:
                raise JobError(
                    f"{self._path}: the launcher does not answer ({error.strerror or error}); start it with "
                    "`lepton-rl node launcher`, as root"
                ) from None
            yield connection

    def _call(self, verb: str, **arguments: Any) -> tuple[dict[str, Any], list[int]]:
        """Return what the launcher answers, and the descriptors that came with it.

        Raises:
            LauncherSilent: it may have done it.
            StartRefused: it refuses, and always will.
            JobError: it was not reached, or cannot do it now.
        """
        with self._connected() as connection:
            descriptors: list[int] = []
            try:
                connection.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
                data, descriptors, _, _ = socket.recv_fds(connection, _MOST_BYTES, _DESCRIPTORS)
                while data and not data.endswith(b"\n") and len(data) < _MOST_BYTES:
                    more = connection.recv(_MOST_BYTES)
                    data = data + more if more else b""
                answer = json.loads(data)
            except (OSError, ValueError) as error:
                _close(descriptors)
                raise LauncherSilent(f"{self._path}: the launcher has hung up: {error}") from None
        if not answer["ok"]:
            _close(descriptors)
            kind = StartRefused if answer.get("lasting") else JobError
            raise kind(f"the launcher refuses: {answer['error']}")
        found: dict[str, Any] = answer["result"]
        return found, descriptors


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
