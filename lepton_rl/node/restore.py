"""A journal taken back from a backup, without running again what ran since: the folders of the runs remember it."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_rl.errors import JobError, JournalError
from lepton_rl.node.accounts import user_name
from lepton_rl.node.database import check_version, check_whole, copy_to, fsync, lock, translated
from lepton_rl.node.environment import MARK
from lepton_rl.node.jobs import ACTIVE, FINAL, JobRequest, JobState, RunEnd
from lepton_rl.node.journal import Journal
from lepton_rl.node.paths import JOBS
from lepton_rl.node.processes import boot_id
from lepton_rl.node.retention import removed_jobs
from lepton_rl.node.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore found: jobs in the backup, and those submitted, or run, after it that the folders told of."""

    jobs: int
    submitted_since: tuple[int, ...]
    run_since: tuple[int, ...]
    former: Path | None  # where the journal that was replaced lies now


def restore(backup: Path, journal: Path, state_dir: Path, now: float) -> Restored:
    """Put a backup in the place of a journal, which is kept beside it; `Runs.adopt` then settles what ran since.

    What was only written in the journal after the backup is lost: jobs that still waited, cancellations of such, usage
    of GPUs and the audit log.

    Raises:
        JournalError: the backup is damaged, newer than this program, or no journal, or a daemon is using the journal;
            nothing was changed.
    """
    held = lock(journal)
    draft = journal.with_name(f".{journal.name}.restoring")
    try:
        _check(backup)
        with translated(backup), closing(_read(backup)) as source:
            copy_to(source, draft)
        found = _reconcile(draft, state_dir, now)
        fsync(draft)
        former = _put_aside(journal)
        draft.replace(journal)
        fsync(journal.parent)
        return Restored(*found, former)
    finally:
        for left in (draft, draft.with_name(f"{draft.name}.lock")):
            left.unlink(missing_ok=True)
        os.close(held)


def _read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _check(backup: Path) -> None:
    """Raise JournalError unless a file is a whole journal that we understand."""
    if not backup.is_file():
        raise JournalError(f"{backup}: there is no such backup; nothing was changed")
    try:
        with closing(_read(backup)) as connection:
            check_version(backup, connection)
            check_whole(backup, connection, "integrity_check")
            if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
                raise JournalError(f"{backup}: is damaged: a row names another that is not there; use another backup")
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                raise JournalError(f"{backup}: is empty, not a backup of a journal; nothing was changed")
    except sqlite3.Error as error:
        raise JournalError(f"{backup}: is not a whole backup of a journal ({error}); use another one") from error


def _put_aside(journal: Path) -> Path | None:
    """Rename a journal, with what belongs to it, so that nothing of it mixes with the one that takes its place."""
    if not journal.exists():
        return None
    number = 1
    while (former := journal.with_name(f"{journal.name}.replaced{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            journal.with_name(f"{journal.name}{suffix}").rename(former.with_name(f"{former.name}{suffix}"))
    return former


def _reconcile(draft: Path, state_dir: Path, now: float) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Write into a restored journal which runs were intended after the backup, so that none is started twice."""
    submitted: list[int] = []
    run: set[int] = set()
    with Journal(draft) as journal:
        states = {job.id: job.state for job in journal.jobs()}
        removed = removed_jobs(state_dir)
        with journal.transaction():
            for job in sorted(removed.intersection(states)):
                _settle_removed(journal, job, now)
            journal.begin_numbers_after(max(removed, default=0))
            for job, number, request in _runs_of(state_dir, journal.node_id):
                if job in removed:
                    continue
                if job not in states:
                    journal.submit(_as_submitted(request, job), now, job=job)
                    states[job] = JobState.WAITING
                    submitted.append(job)
                if number > journal.job(job).run and journal.job(job).state not in FINAL:
                    _intend(journal, state_dir, job, number, request, now)
                    run.add(job)
    return len(states) - len(submitted), tuple(submitted), tuple(sorted(run - set(submitted)))


def _settle_removed(journal: Journal, job: int, now: float) -> None:
    """Write down that a job has ended since the backup, where only that is known of it."""
    record, reason = journal.job(job), "it ended after this backup was made, and its files have been removed since"
    if record.state is JobState.WAITING:
        journal.cancel_waiting(job, now, reason)
    elif record.state in ACTIVE:
        end = RunEnd(ended_time=now, run_s=0.0, reason=reason)
        journal.end_run(job, record.run, JobState.LOST, end, outcome="lost")


def _intend(journal: Journal, state_dir: Path, job: int, number: int, request: dict[str, Any], now: float) -> None:
    """Write down runs of a job up to `number`, the last of them as one that is about to start."""
    gpus = [uuid for uuid in request["env"].get("CUDA_VISIBLE_DEVICES", "").split(",") if uuid]
    while journal.job(job).run < number:
        record = journal.job(job)
        if record.state in ACTIVE:  # it was preempted since, or there would be no later run
            found = RunFolder(state_dir / JOBS / str(job) / str(record.run)).exit()
            end = found.end if found is not None else RunEnd(ended_time=now, run_s=0.0)
            journal.end_run(job, record.run, JobState.WAITING, end, outcome="ended")
        started = RunFolder(state_dir / JOBS / str(job) / str(record.run + 1)).started()
        boot = boot_id() if started is None else started.child.boot_id
        journal.begin_run(job, gpus, now, now, boot)


def _runs_of(state_dir: Path, node_id: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield job, run number and request of each folder that this journal's node made, in order."""
    numbers = []
    for place in (state_dir / JOBS).glob("*/*/request.json"):
        with suppress(ValueError):
            numbers.append((int(place.parent.parent.name), int(place.parent.name)))
    for job, number in sorted(numbers):
        with suppress(OSError, ValueError, KeyError):
            request = json.loads((state_dir / JOBS / str(job) / str(number) / "request.json").read_text())
            if request["env"][MARK] == f"{node_id}:{job}:{number}":
                yield job, number, request


def _as_submitted(request: dict[str, Any], job: int) -> JobRequest:
    """Return what a job asked for, as far as its first run's folder tells."""
    uid = request.get("uid", os.geteuid())
    user = user_name(uid)
    try:
        return JobRequest(
            argv=tuple(request["argv"]),
            cwd=request["cwd"],
            env=request["env"],
            uid=uid,
            user=user,
            name="found by restore",
            gpu_milli=round(1000 * float(request["env"]["LEPTON_GPUS"])),
            checkpoint_signal=request["checkpoint_signal"],
            checkpoint_grace_s=request["checkpoint_grace_s"],
            stop_grace_s=request["stop_grace_s"],
            umask=request.get("umask"),
            time_limit_s=request.get("time_limit_s"),
            restartable=bool(request.get("restartable", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise JobError(f"job {job}: its request.json is not one of ours; move its folder away") from error
