"""What can become of a run, and of its job with it."""

import signal
from dataclasses import dataclass
from enum import StrEnum

from lepton_rl.node.jobs import JobState, RunEnd, RunRecord


class EventKind(StrEnum):
    """What became of a run."""

    STARTED = "started"
    ENDED = "ended"
    NOT_LAUNCHED = "not_launched"  # its supervisor went before it let the job begin
    LOST = "lost"  # its supervisor died; how the job ended, or will, is not known
    REBOOTED = "rebooted"  # the machine went down under it
    ORPHAN_GONE = "orphan_gone"  # no process of a lost run is left: its GPUs are free


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that is in the journal already; `state` is the job's, `holds_gpus` whether its GPUs stay booked."""

    kind: EventKind
    job: int
    run: int
    state: JobState
    holds_gpus: bool


def verdict(run: RunRecord, end: RunEnd) -> tuple[JobState, str | None]:
    """Return what a job becomes by how its run ended, and why in words."""
    if end.stopped is not None and run.stop_then is not None:
        return run.stop_then, run.stop_reason
    if end.stopped is not None:
        return JobState.FAILED, "its supervisor was told to stop it, not by the daemon"
    if end.exit_code == 0:
        return JobState.DONE, None
    if end.signal is not None:
        known = {number.value: number.name for number in signal.Signals}
        return JobState.FAILED, f"ended by {known.get(end.signal, f'signal {end.signal}')}"
    return JobState.FAILED, end.reason or f"ended with exit code {end.exit_code}"
