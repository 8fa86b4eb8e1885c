"""The words of the node: a job as asked for, as recorded, and each of its runs; no input or output here."""

import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath

from lepton_rl.errors import IllegalTransition, JobError, counted

MOST_UMASK = 0o777


class JobState(StrEnum):
    """Where a job is; DONE, FAILED, CANCELLED and LOST are final."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


_LEGAL: dict[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset({JobState.STARTING, JobState.CANCELLED}),
    # Back to waiting: its supervisor never let it begin. Failed: it never can.
    JobState.STARTING: frozenset(
        {JobState.RUNNING, JobState.STOPPING, JobState.WAITING, JobState.FAILED, JobState.LOST}
    ),
    # Back to waiting: the machine went down under a job that may be restarted.
    JobState.RUNNING: frozenset({JobState.STOPPING, JobState.DONE, JobState.FAILED, JobState.LOST, JobState.WAITING}),
    # Back to waiting: preempted. Done: it ended by itself before the signal arrived.
    JobState.STOPPING: frozenset({JobState.WAITING, JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.LOST}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.LOST: frozenset(),
}
ACTIVE = frozenset({JobState.STARTING, JobState.RUNNING, JobState.STOPPING})
FINAL = frozenset(state for state, following in _LEGAL.items() if not following)


def check_transition(job: int, before: JobState, after: JobState) -> None:
    """Raise IllegalTransition unless a job may go from `before` to `after`."""
    if after not in _LEGAL[before]:
        allowed = ", ".join(sorted(_LEGAL[before])) or "nothing: that state is final"
        raise IllegalTransition(f"job {job} is {before} and cannot become {after}; from there it may become {allowed}")


class StopHow(StrEnum):
    """What a supervisor does to a job that is to end; each step waits out its grace before the next."""

    CHECKPOINT = "checkpoint"  # the job's checkpoint signal, then as `stop`
    STOP = "stop"  # SIGTERM, then as `kill`
    KILL = "kill"  # SIGKILL at once


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What a user asks for. `gpu_milli` is thousandths of a GPU: a share below 1000, or whole GPUs; 0 asks for none."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(default_factory=dict)
    uid: int = 0
    user: str = ""
    project: str = ""
    queue: str = "default"
    name: str = ""
    gpu_milli: int = 1000
    gpu_memory_mib: int | None = None
    cpus: float | None = None
    ram_mib: int | None = None
    begin_time: float = 0.0  # Unix seconds; not before
    requested_s: float | None = None  # a wish: policies plan with it
    time_limit_s: float | None = None  # of all runs together; then the job is ended
    priority: float = 0.0
    compute_intensity: float | None = None
    time_sensitivity: float | None = None
    restartable: bool = False
    checkpoint_signal: int = signal.SIGUSR1
    checkpoint_grace_s: float = 60.0
    stop_grace_s: float = 10.0
    umask: int | None = None  # of its files; the node's default if None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the journal holds it; times are Unix seconds, `run` is its newest run's number (0 before the first)."""

    id: int
    state: JobState
    request: JobRequest
    submit_time: float
    run: int = 0
    start_time: float | None = None  # of its first run
    end_time: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One attempt at a job. `run_s` is from the monotonic clock, so that a wall clock set back never makes it negative.

    `holds_gpus` stays true until no process of the run is left: for a lost run, until its orphan is gone.
    """

    job: int
    run: int
    gpu_uuids: tuple[str, ...]
    gpu_milli: int
    decided_time: float
    starting_time: float
    boot_id: str
    started_time: float | None = None
    ended_time: float | None = None
    run_s: float | None = None
    supervisor_pid: int | None = None
    supervisor_ticks: int | None = None
    child_pid: int | None = None
    child_ticks: int | None = None
    stop_time: float | None = None
    stop_how: StopHow | None = None
    stop_then: JobState | None = None
    stop_reason: str | None = None
    outcome: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    cpu_s: float | None = None
    max_rss_kib: int | None = None
    log_bytes_dropped: int | None = None
    energy_mj: int | None = None
    peak_gpu_memory_mib: int | None = None
    gpu_utilisation: float | None = None
    gpu_samples: int | None = None
    holds_gpus: bool = True


@dataclass(slots=True)
class RunUse:
    """What one run has used so far: millijoules, and MiB of GPU memory at its peak, over all its GPUs.

    `utilisation` is the mean of `samples` readings of GPUs that it had to itself, 0 to 1; None while there is none: of
    a GPU that several runs hold, no driver says whose kernels ran.
    """

    energy_mj: float = 0.0
    peak_memory_mib: int = 0
    utilisation: float | None = None
    samples: int = 0

    def add_utilisation(self, read: float) -> None:
        """Take in one reading of one GPU."""
        self.samples += 1
        before = self.utilisation or 0.0
        self.utilisation = before + (read - before) / self.samples


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended, as its supervisor wrote it; `reason` is a sentence where there is something to say."""

    ended_time: float
    run_s: float
    exit_code: int | None = None
    signal: int | None = None
    stopped: StopHow | None = None
    reason: str | None = None
    cpu_s: float | None = None
    max_rss_kib: int | None = None
    log_bytes_dropped: int | None = None


def in_words(request: JobRequest) -> str:
    """Return what a job asks for of a node: "2 GPUs, 20 GiB of memory on each, 8 CPU cores"."""
    gpus = request.gpu_milli / 1000
    parts = [counted(gpus, "GPU")]
    if request.gpu_memory_mib is not None:
        parts.append(f"{request.gpu_memory_mib / 1024:g} GiB of GPU memory{' on each' if gpus > 1 else ''}")
    if request.cpus is not None:
        parts.append(counted(request.cpus, "CPU core"))
    if request.ram_mib is not None:
        parts.append(f"{request.ram_mib / 1024:g} GiB of the machine's memory")
    return ", ".join(parts)


def check_request(request: JobRequest) -> None:
    """Raise JobError, in one sentence, for a request that no node could run; the journal does so at submission."""
    if not request.argv or not request.argv[0]:
        raise JobError("a job needs a command, given after --")
    if not PurePosixPath(request.cwd).is_absolute():
        raise JobError(f"the working directory {request.cwd!r} must be an absolute path")
    for text in (*request.argv, request.cwd, *request.env, *request.env.values()):
        if "\0" in text:
            raise JobError(f"{text!r} holds a zero character, which no program can be given")
    for name in ("cwd", "user", "project", "queue", "name"):
        try:
            getattr(request, name).encode()
        except UnicodeEncodeError as error:
            raise JobError(f"{name} {getattr(request, name)!r} is not text in UTF-8") from error
    for key in request.env:
        if not key or "=" in key:
            raise JobError(f"{key!r} cannot name an environment variable: it must not be empty or hold '='")
    if request.gpu_milli < 0 or (request.gpu_milli > 1000 and request.gpu_milli % 1000):
        raise JobError(f"{request.gpu_milli / 1000:g} GPUs: ask for a whole number, or for a share below 1")
    if request.checkpoint_signal not in signal.valid_signals():
        raise JobError(f"checkpoint signal {request.checkpoint_signal}: there is no such signal")
    if request.umask is not None and not 0 <= request.umask <= MOST_UMASK:
        raise JobError(f"umask {request.umask:#o}: it must lie between 0 and {MOST_UMASK:#o}")
    _check_amounts(request)


def _check_amounts(request: JobRequest) -> None:
    above_zero = ("gpu_memory_mib", "cpus", "ram_mib", "requested_s", "time_limit_s")
    for name in (*above_zero, "begin_time", "priority", "checkpoint_grace_s", "stop_grace_s"):
        amount = getattr(request, name)
        if amount is not None and not math.isfinite(amount):
            raise JobError(f"{name} must be a finite number, not {amount}")
        if amount is not None and ((name in above_zero and amount <= 0) or (name.endswith("grace_s") and amount < 0)):
            raise JobError(f"{name} must be above 0, not {amount}")
