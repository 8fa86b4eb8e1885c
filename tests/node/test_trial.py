"""A second policy beside the acting one: it changes nothing as a shadow, and only its own jobs as a canary."""

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from lepton_rl.agents import make_policy
from lepton_rl.core import Action, ClusterSpec, Policy, Snapshot, Start
from lepton_rl.core.actions import Preempt, SetPowerLimit
from lepton_rl.errors import LeptonError
from lepton_rl.node.allowance import Allowance
from lepton_rl.node.guard import Guard, GuardRules, Verdict
from lepton_rl.node.jobs import JobState
from lepton_rl.node.trial import Canary, Shadow, of_canary
from lepton_rl.node.trial_record import OnTrial
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace
from tests.fake_nvml import FakeNvml
from tests.node.conftest import until
from tests.node.live import PATIENT, LiveNode

NAMES = ("acting", "other")


class Fails:
    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        raise ZeroDivisionError("never mind")


class Wrong:
    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        return [Start(10_000)]


class Says:
    """A policy that always answers the same."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def decide(self, snapshot: Snapshot) -> Any:
        return self.answer


def waiting(jobs: int = 40, gpus: int = 4) -> Snapshot:
    """Jobs of falling length that wait on an idle node."""
    trace = Trace.from_columns(
        {"submit_time": [0.0] * jobs, "run_time": [float(jobs - job) for job in range(jobs)], "gpus": [1.0] * jobs}
    )
    cluster = SimulatedCluster(trace, ClusterSpec.pool(gpus))
    assert cluster.advance()
    return cluster.snapshot()


def started(policy: Policy, snapshot: Snapshot) -> list[int]:
    return [action.job for action in policy.decide(snapshot) if isinstance(action, Start)]


def test_a_shadow_is_compared_and_changes_nothing() -> None:
    snapshot = waiting()
    shadow = Shadow(make_policy("fcfs"), make_policy("sjf"), NAMES)
    assert started(shadow, snapshot) == [0, 1, 2, 3]
    assert shadow.record.counts == {"decisions": 1}
    assert list(shadow.record.examples) == ["acting starts [0, 1, 2, 3]; other starts [36, 37, 38, 39]"]
    same = Shadow(make_policy("fcfs"), make_policy("fcfs"), NAMES)
    same.decide(snapshot)
    assert same.record.counts == {"decisions": 1, "same": 1}


@pytest.mark.parametrize(("policy", "counted"), [(Fails(), "failed"), (Wrong(), "illegal")])
def test_a_shadow_that_fails_is_counted(policy: Policy, counted: str) -> None:
    shadow = Shadow(make_policy("fcfs"), policy, NAMES)
    assert started(shadow, waiting()) == [0, 1, 2, 3]
    assert shadow.record.counts == {counted: 1}


def test_a_canary_decides_on_its_own_jobs_alone() -> None:
    snapshot = waiting(gpus=40)
    canary = Canary(make_policy("fcfs"), make_policy("sjf"), 0.5)
    chosen = started(canary, snapshot)
    assert sorted(chosen) == list(range(40))
    own = [job for job in chosen if of_canary(job, 0.5)]
    assert own == sorted(own, reverse=True)  # shortest first
    others = [job for job in chosen if not of_canary(job, 0.5)]
    assert others == sorted(others)
    assert len(own) > 5


def test_no_gpu_is_given_twice() -> None:
    snapshot = waiting(gpus=6)
    canary = Canary(make_policy("fcfs"), make_policy("sjf"), 0.5)
    for _ in range(20):
        after = snapshot
        for action in canary.decide(snapshot):
            after = after.after(action)
        assert after.free_gpus == 0


@pytest.mark.parametrize("policy", [Fails(), Wrong()])
def test_the_jobs_of_a_canary_that_fails_go_to_the_acting_policy(policy: Policy) -> None:
    snapshot = waiting(gpus=40)
    canary = Canary(make_policy("fcfs"), policy, 0.5)
    assert sorted(started(canary, snapshot)) == list(range(40))
    assert sorted(started(canary, snapshot)) == list(range(40))


def test_the_share_is_that_of_the_jobs() -> None:
    drawn = sum(of_canary(job, 0.1) for job in range(10_000))
    assert drawn == pytest.approx(1000, abs=100)
    assert [of_canary(job, 0.3) for job in range(100)] == [of_canary(job, 0.3) for job in range(100)]


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan"), -1.0])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(LeptonError, match="between 0 and 1"):
        Canary(make_policy("fcfs"), make_policy("sjf"), share)


def test_a_canary_says_who_started_what_and_who_is_on_trial() -> None:
    canary = Canary(make_policy("fcfs"), make_policy("sjf"), 0.5, "sjf", "fcfs")
    chosen = started(canary, waiting(gpus=40))
    own = sorted(job for job in chosen if of_canary(job, 0.5))
    assert canary.started == {"canary": tuple(own), "acting": tuple(sorted(set(chosen) - set(own)))}
    assert canary.deciders == "fcfs, sjf (canary)"
    told = canary.told()
    assert (told["kind"], told["policy"], told["acting"], told["share"]) == ("canary", "sjf", "fcfs", 0.5)
    assert told["counts"] == {"decisions": 1, "same": 1, "failed": 0, "illegal": 0, "started": len(own)}
    assert told["text"].startswith("sjf decides on 50% of the jobs as a canary, fcfs on the others: 1 decision, 1 as")
    canary = Canary(make_policy("fcfs"), make_policy("sjf"), 0.999, "sjf", "fcfs")
    started(canary, waiting(gpus=1))
    assert (canary.told()["counts"]["decisions"], canary.told()["counts"]["same"]) == (1, 0)


def test_a_canary_that_fails_leaves_its_jobs_to_the_acting_policy_by_name() -> None:
    canary = Canary(make_policy("fcfs"), Fails(), 0.5, "fails", "fcfs")
    started(canary, waiting())
    assert canary.deciders == "fcfs"
    assert canary.started == {"acting": (0, 1, 2, 3)}


def test_a_start_that_is_put_off_and_decided_again_counts_once() -> None:
    canary = Canary(make_policy("fcfs"), make_policy("sjf"), 0.5)
    first = started(canary, waiting(gpus=40))
    started(canary, waiting(gpus=40))
    assert canary.record.counts["started"] == sum(of_canary(job, 0.5) for job in first)


def test_a_shadow_says_how_often_both_agree() -> None:
    shadow = Shadow(make_policy("fcfs"), make_policy("fcfs"), NAMES)
    shadow.decide(waiting())
    told = shadow.told()
    assert (told["kind"], told["policy"], told["counts"]["same"]) == ("shadow", "other", 1)


def test_the_guard_knows_which_of_two_policies_decided() -> None:
    verdicts: list[Verdict] = []
    canary = Canary(make_policy("fcfs"), make_policy("sjf"), 0.5, "sjf", "fcfs")
    guard = Guard(canary, make_policy("fcfs"), NAMES, on_verdict=lambda verdict, snapshot: verdicts.append(verdict))
    guard.decide(waiting(gpus=40))
    guard.close()
    assert verdicts[0].by == "fcfs, sjf (canary)"
    assert sorted(job for jobs in verdicts[0].started.values() for job in jobs) == list(range(40))


def two_run() -> Snapshot:
    """Jobs 0 and 1 run on four GPUs, 2 to 39 wait."""
    return waiting().after(Start(0, (0,))).after(Start(1, (1,)))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([Preempt(1)], "other wants to stop job 1, which is not declared restartable"),
        ([Start(2), Start(2)], "job 2 is running already"),
        ([Start(2, (0,))], "job 2 needs 1 of GPU 0, 0 is free"),
        ([Start(3)], "job 3 is neither waiting nor running"),  # it is the other one's
        ([SetPowerLimit(0, float("nan"))], "a power limit of nan W is no number of watts"),
        (["start"], "a str is not an action"),
        (repeat(Start(2)), "other wants more than"),
        ([Preempt(0), Preempt(0)], "job 0 is waiting, not running"),
    ],
)
def test_what_a_canary_may_not_is_counted_against_it_alone(answer: Any, why: str) -> None:
    snapshot, allowance = two_run(), Allowance(frozenset({0}))
    canary = Canary(make_policy("fcfs"), Says(answer), 0.3, "other", "fcfs")
    for _ in range(3):  # it goes first on its first turn, and not on its third
        assert canary.decide_within(snapshot, allowance) == list(make_policy("fcfs").decide(snapshot))
        assert (canary.deciders, canary.started) == ("fcfs", {"acting": (2, 3)})
    assert canary.record.counts == {"illegal": 3}
    assert why in canary.record.examples[0]


def test_a_shadow_is_counted_for_what_would_be_refused() -> None:
    snapshot = two_run()
    shadow = Shadow(make_policy("fcfs"), Says([Preempt(1)]), NAMES)
    assert shadow.decide_within(snapshot, Allowance(frozenset({0}))) == list(make_policy("fcfs").decide(snapshot))
    assert shadow.record.counts == {"illegal": 1}
    assert list(shadow.record.examples) == ["other wants to stop job 1, which is not declared restartable"]
    shadow.decide_within(snapshot, Allowance(disturbances=1))
    assert shadow.record.counts == {"illegal": 1, "decisions": 1}


def test_a_canary_leaves_the_acting_policy_what_it_may_disturb() -> None:
    canary = Canary(Says([Preempt(0)]), Says([Preempt(1)]), 0.3, "other", "fcfs")
    assert canary.decide_within(two_run(), Allowance(disturbances=2)) == [Preempt(1), Preempt(0)]
    assert canary.decide_within(two_run(), Allowance(disturbances=1)) == [Preempt(0)]
    assert canary.record.counts["illegal"] == 1
    assert canary.record.examples[-1].startswith("other leaves fcfs too few preemptions, moves and power limits")
    assert canary.decide_within(two_run(), Allowance(disturbances=1)) == [Preempt(0)]  # now it goes second


def test_what_the_acting_policy_may_not_is_not_counted_against_the_canary() -> None:
    canary = Canary(Says([Start(10_000)]), make_policy("fcfs"), 0.3, "fcfs", "acting")
    verdicts: list[Verdict] = []
    guard = Guard(canary, make_policy("fcfs"), NAMES, on_verdict=lambda verdict, snapshot: verdicts.append(verdict))
    for _ in range(3):
        guard.decide(two_run())
    guard.close()
    assert [verdict.fallback_reason for verdict in verdicts] == ["job 10000 is neither waiting nor running"] * 3
    assert (canary.record.counts["illegal"], guard.counts["fallback_illegal"]) == (0, 3)


class Exits:
    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        raise SystemExit(3)


def test_a_canary_that_would_end_the_program_only_fails() -> None:
    guard = Guard(Canary(make_policy("fcfs"), Exits(), 0.3, "exits", "fcfs"), make_policy("fcfs"), NAMES)
    assert list(guard.decide(two_run())) == list(make_policy("fcfs").decide(two_run()))
    guard.close()
    assert guard.counts == {"decisions": 1}
    assert isinstance(guard.policy, Canary)
    assert list(guard.policy.record.examples) == ["exits failed: SystemExit: 3"]


class Sleeper(Says):
    """A policy that thinks until it is told to stop."""

    def __init__(self, answer: Any) -> None:
        super().__init__(answer)
        self.wake = threading.Event()
        self.asked = 0

    def decide(self, snapshot: Snapshot) -> Any:
        self.asked += 1
        self.wake.wait()
        return self.answer


@pytest.mark.parametrize("kind", ["canary", "shadow"])
def test_one_on_trial_that_hangs_is_not_waited_for_and_may_come_back(kind: str) -> None:
    fcfs, sleeper = make_policy("fcfs"), Sleeper([])
    trial = Canary(fcfs, sleeper, 0.3, "other", "fcfs") if kind == "canary" else Shadow(fcfs, sleeper, NAMES)
    guard = Guard(trial, fcfs, NAMES, GuardRules(budget_s=2.0, first_budget_s=2.0))
    for _ in range(3):
        assert list(guard.decide(two_run())) == list(fcfs.decide(two_run()))
    assert guard.counts == {"decisions": 3}
    assert trial.record.counts == {"failed": 3}
    assert trial.record.examples[0] == "other took more than 1 s"
    assert sleeper.asked == 1  # what it thinks about is not piled up
    sleeper.wake.set()

    def is_back() -> bool:
        guard.decide(two_run())
        return trial.record.counts["decisions"] > 0

    until(is_back, "the next decision of the one on trial")
    guard.close()


def test_one_on_trial_is_not_asked_where_the_acting_policy_took_all_the_time() -> None:
    sleeper = Sleeper([])
    trial = OnTrial(sleeper, "other")
    assert trial.decide(two_run(), Allowance(seconds=100.0, begun=time.monotonic() - 99.9)) is None
    assert sleeper.asked == 0
    assert trial.record.counts == {}
    assert trial.decide(two_run(), Allowance(seconds=100.0, begun=time.monotonic() - 93.0)) is None  # 7 s are left
    assert sleeper.asked == 1
    assert trial.record.counts == {"failed": 1}
    sleeper.wake.set()
    trial.close()


class Unsure(Says):
    def out_of_range(self, snapshot: Snapshot) -> str:
        return "the queue is longer than any in its training"


@pytest.mark.parametrize(
    "make", [lambda acting: Shadow(acting, Says([]), NAMES), lambda acting: Canary(acting, Says([]), 0.3)]
)
def test_an_acting_policy_on_something_unlike_its_training_does_not_decide(make: Any) -> None:
    guard = Guard(make(Unsure([])), make_policy("fcfs"), NAMES)
    assert len(guard.decide(two_run())) == 2
    guard.close()
    assert guard.counts["fallback_range"] == 1


def test_a_canary_on_something_unlike_its_training_leaves_its_jobs_to_the_acting_policy() -> None:
    canary = Canary(make_policy("fcfs"), Unsure([Start(2)]), 0.3)
    assert started(canary, two_run()) == [2, 3]
    assert canary.record.counts == {"failed": 1}
    assert list(canary.record.examples) == ["the queue is longer than any in its training"]


def test_made_up_decisions_are_not_counted() -> None:
    canary = Canary(make_policy("fcfs"), make_policy("sjf"), 0.5)
    guard = Guard(canary, make_policy("fcfs"), NAMES)
    guard.warm_up([waiting()])
    assert canary.told()["counts"] == dict.fromkeys(("decisions", "same", "failed", "illegal", "started"), 0)


@pytest.fixture
def node(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> Iterator[LiveNode]:
    """A node with four GPUs that take work."""
    with LiveNode(tmp_path, four_gpus, fake_library) as node:
        yield node.ready()


SKIP = {"name": "fcfs", "blocking": "skip"}


@pytest.mark.parametrize(
    ("restartable", "rules", "why"),
    [
        (False, None, "srtf wants to stop job 1, which is not declared restartable"),
        (
            True,
            GuardRules(actions_per_minute=0),
            "srtf wants more preemptions, moves and power limits than may still",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["canary", "shadow"])
def test_one_on_trial_that_stops_what_may_not_be_stopped_spoils_nothing(
    kind: str, restartable: bool, rules: GuardRules | None, why: str, node: LiveNode
) -> None:
    acting, srtf = make_policy(SKIP), make_policy("srtf")
    trial = Canary(acting, srtf, 0.5, "srtf", "fcfs") if kind == "canary" else Shadow(acting, srtf, ("fcfs", "srtf"))
    node.under(acting, acting)
    long = node.submit(PATIENT, gpu_milli=3000, requested_s=7200.0, restartable=restartable)
    node.running(long)
    short = node.submit("true", gpu_milli=2000, requested_s=5.0)
    assert of_canary(short, 0.5)
    guard = node.under(trial, make_policy(SKIP), rules)
    node.until(lambda: trial.record.counts["illegal"] > 0, "a decision of srtf's that is refused")
    other = node.submit(PATIENT, requested_s=3600.0)
    assert not of_canary(other, 0.5)
    node.running(other)
    assert trial.record.examples[-1].startswith(why)
    assert [node.job(job).state for job in (long, short)] == [JobState.RUNNING, JobState.WAITING]
    assert [name for name in guard.counts if name.startswith("fallback")] == []
