"""A job with a limit is ended when it has run for longer: over all its runs, and while no daemon was there."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_rl.core.actions import Preempt, Start
from lepton_rl.errors import JobError
from lepton_rl.node.durations import spelled
from lepton_rl.node.estimates import EstimateRules, RunTimes
from lepton_rl.node.export import read_jobs
from lepton_rl.node.jobs import JobState
from lepton_rl.node.journal import Journal
from tests.fake_nvml import FakeNvml
from tests.node.conftest import shell
from tests.node.daemons import DaemonNode
from tests.node.live import PATIENT, LiveNode


@pytest.fixture
def node(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> Iterator[LiveNode]:
    with LiveNode(tmp_path, four_gpus, fake_library) as node:
        yield node.ready()


def test_a_job_that_runs_too_long_is_ended_and_another_is_not(node: LiveNode) -> None:
    short = node.submit(PATIENT, time_limit_s=0.5)
    free = node.submit(PATIENT, requested_s=0.5)
    for gpu, job in enumerate((short, free)):
        node.cluster.apply(Start(job, (gpu,)))
    node.running(free)
    found = node.wait_for(short, JobState.FAILED)
    assert found.reason == "ran longer than its limit of 0.5 s"
    run_s = node.journal.run(short).run_s
    assert run_s is not None
    assert run_s > 0.5
    assert node.job(free).state is JobState.RUNNING


def test_one_that_does_not_heed_the_signal_is_killed_after_its_grace(node: LiveNode) -> None:
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    job = node.submit(stubborn, time_limit_s=0.5, stop_grace_s=0.3)
    node.cluster.apply(Start(job, (0,)))
    assert node.wait_for(job, JobState.FAILED).signal == 9
    assert node.job(job).reason == "ran longer than its limit of 0.5 s"


def test_one_that_ends_in_time_keeps_its_own_exit(node: LiveNode) -> None:
    job = node.submit("exit 0", time_limit_s=60.0)
    node.cluster.apply(Start(job, (0,)))
    assert node.wait_for(job, JobState.DONE).reason is None


def test_runs_before_a_preemption_count(node: LiveNode) -> None:
    limit_s = 3.0
    job = node.submit(PATIENT, time_limit_s=limit_s, restartable=True, checkpoint_grace_s=0.0)
    node.cluster.apply(Start(job, (0,)))
    node.running(job)
    began = time.monotonic()
    node.until(lambda: time.monotonic() > began + 1.0, "some progress")
    node.cluster.apply(Preempt(job))
    node.until(lambda: job not in node.cluster.snapshot().running.id and not node.journal.holding(), "a preemption")
    if node.job(job).state is JobState.WAITING:  # else a slow machine has spent the limit on the first run
        node.ready()
        node.cluster.apply(Start(job, (1,)))
    node.wait_for(job, JobState.FAILED)
    first, *later = node.journal.runs(job)
    assert first.run_s is not None
    assert first.run_s > 1.0
    for second in later:
        assert second.run_s is not None
        assert limit_s < first.run_s + second.run_s
    assert node.job(job).reason == "ran longer than its limit of 3 s"


def test_the_time_while_no_daemon_was_there_counts(node: LiveNode, fake_library: Path) -> None:
    job = node.submit(PATIENT, time_limit_s=1.5)
    node.cluster.apply(Start(job, (0,)))
    node.running(job)
    node.close()
    time.sleep(2.0)  # nobody is there to look
    with LiveNode(node.folder, node.fake, fake_library) as again:
        assert again.job(job).state is JobState.RUNNING
        again.cluster.tick()
        assert again.job(job).state is JobState.STOPPING
        assert again.wait_for(job, JobState.FAILED).reason == "ran longer than its limit of 1.5 s"


def test_a_cancelled_job_stays_cancelled(node: LiveNode) -> None:
    job = node.submit("trap '' TERM; echo ready; while :; do sleep 0.05; done", time_limit_s=1.0, stop_grace_s=2.0)
    node.cluster.apply(Start(job, (0,)))
    node.running(job)
    if node.job(job).state is JobState.RUNNING:
        node.cluster.cancel(job, "cancelled by ada")
        assert node.wait_for(job, JobState.CANCELLED).reason == "cancelled by ada"


def test_policies_plan_with_the_limit(tmp_path: Path) -> None:
    times = RunTimes(EstimateRules(default_s=1000.0))
    assert times.of(shell("true", time_limit_s=3000.0)) == 3000.0
    assert times.of(shell("true", time_limit_s=300.0, requested_s=60.0)) == 60.0
    assert times.of(shell("true", time_limit_s=300.0, requested_s=900.0)) == 300.0
    for _ in range(5):
        times.learn(shell("true"), 50.0)
    assert times.of(shell("true", time_limit_s=300.0)) == 50.0
    assert times.of(shell("true", time_limit_s=20.0)) == 20.0


def test_an_exported_trace_has_what_the_policy_was_told(node: LiveNode) -> None:
    job = node.submit("exit 0", time_limit_s=60.0)
    node.cluster.apply(Start(job, (0,)))
    node.wait_for(job, JobState.DONE)
    trace = read_jobs(node.journal).trace
    assert trace.requested_time.tolist() == [60.0]
    assert trace.run_time[0] < 60.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(10_800.0, "3 h"), (5400.0, "1 h 30 min"), (90.0, "1 min 30 s"), (0.5, "0.5 s"), (176_400.0, "2 d 1 h")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert spelled(seconds) == words


def test_a_limit_that_is_none_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal, pytest.raises(JobError, match="time_limit_s must be above 0"):
        journal.submit(shell("true", time_limit_s=0.0), 0.0)


def test_from_the_command_line(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> None:
    with DaemonNode(tmp_path, four_gpus, fake_library, "policy: fcfs\njobs: {time_limit: requested}\n") as node:
        node.start()
        own = node.submit("--time", "2h", "--time-limit", "1s", "--", "sleep", "1000")
        asked = node.submit("--time", "1s", "--", "sleep", "1000")
        done = node.command("node", "wait", str(own), str(asked))
        why = "failed: ran longer than its limit of 1 s"
        assert done.stdout.splitlines() == [f"job {own}: {why}", f"job {asked}: {why}"]
        assert node.job(asked)["time_limit_s"] == 1.0
        assert "jobs are ended when they have run for longer than their --time" in node.node("status")
        shown = {job["job"]: job["time_limit_s"] for job in json.loads(node.node("queue", "--all", "--json"))}
        assert shown == {own: 1.0, asked: 1.0}
