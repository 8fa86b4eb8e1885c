"""The launcher of a shared node: the one part that must be root, to start jobs as the users who submitted them.

It knows four verbs of one user, the daemon's account, over a Unix socket; it has no network (jobs have), and reads no
journal and no driver.

start   takes the folder of a run that the daemon has prepared and starts its supervisor, which stays root and lets the
        job begin as its user, with the groups that the account database has for it. The answer brings a pidfd of the
        supervisor, and a descriptor that reads as ended once the job has begun.
signal  tells the supervisor of a run to stop its job: "checkpoint", "stop" or "kill". Where the supervisor is dead,
        what is left of the job gets SIGTERM or SIGKILL.
reap    tells whether the supervisor of a run lives, and which processes of a dead one's job are left; where there is
        nothing of either, the run's control group is removed.
remove  removes the folder of a run that has ended and of which no process is left, with all that is in it.

A run is named by two numbers, never by a path. What holds for all jobs (limits, size of logs, whose jobs run, the
umask of those that name none) is the launcher's own configuration. Supervisors outlive it: after a restart it knows
them by their folders. Each refusal, start and removal is a line of its log.
"""

import json
import logging
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lepton_rl.errors import JobError, LeptonError, NodeError
from lepton_rl.node.accounts import JobUsers, StartRefused, UnknownUser, user_name
from lepton_rl.node.cgroup import Cgroups, Limits, describe_enforcement
from lepton_rl.node.environment import MARK, RunSettings
from lepton_rl.node.handover import (
    REQUEST,
    check_limits,
    check_request,
    job_folder_of,
    lock_run,
    read_json,
    remove_run,
    run_folder_of,
    take_run,
)
from lepton_rl.node.helper_socket import HelperSocket, Reply
from lepton_rl.node.jobs import StopHow
from lepton_rl.node.network import Networkless
from lepton_rl.node.processes import Process, members, signal_each
from lepton_rl.node.run_folder import spawn_supervisor
from lepton_rl.node.starter import SIGNALS

_log = logging.getLogger("lepton_rl.launcher")
_MOST = 2**53
_KNOWN = "the launcher knows start (job, run, uid), signal (job, run, how), reap and remove (job, run)"


@dataclass(frozen=True, slots=True)
class LauncherRules:
    """What a launcher is started with.

    Attributes:
        state_dir: of the daemon.
        socket: where it listens.
        users: whose jobs it starts; the daemon's own account is among it.
        service_gid: the daemon's group, which may read what supervisors and jobs write.
        runs: what holds for all jobs.
    """

    state_dir: Path
    socket: Path
    users: JobUsers
    service_gid: int
    runs: RunSettings = field(default_factory=RunSettings)

    def to_json(self) -> str:
        """Return it as text, for the command that runs the launcher."""
        users = asdict(self.users) | {"also": sorted(self.users.also)}
        runs = self.runs.plain()  # what MPS is to do, the daemon says in the environment of each job
        paths = {"state_dir": str(self.state_dir), "socket": str(self.socket)}
        return json.dumps({**paths, "service_gid": self.service_gid, "users": users, "runs": runs})

    @classmethod
    def from_json(cls, text: str) -> "LauncherRules":
        """Return what `to_json` wrote."""
        found = json.loads(text)
        users = JobUsers(**{**found["users"], "also": frozenset(found["users"]["also"])})
        rlimits = {name: (soft, hard) for name, (soft, hard) in found["runs"]["rlimits"].items()}
        runs = RunSettings(**{**found["runs"], "rlimits": rlimits})
        return cls(Path(found["state_dir"]), Path(found["socket"]), users, found["service_gid"], runs)


class Launcher:
    """Serves the four verbs.

    Args:
        rules: what it may do.
        cgroups: where the kernel has them.
        network: of this process, which is out of it; None where it is not.

    Raises:
        NodeError: the socket cannot be made.
    """

    def __init__(
        self, rules: LauncherRules, cgroups: Cgroups | None = None, network: Networkless | None = None
    ) -> None:
        self._rules, self._cgroups, self._network = rules, cgroups, network
        self._started: dict[tuple[int, int], Process] = {}  # by this launcher, and not reaped yet
        self._socket = HelperSocket(rules.socket, rules.users.service_uid, self._do, self._reap_children)

    def serve(self) -> None:
        """Answer until SIGTERM or SIGINT; supervisors and jobs go on."""
        self._socket.end_on_signals()
        try:
            self._socket.serve()
        finally:
            self._socket.close()

    def _do(self, request: dict[str, Any]) -> Reply:
        verb = request.pop("verb", None)
        job, run = (_whole(name, request.pop(name, None)) for name in ("job", "run"))
        if verb == "start" and request.keys() == {"uid"}:
            return self._start(job, run, _whole("uid", request["uid"], least=0))
        if verb == "signal" and request.keys() == {"how"}:
            if request["how"] not in list(StopHow):
                raise NodeError(f"how must be one of {', '.join(StopHow)}")
            return Reply(self._signal(job, run, StopHow(request["how"])))
        if verb == "reap" and not request:
            return Reply(self._reap(job, run))
        if verb == "remove" and not request:
            return Reply(self._remove(job, run))
        raise NodeError(_KNOWN)

    # start ----------------------------------------------------------------------------------------------------------

    def _start(self, job: int, run: int, uid: int) -> Reply:
        rules = self._rules
        try:
            account = rules.users.check(uid)
        except UnknownUser:  # the account database may be away for a while
            raise
        except JobError as error:
            raise StartRefused(str(error)) from error
        service = rules.users.service_uid
        with run_folder_of(rules.state_dir, job, run, service, owner=service) as folder:
            lock_run(folder)
            found = read_json(folder, REQUEST, service)
            try:
                asked = check_request(found, uid, job, run)
                limits = Limits(*check_limits(found.get("limits", {})))
            except JobError as error:
                raise StartRefused(str(error)) from error
            try:
                group = [] if self._cgroups is None else [str(self._cgroups.make(f"{job}.{run}", limits))]
                identity = {"uid": uid, "gid": account.gid, "groups": list(account.groups)}
                files = {"stdout": "stdout", "stderr": "stderr", "cgroups": group}
                take_run(folder, rules.service_gid, {**rules.runs.complete(asked), **identity, **files})
                # By descriptor: the daemon could have put another folder under the name meanwhile.
                with self._network.lifted() if self._network is not None else nullcontext():
                    pid, ready = spawn_supervisor(f"/proc/self/fd/{folder}", folder)
            except OSError as error:
                self._remove_group(job, run)
                _log.error("job %d, run %d of user %d was not started: %s", job, run, uid, error)
                return Reply({"trouble": error.strerror or str(error)})
        _log.info("job %d, run %d of user %d (%s): supervisor %d", job, run, uid, user_name(uid), pid)
        process = Process.of(pid)
        assert process is not None  # not reaped yet
        self._started[job, run] = process
        try:
            return Reply({"pid": pid, "ticks": process.start_ticks}, (os.pidfd_open(pid), ready))
        except OSError:  # the daemon finds it by its folder
            os.close(ready)
            return Reply({"pid": pid, "ticks": process.start_ticks})

    # signal and reap ------------------------------------------------------------------------------------------------

    def _signal(self, job: int, run: int, how: StopHow) -> dict[str, Any]:
        with self._taken(job, run) as folder:
            supervisor, _ = self._processes(job, run, folder)
            if supervisor is not None and supervisor.signal(SIGNALS[how]):
                return {"signalled": 1}
            left = self._left(job, run, folder, sure=True)
        return {"signalled": signal_each(left, signal.SIGKILL if how is StopHow.KILL else signal.SIGTERM)}

    def _reap(self, job: int, run: int) -> dict[str, Any]:
        self._reap_children()
        with self._taken(job, run) as folder:
            supervisor, _ = self._processes(job, run, folder)
            alive = supervisor is not None and supervisor.alive()
            left = [] if alive else self._left(job, run, folder, sure=False)
        if not alive and not left:
            self._remove_group(job, run)
        return {"alive": alive, "left": [[process.pid, process.start_ticks] for process in left]}

    def _remove(self, job: int, run: int) -> dict[str, Any]:
        state_dir, service = self._rules.state_dir, self._rules.users.service_uid
        with self._taken(job, run) as folder, job_folder_of(state_dir, job, service) as above:
            lock_run(folder)  # a supervisor holds it for as long as it lives
            if left := self._left(job, run, folder, sure=False):
                raise JobError(f"process {left[0].pid} of the run has not ended; its files stay")
            if held := self._grouped(job, run):
                raise JobError(f"process {held[0]} of the run has not ended; its files stay")
            try:
                remove_run(folder)
                os.rmdir(str(run), dir_fd=above)
            except OSError as error:
                raise JobError(f"the folder {run} of the run cannot be removed: {error.strerror}") from None
        self._remove_group(job, run)
        _log.info("job %d, run %d: its files were removed", job, run)
        return {}

    def _taken(self, job: int, run: int) -> AbstractContextManager[int]:
        return run_folder_of(self._rules.state_dir, job, run, self._rules.users.service_uid, owner=0)

    def _processes(self, job: int, run: int, folder: int) -> tuple[Process | None, Process | None]:
        """Return supervisor and first process of a run, as far as they are known."""
        try:
            found = read_json(folder, "started.json", 0)
        except JobError:  # it has not begun
            return self._started.get((job, run)), None
        (pid, ticks), (child, child_ticks), boot = found["supervisor"], found["child"], found["boot_id"]
        return Process(pid, ticks, boot), Process(child, child_ticks, boot)

    def _left(self, job: int, run: int, folder: int, *, sure: bool) -> list[Process]:
        child = self._processes(job, run, folder)[1]
        if child is None:
            return []
        mark = f"{MARK}={read_json(folder, REQUEST, 0)['env'].get(MARK)}"
        grouped = self._grouped(job, run)
        return members(child, mark, grouped, sure=sure)

    def _grouped(self, job: int, run: int) -> list[int]:
        return [] if self._cgroups is None else self._cgroups.processes(f"{job}.{run}")

    def _remove_group(self, job: int, run: int) -> None:
        if self._cgroups is not None:
            self._cgroups.remove(f"{job}.{run}")

    def _reap_children(self) -> None:
        """Take note of supervisors that have ended, so that none stays a zombie."""
        with suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                self._started = {run: process for run, process in self._started.items() if process.pid != pid}


def _whole(name: str, value: object, *, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < _MOST:
        raise NodeError(f"{name} must be a whole number from {least} on; {_KNOWN}")
    return value


def run_launcher(rules: LauncherRules) -> None:
    """Run the launcher until SIGTERM or SIGINT.

    Raises:
        NodeError: this process is not root, or the socket cannot be made.
    """
    if os.geteuid() != 0:
        raise NodeError("the launcher starts jobs as other users: run it as root, under systemd")
    os.umask(0o077)
    cgroups = Cgroups.find(f"lepton-rl-{rules.users.service_uid}")
    for sentence in describe_enforcement(cgroups, switch_user=True):
        _log.info("%s", sentence)
    try:
        network = Networkless()
    except OSError as error:
        _log.warning("the launcher uses no network, and is not kept from it either: %s", error.strerror)
        network = None
    launcher = Launcher(rules, cgroups, network)
    _log.info("launcher of user %s on %s", user_name(rules.users.service_uid), rules.socket)
    launcher.serve()


def main(arguments: list[str]) -> int:
    """Run the launcher that one argument describes; return its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        run_launcher(LauncherRules.from_json(arguments[0]))
    except LeptonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
