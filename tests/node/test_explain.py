"""Why a job waits, told so that a person can do something about it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_rl.agents.registry import make_policy
from lepton_rl.agents.scoring import scores_of
from lepton_rl.core.actions import Action, Preempt, Start
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.node.explain import explain
from lepton_rl.node.guard import Guard, GuardRules
from lepton_rl.node.jobs import JobState
from lepton_rl.node.trial import Canary, of_canary
from tests.fake_nvml import FakeNvml
from tests.node.live import PATIENT, LiveNode


@pytest.fixture
def node(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> Iterator[LiveNode]:
    """A node with four GPUs that take work; nobody decides."""
    with LiveNode(tmp_path, four_gpus, fake_library) as node:
        yield node.ready()


class Waits:
    """A policy that lets all wait, and scores jobs by their GPUs, fewest first."""

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Start nothing."""
        return []

    def scores(self, snapshot: Snapshot) -> Any:
        """Return the GPUs of each row."""
        return np.append(snapshot.running.gpus, snapshot.queue.gpus)


class Mute(Waits):
    """One that fails at scoring."""

    def scores(self, snapshot: Snapshot) -> Any:
        """Fail."""
        raise ValueError


def asked(node: LiveNode, job: int, policy: Any = None, rules: GuardRules | None = None) -> dict[str, Any]:
    """Return what is said of a job."""
    fcfs = make_policy("fcfs")
    guard = Guard(policy or fcfs, fcfs, ("acting", "fallback"), rules)
    return explain(node.job(job), node.cluster, guard, scores_of)


def test_a_job_that_fits_waits_for_the_policy(node: LiveNode) -> None:
    first, second = node.submit("true"), node.submit("true")
    found = asked(node, second)
    assert found["why"] == "it fits now; the policy lets others go first or keeps room for them"
    assert (found["ahead"], found["policy"], found["unavailable"]) == (1, "acting", [])
    assert asked(node, first)["ahead"] == 0
    assert (found["rank"], found["waiting"]) == (2, 2)
    assert found["first"][0]["job"] == first


def test_a_job_that_does_not_fit_is_told_whose_end_makes_room(node: LiveNode) -> None:
    short = node.submit(PATIENT, gpu_milli=2000, requested_s=50.0)
    long = node.submit(PATIENT, gpu_milli=2000, requested_s=500.0)
    for job in (short, long):
        node.cluster.apply(Start(job))
        node.running(job)
    for gpus, who in ((2, short), (4, long)):
        job = node.submit("true", gpu_milli=1000 * gpus)
        assert asked(node, job)["starts_when"].startswith(f"job {who} has ended, in about ")
    node.cluster.drain(node.cluster.hardware.uuids[0], "dust")
    found = asked(node, job)
    assert found["unavailable"] == ["GPU 0 is drained: dust"]


def test_the_ends_that_make_room_are_listed(node: LiveNode) -> None:
    for requested_s in (50.0, 500.0):
        job = node.submit(PATIENT, gpu_milli=2000, requested_s=requested_s)
        node.cluster.apply(Start(job))
        node.running(job)
    found = asked(node, node.submit("true", gpu_milli=4000))
    assert [(end["job"], end["gpus"]) for end in found["ends"]] == [(1, 2.0), (2, 2.0)]
    assert 0.0 < found["ends"][0]["in_s"] <= 50.0 < found["ends"][1]["in_s"] <= 500.0


def test_at_most_five_jobs_ahead_are_named_and_ties_say_so(node: LiveNode) -> None:
    for _ in range(7):
        last = node.submit("true", requested_s=60.0)
    found = asked(node, last, make_policy("sjf"))
    assert (found["rank"], [other["job"] for other in found["first"]]) == (7, [1, 2, 3, 4, 5])
    assert found["first"][0]["why"] == "the same score, and it was submitted earlier"
    assert found["score_is"] == "the requested time, seconds; the lowest goes first"


def test_a_canarys_job_is_told_what_the_canary_makes_of_it(node: LiveNode) -> None:
    policy = Canary(make_policy("sjf"), make_policy("smallest"), 0.5)
    jobs = [node.submit("true", requested_s=60.0) for _ in range(8)]
    told = {of_canary(job, 0.5): asked(node, job, policy)["score_is"].split(";")[0] for job in jobs}
    assert told == {True: "its GPUs", False: "the requested time, seconds"}


def test_what_no_end_would_help_waits_for_more_gpus(node: LiveNode) -> None:
    job = node.submit("true", gpu_milli=4000)
    node.cluster.drain(node.cluster.hardware.uuids[0], "dust")
    assert asked(node, job)["starts_when"] == "more GPUs take work than now"


def test_scores_are_those_of_the_waiting_jobs_and_the_lowest_is_the_alternative(node: LiveNode) -> None:
    runs = node.submit(PATIENT, gpu_milli=500)
    node.cluster.apply(Start(runs))
    node.running(runs)
    large, small = node.submit("true", gpu_milli=3000), node.submit("true", gpu_milli=1000)
    found = asked(node, large, Waits())
    assert (found["score"], found["alternative"]) == (3.0, {"job": small, "score": 1.0})
    assert (found["rank"], found["waiting"], found["score_is"]) == (
        2,
        2,
        "the policy's own score; the lowest goes first",
    )
    assert found["first"] == [{"job": small, "score": 1.0, "why": "its score 1 is lower"}]
    found = asked(node, large, Mute())
    assert found["note"] == "acting could not say what it makes of it: ValueError"


def test_a_job_that_is_not_in_the_queue_yet_or_any_more(node: LiveNode) -> None:
    later = node.submit("true", begin_time=time.time() + 100.0)
    assert asked(node, later)["why"].startswith("it begins in ")
    ended = node.submit("exit 3")
    node.cluster.apply(Start(ended))
    node.wait_for(ended, JobState.FAILED)
    assert asked(node, ended)["why"] == "it has ended: ended with exit code 3"
    node.cluster.cancel(later, "enough")
    assert asked(node, later)["why"] == "it has ended: enough"


def test_a_job_whose_start_was_put_off_is_about_to_start(node: LiveNode) -> None:
    slow = "trap 'sleep 0.3; exit 0' USR1; echo ready; while :; do sleep 0.02; done"
    leaves, comes = node.submit(slow, restartable=True), node.submit("true")
    node.cluster.apply(Start(leaves, (0,)))
    node.running(leaves)
    node.cluster.apply(Preempt(leaves))
    node.cluster.apply(Start(comes, (0,)))
    assert asked(node, comes)["why"] == "it is about to start, or its last run has not left its GPUs yet"


def test_a_starving_job_is_named(node: LiveNode) -> None:
    job, other = node.submit("true"), node.submit("true")
    node.until(lambda: node.cluster.state.time > node.job(job).submit_time - node.journal.created + 0.05, "a moment")
    found = asked(node, other, rules=GuardRules(starving_floor_s=0.01))
    assert found["note"] == f"job {job} has waited for too long: until it runs, the order of submission holds"
