"""The journal: what it accepts, what it keeps, and what it says when it cannot."""

import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.errors import IllegalTransition, JobError, JournalError, JournalFull
from lepton_rl.node.job_folders import pass_over_folders
from lepton_rl.node.jobs import (
    ACTIVE,
    FINAL,
    JobRequest,
    JobState,
    RunEnd,
    RunUse,
    StopHow,
    check_request,
    check_transition,
)
from lepton_rl.node.journal import Journal
from lepton_rl.node.ledger import AuditEntry, Decision, Reservation
from lepton_rl.node.past import Usage
from lepton_rl.node.schema import MIGRATIONS
from tests.node.conftest import fill_disk, shell

REQUEST = JobRequest(
    argv=("python", "train.py", "--name", "ünï \udc80 'x'"),
    cwd="/home/ada",
    env={"A": "1", "B": "two words"},
    uid=1000,
    user="ada",
    project="vision",
    queue="night",
    name="resnet",
    gpu_milli=250,
    gpu_memory_mib=4096,
    cpus=1.5,
    ram_mib=2048,
    begin_time=10.0,
    requested_s=3600.0,
    priority=2.0,
    compute_intensity=0.5,
    time_sensitivity=0.25,
    restartable=True,
    checkpoint_signal=signal.SIGUSR2,
    checkpoint_grace_s=5.0,
    stop_grace_s=1.0,
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite", now=1.0) as opened:
        yield opened


def reopened(journal: Journal) -> Journal:
    """Close a journal and return what another process would read."""
    journal.close()
    return Journal(journal.path)


def finish(journal: Journal, job: int, *, started: float, run_s: float, gpus: tuple[str, ...] = ("GPU-a",)) -> None:
    """Write down a whole run of a job."""
    run = journal.begin_run(job, gpus, started, started, "boot").run
    journal.run_started(job, run, started, (1, 1), (2, 2))
    journal.end_run(
        job, run, JobState.DONE, RunEnd(ended_time=started + run_s, run_s=run_s, exit_code=0), outcome="ended"
    )


def test_a_job_is_kept_as_it_was_asked_for(journal: Journal) -> None:
    job = journal.submit(REQUEST, 5.0)
    with reopened(journal) as again:
        record = again.job(job)
    assert (record.request, record.state, record.submit_time, record.run) == (REQUEST, JobState.WAITING, 5.0, 0)


def test_an_id_is_never_given_again(journal: Journal) -> None:
    journal.submit(REQUEST, 0.0)
    last = journal.submit(REQUEST, 0.0)
    with closing(sqlite3.connect(journal.path)) as other, other:
        other.execute("DELETE FROM jobs")
    assert journal.submit(REQUEST, 0.0) == last + 1


@pytest.mark.parametrize("before", [0, 2])
def test_numbers_that_have_a_folder_are_passed_over(
    before: int, journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(before):
        journal.submit(shell("true"), 1.0)
    pass_over_folders(journal, tmp_path)
    (tmp_path / "jobs" / "draft").mkdir(parents=True)
    for number in range(1, before + 1):
        (tmp_path / "jobs" / str(number)).mkdir()
    pass_over_folders(journal, tmp_path)
    assert not caplog.records
    (tmp_path / "jobs" / "14").mkdir()
    pass_over_folders(journal, tmp_path)
    assert "new jobs are numbered from 15" in caplog.text
    assert journal.submit(shell("true"), 1.0) == 15
    (tmp_path / "jobs" / "removed").write_text("20\n")  # forgotten long ago: its number must not come again
    pass_over_folders(journal, tmp_path)
    assert journal.submit(shell("true"), 1.0) == 21


def test_the_queue_is_by_priority_then_by_submission(journal: Journal) -> None:
    late = journal.submit(shell("true"), 9.0)
    early = journal.submit(shell("true"), 3.0)
    urgent = journal.submit(shell("true", priority=1.0), 20.0)
    running = journal.submit(shell("true"), 1.0)
    journal.begin_run(running, ["GPU-a"], 1.0, 1.0, "boot")
    assert [job.id for job in journal.queue()] == [urgent, early, late]
    assert [job.id for job in journal.queue(limit=2)] == [urgent, early]
    assert [job.id for job in journal.jobs(ACTIVE)] == [running]
    assert journal.counts()[JobState.WAITING] == 3


def test_jobs_since_a_time_are_those_submitted_or_ended_since(journal: Journal) -> None:
    old, ended, new = (journal.submit(shell("true"), when) for when in (1.0, 2.0, 100.0))
    finish(journal, ended, started=10.0, run_s=80.0)
    assert [job.id for job in journal.jobs(since=50.0)] == [ended, new]
    assert [job.id for job in journal.jobs()] == [old, ended, new]


def test_an_unknown_job_is_named(journal: Journal) -> None:
    with pytest.raises(JobError, match="there is no job 7"):
        journal.job(7)


@settings(max_examples=30)  # each makes a journal on the disk
@given(st.lists(st.sampled_from(list(JobState)), max_size=8))
def test_only_legal_transitions_are_written(path: list[JobState]) -> None:
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite") as journal:
        job = journal.submit(shell("true"), 0.0)
        state = JobState.WAITING
        for to in path:
            try:
                check_transition(job, state, to)
            except IllegalTransition as refused:
                with pytest.raises(IllegalTransition, match=re.escape(str(refused))):
                    journal.transition(job, to)
            else:
                journal.transition(job, to)
                state = to
            assert journal.job(job).state is state


def test_a_final_state_is_left_by_nobody_and_a_waiting_job_cannot_run_without_an_intent() -> None:
    assert {JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.LOST} == FINAL
    for state in JobState:
        for final in FINAL:
            with pytest.raises(IllegalTransition, match=f"job 3 is {final} and cannot become {state}"):
                check_transition(3, final, state)
    with pytest.raises(IllegalTransition, match=r"may become cancelled, starting$"):
        check_transition(3, JobState.WAITING, JobState.RUNNING)


def test_a_preempted_job_keeps_its_id_and_gets_the_next_run(journal: Journal) -> None:
    job = journal.submit(shell("true", restartable=True), 0.0)
    journal.begin_run(job, ["GPU-a"], 1.0, 2.0, "boot")
    journal.run_started(job, 1, 3.0, (10, 100), (11, 101))
    journal.intend_stop(job, StopHow.CHECKPOINT, JobState.WAITING, "make room", 4.0)
    journal.end_run(job, 1, JobState.WAITING, RunEnd(ended_time=5.0, run_s=2.0, signal=15), outcome="ended")
    assert journal.job(job).end_time is None
    second = journal.begin_run(job, ["GPU-b", "GPU-c"], 6.0, 7.0, "boot")
    assert (second.run, second.gpu_uuids, second.decided_time, second.starting_time) == (
        2,
        ("GPU-b", "GPU-c"),
        6.0,
        7.0,
    )
    first = journal.run(job, 1)
    assert (first.stop_how, first.stop_then, first.stop_reason) == (StopHow.CHECKPOINT, JobState.WAITING, "make room")
    assert (first.supervisor_pid, first.supervisor_ticks, first.child_pid, first.child_ticks) == (10, 100, 11, 101)
    assert [run.run for run in journal.holding()] == [2]
    assert journal.job(job).start_time == 3.0


def test_a_waiting_job_is_cancelled_and_a_running_one_is_not(journal: Journal) -> None:
    waiting, running = journal.submit(REQUEST, 0.0), journal.submit(REQUEST, 0.0)
    journal.begin_run(running, ["GPU-a"], 0.0, 0.0, "boot")
    journal.cancel_waiting(waiting, 9.0, "by ada")
    record = journal.job(waiting)
    assert (record.state, record.end_time, record.reason) == (JobState.CANCELLED, 9.0, "by ada")
    with pytest.raises(IllegalTransition, match=f"job {running} is starting, not waiting"):
        journal.cancel_waiting(running, 9.0, "by ada")


def test_a_failed_batch_leaves_nothing(journal: Journal) -> None:
    def batch() -> None:
        with journal.transaction():
            for _ in range(5):
                journal.submit(REQUEST, 0.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch()
    assert journal.jobs() == []
    with reopened(journal) as again:
        assert again.jobs() == []


def test_a_refused_step_of_a_batch_can_be_left_out(journal: Journal) -> None:
    def refused() -> None:
        with journal.transaction():
            journal.submit(REQUEST, 0.0)
            journal.transition(first, JobState.DONE)

    with journal.transaction():
        first = journal.submit(REQUEST, 0.0)
        with pytest.raises(IllegalTransition):
            refused()
        last = journal.submit(REQUEST, 0.0)
    assert [job.id for job in journal.jobs()] == [first, last]


def test_what_was_committed_outlives_a_killed_process(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from lepton_rl.node.journal import Journal\n"
        "from tests.node.conftest import fill_disk, shell\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "with journal.transaction():\n"
        "    for _ in range(10): journal.submit(shell('true'), 0.0)\n"
        "with journal.transaction():\n"
        "    for _ in range(10): journal.submit(shell('true'), 0.0)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "journal.sqlite"
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -signal.SIGKILL
    with Journal(path) as journal:
        assert len(journal.jobs()) == 10


def test_only_one_process_writes(journal: Journal) -> None:
    with pytest.raises(JournalError, match=rf"a daemon \(process {os.getpid()}\) is using it"):
        Journal(journal.path)
    journal.submit(REQUEST, 0.0)
    with Journal(journal.path, read_only=True) as reader:
        assert len(reader.jobs()) == 1
        with pytest.raises(JournalError, match="attempt to write a readonly database"):
            reader.submit(REQUEST, 0.0)


def test_it_is_for_its_owners_eyes_only(journal: Journal) -> None:
    journal.submit(REQUEST, 0.0)
    for path in journal.path.parent.glob("journal.sqlite*"):
        assert path.stat().st_mode & 0o077 == 0, path


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let the system refuse writes beyond a size, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_the_system_refuses_leaves_nothing_and_can_be_tried_again(journal: Journal) -> None:
    first = journal.submit(REQUEST, 0.0)
    wal = journal.path.with_name("journal.sqlite-wal")

    def batch() -> None:
        with journal.transaction():
            for _ in range(500):
                journal.submit(REQUEST, 0.0)

    with (
        files_no_larger_than(wal.stat().st_size),
        pytest.raises(JournalFull, match="nothing of this change was written"),
    ):
        batch()
    assert [job.id for job in journal.jobs()] == [first]
    batch()
    with reopened(journal) as again:
        assert len(again.jobs()) == 501


def test_a_full_disk_is_one_sentence_and_loses_nothing(small_disk: Path) -> None:
    with Journal(small_disk / "journal.sqlite") as journal:
        bulky = shell("x" * 10_000)
        accepted: list[int] = []

        def fill() -> None:
            while True:
                with journal.transaction():
                    jobs = [journal.submit(bulky, 0.0) for _ in range(5)]
                accepted.extend(jobs)

        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(200_000))
        with pytest.raises(JournalFull, match=r"journal.sqlite: the disk is full; nothing of this change was written"):
            fill()
        assert [job.id for job in journal.jobs()] == accepted
        ballast.unlink()
        with journal.transaction():
            accepted.append(journal.submit(bulky, 0.0))
    with Journal(small_disk / "journal.sqlite") as again:
        assert [job.id for job in again.jobs()] == accepted


@pytest.mark.parametrize("leave", [0, 4096, 8192, 16384, 32768, 65536])
def test_a_full_disk_is_told_when_the_journal_is_opened(leave: int, small_disk: Path) -> None:
    path, ballast = small_disk / "journal.sqlite", small_disk / "ballast"
    fill_disk(ballast, leave)
    with pytest.raises(JournalFull, match="the disk is full"):
        Journal(path)
    ballast.unlink()
    with Journal(path) as journal:
        job = journal.submit(REQUEST, 0.0)
    fill_disk(ballast)
    with pytest.raises(JournalFull, match="the disk is full"):
        Journal(path)
    ballast.unlink()
    with Journal(path) as journal:
        assert journal.job(job).request == REQUEST


def test_a_transaction_that_ran_out_of_space_cannot_be_taken_for_written(small_disk: Path) -> None:
    with Journal(small_disk / "journal.sqlite") as journal:

        def swallow() -> None:
            with journal.transaction():
                for _ in range(1000):
                    try:
                        journal.submit(shell("x" * 10_000), 0.0)
                    except JournalFull:
                        continue

        with pytest.raises(JournalFull):
            swallow()
        assert journal.jobs() == []


def test_a_damaged_journal_says_how_to_go_on(journal: Journal) -> None:
    with journal.transaction():
        for _ in range(200):
            journal.submit(REQUEST, 0.0)
    journal.close()
    data = bytearray(journal.path.read_bytes())
    data[8192:20480] = b"\xa5" * 12288
    journal.path.write_bytes(data)
    with pytest.raises(
        JournalError, match=r"journal.sqlite: is damaged \(.*\); restore a backup with: lepton-rl node restore"
    ):
        Journal(journal.path)


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_text("no database, but long enough to be looked at " * 50)
    with pytest.raises(JournalError, match=r"is damaged \(file is not a database\); restore a backup"):
        Journal(path)
    assert path.read_text().startswith("no database")


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(JournalError, match="is a database, but not a journal of lepton_rl"):
        Journal(path)


def test_a_newer_journal_is_refused(journal: Journal) -> None:
    journal.close()
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(
        JournalError,
        match=f"has version 99 and this lepton_rl knows up to {len(MIGRATIONS)}: install",
    ):
        Journal(journal.path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="name a folder of your own"):
        Journal(tmp_path / "no" / "journal.sqlite")
    with pytest.raises(JournalError, match="there is no journal"):
        Journal(tmp_path / "journal.sqlite", read_only=True)


LATER = (*MIGRATIONS, "ALTER TABLE gpus ADD COLUMN rack TEXT; UPDATE gpus SET rack = 'r1';")


def test_a_migration_keeps_what_is_there_and_a_copy_of_it(journal: Journal) -> None:
    journal.submit(REQUEST, 0.0)
    journal.ledger.set_gpu("GPU-a", "available", None, 0.0)
    journal.close()
    with Journal(journal.path, migrations=LATER) as later:
        assert len(later.jobs()) == 1
    with closing(sqlite3.connect(journal.path)) as other:
        assert other.execute("SELECT rack FROM gpus").fetchall() == [("r1",)]
        assert other.execute("PRAGMA user_version").fetchone() == (len(LATER),)
    with Journal(journal.path.with_name(f"journal.sqlite.version{len(MIGRATIONS)}")) as copy:
        assert len(copy.jobs()) == 1


def test_a_migration_that_fails_changes_nothing(journal: Journal) -> None:
    journal.submit(REQUEST, 0.0)
    journal.close()
    broken = (*MIGRATIONS, "ALTER TABLE gpus ADD COLUMN rack TEXT; INSERT INTO nowhere VALUES (1);")
    with pytest.raises(JournalError, match="no such table: nowhere"):
        Journal(journal.path, migrations=broken)
    with Journal(journal.path) as again:
        assert len(again.jobs()) == 1


def test_usage_counts_the_part_of_a_run_that_lies_in_the_time_asked_for(journal: Journal) -> None:
    whole = journal.submit(shell("true", user="ada", gpu_milli=2000), 0.0)
    share = journal.submit(shell("true", user="bob", gpu_milli=500), 0.0)
    running = journal.submit(shell("true", user="bob"), 0.0)
    finish(journal, whole, started=100.0, run_s=100.0, gpus=("GPU-a", "GPU-b"))
    journal.set_run_usage(whole, 1, RunUse(1000.0, 10, 0.25, 4))
    assert journal.run(whole).gpu_utilisation == 0.25
    finish(journal, share, started=100.0, run_s=40.0)
    journal.begin_run(running, ["GPU-c"], 180.0, 180.0, "boot")
    journal.run_started(running, 1, 180.0, (1, 1), (2, 2))
    assert journal.usage("user", 0.0, 190.0) == [Usage("ada", 1, 1, 180.0, 900.0), Usage("bob", 2, 2, 30.0, 0.0)]
    assert journal.usage("user", 150.0, 300.0) == [Usage("bob", 1, 1, 120.0, 0.0), Usage("ada", 1, 1, 100.0, 500.0)]
    assert journal.usage("queue", 0.0, 50.0) == []


def test_the_audit_log_only_grows(journal: Journal) -> None:
    entry = AuditEntry(time=1.0, uid=0, user="root", verb="drain", target="GPU-a", outcome="ok", detail={"why": "fan"})
    journal.ledger.audit(entry)
    (kept,) = journal.ledger.audit_log()
    assert (kept.verb, kept.detail, kept.id) == ("drain", {"why": "fan"}, 1)
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        replacing = "INSERT OR REPLACE INTO audit SELECT id, time, uid, 'eve', verb, target, outcome, detail FROM audit"
        for statement in ("DELETE FROM audit", "UPDATE audit SET user = 'eve'", replacing):
            with pytest.raises(sqlite3.IntegrityError, match="the audit log can only grow"):
                other.execute(statement)


def test_the_ledger_keeps_gpus_reservations_and_decisions(journal: Journal) -> None:
    ledger = journal.ledger
    ledger.set_gpu("GPU-a", "available", None, 1.0)
    ledger.set_gpu("GPU-a", "drained", "fan", 2.0)
    ledger.set_gpu("GPU-a", "drained", "fan, ordered", 3.0)
    assert (ledger.gpus()["GPU-a"].state, ledger.gpus()["GPU-a"].reason, ledger.gpus()["GPU-a"].since) == (
        "drained", "fan, ordered", 2.0,
    )  # fmt: skip
    asked = Reservation(uid=1, user="ada", project="p", gpu_uuids=("GPU-a",), begin_time=10.0, end_time=20.0)
    number = ledger.reserve(asked)
    assert [kept.gpu_uuids for kept in ledger.reservations(15.0)] == [("GPU-a",)]
    assert ledger.reservations(20.0) == []
    assert ledger.cancel_reservation(number, 12.0)
    assert not ledger.cancel_reservation(number, 12.0)
    assert ledger.reservations(5.0) == []
    job = journal.submit(REQUEST, 0.0)
    ledger.decide(Decision(time=1.0, policy="fifo", decision_s=1e-5, job=job, detail={"score": 0.5}))
    ledger.decide(Decision(time=2.0, policy="agent", decision_s=0.1, fallback_reason="timeout"))
    assert [decision.policy for decision in ledger.decisions()] == ["fifo", "agent"]
    assert [decision.detail for decision in ledger.decisions(job=job)] == [{"score": 0.5}]
    assert ledger.forget_decisions(1.5) == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"argv": ()}, "a job needs a command"),
        ({"cwd": "here"}, "must be an absolute path"),
        ({"gpu_milli": 1500}, "1.5 GPUs: ask for a whole number, or for a share below 1"),
        ({"gpu_milli": -1}, "ask for a whole number"),
        ({"argv": ("a\0b",)}, "holds a zero character"),
        ({"env": {"A=B": "1"}}, "cannot name an environment variable"),
        ({"requested_s": float("nan")}, "requested_s must be a finite number"),
        ({"ram_mib": 0}, "ram_mib must be above 0"),
        ({"checkpoint_signal": 4000}, "there is no such signal"),
        ({"user": "\udc80"}, "is not text in UTF-8"),
    ],
)
def test_a_request_that_no_node_can_run_is_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        check_request(JobRequest(**{"argv": ("true",), "cwd": "/", **settings}))  # type: ignore[arg-type]
