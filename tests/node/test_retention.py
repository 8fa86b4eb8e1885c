"""Ended jobs go after a while; what they used stays, and nothing that lives is touched."""

import asyncio
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lepton_rl.errors import ConfigError, JobError
from lepton_rl.experiments.deploy import read_node_config
from lepton_rl.node.jobs import JobState, RunEnd, RunUse
from lepton_rl.node.journal import Journal
from lepton_rl.node.past import DAY_S, Usage
from lepton_rl.node.restore import restore
from lepton_rl.node.retention import RetentionRules, forget, forget_daily, removed_jobs
from tests.node.conftest import PATIENCE_S, Node, drain, shell

RULES = RetentionRules(journal_days=90.0, logs_days=30.0)
NOON = 0.5 * DAY_S


def ended(journal: Journal, started: float, run_s: float, user: str = "ada", **more: bool) -> int:
    """Write down a job that ran once, for a unit of energy each second."""
    job = journal.submit(shell("true", user=user), started)
    journal.begin_run(job, ["GPU-a"], started, started, "boot")
    journal.run_started(job, 1, started, (1, 1), (2, 2))
    state = JobState.LOST if more else JobState.DONE
    journal.end_run(job, 1, state, RunEnd(ended_time=started + run_s, run_s=run_s), outcome="ended", **more)
    journal.set_run_usage(job, 1, RunUse(run_s))
    return job


def test_files_go_first_and_rows_later(node: Node) -> None:
    job = node.run_to_end(shell("echo hello"))
    end = node.journal.job(job).end_time
    assert end is not None
    assert asyncio.run(forget(node.journal, node.folder, RULES, end + 29 * DAY_S)) == (0, 0)
    assert asyncio.run(forget(node.journal, node.folder, RULES, end + 31 * DAY_S)) == (1, 0)
    assert not node.runs.folder(job, 1).exists()
    assert node.journal.job(job).state is JobState.DONE
    assert asyncio.run(forget(node.journal, node.folder, RULES, end + 91 * DAY_S)) == (0, 1)
    with pytest.raises(JobError, match="there is no job 1"):
        node.journal.job(job)
    assert node.journal.counts()[JobState.DONE] == 1
    assert node.journal.runs_begun() == 1
    assert node.journal.submit(shell("true"), 0.0) == job + 1


def test_null_keeps_for_ever(node: Node) -> None:
    job = node.run_to_end(shell("true"))
    assert asyncio.run(forget(node.journal, node.folder, RetentionRules(None, None), time.time() + 1e9)) == (0, 0)
    assert asyncio.run(forget(node.journal, node.folder, RetentionRules(None, 1.0), time.time() + 1e9)) == (1, 0)
    assert node.journal.job(job).state is JobState.DONE


def test_what_waits_runs_or_has_an_orphan_is_not_touched(node: Node) -> None:
    waiting = node.journal.submit(shell("true"), 0.0)
    running = node.start(shell("echo ready; exec sleep 1000"))
    node.wait_for_output(running, "ready")
    orphaned = ended(node.journal, 0.0, 10.0, holds_gpus=True)
    (node.folder / "jobs" / str(orphaned)).mkdir()
    assert asyncio.run(forget(node.journal, node.folder, RULES, time.time() + 1000 * DAY_S)) == (0, 0)
    assert [job.id for job in node.journal.jobs()] == [waiting, running, orphaned]
    node.journal.release_gpus(orphaned, 1)
    assert asyncio.run(forget(node.journal, node.folder, RULES, time.time() + 1000 * DAY_S)) == (1, 1)


def test_usage_is_the_same_before_and_after(node: Node) -> None:
    ended(node.journal, 0.0, NOON)
    ended(node.journal, NOON, DAY_S, "bob")  # into the second day
    for day in (0, 1):
        at_midnight = node.journal.usage("user", day * DAY_S, 1e9)
        assert asyncio.run(forget(node.journal, node.folder, RULES, 5 * DAY_S)) == (0, 0)
        assert at_midnight == node.journal.usage("user", day * DAY_S, 1e9)
    before = [node.journal.usage("user", day * DAY_S, 1e9) for day in (0, 1, 2)]
    assert asyncio.run(forget(node.journal, node.folder, RULES, 200 * DAY_S)) == (0, 2)
    assert [node.journal.usage("user", day * DAY_S, 1e9) for day in (0, 1, 2)] == before
    assert before[0] == [Usage("bob", 1, 1, DAY_S, DAY_S), Usage("ada", 1, 1, NOON, NOON)]
    assert before[1] == [Usage("bob", 1, 1, NOON, NOON)]
    assert before[2] == []
    ended(node.journal, 300 * DAY_S, 60.0, "bob")
    assert node.journal.usage("user", 0.0, 1e9)[0] == Usage("bob", 2, 2, DAY_S + 60.0, DAY_S + 60.0)


def test_a_day_that_is_asked_for_in_part_counts_in_proportion(node: Node) -> None:
    ended(node.journal, 0.0, 100.0)
    asyncio.run(forget(node.journal, node.folder, RULES, 200 * DAY_S))
    assert node.journal.usage("queue", NOON, 1e9) == [Usage("default", 1, 1, 50.0, 50.0)]


_FORGET = """
import asyncio
import sys
from pathlib import Path
from lepton_rl.node.journal import Journal
from lepton_rl.node.retention import RetentionRules, forget
folder = Path(sys.argv[1])
with Journal(folder / "journal.sqlite") as journal:
    print("begun", flush=True)
    asyncio.run(forget(journal, folder, RetentionRules(), float(sys.argv[2])))
    print("ended", flush=True)
"""


def test_killed_in_the_middle_it_goes_on_where_it_was(node: Node, tmp_path: Path) -> None:
    total = 600
    with node.journal.transaction():
        for number in range(total):
            ended(node.journal, 60.0 * number, 60.0)
    for number in range(1, total + 1):
        place = node.runs.folder(number, 1)
        place.mkdir(parents=True)
        (place / "stdout").write_text("hello")
    used = node.journal.usage("user", 0.0, 1e9)
    killed = 0
    for attempt in range(60):
        node.journal.close()
        words = [sys.executable, "-c", _FORGET, str(node.folder), str(400 * DAY_S)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.01 * (attempt + 1))
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += process.returncode == -signal.SIGKILL
        node.journal = Journal(node.folder / "journal.sqlite")
        assert node.journal.usage("user", 0.0, 1e9)[0].jobs == used[0].jobs
        assert node.journal.usage("user", 0.0, 1e9)[0].gpu_s == pytest.approx(used[0].gpu_s)
        assert node.journal.counts()[JobState.DONE] == total
        kept = {job.id for job in node.journal.jobs()}
        folders = {int(place.name) for place in (node.folder / "jobs").iterdir() if place.name.isdecimal()}
        assert folders <= kept
        if not kept:
            break
    assert killed > 0
    assert not node.journal.jobs()
    assert removed_jobs(node.folder) == set(range(1, total + 1))


def test_a_restore_does_not_run_again_what_was_removed_since(node: Node, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    job = node.journal.submit(shell(f"echo ran >> {witness}"), 0.0)
    node.journal.backup(tmp_path / "backup.sqlite")
    node.runs.launch(job, ["GPU-a"])
    drain(node.runs)
    late = node.run_to_end(shell("true"))
    assert asyncio.run(forget(node.journal, node.folder, RULES, time.time() + 400 * DAY_S)) == (2, 2)
    node.crash()
    restore(tmp_path / "backup.sqlite", node.folder / "journal.sqlite", node.folder, time.time())
    node.restart()
    record = node.journal.job(job)
    assert record.state is JobState.CANCELLED
    assert record.reason == "it ended after this backup was made, and its files have been removed since"
    assert node.journal.submit(shell("true"), 0.0) == late + 1
    assert witness.read_text() == "ran\n"


def test_half_a_line_of_a_killed_daemon_is_no_number(node: Node) -> None:
    job = node.run_to_end(shell("true"))
    (node.folder / "jobs" / "removed").write_text("\n7\n12")
    assert removed_jobs(node.folder) == {7}
    asyncio.run(forget(node.journal, node.folder, RULES, time.time() + 31 * DAY_S))
    assert removed_jobs(node.folder) == {7, job}


def test_it_is_done_at_the_start_and_daily(node: Node) -> None:
    first = ended(node.journal, 0.0, 10.0)

    async def turn() -> None:
        task = asyncio.create_task(forget_daily(node.journal, node.folder, RULES, lambda: 400 * DAY_S, period_s=0.001))
        for _ in (1, 2):
            deadline = time.monotonic() + PATIENCE_S
            while node.journal.jobs():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.001)
            assert ended(node.journal, 0.0, 10.0) > first
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(turn())
    assert node.journal.counts()[JobState.DONE] == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{journal_days: 10}", "files of jobs are kept for as long as the journal has the jobs (10 days)"),
        ("{journal_days: 0}", "journal_days"),
        ("{journal_day: 3}", "did you mean 'journal_days'"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "node.yaml"
    file.write_text(f"retention: {text}\n")
    with pytest.raises(ConfigError) as caught:
        read_node_config(file)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_that_keeps_everything(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("retention: {journal_days: null, logs_days: null}\n")
    kept = read_node_config(file).retention
    assert (kept.journal_days, kept.logs_days) == (None, None)
