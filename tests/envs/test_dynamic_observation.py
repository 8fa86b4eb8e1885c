"""What the observation shows of clusters on which things change while jobs run."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec, SetPowerLimit, Snapshot
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import gpu_type
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults
from lepton_rl.envs import Codec, SchedulingEnv
from lepton_rl.envs.decision import Decision
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace
from tests.envs.cases import play, random_choice, skip_choice, workload
from tests.envs.dynamic_cases import DynamicCase, dynamic_cases, hot_cluster
from tests.envs.test_codec import walk_together
from tests.envs.test_rewards import OBJECTIVES
from tests.simulator.detailed_cases import FAST, SLOW

ENTRIES = ("load", "memory", "power", "temperature", "health")


@pytest.mark.parametrize("features", ["basic", "full"])
@settings(max_examples=40)
@given(case=dynamic_cases(), window=st.sampled_from([1, 3, 20]), seed=st.integers(0, 9))
def test_the_same_bits_for_the_environment_and_deployment(
    case: DynamicCase, features: str, window: int, seed: int
) -> None:
    walk_together(case.trace, case.cluster, Codec(window, features=features), seed)


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=20)
@given(case=dynamic_cases(), seed=st.integers(0, 5))
def test_return_is_minus_the_cost(case: DynamicCase, name: str, seed: int) -> None:
    objective = OBJECTIVES[name]
    env = SchedulingEnv(case.trace, case.cluster, Codec(4), objective, jobs=len(case.trace))
    paid = play(env, random_choice(seed))
    assert paid == pytest.approx(-objective.cost(env.outcome()), rel=1e-9, abs=1e-12)


def expected_nodes(snapshot: Snapshot) -> dict[str, list[float]]:
    """The entries of each node, from the snapshot's figures of each GPU."""
    cluster = snapshot.cluster
    most = np.repeat([g.limited_gpu.max_power_w for g in cluster.groups], [g.gpus for g in cluster.groups])
    draw = snapshot.gpu_power_w
    for gpu in range(cluster.gpus):
        kind = cluster.group_of(gpu).gpu
        inlet = cluster.dynamics.inlet_temperature_c
        if inlet is not None and snapshot.gpu_temperature_c[gpu] >= kind.throttle_temperature_c:
            hold = (kind.throttle_temperature_c - inlet) / kind.thermal_resistance_c_per_w
            draw[gpu] = min(draw[gpu], hold)
    parts = np.split(np.arange(cluster.gpus), cluster.first_gpus[1:])
    degrees = np.nan_to_num(snapshot.gpu_temperature_c)
    return {
        "load": [snapshot.gpu_load[part].mean() for part in parts],
        "power": [draw[part].sum() / most[part].sum() for part in parts],
        "temperature": [degrees[part].mean() / 100 for part in parts],
        "health": [snapshot.gpu_up[part].mean() for part in parts],
    }


@settings(max_examples=60)
@given(case=dynamic_cases(), seed=st.integers(0, 9))
def test_load_power_temperature_and_health_of_each_node(case: DynamicCase, seed: int) -> None:
    codec = Codec(4)
    choose = random_choice(seed)
    simulated = SimulatedCluster(case.trace, case.cluster)
    while simulated.advance():
        decision = Decision.of(codec, simulated.snapshot())
        while True:
            for name, values in expected_nodes(simulated.snapshot()).items():
                assert decision.observation[name].tolist() == pytest.approx(values, abs=1e-4), name
            mask = decision.observation["action_mask"]
            choice = choose(mask.astype(bool)) if mask.any() else decision.wait_action
            if choice == decision.wait_action:
                break
            for action in decision.act(choice):
                simulated.apply(action)


def test_a_gpu_that_fails_by_hand() -> None:
    # Two nodes of two GPUs. GPU 1 is down from 10 s to 20 s; the jobs take one GPU each and run 100 s.
    kind = gpu_type("V100-SXM2-32GB")
    faults = Faults(schedule=(Fault(10.0, 1, 1, True), Fault(20.0, 1, 1, False)))
    cluster = ClusterSpec.of_groups((NodeGroup(2, 2, kind),)).with_dynamics(Dynamics(faults=faults))
    trace = Trace.from_columns({"submit_time": [0, 12, 30], "run_time": [100, 100, 100], "gpus": [1, 1, 1]}, origin=0.0)
    env = SchedulingEnv(trace, cluster, Codec(2, "fcfs"), jobs=3)
    observation, _ = env.reset()
    idle = kind.idle_power_w / kind.max_power_w
    assert observation["health"].tolist() == [1.0, 1.0]
    assert observation["power"].tolist() == pytest.approx([idle, idle])
    assert observation["temperature"].tolist() == [0.0, 0.0]
    observation = env.step(0)[0]  # at 12 s: GPU 0 is busy, GPU 1 down
    assert observation["health"].tolist() == [0.5, 1.0]
    assert observation["load"].tolist() == [0.5, 0.0]
    assert observation["power"].tolist() == pytest.approx([0.5, idle])
    observation = env.step(0)[0]  # at 30 s GPU 1 is back
    assert observation["health"].tolist() == [1.0, 1.0]
    assert observation["power"].tolist() == pytest.approx([(1 + idle) / 2, (1 + idle) / 2])


def test_a_limited_gpu_draws_less() -> None:
    kind = gpu_type("V100-SXM2-32GB")
    trace = Trace.from_columns({"submit_time": [0, 5], "run_time": [100, 100], "gpus": [1, 1]}, origin=0.0)
    simulated = SimulatedCluster(trace, ClusterSpec.of_groups((NodeGroup(1, 1, kind), NodeGroup(1, 1, kind))))
    simulated.advance()
    simulated.apply(SetPowerLimit(0, 150.0))
    decision = Decision.of(Codec(2), simulated.snapshot())
    decision.start(0)
    assert decision.observation["power"][0] == pytest.approx(150.0 / kind.max_power_w)


def test_a_warm_gpu_cools_and_throttles() -> None:
    # One long job: its GPUs come to their throttle temperature of 85 degrees, the others stay as warm as when idle.
    trace = Trace.from_columns(
        {"submit_time": [0, 5000], "run_time": [90_000, 10], "gpus": [4, 1], "gpu_type": ["fast", "slow"]}, origin=0.0
    )
    cluster = hot_cluster()
    env = SchedulingEnv(trace, cluster, Codec(2, "fcfs"), jobs=2)
    observation, _ = env.reset()
    idle = [(46 + kind.idle_power_w * kind.thermal_resistance_c_per_w) / 100 for kind in (SLOW, SLOW, FAST)]
    assert observation["temperature"].tolist() == pytest.approx(idle)
    observation = env.step(0)[0]
    assert observation["temperature"].tolist() == pytest.approx([*idle[:2], FAST.throttle_temperature_c / 100])
    hold = (FAST.throttle_temperature_c - 46) / FAST.thermal_resistance_c_per_w
    assert observation["power"][2] == pytest.approx(hold / FAST.max_power_w)
    assert env.observation_space.contains(observation)


def test_entries_and_their_groups() -> None:
    kind = gpu_type("A100-SXM4-80GB")
    many = ClusterSpec.of_groups((NodeGroup(300, 1, kind),))
    assert {name: Codec(4).shapes(many)[name] for name in ENTRIES} == dict.fromkeys(ENTRIES, (150,))
    assert list(Codec(4).shapes(ClusterSpec(2, 4))) == ["load", "memory", "power", "queue", "context"]
    faults = Faults(schedule=(Fault(0.0, 3, 1, True), Fault(50.0, 3, 1, False)))
    trace = workload(3, jobs=20, shares=False)
    env = SchedulingEnv(trace, many.with_dynamics(Dynamics(faults=faults)), Codec(4), jobs=20)
    observation, _ = env.reset()
    assert observation["health"].tolist() == [1.0, 0.5, *[1.0] * 148]


def test_jobs_that_come_after_others_are_seen_on_a_cluster_of_groups() -> None:
    trace = Trace.from_columns({"submit_time": [0, 0], "run_time": [9, 9], "gpus": [1, 1]})
    trace = dataclasses.replace(trace, after=np.array([[0, 1]]))
    env = SchedulingEnv(trace, ClusterSpec(2, 2), Codec(2), jobs=2)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    play(env, skip_choice)


def test_a_picture_shows_the_metered_draw_and_no_load_where_a_gpu_is_down() -> None:
    kind = gpu_type("T4")
    faults = Faults(schedule=(Fault(0.0, 0, 1, True), Fault(50.0, 0, 1, False)))
    cluster = ClusterSpec.of_groups((NodeGroup(1, 2, kind),)).with_dynamics(Dynamics(faults=faults))
    trace = Trace.from_columns({"submit_time": [0, 60], "run_time": [9, 9], "gpus": [1, 2]}, origin=0.0)
    env = SchedulingEnv(trace, cluster, Codec(2), jobs=2)
    env.reset()
    view = env.batch.view(0)
    assert view.gpu_load.tolist() == [0.0, 0.0]
    assert view.power_w == pytest.approx(kind.idle_power_w)
