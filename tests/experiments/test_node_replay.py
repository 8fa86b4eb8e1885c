"""A node's journal as a workload, and the simulator beside what happened."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lepton_rl.agents import make_policy, run_policy
from lepton_rl.core import Outcome
from lepton_rl.core.cluster import ClusterSpec, NodeGroup, describe_cluster
from lepton_rl.core.hardware import gpu_type
from lepton_rl.errors import JournalError, NodeError
from lepton_rl.experiments.node_compare import compare
from lepton_rl.experiments.node_replay import replay
from lepton_rl.node.export import read_jobs
from lepton_rl.node.jobs import JobRequest, JobState, RunEnd, RunUse
from lepton_rl.node.journal import Journal
from lepton_rl.node.ledger import Decision
from lepton_rl.node.paths import JOURNAL, NODE
from lepton_rl.workloads import Trace
from lepton_rl.workloads.plain_csv import read_csv, write_csv

BEGAN = 1_800_000_000.0
DELAY = 0.25
CLUSTER = ClusterSpec.of_groups((NodeGroup(1, 4, gpu_type("A100-SXM4-80GB")),))


def workload(jobs: int = 60) -> Trace:
    rng = np.random.default_rng(3)
    return Trace.from_columns(
        {
            "submit_time": np.sort(rng.uniform(0, 400, jobs)),
            "run_time": rng.uniform(5, 60, jobs),
            "requested_time": np.full(jobs, 60.0),
            "gpus": rng.choice([0.5, 1.0, 2.0, 4.0], jobs),
            "user": [f"user{number % 3}" for number in range(jobs)],
        },
        requested="given",
    )


def as_it_ran(trace: Trace, policy: str) -> Outcome:
    """The schedule of a node on which every start takes DELAY."""
    held = Trace.from_columns(
        {
            "submit_time": trace.submit_time, "run_time": trace.run_time + DELAY, "gpus": trace.gpus,
            "requested_time": trace.requested_time,
        },
        requested="given",
    )  # fmt: skip
    return run_policy(make_policy(policy), held, CLUSTER)


def node(folder: Path, trace: Trace, outcome: Outcome, more: Mapping[str, object] | None = None) -> Path:
    """The state folder of a node on which this happened."""
    about = {
        "cluster": describe_cluster(CLUSTER), "policy": "saf", "placement": "first", "default_time_s": 60.0,
        "trial": None, "canary_share": None,
    }  # fmt: skip
    (folder / NODE).write_text(json.dumps({**about, **(more or {})}))
    with Journal(folder / JOURNAL, now=BEGAN) as journal:
        for row in range(len(trace)):
            request = JobRequest(
                argv=("true",), cwd="/", gpu_milli=round(trace.gpus[row] * 1000),
                requested_s=float(trace.requested_time[row]), user=trace.labels["user"][trace.user[row]],
            )  # fmt: skip
            journal.submit(request, BEGAN + float(trace.submit_time[row]))
        for row in range(len(trace)):
            decided = BEGAN + float(outcome.first_start[row])
            run = journal.begin_run(row + 1, ("GPU-0",), decided, decided, "boot")
            journal.run_started(row + 1, run.run, decided + DELAY, (1, 1), (2, 2))
            end = RunEnd(ended_time=BEGAN + float(outcome.finish[row]), run_s=float(trace.run_time[row]))
            journal.end_run(row + 1, run.run, JobState.DONE, end, outcome="ended")
    return folder


@pytest.fixture
def trace() -> Trace:
    return workload()


def test_a_replay_of_what_the_simulator_did_has_no_gap(tmp_path: Path, trace: Trace) -> None:
    found = replay(node(tmp_path, trace, as_it_ran(trace, "saf")))
    assert found.start_delay == pytest.approx(DELAY, abs=1e-6)
    assert found.wait == pytest.approx(found.real_wait, abs=1e-5)
    rows = found.rows()
    assert rows["mean wait, s"]["difference"] == pytest.approx(0.0, abs=1e-5)
    assert rows["makespan, s"]["difference"] == pytest.approx(0.0, abs=1e-5)
    assert rows["starts that differ by more than 1 s"]["simulated"] == 0


def test_a_gap_is_seen(tmp_path: Path, trace: Trace) -> None:
    folder = node(tmp_path, trace, as_it_ran(trace, "fcfs"))  # it was not saf that decided
    rows = replay(folder).rows()
    assert (rows["mean wait, s"]["difference"] or 0.0) < -1.0
    assert (rows["starts that differ by more than 1 s"]["simulated"] or 0.0) > 5
    assert replay(folder, "fcfs").rows()["mean wait, s"]["difference"] == pytest.approx(0.0, abs=1e-5)


def test_a_burst_that_the_node_starts_one_by_one_is_seen(tmp_path: Path) -> None:
    burst = Trace.from_columns(
        {
            "submit_time": [0.0] * 8, "run_time": [60.0] * 8, "requested_time": [60.0] * 8, "gpus": [0.5] * 8,
            "user": ["ada"] * 8,
        },
        requested="given",
    )  # fmt: skip
    outcome = as_it_ran(burst, "saf")
    one_by_one = replace(outcome, first_start=outcome.first_start + 0.6 * np.arange(8))
    rows = replay(node(tmp_path, burst, one_by_one)).rows()
    assert rows["most starts within 1 s"] == {"node": 2.0, "simulated": 8.0, "difference": 6.0}


def test_an_export_is_a_trace_like_any_other(tmp_path: Path, trace: Trace) -> None:
    folder = node(tmp_path, trace, as_it_ran(trace, "saf"))
    with Journal(folder / JOURNAL, read_only=True) as journal:
        history = read_jobs(journal)
    assert history.trace.run_time == pytest.approx(trace.run_time)
    assert history.trace.submit_time == pytest.approx(trace.submit_time - trace.submit_time[0], abs=1e-5)
    assert history.trace.gpus.tolist() == trace.gpus.tolist()
    write_csv(history.trace, tmp_path / "mine.csv")
    again = read_csv(tmp_path / "mine.csv")
    assert again.run_time == pytest.approx(history.trace.run_time)
    assert set(again.labels["user"]) == {"user0", "user1", "user2"}


def test_an_export_says_how_busy_jobs_kept_their_gpus(tmp_path: Path, trace: Trace) -> None:
    folder = node(tmp_path, trace, as_it_ran(trace, "saf"))
    with Journal(folder / JOURNAL) as journal:
        journal.set_run_usage(2, 1, RunUse(utilisation=0.25, samples=4))
        measured = read_jobs(journal).trace
    assert np.flatnonzero(~np.isnan(measured.gpu_utilization)).tolist() == [1]
    assert measured.gpu_utilization[1] == pytest.approx(0.25)


def test_an_anonymous_export_names_nobody(tmp_path: Path, trace: Trace) -> None:
    folder = node(tmp_path, trace, as_it_ran(trace, "saf"))
    with Journal(folder / JOURNAL, read_only=True) as journal:
        first, second = (read_jobs(journal, anonymous=True).trace for _ in range(2))
    assert len(set(first.labels["user"])) == 3
    assert not any("user" in name for name in first.labels["user"])
    assert set(first.labels["user"]).isdisjoint(second.labels["user"])  # the key is thrown away
    assert len({(code, number % 3) for number, code in enumerate(first.user.tolist())}) == 3  # one for each user


def test_what_has_not_ended_is_named(tmp_path: Path, trace: Trace) -> None:
    folder = node(tmp_path, trace, as_it_ran(trace, "saf"))
    with Journal(folder / JOURNAL) as journal:
        journal.submit(JobRequest(argv=("true",), cwd="/"), BEGAN + 500.0)
        dropped = read_jobs(journal).trace.dropped
    assert [str(entry) for entry in dropped] == ["dropped 1 (has not run to an end): job 61 is waiting"]


def test_nothing_to_export_is_one_sentence(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / JOURNAL, now=0.0) as journal,
        pytest.raises(JournalError, match="no job has run to its end"),
    ):
        read_jobs(journal)


def test_a_folder_without_a_node_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="there is no node here"):
        replay(tmp_path)
    (tmp_path / NODE).write_text("{")
    with pytest.raises(NodeError, match="this file is damaged"):
        replay(tmp_path)


def test_two_policies_are_compared_on_the_same_jobs(tmp_path: Path, trace: Trace) -> None:
    folder = node(tmp_path, trace, as_it_ran(trace, "saf"))
    with pytest.raises(NodeError, match="no policy is on trial"):
        compare(folder)
    found = compare(folder, "fcfs")
    assert list(found["simulated"]) == ["saf", "fcfs"]
    low, high = found["difference"]["wait_s"]["low"], found["difference"]["wait_s"]["high"]
    means = [figures["mean_wait_s"]["mean"] for figures in found["simulated"].values()]
    assert found["difference"]["wait_s"]["mean"] == pytest.approx(means[1] - means[0])
    assert 0 < low < high
    assert "canary" not in found


def test_a_canarys_jobs_are_those_that_it_started_since_the_trial_began(tmp_path: Path, trace: Trace) -> None:
    trial = {"trial": "fcfs", "canary_share": 0.3, "trial_since": BEGAN + 200.0}
    outcome = as_it_ran(trace, "saf")
    folder = node(tmp_path, trace, outcome, trial)
    assert compare(folder)["canary"] == {}  # nobody has decided anything since
    with Journal(folder / JOURNAL) as journal:
        for row in np.argsort(outcome.first_start):
            job = int(row) + 1
            doubt = job % 5 == 0  # then it is the fallback's
            started: dict[str, dict[str, list[int]]] = (
                {} if doubt else {"started": {"acting": [], "canary": []} | {_role(job): [job]}}
            )
            journal.ledger.decide(
                Decision(
                    time=BEGAN + float(outcome.first_start[row]), policy="saf", decision_s=0.0,
                    fallback_reason="doubt" if doubt else None, detail={"actions": [], "by": "saf", **started},
                )
            )  # fmt: skip
        put_off = min(job for job in range(1, 61) if outcome.first_start[job - 1] >= 210.0 and job % 5 and job % 3)
        before = BEGAN + float(outcome.first_start[put_off - 1]) - 1.0
        for at, role in ((before, "canary"), (before + 0.5, "acting"), (before + 1e3, "canary")):
            journal.ledger.decide(
                Decision(time=at, policy="saf", decision_s=0.0, detail={"actions": [], "started": {role: [put_off]}})
            )
    late = [job for job in range(1, 61) if outcome.first_start[job - 1] >= 200.0 and job % 5]
    groups = compare(folder)["canary"]
    assert groups["canary"]["jobs"] == sum(_role(job) == "canary" for job in late)
    assert groups["acting"]["jobs"] == sum(_role(job) == "acting" for job in late)


def _role(job: int) -> str:
    return "canary" if job % 3 == 0 else "acting"
