"""Stepping the environment with a heuristic's choices gives the simulator's own finish times."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec, Placement
from lepton_rl.envs import Codec, SchedulingEnv
from lepton_rl.simulator import Blocking, Order, Rule, run_trace
from lepton_rl.workloads import Trace
from tests.envs.cases import CLUSTER, Choose, head_choice, play, random_choice, skip_choice, workload
from tests.simulator.cases import Case, cases, same_schedule

KEYS = {"saf": Order.SAF, "sjf": Order.SJF, "smallest": Order.SMALLEST, "fcfs": Order.FCFS}
RULES: list[tuple[Blocking, Choose]] = [(Blocking.SKIP, skip_choice), (Blocking.HEAD, head_choice)]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("features", ["basic", "full"])
@settings(max_examples=40)
@given(case=cases(), placement=st.sampled_from(list(Placement)))
def test_a_heuristics_choices(case: Case, key: str, features: str, placement: Placement) -> None:
    codec = Codec(len(case.jobs), key, features, placement.name.lower())
    env = SchedulingEnv(case.trace, case.cluster, codec, jobs=len(case.jobs))
    for blocking, choose in RULES:
        play(env, choose)
        expected = run_trace(case.trace, case.cluster, Rule(KEYS[key], blocking, placement))
        assert same_schedule(env.outcome(), expected)


@pytest.mark.parametrize(("blocking", "choose"), RULES)
def test_a_narrow_window_is_enough_for_the_head_and_many_jobs_for_the_rest(blocking: Blocking, choose: Choose) -> None:
    trace = workload(1, jobs=400, gap=9)
    codec = Codec(1 if blocking == Blocking.HEAD else 400, "sjf", "full", "best")
    env = SchedulingEnv(trace, CLUSTER, codec, jobs=400)
    play(env, choose)
    expected = run_trace(trace, CLUSTER, Rule(Order.SJF, blocking, Placement.BEST))
    assert same_schedule(env.outcome(), expected)


def test_the_warm_up_is_the_heuristics() -> None:
    # Head-of-line decisions go on where the warm-up ends, so the whole is one run of the rule.
    trace = workload(2, jobs=120)
    env = SchedulingEnv(trace, CLUSTER, Codec(16, "saf"), jobs=80, warmup=40)
    play(env, head_choice)
    assert same_schedule(env.outcome(), run_trace(trace, CLUSTER, Rule(Order.SAF)))


def test_a_window_of_the_trace_is_a_trace_of_its_own() -> None:
    trace = workload(3, jobs=90)
    env = SchedulingEnv(trace, CLUSTER, Codec(40, "fcfs", "basic"), jobs=40)
    play(env, skip_choice, window=(0, 25))
    assert same_schedule(env.outcome(), run_trace(trace.window(25, 40), CLUSTER, Rule(blocking=Blocking.SKIP)))


def test_the_window_does_not_go_stale_behind_jobs_that_cannot_start() -> None:
    """Two slots and long wide jobs that came first: the short narrow ones still come into view."""
    trace = Trace.from_columns(
        {
            "submit_time": [0, 1, 1, 1, 2, 3],
            "run_time": [100, 90, 90, 90, 5, 5],
            "gpus": [3, 4, 4, 4, 1, 1],
        },
        origin=0.0,
    )
    env = SchedulingEnv(trace, ClusterSpec.pool(4), Codec(2, "saf"), jobs=6)
    play(env, skip_choice)
    assert env.outcome().first_start.tolist()[4:] == [2, 7]


def test_the_same_seed_gives_the_same_run() -> None:
    finishes = []
    for _ in range(2):
        env = SchedulingEnv(workload(5, jobs=100), CLUSTER, Codec(8), jobs=50)
        play(env, random_choice(7))
        finishes.append(env.outcome().finish.tolist())
        again = env.reset(seed=3)[1], env.batch.windows.tolist()
        assert again == (env.reset(seed=3)[1], env.batch.windows.tolist())
    assert finishes[0] == finishes[1]
