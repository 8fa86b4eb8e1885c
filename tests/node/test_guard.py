"""The guard: whatever a policy does, real processes are asked for nothing that is wrong."""

import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from lepton_rl.agents.registry import make_policy
from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.core.cluster import ClusterSpec, NodeGroup
from lepton_rl.core.hardware.catalogue import gpu_type
from lepton_rl.core.placement import Placement
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.node.allowance import Allowance
from lepton_rl.node.guard import Guard, GuardRules, Verdict
from lepton_rl.node.jobs import JobRequest
from lepton_rl.node.view import GpuView, JobRows, RunningJob, Views
from tests.node.conftest import until

CLUSTER = ClusterSpec.of_groups((NodeGroup(1, 4, gpu_type("A100-SXM4-80GB")),))
ROWS = JobRows(CLUSTER, 3600.0)
VIEWS = Views(CLUSTER, Placement.FIRST, 0.0, 0.0)
EASY = make_policy({"name": "fcfs", "blocking": "easy"})
RESTARTABLE = frozenset({1})


def asked(milli: int, requested_s: float = 100.0) -> JobRequest:
    """Return what a job of so many thousandths of a GPU asks for."""
    return JobRequest(argv=("true",), cwd="/", gpu_milli=milli, requested_s=requested_s)


def snapshot_at(time: float, waiting: Sequence[tuple[int, int, float]], served: float = 0.0) -> Snapshot:
    """Return a node where job 1 (restartable) and 2 run; waiting jobs are (number, milli, submitted)."""
    running = [RunningJob(ROWS.row(job, asked(1000), 0.0, 0.0), 1.0, (job - 1,)) for job in (1, 2)]
    rows = [ROWS.row(job, asked(milli), submitted, served) for job, milli, submitted in waiting]
    return VIEWS.build(time, rows, running, GpuView())


SNAPSHOT = snapshot_at(60.0, [(3, 1000, 10.0), (4, 3000, 20.0), (5, 500, 30.0)])


class Scripted:
    """A policy that returns what it was given, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def decide(self, snapshot: Snapshot) -> Any:
        """Return or raise the answer."""
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def guarded(policy: Any, rules: GuardRules | None = None, fallback: Any = EASY) -> tuple[Guard, list[Verdict]]:
    """Return a guard of a policy, and the verdicts that it will come to."""
    verdicts: list[Verdict] = []
    guard = Guard(
        policy, fallback, ("policy", "fallback"), rules,
        allowance=lambda: Allowance(RESTARTABLE),
        on_verdict=lambda verdict, snapshot: verdicts.append(verdict),
    )  # fmt: skip
    return guard, verdicts


def decided(answer: Any, snapshot: Snapshot = SNAPSHOT) -> tuple[Verdict, Guard]:
    """Return the verdict on a policy that answers so."""
    guard, verdicts = guarded(Scripted(answer))
    try:
        actions = guard.decide(snapshot)
    finally:
        guard.close()
    assert tuple(actions) == verdicts[0].actions
    return verdicts[0], guard


ANYTHING: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5),
    st.lists(st.integers(-2, 6), max_size=5), st.tuples(st.integers(-2, 6)), st.builds(np.int64, st.integers(-2, 6)),
    st.builds(object), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)  # fmt: skip
NUMBER = st.integers(-1, 8) | ANYTHING
GPUS = st.none() | st.lists(st.integers(-1, 5), max_size=4).map(tuple) | ANYTHING
ACTIONS = st.one_of(
    st.builds(Start, NUMBER, GPUS),
    st.builds(Preempt, NUMBER),
    st.builds(Migrate, NUMBER, GPUS),
    st.builds(SetPowerLimit, NUMBER, st.floats() | ANYTHING),
    ANYTHING,
)


def carried_out(snapshot: Snapshot, actions: Sequence[Action]) -> Snapshot:
    """Return the snapshot after actions, each of which must be possible and allowed."""
    for action in actions:
        assert not isinstance(action, Preempt | Migrate) or action.job in RESTARTABLE
        snapshot = snapshot.after(action)
    return snapshot


@given(answer=st.lists(ACTIONS, max_size=6) | ANYTHING)
@settings(max_examples=400)
def test_whatever_a_policy_returns_all_of_it_is_done_or_the_fallback_decides(answer: Any) -> None:
    verdict, guard = decided(answer)
    after = carried_out(SNAPSHOT, verdict.actions)
    assert len(after.jobs) == len(SNAPSHOT.jobs)
    for action in verdict.actions:
        assert isinstance(action, SetPowerLimit) or type(action.job) is int
    if verdict.by == "policy":
        assert len(verdict.actions) == len(list(answer))
        assert sum(count for name, count in guard.counts.items() if name.startswith("fallback")) == 0
    else:
        assert verdict.fallback_reason
        assert verdict.actions == tuple(EASY.decide(SNAPSHOT))
        assert guard.counts["fallback_illegal"] + guard.counts["fallback_exception"] == 1


class Unspeakable(Exception):
    """An exception that cannot even be told."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), MemoryError(), Unspeakable()])
def test_whatever_a_policy_raises_the_fallback_decides(error: BaseException) -> None:
    verdict, guard = decided(error)
    assert verdict.by == "fallback"
    assert verdict.fallback_reason.startswith("policy failed: ")
    assert verdict.actions == tuple(EASY.decide(SNAPSHOT))
    assert guard.counts == {"decisions": 1, "fallback_exception": 1}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([Start(3), Start(99)], "job 99 is neither waiting nor running"),
        ([Start(3), Preempt(2)], "policy wants to stop job 2, which is not declared restartable"),
        ([Migrate(2, (3,))], "policy wants to stop job 2, which is not declared restartable"),
        ([SetPowerLimit(0, float("nan"))], "a power limit of nan W is no number of watts"),
        ([SetPowerLimit(0, 1e6)], "a power limit of 1e+06 W is outside the range of GPU 0 (A100-SXM4-80GB)"),
        ([Start(3, (-1,))], "an action names a GPU by its number, not -1"),
        ([Start(3, (0,))], "job 3 needs 1 of GPU 0, 0 is free"),
        ([Start("3")], "an action names a job by its number, not '3'"),  # type: ignore[arg-type]
        (["start"], "a str is not an action"),
        ([Start(3)] * 100, "policy wants more than 14 actions at once"),
        (itertools.repeat(Start(3)), "policy wants more than 14 actions at once"),
    ],
)
def test_one_wrong_action_undoes_all_and_the_reason_is_told(answer: Any, reason: str) -> None:
    verdict, guard = decided(answer)
    assert verdict.fallback_reason.startswith(reason)
    assert guard.counts["fallback_illegal"] == 1
    assert len(verdict.refused) <= 50


def test_what_was_refused_is_told_shortly_however_long_it_was() -> None:
    verdict, _ = decided([Start(3, tuple(range(1_000_000)))])
    assert verdict.by == "fallback"
    assert len(verdict.fallback_reason) < 400
    assert len(verdict.refused[0]) < 200


def test_what_is_right_is_done_as_it_is() -> None:
    wanted = [Preempt(1), Start(4), SetPowerLimit(3, 300.0)]
    verdict, guard = decided(wanted)
    assert (verdict.by, list(verdict.actions), verdict.fallback_reason) == ("policy", wanted, "")
    assert guard.counts == {"decisions": 1}


class Sleeper:
    """A policy that thinks until it is told to stop."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.asked = 0

    def decide(self, snapshot: Snapshot) -> Iterator[Action]:
        """Wait, then start job 3."""
        self.asked += 1
        self.wake.wait()
        yield Start(3)


def test_a_policy_that_hangs_is_not_waited_for_and_may_come_back() -> None:
    sleeper = Sleeper()
    guard, verdicts = guarded(sleeper, GuardRules(budget_s=0.05, first_budget_s=0.05))
    for _ in range(3):
        guard.decide(SNAPSHOT)
    assert [verdict.fallback_reason for verdict in verdicts] == ["policy took more than 0.05 s"] * 3
    assert guard.counts["fallback_timeout"] == 3
    assert sleeper.asked == 1  # what it thinks about is not piled up
    sleeper.wake.set()

    def is_back() -> bool:
        guard.decide(SNAPSHOT)
        return verdicts[-1].by == "policy"

    until(is_back, "the policy's next decision")
    guard.close()


def test_a_policy_on_something_unlike_its_training_does_not_decide() -> None:
    class Ranged(Scripted):
        def out_of_range(self, snapshot: Snapshot) -> str:
            """Say what is far off."""
            return "the queue is longer than any in its training"

    guard, verdicts = guarded(Ranged([Start(3)]))
    guard.decide(SNAPSHOT)
    guard.close()
    assert verdicts[0].fallback_reason == "the queue is longer than any in its training"
    assert guard.counts["fallback_range"] == 1


@pytest.mark.parametrize("answer", [ValueError("no"), [Start(99)], None, [Preempt(2)]])
def test_a_fallback_that_fails_too_leaves_everything_as_it_is(answer: Any) -> None:
    guard, verdicts = guarded(Scripted([Start(99)]), fallback=Scripted(answer))
    assert guard.decide(SNAPSHOT) == ()
    assert "fallback failed, too" in verdicts[0].fallback_reason
    assert (guard.counts["fallback_illegal"], guard.counts["fallback_failed"]) == (1, 1)
    assert (guard.fallbacks, guard.doubted) == (1, 1)
    guard.close()


def test_a_listener_that_fails_holds_nothing_up() -> None:
    def fail(verdict: Verdict, snapshot: Snapshot) -> None:
        raise ValueError

    guard = Guard(Scripted([Start(3)]), EASY, ("policy", "fallback"), on_verdict=fail)
    assert guard.decide(SNAPSHOT) == (Start(3),)
    guard.close()


def test_running_jobs_are_disturbed_only_so_often() -> None:
    guard, verdicts = guarded(
        Scripted([SetPowerLimit(0, 300.0), SetPowerLimit(1, 300.0)]), GuardRules(actions_per_minute=5)
    )
    for _ in range(3):
        guard.decide(SNAPSHOT)
    assert [verdict.by for verdict in verdicts] == ["policy", "policy", "fallback"]
    assert verdicts[2].fallback_reason == (
        "policy wants more preemptions, moves and power limits than may still be made in this minute: 2, not 1"
    )
    assert guard.counts["fallback_rate"] == 1
    guard.close()


def test_starts_are_not_counted_as_disturbance() -> None:
    guard, verdicts = guarded(Scripted([Start(3)]), GuardRules(actions_per_minute=0))
    for _ in range(5):
        guard.decide(SNAPSHOT)
    assert {verdict.by for verdict in verdicts} == {"policy"}
    guard.close()


RULES = GuardRules(starving_factor=10.0, starving_floor_s=1000.0)


def test_a_job_that_waited_too_long_goes_ahead_whatever_the_policy_says() -> None:
    guard, verdicts = guarded(Scripted([Start(5, (3,))]), RULES)
    late = snapshot_at(1100.0, [(3, 2000, 0.0), (5, 1000, 1000.0)])
    assert guard.decide(late) == (Start(3, (2, 3)),)
    assert guard.counts["fallback_starvation"] == 1
    assert (guard.fallbacks, guard.doubted) == (1, 0)
    assert verdicts[0].fallback_reason == "job 3 has waited 1,100 s, too long: the order of submission holds"
    guard.close()


def test_the_bound_of_waiting_follows_the_median_wait_and_has_a_floor() -> None:
    guard, _ = guarded(Scripted([]), RULES)
    assert guard.starving(snapshot_at(1000.0, [(3, 1000, 0.0)])) is None
    assert guard.starving(snapshot_at(1000.5, [(3, 1000, 0.0)])) == (3, 1000.5)
    guard.waits.extend([100.0, 200.0, 900.0])
    assert guard.starving(snapshot_at(2000.0, [(3, 1000, 0.0)])) is None
    assert guard.starving(snapshot_at(2001.0, [(3, 1000, 0.0), (4, 1000, 10.0)])) == (3, 2001.0)


def test_time_that_a_job_has_run_is_no_waiting() -> None:
    guard, _ = guarded(Scripted([]), RULES)
    assert guard.starving(snapshot_at(2000.0, [(3, 1000, 0.0)], served=1500.0)) is None
    assert guard.starving(snapshot_at(2600.0, [(3, 1000, 0.0)], served=1500.0)) == (3, 1100.0)


def test_a_job_that_could_not_run_on_this_node_now_starves_for_no_fault_of_the_policy() -> None:
    guard, _ = guarded(Scripted([]), RULES)
    rows = [ROWS.row(3, asked(4000), 0.0, 0.0), ROWS.row(4, asked(1000), 5.0, 0.0)]
    drained = VIEWS.build(2000.0, rows, [], GpuView(out=frozenset({2})))
    assert guard.starving(drained) == (4, 1995.0)
    assert guard.starving(VIEWS.build(2000.0, rows, [], GpuView())) == (3, 2000.0)


def test_waits_of_started_jobs_are_remembered() -> None:
    guard, _ = guarded(Scripted([Start(3), Start(5)]))
    guard.decide(SNAPSHOT)
    assert list(guard.waits) == [50.0, 30.0]
    guard.close()


def test_where_nothing_waits_or_runs_nobody_is_asked() -> None:
    guard, verdicts = guarded(Scripted(ValueError("asked")))
    assert guard.decide(VIEWS.build(1.0, [], [], GpuView())) == ()
    assert verdicts == []


def test_a_policy_that_fails_while_it_warms_up_is_only_told_of(caplog: pytest.LogCaptureFixture) -> None:
    guard, _ = guarded(Scripted(ValueError("not today")))
    guard.warm_up([SNAPSHOT])
    assert "policy fails on a made-up state of this node: ValueError: not today" in caplog.text
