"""Environments on clusters whose nodes differ."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec, Placement
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import default_locality, gpu_type
from lepton_rl.envs import Codec, Objective, SchedulingEnv, SchedulingVectorEnv
from lepton_rl.envs.decision import Decision
from lepton_rl.simulator import Rule, SimulatedCluster, run_trace
from lepton_rl.workloads import Trace, gpu_cluster
from tests.envs.cases import play, random_choice
from tests.envs.test_codec import walk_together
from tests.envs.test_rewards import OBJECTIVES
from tests.envs.test_schedules import KEYS, RULES
from tests.reference.detailed import DetailedJob
from tests.reference.simulator import WHOLE
from tests.simulator.cases import same_schedule
from tests.simulator.detailed_cases import (
    FAST,
    PLAIN,
    SLOW,
    DetailedCase,
    detailed_cases,
    detailed_trace,
    reference_cluster,
)

MIXED = ClusterSpec.of_groups(
    (
        NodeGroup(2, 4, gpu_type("V100-SXM2-32GB"), (("cpu_cores", 48.0),), racks=2),
        NodeGroup(1, 8, gpu_type("A100-SXM4-80GB"), (("cpu_cores", 128.0),)),
    ),
    locality=default_locality(),
)


def mixed_trace(jobs: int) -> Trace:
    return gpu_cluster(n_jobs=jobs, gpus=MIXED.gpus, load=1.2, seed=4)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("features", ["basic", "full"])
@settings(max_examples=20)
@given(case=detailed_cases(), placement=st.sampled_from(list(Placement)))
def test_a_heuristics_choices(case: DetailedCase, key: str, features: str, placement: Placement) -> None:
    codec = Codec(len(case.jobs), key, features, placement.name.lower())
    env = SchedulingEnv(case.trace, case.cluster, codec, jobs=len(case.jobs))
    for blocking, choose in RULES:
        play(env, choose)
        expected = run_trace(case.trace, case.cluster, Rule(KEYS[key], blocking, placement))
        assert same_schedule(env.outcome(), expected)
        assert env.outcome().energy_joules == pytest.approx(expected.energy_joules, rel=1e-12)


@pytest.mark.parametrize("features", ["basic", "full"])
@pytest.mark.parametrize("placement", ["first", "best", "worst", "consolidated"])
@settings(max_examples=20)
@given(case=detailed_cases(), key=st.sampled_from([*KEYS]), window=st.sampled_from([1, 2, 20]), seed=st.integers(0, 9))
def test_the_same_bits_for_the_environment_and_deployment(
    case: DetailedCase, features: str, placement: str, key: str, window: int, seed: int
) -> None:
    walk_together(case.trace, case.cluster, Codec(window, key, features, placement), seed)


@settings(max_examples=60)
@given(case=detailed_cases(), seed=st.integers(0, 9))
def test_load_memory_and_power_of_each_node(case: DetailedCase, seed: int) -> None:
    """And the mask: what fits by the reference."""
    codec = Codec(4)
    choose = random_choice(seed)
    simulated = SimulatedCluster(case.trace, case.cluster)
    while simulated.advance():
        decision = Decision.of(codec, simulated.snapshot())
        while True:
            snapshot = simulated.snapshot()
            cluster = reference_cluster(case.cluster)
            memory = [0.0] * case.cluster.nodes
            for number in snapshot.running:
                job, gpus = case.jobs[number], list(snapshot.gpus_of(number))
                cluster.take(job, gpus)
                for gpu in gpus:  # a gang with a figure is counted with it, though it holds the whole GPU
                    memory[cluster.node_of[gpu]] += job.memory_gib or cluster.memory_on(job, gpu)
            for node, machine in enumerate(cluster.machines):
                load = 1 - sum(cluster.free_share[gpu] for gpu in machine.gpus) / WHOLE / len(machine.gpus)
                kind = machine.type
                draw = kind.idle_w + (kind.max_w - kind.idle_w) * load
                expected = (load, memory[node] / len(machine.gpus) / kind.memory_gib, draw / kind.max_w)
                found = [float(decision.observation[name][node]) for name in ("load", "memory", "power")]
                assert found == pytest.approx(expected, abs=2e-4)
                assert all(0.0 <= part <= 1.0 for part in found)
            mask = decision.observation["action_mask"].astype(bool)
            fits = [cluster.find(case.jobs[number]) is not None for number in decision.visible]
            assert mask[: len(fits)].tolist() == fits
            choice = choose(mask) if mask.any() else codec.window
            if choice == codec.window:
                break
            simulated.apply(decision.start(choice))


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=40)
@given(case=detailed_cases(), seed=st.integers(0, 5))
def test_return_is_minus_the_cost(case: DetailedCase, name: str, seed: int) -> None:
    objective = OBJECTIVES[name]
    env = SchedulingEnv(case.trace, case.cluster, Codec(4), objective, jobs=len(case.jobs))
    paid = play(env, random_choice(seed))
    assert paid == pytest.approx(-objective.cost(env.outcome()), rel=1e-9, abs=1e-12)


def test_a_slow_gpu_costs_by_hand() -> None:
    # Speeds 1/2 and 2. Job 0 (20 s) takes the slow GPU: 40 s, of which 20 count as waiting, slowdown 2. Job 1 (20 s)
    # comes at 0 too, waits for nothing and runs 10 s on the fast one: slowdown 1, not less. Their mean is 1.5.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, SLOW), NodeGroup(1, 1, FAST)), PLAIN)
    trace = detailed_trace([DetailedJob(number, 0.0, 20.0, 20.0, 1.0) for number in range(2)])
    env = SchedulingEnv(trace, cluster, Codec(2, "fcfs"), Objective(1.0, 0.0), jobs=2)
    assert play(env, lambda mask: 0) == pytest.approx(-1.5)
    assert env.outcome().finish.tolist() == [40.0, 10.0]


@pytest.mark.parametrize("warmup", [1, 20])
def test_jobs_of_the_warm_up_are_not_counted(warmup: int) -> None:
    objective = OBJECTIVES["mixed"]
    env = SchedulingEnv(mixed_trace(80), MIXED, Codec(8, "sjf"), objective, jobs=80 - warmup, warmup=warmup)
    paid = play(env, random_choice(1))
    assert paid == pytest.approx(-objective.cost(env.outcome(), warmup), rel=1e-9)


@pytest.mark.parametrize("features", ["basic", "full"])
@pytest.mark.parametrize("render_mode", [None, "ansi", "rgb_array"])
def test_gymnasium_checker(features: str, render_mode: str | None) -> None:
    env = gymnasium.make(
        "lepton_rl/Scheduling-v0",
        workload=mixed_trace(60),
        cluster=MIXED,
        codec=Codec(8, features=features),
        jobs=20,
        render_mode=render_mode,
    )
    check_env(env.unwrapped)
    env.close()


def test_stable_baselines3_checker() -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with pytest.warns(UserWarning, match="observation queue has an unconventional shape"):
        checker.check_env(SchedulingEnv(mixed_trace(60), MIXED, Codec(8), jobs=20))


def test_the_picture_has_a_line_of_its_own_for_each_node() -> None:
    trace = detailed_trace([DetailedJob(0, 0.0, 9.0, 9.0, 2.0, types=("fast",)), DetailedJob(1, 0.0, 9.0, 9.0, 1.0)])
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, SLOW), NodeGroup(1, 3, FAST)))
    env = SchedulingEnv(trace, cluster, Codec(2, "fcfs"), jobs=2, render_mode="ansi")
    env.reset(seed=0)
    env.step(0)
    text = env.render()
    assert isinstance(text, str)
    # 8 W of the idle slow GPU, 2 x 400.25 W and 50.5 W of the fast ones.
    assert text.splitlines()[0] == "time 0 s   utilisation 50%   power 0.9 kW   running 1   waiting 1"
    assert text.splitlines()[1:3] == ["node   0 | |", "node   1 |██ |"]
    assert env.batch.view(0).power_w == pytest.approx(8 + 2 * 400.25 + 50.5)


def test_the_vector_form_is_the_single_one() -> None:
    codec, jobs = Codec(8, "sjf"), 40
    trace = mixed_trace(jobs)
    envs = SchedulingVectorEnv(3, trace, MIXED, codec, jobs=jobs)
    single = SchedulingEnv(trace, MIXED, codec, jobs=jobs)
    observations, _ = envs.reset(seed=0)
    observation, _ = single.reset(seed=0)
    terminated = False
    while not terminated:
        for name, values in observation.items():
            assert (observations[name] == values).all(), name
        action = int(observation["action_mask"].argmax())
        observation, reward, terminated, _, _ = single.step(action)
        observations, rewards, ended, _, _ = envs.step(np.full(3, action))
        assert rewards.tolist() == [reward] * 3
        assert ended.all() == terminated
