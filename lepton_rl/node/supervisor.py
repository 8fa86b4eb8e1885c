"""The parent of one run of a job: starts it at most once, keeps its logs small, ends it, writes down how it ended.

Run as `python -I -S supervisor.py RUNDIR [LOCK [READY]]`: LOCK is a descriptor of RUNDIR that may hold its lock
already, READY one that is closed once the run has started. It imports nothing of this package, so that it starts fast
and an upgrade under it changes nothing. RUNDIR holds:

request.json    what to run, written by the daemon
started.json    durable before the job's first instruction; where it is, nothing is ever started again
exit.json       how it ended, durable before the supervisor goes
stdout, stderr  written by the job itself, so that a dead supervisor breaks nothing; older parts in stdout.1, stderr.1,
                and in stdout.begin, stderr.begin the number of bytes before those that stdout and stderr hold
supervisor.log  the supervisor's own trouble

SIGTERM stops the job (SIGTERM, grace, SIGKILL), SIGUSR1 asks for a checkpoint first, SIGUSR2 kills at once. They reach
every process that descends from the job, whatever group or session it put itself in; the checkpoint signal goes to
those that catch it, as it would end the others. What the job leaves behind when it ends is stopped in the same way.
"""

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import stat as stat_modes
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

REFUSED = 75  # another supervisor has, or had, this folder
_PR_SET_CHILD_SUBREAPER = 36
_FALLOC_FL_COLLAPSE_RANGE = 8
_RESERVED_BYTES = 4096
_LOG_CHECK_S = 1.0
_GIVE_UP_S = 600.0  # a disk that stays full, or a process that not even SIGKILL ends
_STEPS = ("checkpoint", "stop", "kill")
_REQUESTS = {signal.SIGUSR1: "checkpoint", signal.SIGTERM: "stop", signal.SIGUSR2: "kill"}
_WATCHED = frozenset({signal.SIGCHLD, *_REQUESTS})
_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTSTP, signal.SIGXFSZ)
_RESERVE = Path(".exit.json")

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    """Run what RUNDIR asks for; return 0 once exit.json is written, REFUSED where it must not run."""
    os.chdir(arguments[0])
    # In a shared node the folder is root's and its group is the daemon's, which reads what we write.
    os.umask(0o027 if Path().stat().st_mode & stat_modes.S_IRGRP else 0o077)
    lock = int(arguments[1]) if len(arguments) > 1 else os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    ready = int(arguments[2]) if len(arguments) > 2 else None
    if not os.path.samestat(os.fstat(lock), Path().stat()):
        return REFUSED
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return REFUSED
    if Path("started.json").exists():
        return REFUSED
    _detach({lock} if ready is None else {lock, ready})
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the supervisor cannot become the reaper of the job's processes")
    run = Run(json.loads(Path("request.json").read_text()))
    run.start()
    if ready is not None:
        os.close(ready)
    run.watch()
    run.write_exit()
    return 0


def _detach(keep: set[int]) -> None:
    """Leave the daemon's session, signals and files; what we say from here on goes to supervisor.log."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _WATCHED)
    for ignored in _IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    with suppress(PermissionError):  # it leads one already
        os.setsid()
    log = os.open("supervisor.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for number in [int(place.name) for place in Path("/proc/self/fd").iterdir()]:
        if number > 2 and number not in keep:
            with suppress(OSError):
                os.close(number)
    for kept in keep:
        os.set_inheritable(kept, False)


class Run:
    """The job's processes, from the fork to the last of them."""

    def __init__(self, request: dict[str, Any]) -> None:
        """Take what request.json holds."""
        self.request = request
        self.logs = [Log(Path(request[name]), request.get("log_bytes_limit") or 0) for name in ("stdout", "stderr")]
        self.child = 0
        self.status: int | None = None  # of the child, as waitpid gives it
        self.stopped: str | None = None  # the request that came before the child ended
        self.step: str | None = None  # how far ending the processes has gone
        self.deadline = float("inf")  # of that step, monotonic seconds
        self.pause_s = 0.02
        self.kill_time = float("inf")
        self.cpu_s = 0.0
        self.max_rss_kib = 0
        self.left_processes = 0

    def start(self) -> None:
        """Fork the job, write started.json, and only then let it go on to exec."""
        _write_durably(_RESERVE, " " * _RESERVED_BYTES)  # room for exit.json, should the disk be full by then
        wait_end, go_end = os.pipe()
        self.trouble, trouble_end = os.pipe()
        os.set_blocking(self.trouble, False)
        self.child = os.fork()
        if self.child == 0:
            os.close(go_end)
            _become_job(self.request, wait_end, trouble_end)
        os.close(wait_end)
        os.close(trouble_end)
        self.started_time, self.started_monotonic = time.time(), time.monotonic()
        started = {
            "supervisor": [os.getpid(), start_ticks(os.getpid())],
            "child": [self.child, start_ticks(self.child)],
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "started_time": self.started_time,
            "started_monotonic_s": self.started_monotonic,
        }
        draft = Path(".started.json")
        _write_durably(draft, json.dumps(started))
        draft.replace("started.json")
        _fsync(".")
        os.write(go_end, b"g")
        os.close(go_end)

    def watch(self) -> None:
        """Wait until no process of the job is left, doing what signals ask for meanwhile."""
        check_logs = any(log.limit for log in self.logs)
        next_check = time.monotonic() + _LOG_CHECK_S if check_logs else float("inf")
        while not self._reap():
            if self.status is not None and self.step in (None, "checkpoint"):
                self._go_to("stop")
            now = time.monotonic()
            if now - self.kill_time > _GIVE_UP_S:
                self.left_processes = len(descendants(os.getpid()))
                return
            wait_s = min(next_check, self.deadline, now + 3600.0) - now
            arrived = signal.sigtimedwait(_WATCHED, max(0.0, wait_s))
            if arrived is not None and arrived.si_signo in _REQUESTS:
                self._asked_to(_REQUESTS[signal.Signals(arrived.si_signo)])
            if time.monotonic() >= self.deadline:
                self._go_to("stop" if self.step == "checkpoint" else "kill")
            if time.monotonic() >= next_check:
                for log in self.logs:
                    log.rotate()
                next_check = time.monotonic() + _LOG_CHECK_S

    def _reap(self) -> bool:
        """Take note of ended processes; return whether none is left: a subreaper becomes the parent of all orphans."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            self.cpu_s += usage.ru_utime + usage.ru_stime
            self.max_rss_kib = max(self.max_rss_kib, usage.ru_maxrss)
            if pid == self.child:
                self.status = status

    def _asked_to(self, step: str) -> None:
        self._reap()
        if self.status is None and (self.stopped is None or _STEPS.index(step) > _STEPS.index(self.stopped)):
            self.stopped = step
        if self.step is None or _STEPS.index(step) > _STEPS.index(self.step):
            self._go_to(step)

    def _go_to(self, step: str) -> None:
        """Send the signal of a step and set how long it may take; the last one repeats until nothing is left."""
        now, self.step = time.monotonic(), step
        if step == "checkpoint":
            number = int(self.request["checkpoint_signal"])
            asked = signal_all(number, lambda pid: catches(pid, number))
            self.deadline = now + self.request["checkpoint_grace_s"] if asked else now
        elif step == "stop":
            signal_all(signal.SIGTERM)
            signal_all(signal.SIGCONT)  # a halted process does not see the other before
            self.deadline = now + self.request["stop_grace_s"]
        else:
            signal_all(signal.SIGKILL)
            self.kill_time = min(self.kill_time, now)
            self.deadline, self.pause_s = now + self.pause_s, min(1.0, self.pause_s * 2)

    def _reason(self) -> str | None:
        """Return why the job could not be brought to exec, if so."""
        with suppress(BlockingIOError):
            return os.read(self.trouble, 500).decode(errors="replace") or None
        return None

    def write_exit(self) -> None:
        """Write exit.json into the room kept for it."""
        status = self.status
        ended = {
            "exit_code": os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None,
            "signal": os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None,
            "reason": self._reason(),
            "stopped": self.stopped,
            "step": self.step,
            "started_time": self.started_time,
            "ended_time": time.time(),
            "run_s": time.monotonic() - self.started_monotonic,
            "cpu_s": self.cpu_s,
            "max_rss_kib": self.max_rss_kib,
            "log_bytes_dropped": sum(log.dropped for log in self.logs),
            "left_processes": self.left_processes,
        }
        give_up = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                _write_durably(_RESERVE, json.dumps(ended, ensure_ascii=False).ljust(_RESERVED_BYTES))
                _RESERVE.replace("exit.json")
                return _fsync(".")
            except OSError as error:
                _say(f"exit.json cannot be written: {error}")
                if time.monotonic() > give_up:
                    raise
                time.sleep(1.0)


def _become_job(request: dict[str, Any], wait_end: int, trouble_end: int) -> None:
    """In the child: wait to be let go, take on the job's identity and limits, and exec. Never returns."""
    code, what = 126, "the job cannot be prepared"
    try:
        os.setsid()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if not os.read(wait_end, 1):
            os._exit(0)  # the supervisor died before started.json was sure
        what = "the log files cannot be opened"
        for target, name in ((1, "stdout"), (2, "stderr")):
            opened = os.open(request[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
            if request.get("uid") is not None:
                os.fchown(opened, request["uid"], -1)  # so that it can open /dev/stderr; the group stays the folder's
            os.dup2(opened, target)
        for place in request.get("cgroups", ()):
            what = f"the control group {place} cannot be entered"
            Path(place, "cgroup.procs").write_text("0")
        for name, (soft, hard) in request.get("rlimits", {}).items():
            what = f"the limit {name} cannot be set to {soft} of {hard}"
            resource.setrlimit(getattr(resource, name), (soft, hard))
        if request.get("uid") is not None:
            what = f"the job cannot become user {request['uid']}"
            os.setgroups(request["groups"])
            os.setgid(request["gid"])
            os.setuid(request["uid"])
        os.umask(request["umask"])
        what = f"the working directory {request['cwd']} cannot be entered"
        os.chdir(request["cwd"])
        what = f"the command {request['argv'][0]!r} cannot be run"
        code = 127
        os.execvpe(request["argv"][0], request["argv"], request["env"])
    except BaseException as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        detail = error.strerror if isinstance(error, OSError) else repr(error)
        sentence = f"{what}: {detail}".encode(errors="replace")
        with suppress(OSError):
            os.write(2, sentence + b"\n")
            os.write(trouble_end, sentence)
        os._exit(127 if code == 127 and missing else 126)


class Log:
    """A file that the job appends to. Above `limit` bytes its older part moves to a file with .1 added to its name.

    Where the file system can cut off the front of a file (ext4, XFS), nothing is lost and nothing twice. Elsewhere the
    file is copied and emptied: what is written between the two, microseconds apart, is lost.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """Watch a file that may not be there yet; 0 is no limit."""
        self.path, self.limit, self.dropped = path, limit, 0
        self.begin = 0  # bytes that the job wrote before those that the file holds
        self.older = path.with_name(path.name + ".1")

    def rotate(self) -> None:
        """Move the older part away where the file has grown above its limit."""
        try:
            if not self.limit or self.path.lstat().st_size <= self.limit:
                return
            log = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            self._rotate(log)
        except OSError as error:
            _say(f"{self.path} cannot be made smaller: {error}")
        finally:
            os.close(log)

    def _rotate(self, log: int) -> None:
        block, size = os.fstatvfs(log).f_bsize, os.fstat(log).st_size
        cut = (size - 1) // block * block  # the front goes in whole blocks, and some of the file must stay
        if not cut:
            return
        skipped = max(0, cut - self.limit)
        former = self.older.stat().st_size if self.older.exists() else 0
        draft = self.older.with_name(f".{self.older.name}")
        try:
            part = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o640)
            try:
                owner = os.fstat(log)
                os.fchown(part, owner.st_uid, owner.st_gid)
                _copy(log, part, skipped, cut)
                self._note_begin("moving")
                gone = cut
                if not _cut_front(log, cut):
                    while (size := os.fstat(log).st_size) > gone:
                        _copy(log, part, gone, size)
                        gone = size
                    os.ftruncate(log, 0)
                self.begin += gone
            finally:
                os.close(part)
            draft.replace(self.older)
        except OSError as error:
            draft.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._note_begin("moving")
            if not _cut_front(log, cut):
                raise
            self.begin += cut
            self.older.unlink(missing_ok=True)  # no room to keep it: the newest part matters more
            skipped = cut
        finally:
            self._note_begin("rests")
        self.dropped += skipped + former

    def _note_begin(self, state: str) -> None:
        """Tell readers where the file begins, or that it is about to move: written in place, the disk may be full."""
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            note = os.open(self.path.with_name(self.path.name + ".begin"), flags, 0o640)
            try:
                os.pwrite(note, f"{self.begin:020d} {state:<6} {self.begin:020d}\n".encode(), 0)
            finally:
                os.close(note)


def _cut_front(log: int, count: int) -> bool:
    """Remove the first `count` bytes of a file in use; return whether its file system can."""
    if not hasattr(_libc, "fallocate"):
        return False
    arguments = (ctypes.c_int(log), ctypes.c_int(_FALLOC_FL_COLLAPSE_RANGE), ctypes.c_int64(0), ctypes.c_int64(count))
    if _libc.fallocate(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number))


def _copy(source: int, target: int, begin: int, end: int) -> None:
    while begin < end:
        count = os.sendfile(target, source, begin, min(end - begin, 1 << 20))
        if count == 0:
            return
        begin += count


def process_ids() -> list[int]:
    """Return the processes there are."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 (a tenth of the time)


def stat(pid: int) -> list[bytes]:
    """Return the columns of /proc/PID/stat from the third on: after the command, which may hold spaces and brackets."""
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (read for every process there is)
        return file.read().rpartition(b")")[2].split()


def start_ticks(pid: int) -> int:
    """Return when a process began, in clock ticks since boot: with its number, an identity that is not used again."""
    return int(stat(pid)[19])


def descendants(root: int) -> list[tuple[int, int]]:
    """Return (process id, start ticks) of all that descend from a process, ended ones not yet reaped among them."""
    children: dict[int, list[tuple[int, int]]] = {}
    for pid in process_ids():
        with suppress(OSError):
            columns = stat(pid)
            children.setdefault(int(columns[1]), []).append((pid, int(columns[19])))
    found, parents = [], [root]
    while parents:
        for child in children.get(parents.pop(), ()):
            found.append(child)
            parents.append(child[0])
    return found


def signal_all(number: int, wanted: Callable[[int], bool] = lambda _: True) -> int:
    """Signal each wanted descendant of this process, never one that took over its number; return how many."""
    count = 0
    for pid, ticks in descendants(os.getpid()):
        with suppress(OSError):
            opened = os.pidfd_open(pid)
            try:
                if start_ticks(pid) == ticks and wanted(pid):
                    signal.pidfd_send_signal(opened, number)
                    count += 1
            finally:
                os.close(opened)
    return count


def catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _write_durably(path: Path, text: str) -> None:
    """Write over a file in place and bring it to the disk."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        data = text.encode()
        size = len(data)
        while data:
            data = data[os.write(opened, data) :]
        os.ftruncate(opened, size)
        os.fsync(opened)
    finally:
        os.close(opened)


def _say(sentence: str) -> None:
    """Add to supervisor.log, if there is room."""
    with suppress(OSError):
        os.write(2, f"{sentence}\n".encode())


def _fsync(path: str) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
