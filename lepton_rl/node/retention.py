"""Forgetting jobs that ended long ago: first the files of their runs, later their rows in the journal.

The numbers of jobs whose files go are written down before: a restore of an older backup must not run them again. Each
step can be repeated, so that a daemon killed between two of them leaves nothing wrong.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lepton_rl.errors import JobError, JournalError
from lepton_rl.node.database import fsync
from lepton_rl.node.journal import Journal
from lepton_rl.node.past import DAY_S
from lepton_rl.node.paths import JOBS
from lepton_rl.node.starter import OwnStarter, Starter

_log = logging.getLogger(__name__)
AT_ONCE = 50
"""Jobs forgotten in one transaction."""
_PAUSE_S = 0.02  # between two steps: what has come up meanwhile goes first
_REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """How long ended jobs are kept, days since their end; None is for ever.

    Attributes:
        journal_days: their rows in the journal.
        logs_days: the folders of their runs, logs among them; never longer than the rows.
    """

    journal_days: float | None = 90.0
    logs_days: float | None = 30.0

    @property
    def folder_days(self) -> float | None:
        """Days for which a folder is kept: without its row it would look like a job of another journal."""
        kept = [days for days in (self.journal_days, self.logs_days) if days is not None]
        return min(kept) if kept else None


def removed_jobs(state_dir: Path) -> set[int]:
    """Return the jobs whose folders were removed, or were about to be."""
    with suppress(FileNotFoundError):
        lines = (state_dir / JOBS / _REMOVED).read_text(errors="replace").split("\n")
        return {int(line) for line in lines[:-1] if line.isdecimal()}
    return set()


def remove_folders(state_dir: Path, jobs: Sequence[int], starter: Starter) -> int:
    """Remove the folders of these jobs' runs, after their numbers are on the disk; return how many are gone.

    Raises:
        JobError: nothing can be removed at this moment.
    """
    folders = [folder for job in jobs if (folder := state_dir / JOBS / str(job)).is_dir()]
    if not folders:
        return 0
    starter.check()
    record = state_dir / JOBS / _REMOVED
    opened = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:  # what a kill may have left of a line becomes no number
        os.write(opened, b"-\n" + "".join(f"{folder.name}\n" for folder in folders).encode())
        os.fsync(opened)
    finally:
        os.close(opened)
    fsync(record.parent)
    removed = 0
    for folder in folders:
        try:
            starter.remove(folder)
            removed += 1
        except (OSError, JobError) as error:
            why = getattr(error, "strerror", None) or error
            _log.error("%s: the files of an ended job cannot be removed: %s", folder, why)
    return removed


async def forget(
    journal: Journal, state_dir: Path, rules: RetentionRules, now: float, starter: Starter | None = None
) -> tuple[int, int]:
    """Do all that is to be done at a moment; return how many folders and how many rows are gone.

    Files go in another thread, rows a few at a time: whose loop it is goes on meanwhile. `starter` is whose the files
    are; the caller's own if left out.

    Raises:
        JobError: the launcher of a shared node does not answer.
    """
    starter = starter or OwnStarter(journal.node_id)
    folders = rows = 0
    if rules.folder_days is not None:
        there = _numbers(state_dir)
        old = [job for job in journal.past.ended_before(now - rules.folder_days * DAY_S) if job in there]
        for begin in range(0, len(old), AT_ONCE):
            folders += await asyncio.to_thread(remove_folders, state_dir, old[begin : begin + AT_ONCE], starter)
            await asyncio.sleep(_PAUSE_S)
    if rules.journal_days is not None:
        there, last, before = _numbers(state_dir), 0, now - rules.journal_days * DAY_S
        while jobs := journal.past.ended_before(before, after=last, most=AT_ONCE):
            last = jobs[-1]
            without_files = [job for job in jobs if job not in there]
            journal.past.forget(without_files)
            rows += len(without_files)
            await asyncio.sleep(_PAUSE_S)
    return folders, rows


async def forget_daily(
    journal: Journal,
    state_dir: Path,
    rules: RetentionRules,
    wall: Callable[[], float],
    starter: Starter | None = None,
    *,
    period_s: float = DAY_S,
) -> None:
    """Do it now and then once a day, while the daemon goes on."""
    while True:
        try:
            folders, rows = await forget(journal, state_dir, rules, wall(), starter)
            if folders or rows:
                _log.info("forgot ended jobs: the files of %d, the journal's rows of %d", folders, rows)
        except (JobError, JournalError, OSError) as error:
            _log.error("ended jobs were not forgotten: %s; tried again in a day", error)
        await asyncio.sleep(period_s)


def _numbers(state_dir: Path) -> set[int]:
    """Return the jobs that have a folder."""
    with suppress(FileNotFoundError), os.scandir(state_dir / JOBS) as found:
        return {int(entry.name) for entry in found if entry.name.isdecimal()}
    return set()
