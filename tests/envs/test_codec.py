"""One codec for the environment and for deployment: the same instant shows the same bits on both."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec, Placement
from lepton_rl.envs import Codec, SchedulingEnv
from lepton_rl.envs.codec import NO_COSTS
from lepton_rl.envs.decision import Decision
from lepton_rl.errors import BundleError, ConfigError
from lepton_rl.simulator import SimulatedCluster, Timing
from lepton_rl.workloads import Trace
from tests.envs.cases import CLUSTER, assert_same, random_choice, workload
from tests.simulator.cases import Case, cases, same_schedule


def walk_together(trace: Trace, spec: ClusterSpec, codec: Codec, seed: int, timing: Timing = NO_COSTS) -> int:
    """Take the same random decisions in the environment and, through the codec, on a cluster."""
    env = SchedulingEnv(trace, spec, codec, jobs=len(trace), timing=timing)
    cluster = SimulatedCluster(trace, spec, Placement[codec.placement.upper()], timing)
    room = Decision(codec, spec, len(trace))
    choose = random_choice(seed)
    observation, info = env.reset(options={"window": (0, 0)})
    decisions = 0
    terminated = False
    while cluster.advance():
        decision = room.show(cluster.snapshot())
        while decision.is_due:  # other instants pass by themselves in the environment
            assert info["time"] == cluster.time
            assert_same(observation, decision.observation, f"at {cluster.time}")
            choice = choose(env.action_masks())
            observation, _, terminated, _, info = env.step(choice)
            decisions += 1
            if choice == decision.wait_action:
                break
            for action in decision.act(choice):
                cluster.apply(action)
    assert terminated
    assert same_schedule(env.outcome(), cluster.outcome())
    # After the last event nothing waits and nothing runs.
    assert_same(observation, Decision.of(codec, cluster.snapshot()).observation, "at the end")
    return decisions


@pytest.mark.parametrize("features", ["basic", "full"])
@pytest.mark.parametrize("placement", ["first", "best", "worst", "consolidated"])
@settings(max_examples=40)
@given(
    case=cases(),
    key=st.sampled_from(["saf", "sjf", "smallest", "fcfs"]),
    window=st.sampled_from([1, 2, 5, 20]),
    seed=st.integers(0, 9),
)
def test_the_same_bits(case: Case, features: str, placement: str, key: str, window: int, seed: int) -> None:
    walk_together(case.trace, case.cluster, Codec(window, key, features, placement), seed)


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("requested", [False, True])
def test_the_same_bits_on_long_queues(shares: bool, requested: bool) -> None:
    trace = workload(21, jobs=250, shares=shares, gap=8, requested=requested)
    assert walk_together(trace, CLUSTER, Codec(16, "sjf"), 5) > 250


def test_the_same_bits_with_times_that_round() -> None:
    trace = workload(22, jobs=120)
    odd = dataclasses.replace(trace, run_time=trace.run_time / 7, requested_time=trace.requested_time / 7)
    walk_together(odd, CLUSTER, Codec(16, "saf"), 6)


def test_the_same_bits_on_many_nodes() -> None:
    rng = np.random.default_rng(9)
    trace = Trace.from_columns(
        {
            "submit_time": np.cumsum(rng.integers(0, 2, 60)),
            "run_time": rng.integers(2, 90, 60),
            "gpus": rng.choice([0.25, 1, 2, 30, 200], 60),
        }
    )
    walk_together(trace, ClusterSpec(300, 2), Codec(8), 7)


def test_starting_refreshes_the_window() -> None:
    # One slot of the window empties and the next waiting job moves in.
    trace = Trace.from_columns({"submit_time": [0] * 4, "run_time": [9] * 4, "gpus": [1] * 4})
    cluster = SimulatedCluster(trace, ClusterSpec.pool(3))
    cluster.advance()
    snapshot = cluster.snapshot()
    decision = Decision.of(Codec(2, "fcfs"), snapshot)
    assert decision.visible.tolist() == [0, 1]
    assert decision.start(1).job == 1
    assert decision.visible.tolist() == [0, 2]
    assert decision.start(0).gpus == (1,)
    assert decision.visible.tolist() == [2, 3]
    decision.start(1)
    assert decision.visible.tolist() == [2]
    assert not decision.is_due
    assert (decision.observation["queue"][1] == 0).all()
    assert snapshot.free_gpus == 3  # nothing of this reaches the snapshot


def test_a_description_makes_the_same_codec() -> None:
    codec = Codec(32, "sjf", "basic", "best")
    assert Codec.from_description(codec.describe()) == codec
    with pytest.raises(BundleError, match="version 99, this lepton_rl reads version 2; train it anew"):
        Codec.from_description({**codec.describe(), "version": 99})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"window": 0}, "window must be 1 or more, not 0"),
        ({"key": "saff"}, "key 'saff' is unknown; did you mean 'saf'"),
        ({"features": "ful"}, "features 'ful' is unknown; did you mean 'full'"),
        ({"placement": "tight"}, "placement 'tight' is unknown.*known: first, best, worst, consolidated"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Codec(**settings)  # type: ignore[arg-type]
