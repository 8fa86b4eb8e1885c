"""Run times of jobs without a requested time, from the past alone."""

from pathlib import Path

from lepton_rl.node.estimates import EstimateRules, RunTimes
from lepton_rl.node.jobs import JobRequest, JobState, RunEnd
from lepton_rl.node.journal import Journal


def job(queue: str = "q", user: str = "u", requested_s: float | None = None) -> JobRequest:
    return JobRequest(argv=("true",), cwd="/", queue=queue, user=user, requested_s=requested_s)


def test_what_a_job_asks_for_stands() -> None:
    times = RunTimes(EstimateRules(least_jobs=1))
    times.learn(job(), 5.0)
    assert times.of(job(requested_s=70.0)) == 70.0


def test_the_default_holds_until_enough_jobs_have_finished() -> None:
    times = RunTimes(EstimateRules(default_s=1000.0, least_jobs=3))
    for seconds in (10.0, 20.0):
        times.learn(job(), seconds)
    assert times.of(job()) == 1000.0
    times.learn(job(), 30.0)
    assert times.of(job()) == 28.0  # the 0.9 quantile of 10, 20, 30


def test_the_users_own_jobs_go_before_the_queues() -> None:
    times = RunTimes(EstimateRules(default_s=1000.0, least_jobs=2))
    for seconds in (10.0, 10.0):
        times.learn(job(user="a"), seconds)
        times.learn(job(user="b"), 100 * seconds)
    assert times.of(job(user="a")) == 10.0
    assert times.of(job(user="b")) == 1000.0
    assert times.of(job(user="new")) == 1000.0  # of 10, 10, 1000, 1000
    assert times.of(job(queue="other", user="a")) == 1000.0


def test_old_jobs_are_forgotten() -> None:
    times = RunTimes(EstimateRules(default_s=1.0, least_jobs=1, last_jobs=3))
    for seconds in (500.0, 10.0, 10.0, 10.0):
        times.learn(job(), seconds)
    assert times.of(job()) == 10.0


def test_a_restarted_daemon_remembers(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", now=0.0) as journal:
        for seconds, code in ((10.0, JobState.DONE), (20.0, JobState.DONE), (900.0, JobState.FAILED)):
            number = journal.submit(job(), 0.0)
            run = journal.begin_run(number, ("g",), 1.0, 1.0, "boot")
            journal.run_started(number, run.run, 1.0, (1, 1), (2, 2))
            journal.end_run(number, run.run, code, RunEnd(ended_time=1.0 + seconds, run_s=seconds), outcome="ended")
        times = RunTimes(EstimateRules(default_s=1.0, least_jobs=2, quantile=0.5))
        times.recall(journal)
    assert times.of(job()) == 15.0  # a failed job says nothing of how long one takes
