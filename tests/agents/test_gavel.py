"""Gavel's policies: whole GPUs of a share, turns, and shares kept to over time."""

import sys
from collections import defaultdict

import numpy as np
import pytest

from lepton_rl.agents import (
    GavelMaxMin,
    GavelMaxThroughput,
    RuleNames,
    ShareProblem,
    max_min_shares,
    rule_names,
    run_policy,
)
from lepton_rl.core import Action, ClusterSpec, Policy, Preempt, Snapshot, Start
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.errors import MissingExtra
from lepton_rl.simulator import SimulatedCluster, Timing
from lepton_rl.workloads import Trace
from tests.agents.cases import plain_trace
from tests.simulator.detailed_cases import PLAIN, made_type

V100 = made_type("v100", 16.0, 40.0, 300.0, 1.0, vision=40.0, language=12.0, speech=100.0)
K80 = made_type("k80", 12.0, 25.0, 150.0, 1.0, vision=10.0, language=4.0, speech=50.0)


def gpu_seconds(
    policy: Policy, trace: Trace, cluster: ClusterSpec, end: float, timing: Timing | None = None
) -> dict[tuple[int, int], float]:
    """GPU-seconds up to `end` of each job on each node; no GPU is ever held twice."""
    simulated = SimulatedCluster(trace, cluster, timing=timing)
    held: dict[int, tuple[int, ...]] = {}
    first = np.array(cluster.first_gpus)
    total: dict[tuple[int, int], float] = defaultdict(float)
    before = 0.0
    while before < end and simulated.advance():
        now = min(simulated.time, end)
        for job, gpus in held.items():
            for gpu in gpus:
                total[job, int(np.searchsorted(first, gpu, side="right")) - 1] += now - before
        before = now
        for action in policy.decide(simulated.snapshot()):
            simulated.apply(action)
        snapshot = simulated.snapshot()
        held = {job: snapshot.gpus_of(job) for job in snapshot.running}
        everyone = [gpu for gpus in held.values() for gpu in gpus]
        assert len(everyone) == len(set(everyone)) <= cluster.gpus
    return total


def decided(policy: Policy, trace: Trace, cluster: ClusterSpec) -> tuple[Snapshot, list[Action]]:
    simulated = SimulatedCluster(trace, cluster)
    assert simulated.advance()
    snapshot = simulated.snapshot()
    return snapshot, list(policy.decide(snapshot))


def test_each_class_starts_where_it_loses_least() -> None:
    # Vision gains 4 times from the fast node, language nothing: submission does not matter, nor which node is first.
    fast, slow = made_type("fast", 16.0, 1.0, 2.0, 1.0, vision=4.0), PLAIN
    cluster = ClusterSpec.of_groups((NodeGroup(1, 2, fast), NodeGroup(1, 2, slow)), PLAIN)
    trace = plain_trace(run_time=[100.0] * 4, gpus=[1.0] * 4, job_class=["language", "language", "vision", "vision"])
    for policy in (GavelMaxMin(), GavelMaxThroughput()):
        _, actions = decided(policy, trace, cluster)
        places = {action.job: action.gpus for action in actions if isinstance(action, Start)}
        assert {places[0], places[1]} == {(2,), (3,)}
        assert {places[2], places[3]} == {(0,), (1,)}


def test_whole_gpus_go_to_the_highest_average() -> None:
    # Eight GPUs, four jobs of 1 and four of 2: levels are equal at 1 GPU for each job, so that each kind is due 4.
    # Nothing has been received: due / (held + asked) is 4, 2, 4/3, 1 for the first and 2, 1 for the second kind.
    trace = plain_trace(run_time=[100.0] * 8, gpus=[1.0] * 4 + [2.0] * 4)
    _, actions = decided(GavelMaxMin(), trace, ClusterSpec.pool(8))
    started = [action.job for action in actions if isinstance(action, Start)]
    assert sorted(started) == [0, 1, 2, 3, 4, 5]
    assert started[0] == 0


def test_three_jobs_take_turns_as_their_shares_say() -> None:
    # The example of test_shares, played in 1000 rounds: shares are (5, 0), (5, 1), (1, 10) elevenths.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, V100), NodeGroup(1, 1, K80)))
    trace = plain_trace(run_time=[1e6] * 3, gpus=[1.0] * 3, job_class=["vision", "language", "speech"])
    policy = GavelMaxMin(preempt=True, round_time=10.0)
    total = gpu_seconds(policy, trace, cluster, 10_000.0, Timing(timer=10.0))
    found = np.array([[total[job, node] for node in range(2)] for job in range(3)]) / 10_000.0
    assert found == pytest.approx(np.array([[5.0, 0.0], [5.0, 1.0], [1.0, 10.0]]) / 11.0, abs=0.01)


def test_jobs_of_one_kind_take_turns_too() -> None:
    trace = plain_trace(run_time=[1e5] * 3, gpus=[1.0] * 3)
    total = gpu_seconds(
        GavelMaxMin(preempt=True, round_time=10.0), trace, ClusterSpec.pool(2), 3000.0, Timing(timer=10.0)
    )
    assert [total[job, 0] for job in range(3)] == pytest.approx([2000.0] * 3, abs=30.0)


@pytest.mark.parametrize("blocking", ["head", "skip"])
def test_without_preemption_shares_are_kept_over_time(blocking: str) -> None:
    # A backlog of two classes on two types. Both classes are there to the end of what is measured; targets follow the
    # jobs that are left, and what is received follows the targets.
    generator = np.random.default_rng(0)
    fast, slow = made_type("fast", 16.0, 1.0, 2.0, 2.0, vision=6.0), PLAIN
    cluster = ClusterSpec.of_groups((NodeGroup(1, 4, fast), NodeGroup(1, 4, slow)), PLAIN)
    classes = ["vision", "language"] * 300
    trace = plain_trace(run_time=generator.uniform(50, 150, 600), gpus=[1.0] * 600, job_class=classes)
    policy = GavelMaxMin.model_validate({"blocking": blocking})
    due = np.zeros((2, 2))
    received = np.zeros((2, 2))
    simulated = SimulatedCluster(trace, cluster)
    before, shares, held = 0.0, np.zeros((2, 2)), np.zeros((2, 2))
    while simulated.advance() and simulated.time < 3000.0:
        due += shares * (simulated.time - before)
        received += held * (simulated.time - before)
        before = simulated.time
        present = [classes[job] for view in (simulated.snapshot().queue, simulated.snapshot().running) for job in view]
        jobs = np.array([float(present.count(name)) for name in ("vision", "language")])
        rates = np.array([[6.0, 1.0], [2.0, 1.0]])
        shares = jobs[:, None] * max_min_shares(ShareProblem(jobs, np.ones(2), rates, np.array([4.0, 4.0])))
        for action in policy.decide(simulated.snapshot()):
            simulated.apply(action)
        snapshot = simulated.snapshot()
        held = np.zeros((2, 2))
        for job in snapshot.running:
            held[int(classes[job] == "language"), snapshot.gpus_of(job)[0] // 4] += 1.0
    assert received == pytest.approx(due, rel=0.02, abs=0.01 * due.sum())


def test_a_gang_gets_its_share_only_where_others_wait_for_it() -> None:
    # Four GPUs, 400 jobs of 1 GPU that end at different times and 40 gangs of 4; each job is due 4 / 440 of the GPUs.
    generator = np.random.default_rng(1)
    trace = plain_trace(run_time=generator.uniform(10, 20, 440), gpus=[4.0] * 40 + [1.0] * 400)

    def gangs_share(policy: Policy) -> float:
        total = gpu_seconds(policy, trace, ClusterSpec.pool(4), 300.0)
        return sum(time for (job, _), time in total.items() if job < 40) / (4 * 300.0)

    assert gangs_share(GavelMaxMin(blocking="skip", round_time=10.0)) == 0.0
    assert gangs_share(GavelMaxMin(blocking="head", round_time=10.0)) == pytest.approx(40 / 440, abs=0.05)


def test_a_gang_that_no_type_holds_runs_on_several() -> None:
    cluster = ClusterSpec.of_groups((NodeGroup(1, 2, V100), NodeGroup(1, 2, K80)))
    trace = plain_trace(run_time=[10.0, 10.0], gpus=[3.0, 1.0])
    for policy in (GavelMaxMin(), GavelMaxThroughput(preempt=True)):
        assert run_policy(policy, trace, cluster).finish.tolist() == [10.0, 10.0]


def test_a_run_is_left_alone_for_a_round_and_its_restart() -> None:
    # One GPU, two jobs: turns of 20 s and a restart of 5 s; the timer asks each second. At 50 s both have had 25 s:
    # the one that runs stays on.
    trace = plain_trace(run_time=[60.0, 60.0], gpus=[1.0, 1.0])
    simulated = SimulatedCluster(trace, ClusterSpec.pool(1), timing=Timing(preemption_cost=5.0, timer=1.0))
    policy = GavelMaxMin(preempt=True, round_time=20.0)
    stops = []
    while simulated.advance():
        for action in policy.decide(simulated.snapshot()):
            if isinstance(action, Preempt):
                stops.append((simulated.time, action.job))
            simulated.apply(action)
    assert stops[:3] == [(25.0, 0), (51.0, 1), (76.0, 0)]
    assert not np.isnan(simulated.outcome().finish).any()


def test_a_second_run_begins_anew() -> None:
    trace = plain_trace(run_time=[100.0, 30.0, 20.0, 60.0] * 5, gpus=[1.0, 2.0, 1.0, 4.0] * 5)
    policy = GavelMaxMin()
    first = run_policy(policy, trace, ClusterSpec.pool(4))
    assert run_policy(policy, trace, ClusterSpec.pool(4)).finish.tolist() == first.finish.tolist()
    other = run_policy(policy, trace, ClusterSpec.pool(8))
    assert other.finish.tolist() == run_policy(GavelMaxMin(), trace, ClusterSpec.pool(8)).finish.tolist()


def test_the_rules_in_force_are_named() -> None:
    assert rule_names(GavelMaxMin(placement="best")) == RuleNames("skip", "best")


def test_a_missing_scipy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingExtra, match=r"lepton-rl\[solve\]"):
        run_policy(GavelMaxMin(), plain_trace(run_time=[1.0], gpus=[1.0]), ClusterSpec.pool(1))
