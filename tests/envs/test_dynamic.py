"""Environments on clusters that change during a run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec, Placement
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import gpu_type
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults, Interference, Lifetimes, Reservation
from lepton_rl.envs import Codec, Objective, SchedulingEnv, SchedulingVectorEnv
from lepton_rl.simulator import Blocking, Order, Rule, run_trace
from lepton_rl.workloads import Trace
from tests.envs.cases import assert_same, play, random_choice, skip_choice
from tests.envs.test_codec import walk_together
from tests.envs.test_rewards import OBJECTIVES
from tests.envs.test_schedules import KEYS
from tests.simulator.cases import same_schedule
from tests.simulator.dynamic_cases import PARTS, DynamicCase, dynamic_cases

COMPILED = [part for part in PARTS if part not in ("limits", "migrations")]  # what needs no actions of its own


def changing_cluster(heat: bool = True) -> ClusterSpec:
    groups = (NodeGroup(2, 4, gpu_type("A100")), NodeGroup(2, 2, gpu_type("V100-SXM2-32GB"), power_limit_w=250.0))
    dynamics = Dynamics(
        interference=Interference(0.6),
        inlet_temperature_c=45.0 if heat else None,
        faults=Faults(
            gpu=Lifetimes(20, 1),
            node=Lifetimes(60, 2),
            until_hours=100,
            checkpoint_interval_s=600,
            checkpoint_cost_s=10,
            restart_cost_s=30,
        ),
        reservations=(Reservation(3000, 6000, (0, 1)), Reservation(9000, 20000, (2,))),
    )
    return ClusterSpec.of_groups(groups, dynamics=dynamics)


def linked_trace(seed: int, jobs: int = 120, links: int = 40) -> Trace:
    """Gangs and shares that queue on `changing_cluster`; some come after others."""
    rng = np.random.default_rng(seed)
    run = np.ceil(rng.exponential(2000, jobs))
    trace = Trace.from_columns(
        {
            "submit_time": np.sort(np.ceil(rng.uniform(0, 250 * jobs, jobs))),
            "run_time": run,
            "requested_time": np.ceil(run * rng.choice([0.6, 1.0, 1.0, 2.5], jobs)),
            "gpus": rng.choice([0.2, 0.25, 0.5, 0.7, 1, 1, 2, 3, 4, 8], jobs),
            "job_class": rng.choice(["vision", "language", "general"], jobs),
        }
    )
    pairs = {tuple(sorted(pair)) for pair in rng.integers(0, jobs, (links, 2)).tolist() if pair[0] != pair[1]}
    return replace(trace, after=np.array(sorted(pairs), np.int64).reshape(-1, 2))


def cut(trace: Trace, first: int, jobs: int) -> Trace:
    """A window with the dependencies between its own jobs."""
    inside = ((trace.after >= first) & (trace.after < first + jobs)).all(axis=1)
    return replace(trace.window(first, jobs), after=trace.after[inside] - first)


@pytest.mark.parametrize("key", KEYS)
@settings(max_examples=15)
@given(case=dynamic_cases(COMPILED), placement=st.sampled_from(list(Placement)))
def test_a_heuristics_choices(case: DynamicCase, key: str, placement: Placement) -> None:
    env = SchedulingEnv(
        case.trace, case.cluster, Codec(len(case.jobs), key, "full", placement.name.lower()), jobs=len(case.jobs)
    )
    play(env, skip_choice)  # head may wait on an idle cluster, for a repair; an environment must start what fits there
    expected = run_trace(case.trace, case.cluster, Rule(KEYS[key], Blocking.SKIP, placement))
    assert same_schedule(env.outcome(), expected)
    assert env.outcome().energy_joules == pytest.approx(expected.energy_joules, rel=1e-12)


@settings(max_examples=15)
@given(
    case=st.one_of(dynamic_cases(COMPILED), dynamic_cases([*COMPILED, "heat"], exact=False)),
    key=st.sampled_from([*KEYS]),
    window=st.sampled_from([1, 2, 20]),
    seed=st.integers(0, 9),
)
def test_the_same_bits_for_the_environment_and_deployment(case: DynamicCase, key: str, window: int, seed: int) -> None:
    walk_together(case.trace, case.cluster, Codec(window, key, "full", "best"), seed)


@pytest.mark.parametrize("features", ["basic", "full"])
def test_a_struck_job_that_outran_its_requested_time_waits_for_reservations_too(features: Any) -> None:
    dynamics = Dynamics(
        faults=Faults(schedule=(Fault(350, 0, 1, True), Fault(360, 0, 1, False)), checkpoint_interval_s=50),
        reservations=(Reservation(300, 500, (0, 1)),),
    )
    cluster = ClusterSpec.of_groups((NodeGroup(2, 1, gpu_type("A100")),), dynamics=dynamics)
    trace = Trace.from_columns({"submit_time": [0.0], "run_time": [400.0], "requested_time": [100.0], "gpus": [1]})
    walk_together(trace, cluster, Codec(1, "saf", features), seed=0)
    env = SchedulingEnv(trace, cluster, Codec(1, "saf", features), jobs=1)
    play(env, skip_choice)
    assert env.outcome().finish[0] > 500.0


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=25)
@given(case=dynamic_cases([*COMPILED, "heat"], exact=False), seed=st.integers(0, 5))
def test_return_is_minus_the_cost(case: DynamicCase, name: str, seed: int) -> None:
    objective = OBJECTIVES[name]
    env = SchedulingEnv(case.trace, case.cluster, Codec(4), objective, jobs=len(case.jobs))
    paid = play(env, random_choice(seed))
    assert paid == pytest.approx(-objective.cost(env.outcome()), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("warmup", [1, 30])
def test_jobs_of_the_warm_up_are_not_counted(name: str, warmup: int) -> None:
    objective = OBJECTIVES[name]
    for seed in range(3):
        env = SchedulingEnv(
            linked_trace(seed), changing_cluster(), Codec(8, "sjf"), objective, jobs=120 - warmup, warmup=warmup
        )
        paid = play(env, random_choice(seed))
        outcome = env.outcome()
        assert paid == pytest.approx(-objective.cost(outcome, warmup), rel=1e-9), seed
        assert outcome.disturbed is not None
        assert outcome.disturbed.strikes.sum() > 0


@pytest.mark.parametrize("heat", [False, True])
def test_each_window_follows_the_dependencies_of_its_own_trace(heat: bool) -> None:
    traces = [linked_trace(1, 60, 50), linked_trace(2, 90, 0), linked_trace(3, 70, 60)]
    cluster = changing_cluster(heat)
    env = SchedulingEnv(traces, cluster, Codec(40, "fcfs"), jobs=40)
    windows = [(0, 0), (0, 20), (1, 13), (2, 0), (2, 7), (2, 30)]
    for index, first in windows:
        play(env, skip_choice, window=(index, first))
        part = cut(traces[index], first, 40)
        assert (len(part.after) > 0) == (index != 1)
        outcome = env.outcome()
        before, after = part.after.T
        assert (outcome.first_start[after] >= outcome.finish[before]).all()
        assert same_schedule(outcome, run_trace(part, cluster, Rule(Order.FCFS, Blocking.SKIP)))


def agree(vector: SchedulingVectorEnv, singles: Sequence[SchedulingEnv], steps: int) -> None:
    """Step the vector form and its single environments together, through the ends of episodes."""
    rng = np.random.default_rng(0)
    observations, _ = vector.reset(seed=3)

    def reset(env: int) -> None:
        observation, _ = singles[env].reset(options={"window": tuple(vector.batch.windows[env].tolist())})
        assert_same({name: array[env] for name, array in observations.items()}, observation, "after a reset")

    for env in range(len(singles)):
        reset(env)
    for _ in range(steps):
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in vector.action_masks()])
        observations, rewards, terminated, _, _ = vector.step(actions)
        for env, single in enumerate(singles):
            observation, reward, ended, _, _ = single.step(int(actions[env]))
            assert (reward, ended) == (rewards[env], terminated[env])
            if ended:
                reset(env)
            else:
                assert_same({name: array[env] for name, array in observations.items()}, observation)


def test_the_vector_form_is_its_single_environments() -> None:
    arguments: dict[str, Any] = {
        "workload": [linked_trace(4, 60), linked_trace(5, 70)],
        "cluster": changing_cluster(),
        "codec": Codec(8, "sjf", "full"),
        "objective": Objective(1.0, 2.0, 0.5, 0.1),
        "jobs": 20,
        "warmup": 5,
    }
    agree(SchedulingVectorEnv(3, **arguments), [SchedulingEnv(**arguments) for _ in range(3)], 150)
