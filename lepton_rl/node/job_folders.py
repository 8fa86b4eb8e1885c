"""The folders of the jobs and the journal: one without the other is a journal that was lost, not a new node."""

import logging
from pathlib import Path

from lepton_rl.errors import JournalError
from lepton_rl.node.journal import Journal
from lepton_rl.node.paths import JOBS, JOURNAL
from lepton_rl.node.retention import removed_jobs

_log = logging.getLogger(__name__)


def highest_folder(state_dir: Path) -> int:
    """Return the highest number of a job that has a folder, or had one that was removed; 0 where none has."""
    folder = state_dir / JOBS
    if not folder.is_dir():
        return 0
    there = {int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()}
    return max(there | removed_jobs(state_dir), default=0)


def check_journal_is_there(state_dir: Path) -> None:
    """Refuse to begin a journal beside the folders of jobs: numbers would be given again, and logs be mixed up.

    Raises:
        JournalError: the journal is missing, or empty, and folders of jobs are there.
    """
    journal, highest = state_dir / JOURNAL, highest_folder(state_dir)
    if highest and not (journal.is_file() and journal.stat().st_size):
        what = "is empty" if journal.is_file() else "is missing"
        raise JournalError(
            f"{journal}: {what}, but there are jobs up to {highest} in {state_dir / JOBS}: put a backup back with "
            "`lepton-rl node restore FILE`, or move that folder away to begin a new journal"
        )


def pass_over_folders(journal: Journal, state_dir: Path) -> None:
    """Give no number again for which there is a folder, as after an older copy of the journal was put in its place."""
    highest = highest_folder(state_dir)
    if journal.begin_numbers_after(highest):
        _log.warning(
            "%s: jobs up to %d have folders that the journal does not know: new jobs are numbered from %d; a copy is "
            "put back by `lepton-rl node restore FILE`, which takes those jobs in",
            journal.path, highest, highest + 1,
        )  # fmt: skip
