"""How the folder of a run passes from the daemon to root, once, and what root believes of it.

The daemon makes the folder and writes request.json, as its own user. The launcher makes both root's before it reads on;
from then on only the supervisor, which stays root, can write started.json and exit.json there: neither the job nor the
daemon can forge or change them, or remove them while the run lives. A folder that is root's is never taken again: until
it is removed, after its run has ended, the run starts at most once whatever befalls launcher and daemon. The daemon's
group may read all of it: that is how it learns of starts and ends and serves the logs. A job's log files are opened for
it; they are its user's, in a folder that its user cannot enter.

Nothing is reached by a path that the daemon could bend: each folder is opened from the one above it, and links are
refused.
"""

import fcntl
import json
import math
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lepton_rl.errors import JobError
from lepton_rl.node.environment import is_of_run
from lepton_rl.node.jobs import MOST_UMASK
from lepton_rl.node.paths import JOBS

MOST_REQUEST_BYTES = 8 << 20
REQUEST, STARTED = "request.json", "started.json"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_MODE = 0o2750  # files made in it are readable by its group, the daemon's
_LONGEST_GRACE_S = 86_400.0


@contextmanager
def run_folder_of(state_dir: Path, job: int, run: int, service_uid: int, *, owner: int) -> Iterator[int]:
    """Yield a descriptor of a run's folder, which must be `owner`'s; those above it must be the daemon's.

    Raises:
        JobError: it is not there, is a link, or is somebody else's.
    """
    with job_folder_of(state_dir, job, service_uid) as above:
        opened = _opened(str(run), above, owner)
        try:
            yield opened
        finally:
            os.close(opened)


@contextmanager
def job_folder_of(state_dir: Path, job: int, service_uid: int) -> Iterator[int]:
    """Yield a descriptor of the folder that holds a job's runs; it and those above it must be the daemon's.

    Raises:
        JobError: it is not there, is a link, or is somebody else's.
    """
    opened = _opened(str(state_dir), None, service_uid)
    try:
        for name in (JOBS, str(job)):
            above, opened = opened, _opened(name, opened, service_uid)
            os.close(above)
        yield opened
    finally:
        os.close(opened)


def _opened(name: str, above: int | None, uid: int) -> int:
    try:
        opened = os.open(name, _FOLDER, dir_fd=above)
    except OSError as error:
        raise JobError(f"the folder {name} of the run cannot be opened: {error.strerror}") from None
    found = os.fstat(opened)
    if found.st_uid != uid or found.st_mode & 0o022:
        os.close(opened)
        raise JobError(f"the folder {name} of the run is user {found.st_uid}'s, or others may write it; not taken")
    return opened


def lock_run(folder: int) -> None:
    """Hold a run for as long as its descriptor is open here or in the supervisor that gets it.

    Raises:
        JobError: somebody has it.
    """
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise JobError("the run is held by another process") from None


def read_json(folder: int, name: str, owner: int) -> dict[str, Any]:
    """Return what a file of a run's folder holds, which must be a plain file of `owner`.

    Raises:
        JobError: it is not there, not such a file, or too large.
    """
    try:
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        raise JobError(f"{name} of the run cannot be opened: {error.strerror}") from None
    with os.fdopen(opened, "rb") as file:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != owner or found.st_nlink != 1:
            raise JobError(f"{name} of the run is no plain file of user {owner}")
        data = file.read(MOST_REQUEST_BYTES + 1)
    if len(data) > MOST_REQUEST_BYTES:
        raise JobError(f"{name} of the run has more than {MOST_REQUEST_BYTES:,} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise JobError(f"{name} of the run is not JSON") from None
    if not isinstance(content, dict):
        raise JobError(f"{name} of the run is no object")
    return content


def check_request(found: dict[str, Any], uid: int, job: int, run: int) -> dict[str, Any]:
    """Return what the daemon may decide of a job: command, folder, variables, umask, times; all else is left out.

    Without a umask of its own there is none in what is returned.

    Raises:
        JobError: something is missing or of the wrong kind, or it is not this user's, or another run's: by the key in
            its variables root would later find, and end, the processes of that one.
    """
    argv, cwd, env = found.get("argv"), found.get("cwd"), found.get("env")
    if found.get("uid") != uid or isinstance(found.get("uid"), bool):
        raise JobError(f"the run is not recorded as one of user {uid}")
    if not isinstance(argv, list) or not argv or not all(_is_text(word) for word in argv) or not argv[0]:
        raise JobError("argv of the run is no list of words")
    if not isinstance(cwd, str) or not _is_text(cwd) or not cwd.startswith("/"):
        raise JobError("cwd of the run is no absolute path")
    if not isinstance(env, dict) or not all(_is_text(key) and _is_text(value) for key, value in env.items()):
        raise JobError("env of the run is no map of texts")
    if any(not key or "=" in key for key in env):
        raise JobError("env of the run has a name that no variable can have")
    if not is_of_run(env, job, run):
        raise JobError(f"the request in the folder of job {job}, run {run}, is another run's by its variables")
    number = found.get("checkpoint_signal")
    if isinstance(number, bool) or not isinstance(number, int) or number not in signal.valid_signals():
        raise JobError("checkpoint_signal of the run is no signal")
    graces = {name: found.get(name) for name in ("stop_grace_s", "checkpoint_grace_s")}
    for name, grace in graces.items():
        if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= _LONGEST_GRACE_S:
            raise JobError(f"{name} of the run is no time from 0 to {_LONGEST_GRACE_S:.0f} s")
    limit, restartable = found.get("time_limit_s"), found.get("restartable", False)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit < 1e10):
        raise JobError("time_limit_s of the run is no time")
    if not isinstance(restartable, bool):
        raise JobError("restartable of the run is neither true nor false")
    umask = found.get("umask")
    if umask is not None and not (_is_whole(umask) and 0 <= umask <= MOST_UMASK):
        raise JobError(f"umask of the run is no number from 0 to {MOST_UMASK:#o}")
    sent = {} if umask is None else {"umask": umask}
    kept = {"time_limit_s": limit, "restartable": restartable}  # for a restore
    return {"argv": argv, "cwd": cwd, "env": env, "checkpoint_signal": number, **graces, **sent, **kept}


def check_limits(found: object) -> tuple[int | None, float | None, tuple[int, ...] | None]:
    """Return RAM in MiB, CPU cores and device minors that a request limits a run to; None is no limit.

    Raises:
        JobError: one of them is of the wrong kind.
    """
    if not isinstance(found, dict):
        raise JobError("limits of the run is no object")
    ram, cpus, minors = found.get("ram_mib"), found.get("cpus"), found.get("gpu_minors")
    if ram is not None and not (_is_whole(ram) and 0 < ram < 2**31):
        raise JobError("limits.ram_mib of the run is no amount")
    if cpus is not None and not (isinstance(cpus, int | float) and math.isfinite(cpus) and 0 < cpus <= 1e6):
        raise JobError("limits.cpus of the run is no amount")
    if minors is not None and not (isinstance(minors, list) and all(_is_whole(m) and 0 <= m < 2**20 for m in minors)):
        raise JobError("limits.gpu_minors of the run is no list of numbers")
    return ram, cpus, None if minors is None else tuple(minors)


def take_run(folder: int, service_gid: int, request: dict[str, Any]) -> None:
    """Make a run's folder root's, and put what was checked in the place of the daemon's request, durably.

    Raises:
        JobError: there is something else in it; the folder is root's all the same, and of no use any more.
    """
    # Root's last: killed before that, the launcher leaves a folder that the daemon can still open.
    os.fchown(folder, -1, service_gid)
    os.fchmod(folder, _FOLDER_MODE)
    os.fchown(folder, 0, -1)
    if stat.S_IMODE(os.fstat(folder).st_mode) != _FOLDER_MODE:  # the kernel leaves the bit out where it is not ours
        raise JobError(f"the launcher cannot give a folder to group {service_gid}: it lacks the capability CAP_FSETID")
    if os.listdir(folder) != [REQUEST]:  # looked at now that nobody else can add to it
        raise JobError(f"the folder of the run holds more than {REQUEST}")
    draft = f".{REQUEST}"
    opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=folder)
    with os.fdopen(opened, "w", encoding="utf-8") as file:
        os.fchmod(opened, 0o640)
        json.dump(request, file)
        file.flush()
        os.fsync(opened)
    os.replace(draft, REQUEST, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def remove_run(folder: int) -> None:
    """Remove all that is in a run's folder: files, and links as what they are. Can be repeated where it was cut off.

    Raises:
        JobError: there is something else in it, which no run makes; nothing was removed.
    """
    names = sorted(os.listdir(folder), key=lambda name: name != STARTED)  # first what tells of processes to look for
    for name in names:
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise JobError(f"the folder of the run holds a folder, {name!r}, that no run makes; not removed")
    for name in names:
        os.unlink(name, dir_fd=folder)


def retire_run(folder: Path) -> None:
    """See to it that a run that nobody has taken is never taken: without a request there is nothing to start."""
    with suppress(FileNotFoundError, PermissionError):  # the second: it is root's, and not taken twice
        (folder / REQUEST).unlink()


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
