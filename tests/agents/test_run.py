"""Any policy on a whole trace, and how its failures read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_rl.agents import Genetic, Greedy, Priority, Reserve, make_policy, run_policy
from lepton_rl.core import Action, ClusterSpec, Placement, Policy, Preempt, Snapshot, Start
from lepton_rl.errors import ConfigError, IllegalAction, TraceError
from tests.agents.cases import plain_trace

TRACE = plain_trace(submit_time=[0.0, 5.0, 6.0], run_time=[10.0, 20.0, 5.0], gpus=[2.0, 2.0, 1.0])


class Doing:
    """Decides by a function."""

    def __init__(self, function: Callable[[Snapshot], object]) -> None:
        self.function = function

    def decide(self, snapshot: Snapshot) -> list[Action]:
        return self.function(snapshot)  # type: ignore[return-value]


def test_python_policy_gets_the_cluster_s_placement() -> None:
    spread: list[tuple[int, ...]] = []

    def first_job(snapshot: Snapshot) -> list[Action]:
        spread.extend(snapshot.gpus_of(job) for job in snapshot.running)
        fits = snapshot.queue.gpus <= snapshot.free_gpus
        return [Start(int(snapshot.queue.id[0]))] if fits[:1].any() else []

    outcome = run_policy(Doing(first_job), TRACE, ClusterSpec(nodes=2, gpus_per_node=1), None, Placement.WORST)
    assert outcome.finish.tolist() == [10.0, 30.0, 35.0]
    assert spread[0] == (0, 1)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda s: [Start(7)], r"no job 7 has been submitted \(snapshots number the jobs of trace from 0 to 2\)$"),
        (lambda s: [Start(0, (0,))], "^Doing, at 0 s: job 0 needs 2 different GPUs"),
        (lambda s: [Start(0), Start(0)], r"job 0 is running already \(job 0 of the snapshot is job_id 1 of trace\)$"),
        (lambda s: [Preempt(0)], "^Doing, at 0 s: job 0 is waiting, not running "),
        (lambda s: [3], "^Doing, at 0 s: 3 is not an action; use Start, Preempt, Migrate or SetPowerLimit$"),
        (lambda s: None, "^Doing, at 0 s: decide must return a list of actions, not NoneType$"),
        (lambda s: [], "^Doing, at 6 s: the policy leaves 3 jobs waiting for ever on an idle cluster"),
    ],
)
def test_illegal_actions_name_the_policy(function: Callable[[Snapshot], object], sentence: str) -> None:
    with pytest.raises(IllegalAction, match=sentence):
        run_policy(Doing(function), TRACE, ClusterSpec.pool(2))


def test_a_failing_policy_is_a_sentence_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("class Mine:\n    def decide(self, snapshot):\n        return snapshot.nothing\n")
    with pytest.raises(ConfigError, match=r"^Mine failed at 0 s: mine\.py:3: AttributeError: .*nothing") as caught:
        run_policy(make_policy(f"{path}:Mine"), TRACE, ClusterSpec.pool(2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (Priority(score="sjf"), "sjf"),
        (Priority(score="fcfs", blocking="easy"), "fcfs with blocking easy"),
        (Reserve(), "reserve"),
        (Genetic(), "genetic"),
    ],
    ids=["sjf", "fcfs easy", "reserve", "genetic"],
)
def test_absent_requested_times_are_refused_by_name(policy: Policy, name: str) -> None:
    with pytest.raises(TraceError, match=f"^{name} needs requested times and trace has none; set --requested to exact"):
        run_policy(policy, TRACE.with_requested("absent"), ClusterSpec.pool(2))


@pytest.mark.parametrize("name", ["fcfs", "smallest", "las", "heap_priority", "greedy", "random"])
def test_policies_that_need_no_requested_times(name: str) -> None:
    outcome = run_policy(make_policy(name), TRACE.with_requested("absent"), ClusterSpec.pool(2))
    assert outcome.makespan == 35.0


def test_greedy_runs_event_by_event() -> None:
    assert run_policy(Greedy(), TRACE, ClusterSpec.pool(2)).finish.tolist() == [10.0, 30.0, 35.0]
