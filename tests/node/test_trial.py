"""A second policy beside the acting one: it changes nothing as a shadow, and only its own jobs as a canary."""

from collections.abc import Sequence

import pytest

from lepton_rl.agents import make_policy
from lepton_rl.core import Action, ClusterSpec, Policy, Snapshot, Start
from lepton_rl.errors import LeptonError
from lepton_rl.node.guard import Guard, Verdict
from lepton_rl.node.trial import Canary, Shadow, of_canary
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace

NAMES = ("acting", "other")


class Fails:
    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        raise ZeroDivisionError("never mind")


class Wrong:
    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        return [Start(10_000)]


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
