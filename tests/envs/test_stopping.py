"""Actions that preempt running jobs, or move them to another group of nodes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec, Migrate, Preempt, Snapshot, Start
from lepton_rl.core import layout as L
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import gpu_type
from lepton_rl.core.hardware.dynamics import Dynamics, Reservation
from lepton_rl.envs import Codec, Objective, SchedulingEnv
from lepton_rl.envs.codec import Observation
from lepton_rl.envs.decision import Decision
from lepton_rl.errors import ConfigError, IllegalAction
from lepton_rl.simulator import SimulatedCluster, Timing
from lepton_rl.workloads import Trace
from tests.envs.cases import play, random_choice
from tests.envs.dynamic_cases import DynamicCase, dynamic_cases
from tests.envs.test_codec import walk_together
from tests.envs.test_rewards import OBJECTIVES

V100, A100 = gpu_type("V100-SXM2-32GB"), gpu_type("A100-SXM4-80GB")
TWO = ClusterSpec.of_groups((NodeGroup(1, 1, V100), NodeGroup(1, 1, A100)))
TIMINGS = st.builds(
    Timing,
    preemption_cost=st.sampled_from([0.0, 4.0]),
    quantum=st.sampled_from([0.0, 15.0]),
    migration_cost=st.sampled_from([0.0, 3.0]),
)


def preemptive(window: int = 4, running: int = 4, key: str = "fcfs", **settings: Any) -> Codec:
    return Codec(window, key, actions="preemptive", running=running, **settings)


def doubled(cluster: ClusterSpec) -> ClusterSpec:
    """The cluster with every group split in two, where it has more nodes than one: their types are the same."""
    halves = [
        replace(group, nodes=nodes, racks=1)
        for group in cluster.groups
        for nodes in (group.nodes // 2, group.nodes - group.nodes // 2)
        if nodes > 0
    ]
    return replace(cluster, groups=tuple(halves))


@settings(max_examples=120)
@given(
    case=dynamic_cases(),
    timing=TIMINGS,
    window=st.sampled_from([1, 3, 20]),
    running=st.sampled_from([1, 2, 20]),
    key=st.sampled_from(["fcfs", "saf"]),
    features=st.sampled_from(["basic", "full"]),
    split=st.booleans(),
    seed=st.integers(0, 9),
)
def test_the_same_bits_for_the_environment_and_deployment(
    case: DynamicCase, timing: Timing, window: int, running: int, key: str, features: str, split: bool, seed: int
) -> None:
    cluster = doubled(case.cluster) if split else case.cluster
    walk_together(case.trace, cluster, preemptive(window, running, key, features=features), seed, timing)


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=40)
@given(case=dynamic_cases(), timing=TIMINGS, seed=st.integers(0, 5))
def test_return_is_minus_the_cost(case: DynamicCase, timing: Timing, name: str, seed: int) -> None:
    objective = OBJECTIVES[name]
    env = SchedulingEnv(case.trace, case.cluster, preemptive(), objective, jobs=len(case.trace), timing=timing)
    paid = play(env, random_choice(seed))
    assert paid == pytest.approx(-objective.cost(env.outcome()), rel=1e-9, abs=1e-12)


def is_legal(simulated: SimulatedCluster, action: Preempt | Migrate) -> bool:
    try:
        simulated.snapshot().after(action)
    except IllegalAction:
        return False
    return True


def expected_stops(simulated: SimulatedCluster, snapshot: Snapshot, codec: Codec) -> list[int]:
    """The valid actions that stop a job, found by trying each; on which GPUs a job lands the placement says."""
    groups, running = snapshot.cluster.groups, snapshot.running
    fits = [is_legal_start(snapshot, job) for job in window_of(snapshot, codec)]
    blocked = not all(fits)
    choices = codec.choices(snapshot.cluster)
    valid = []
    for place, row in enumerate(most_left_first(snapshot)[: codec.running]):
        job = int(running.id[row])
        age = snapshot.time - running.start_time[row]
        first = (codec.window + place) * choices
        if age == 0 or age < snapshot.quantum:
            continue
        if blocked:
            valid.append(first)
        held = set(snapshot.gpus_of(job))
        for group in range(len(groups)):
            goes = [is_legal(simulated, Migrate(job, gpus)) for gpus in gangs_in(snapshot, group, running.gpus[row])]
            if choices > 1 and held.isdisjoint(gpus_of_group(snapshot.cluster, group)) and any(goes):
                valid.append(first + 1 + group)
    return valid


def is_legal_start(snapshot: Snapshot, job: int) -> bool:
    try:
        snapshot.after(Start(job))
    except IllegalAction:
        return False
    return True


def window_of(snapshot: Snapshot, codec: Codec) -> list[int]:
    """Waiting jobs that are visible under the key fcfs."""
    return list(snapshot.queue)[: codec.window]


def most_left_first(snapshot: Snapshot) -> list[int]:
    """Rows of running jobs by predicted GPU-seconds left, most first."""
    jobs, now = snapshot.running, snapshot.time
    rates = jobs.table[:, L.RATE]
    left = np.maximum(jobs.table[:, L.SINCE] + jobs.predicted_time / rates - now, 0.0)
    return sorted(range(len(jobs)), key=lambda row: (-left[row] * jobs.gpus[row], jobs.id[row]))


def gpus_of_group(cluster: ClusterSpec, group: int) -> range:
    first = sum(other.gpus for other in cluster.groups[:group])
    return range(first, first + cluster.groups[group].gpus)


def gangs_in(snapshot: Snapshot, group: int, gpus: float) -> list[tuple[int, ...]]:
    """Choices of free GPUs of a group that placement `first` may come to: the first of each node's free ones."""
    own = gpus_of_group(snapshot.cluster, group)
    if gpus < 1:
        return [(gpu,) for gpu in own]
    free = [gpu for gpu in own if snapshot.gpus[gpu, L.FREE] == L.MILLI and snapshot.gpus[gpu, L.DOWN] == 0]
    return [tuple(free[begin : begin + int(gpus)]) for begin in range(len(free) - int(gpus) + 1)]


def test_by_hand() -> None:
    # A job of 1,000 s holds the V100, one of 600 s (of V100 time) the A100; a short one comes at 100 s.
    trace = Trace.from_columns({"submit_time": [0, 0, 100], "run_time": [1000, 600, 10], "gpus": [1, 1, 1]}, origin=0.0)
    timing = Timing(preemption_cost=60.0, migration_cost=30.0)
    env = SchedulingEnv(trace, TWO, preemptive(2, 3), Objective(0, 0, 1), jobs=3, timing=timing)
    observation, info = env.reset()
    total = info["return"]
    assert env.action_space.n == (2 + 3) * 3 + 1  # type: ignore[attr-defined]
    faster = A100.speed["general"] / V100.speed["general"]
    observation, reward, _, _, info = env.step(1)  # the first job on the V100; the other then goes where there is room
    total += reward
    observation, reward, _, _, info = env.step(0)
    total += reward
    assert info["time"] == 100  # until then nothing could be decided
    mask = env.action_masks()
    # The V100's job has the most left: it stands first. Both may be preempted, neither has where to go.
    assert np.flatnonzero(mask).tolist() == [6, 9, 15]
    rows = observation["running"]
    left = [900, 600 / faster - 100]
    assert rows[:2, 0] == pytest.approx(np.log1p(left) / 12, rel=1e-5)
    assert rows[:2, 4] == pytest.approx(np.log1p([100, 100]) / 12, rel=1e-5)
    assert rows[:2, 5].tolist() == [1, 1]
    assert rows[:2, 8] == pytest.approx([np.log1p(60) / 12] * 2, rel=1e-5)
    assert rows[0, 9] == pytest.approx(1 / 4)
    assert not rows[2].any()
    observation, reward, _, _, info = env.step(6)  # preempts the V100's job
    total += reward
    assert info["time"] == 100
    # Both waiting jobs fit on the V100, so that no preemption would help; the A100's job could move there.
    assert np.flatnonzero(env.action_masks()).tolist() == [0, 1, 3, 4, 7, 15]
    assert observation["queue"][0, 0] == pytest.approx(np.log1p(900 + 60) / 12, rel=1e-5)  # what is left
    observation, reward, _, _, info = env.step(4)  # the short one takes its place
    total += reward
    observation, reward, _, _, info = env.step(15)
    total += reward
    assert info["time"] == 110
    observation, reward, _, _, info = env.step(1)  # the preempted one goes on
    total += reward
    done = 100 + (600 / faster - 100)
    assert info["time"] == pytest.approx(done)
    assert np.flatnonzero(env.action_masks()).tolist() == [8, 15]  # it may move to the A100 now
    assert env.codec.running_names(TWO)[-1] == "gain 2"
    assert observation["running"][0, -1] == pytest.approx(np.log2(faster) / 4, rel=1e-5)
    observation, reward, terminated, _, _ = env.step(8)
    total += reward
    assert terminated
    left_then = 1000 + 60 - 100 - (done - 110) + 30
    outcome = env.outcome()
    assert outcome.finish == pytest.approx([done + left_then / faster, done, 110])
    assert outcome.preemptions.tolist() == [1, 0, 0]
    assert outcome.migrations is not None
    assert outcome.migrations.tolist() == [1, 0, 0]
    assert total == pytest.approx(-outcome.jct.mean() / 3600)


def test_the_mask_is_what_the_cluster_allows() -> None:
    """Every action that stops a job is tried on the simulated cluster."""
    checked = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        trace = Trace.from_columns(
            {
                "submit_time": np.cumsum(rng.integers(0, 30, 14)),
                "run_time": rng.integers(5, 200, 14),
                "gpus": rng.choice([0.25, 0.5, 1, 2, 3], 14),
            },
            origin=0.0,
        )
        cluster = ClusterSpec.of_groups((NodeGroup(1, 2, V100), NodeGroup(1, 2, A100), NodeGroup(1, 3, V100)))
        if seed % 2:
            cluster = cluster.with_dynamics(Dynamics(reservations=(Reservation(150, 220, (2,)),)))
        codec = preemptive(3, 3)
        timing = Timing(2.0, float(rng.choice([0, 20])), migration_cost=5.0)
        simulated, choose = SimulatedCluster(trace, cluster, timing=timing), random_choice(seed)
        while simulated.advance():
            decision = Decision.of(codec, simulated.snapshot())
            while decision.is_due:
                mask = decision.observation["action_mask"].astype(bool)
                stops = np.flatnonzero(mask[: decision.wait_action])
                stops = stops[stops >= 3 * 4]
                assert stops.tolist() == expected_stops(simulated, simulated.snapshot(), codec)
                checked += len(stops)
                choice = choose(mask)
                if choice == decision.wait_action:
                    break
                for action in decision.act(choice):
                    simulated.apply(action)
    assert checked > 1000


def test_equal_cards_in_two_groups_are_told_apart() -> None:
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, V100), NodeGroup(1, 2, V100), NodeGroup(1, 1, A100)))
    trace = Trace.from_columns(
        {"submit_time": [0, 0], "run_time": [90, 90], "gpus": [1, 2], "gpu_type": ["V100-SXM2-32GB", ""]}, origin=0.0
    )
    env = SchedulingEnv(trace, cluster, Codec(2, "fcfs", actions="placement"), jobs=2)
    observation, _ = env.reset()
    #   any, group 1, 2 and 3; a job of two GPUs fits into the second alone
    assert observation["action_mask"].tolist() == [1, 1, 1, 0, 1, 0, 1, 0, 0]
    decision = Decision.of(env.codec, first_snapshot(trace, cluster))
    assert decision.observation["action_mask"].tolist() == observation["action_mask"].tolist()
    assert decision.act(2) == [Start(0, (1,))]
    env.step(2)
    assert env.batch.view(0).gpu_load.tolist() == [0, 1, 0, 0]


def first_snapshot(trace: Trace, cluster: ClusterSpec) -> Snapshot:
    simulated = SimulatedCluster(trace, cluster)
    simulated.advance()
    return simulated.snapshot()


def test_one_group_leaves_nowhere_to_go() -> None:
    cluster = ClusterSpec.of_groups((NodeGroup(2, 2, V100),))
    codec = preemptive(5, 3)
    assert codec.choices(cluster) == 1
    assert codec.wait_action(cluster) == 8
    assert "gain 1" not in codec.running_names(cluster)


def test_pinned_jobs_are_left_alone() -> None:
    trace = Trace.from_columns({"submit_time": [0, 0, 10], "run_time": [99, 99, 9], "gpus": [1, 1, 1]}, origin=0.0)
    simulated = SimulatedCluster(trace, TWO)
    simulated.advance()
    simulated.apply(Start(0, (0,)))
    simulated.apply(Start(1, (1,)))
    simulated.advance()
    snapshot = simulated.snapshot()
    codec = preemptive(1, 2)

    def valid(observation: Observation) -> list[int]:
        return np.flatnonzero(observation["action_mask"]).tolist()

    assert valid(Decision.of(codec, snapshot).observation) == [3, 6, 9]
    assert valid(Decision.of(codec, replace(snapshot, pinned=frozenset({0}))).observation) == [6, 9]
    assert valid(Decision.of(codec, replace(snapshot, pinned=frozenset({0, 1}))).observation) == [9]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"running": 0}, "running must be 1 or more, not 0"),
        ({"running": 1.5}, "running must be a whole number, not 1.5"),
        ({"placement": "consolidated"}, "actions 'preemptive' choose a group of nodes"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Codec(actions="preemptive", **arguments)


def test_costs_that_nothing_reads_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="timing is read where running jobs can be stopped: 'order' actions stop none"
    ):
        SchedulingEnv(cluster=TWO, timing=Timing(quantum=5.0))
    with pytest.raises(ConfigError, match="preemption_cost must be a number of seconds, not '60'"):
        Timing(preemption_cost="60")  # type: ignore[arg-type]


def test_a_timer_is_refused() -> None:
    with pytest.raises(ConfigError, match="an environment has no timer"):
        SchedulingEnv(cluster=TWO, codec=preemptive(), timing=Timing(timer=60.0))
