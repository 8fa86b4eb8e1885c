"""A restored journal: whole or not at all, and nothing that ran since the backup runs again."""

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from lepton_rl.errors import JournalError
from lepton_rl.node.jobs import JobState
from lepton_rl.node.journal import Journal
from lepton_rl.node.restore import Restored, restore
from lepton_rl.node.runs import Runs
from lepton_rl.node.schema import MIGRATIONS
from tests.node.conftest import Node, drain, shell, until


def put_back(node: Node, backup: Path) -> Restored:
    """End the daemon, restore, and start the next one."""
    node.crash()
    found = restore(backup, node.folder / "journal.sqlite", node.folder, time.time())
    node.restart()
    return found


def test_a_backup_holds_what_was_there_while_work_goes_on(node: Node, tmp_path: Path) -> None:
    job = node.journal.submit(shell("true"), 0.0)
    with node.journal.transaction():
        pass
    node.journal.backup(tmp_path / "backup.sqlite")
    node.journal.submit(shell("true"), 0.0)
    assert (tmp_path / "backup.sqlite").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.glob("backup*")] == ["backup.sqlite"]
    with Journal(tmp_path / "backup.sqlite") as copy:
        assert [record.id for record in copy.jobs()] == [job]
        assert copy.node_id == node.journal.node_id


def test_a_backup_that_cannot_be_written_leaves_the_last_one(node: Node, tmp_path: Path) -> None:
    node.journal.backup(tmp_path / "backup.sqlite")
    before = (tmp_path / "backup.sqlite").read_bytes()
    (tmp_path / ".backup.sqlite.tmp").mkdir()
    with pytest.raises(JournalError, match=r"backup\.sqlite: "):
        node.journal.backup(tmp_path / "backup.sqlite")
    assert (tmp_path / "backup.sqlite").read_bytes() == before


def test_what_ran_since_the_backup_does_not_run_again(node: Node, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    waiting = node.journal.submit(shell("true"), 0.0)
    ran = node.journal.submit(shell(f"echo ran >> {witness}; exit 3"), 0.0)
    node.journal.backup(tmp_path / "backup.sqlite")
    node.runs.launch(ran, ["GPU-a"])
    drain(node.runs)
    late = node.run_to_end(shell(f"echo late >> {witness}; exit 4"))
    found = put_back(node, tmp_path / "backup.sqlite")
    assert (found.jobs, found.submitted_since, found.run_since) == (2, (late,), (ran,))
    assert [job.id for job in node.journal.queue()] == [waiting]
    assert (node.journal.job(ran).state, node.journal.job(ran).exit_code) == (JobState.FAILED, 3)
    assert (node.journal.job(late).state, node.journal.job(late).exit_code) == (JobState.FAILED, 4)
    assert node.journal.submit(shell("true"), 0.0) == late + 1
    assert witness.read_text() == "ran\nlate\n"
    assert found.former is not None
    with Journal(found.former) as former:
        assert former.job(late).exit_code == 4


def test_what_still_runs_is_watched_again_and_keeps_its_gpus(node: Node, tmp_path: Path) -> None:
    node.journal.backup(tmp_path / "backup.sqlite")
    asked = shell("echo ready; exec sleep 1000", gpu_milli=2000, time_limit_s=9000.0, restartable=True)
    job = node.start(asked, ("GPU-a", "GPU-b"))
    node.wait_for_output(job, "ready")
    put_back(node, tmp_path / "backup.sqlite")
    found = node.journal.job(job).request
    assert (found.time_limit_s, found.restartable) == (9000.0, True)
    assert [run.gpu_uuids for run in node.journal.holding()] == [("GPU-a", "GPU-b")]
    assert node.journal.job(job).request.gpu_milli == 2000
    node.runs.stop(job, "enough")
    drain(node.runs)
    assert (node.journal.job(job).state, node.journal.job(job).signal) == (JobState.CANCELLED, signal.SIGTERM)


def test_a_job_preempted_since_goes_on_in_its_newest_run(node: Node, tmp_path: Path) -> None:
    script = "echo ready; [ $LEPTON_RUN = 2 ] && exit 0; exec sleep 1000"
    job = node.start(shell(script, restartable=True))
    node.wait_for_output(job, "ready")
    node.runs.poll()
    node.journal.backup(tmp_path / "backup.sqlite")
    node.runs.stop(job, "make room", then=JobState.WAITING)
    drain(node.runs)
    node.runs.launch(job, ["GPU-b"])
    until(lambda: (node.runs.folder(job, 2) / "exit.json").exists(), "the second run's end")
    put_back(node, tmp_path / "backup.sqlite")
    assert node.journal.job(job).state is JobState.DONE
    assert [(run.gpu_uuids, run.exit_code, run.signal) for run in node.journal.runs(job)] == [
        (("GPU-a",), None, signal.SIGTERM),
        (("GPU-b",), 0, None),
    ]


def test_folders_of_another_node_are_left_alone(node: Node, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger = Node(other)
    stranger.run_to_end(shell("exit 1"))
    stranger.crash()
    node.journal.backup(tmp_path / "backup.sqlite")
    (other / "jobs").rename(node.folder / "jobs")
    found = put_back(node, tmp_path / "backup.sqlite")
    assert (found.submitted_since, found.run_since) == ((), ())
    assert node.journal.jobs() == []


def test_a_journal_in_use_is_not_replaced(node: Node, tmp_path: Path) -> None:
    node.journal.backup(tmp_path / "backup.sqlite")
    job = node.journal.submit(shell("true"), 0.0)
    with pytest.raises(JournalError, match=rf"a daemon \(process {os.getpid()}\) is using it; end it with"):
        restore(tmp_path / "backup.sqlite", node.journal.path, node.folder, 0.0)
    assert node.journal.job(job).state is JobState.WAITING


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("missing", "there is no such backup; nothing was changed"),
        ("no database", r"is not a whole backup of a journal \(file is not a database\); use another one"),
        ("cut short", "is damaged|is not a whole backup"),
        ("another program's", "is a database, but not a journal of lepton_rl"),
        ("newer", f"has version 99 and this lepton_rl knows up to {len(MIGRATIONS)}"),
        ("empty", "is empty, not a backup of a journal"),
    ],
)
def test_a_bad_backup_changes_nothing(damage: str, sentence: str, node: Node, tmp_path: Path) -> None:
    with node.journal.transaction():
        for _ in range(200):
            node.journal.submit(shell("true"), 0.0)
    backup = tmp_path / "backup.sqlite"
    node.journal.backup(backup)
    if damage == "missing":
        backup.unlink()
    elif damage == "no database":
        backup.write_text("what is this? " * 100)
    elif damage == "cut short":
        os.truncate(backup, backup.stat().st_size // 2)
    elif damage == "empty":
        backup.write_bytes(b"")
    else:
        pragma = "application_id = 1" if damage == "another program's" else "user_version = 99"
        with closing(sqlite3.connect(backup, isolation_level=None)) as other:
            other.execute(f"PRAGMA {pragma}")
    node.crash()
    before = node.journal.path.read_bytes()
    with pytest.raises(JournalError, match=sentence):
        restore(backup, node.journal.path, node.folder, 0.0)
    assert node.journal.path.read_bytes() == before
    assert not list(tmp_path.glob(".*"))
    node.journal = Journal(node.journal.path)
    node.runs = Runs(node.folder, node.journal)
    assert len(node.journal.jobs()) == 200


def test_a_damaged_journal_is_replaced_by_its_backup(node: Node, tmp_path: Path) -> None:
    job = node.run_to_end(shell("exit 2"))
    node.journal.backup(tmp_path / "backup.sqlite")
    node.crash()
    node.journal.path.write_text("damaged " * 1000)
    with pytest.raises(JournalError, match="lepton-rl node restore FILE"):
        Journal(node.journal.path)
    restore(tmp_path / "backup.sqlite", node.journal.path, node.folder, 0.0)
    node.restart()
    assert node.journal.job(job).exit_code == 2
