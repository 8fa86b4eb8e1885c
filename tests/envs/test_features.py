"""Every entry of the observation against a plain recomputation, on states that random choices lead to."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec, Placement, Start
from lepton_rl.envs import Codec
from lepton_rl.envs.codec import WINDOW_KEYS, Observation
from lepton_rl.envs.decision import Decision
from lepton_rl.envs.fast_math import fast_log
from lepton_rl.envs.features import CONTEXT_FEATURES, FEATURES, FULL_FEATURES
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace
from tests.envs.cases import CLUSTER, workload
from tests.envs.expected import Expected
from tests.simulator.cases import Case, cases


def assert_close(found: Observation, expected: Expected, names: tuple[str, ...]) -> None:
    """Compare feature by feature, so that a failure names its feature."""
    assert found["action_mask"].astype(bool).tolist() == expected.mask
    for column, name in enumerate(names):
        wanted = [row[column] for row in expected.queue]
        assert found["queue"][:, column].tolist() == pytest.approx(wanted, rel=1e-5, abs=2e-6), name
    if "context" in found:
        for name, value, wanted_value in zip(
            CONTEXT_FEATURES, found["context"].tolist(), expected.context, strict=True
        ):
            assert value == pytest.approx(wanted_value, rel=1e-5, abs=2e-6), name
    for name in ("load", "memory", "power"):
        wanted = getattr(expected, name)
        assert found[name].tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-6), name


def walk(trace: Trace, spec: ClusterSpec, codec: Codec, placement: Placement, seed: int, steps: int = 10_000) -> int:
    """Start and wait at random; hold the observation of each instant, and of each start, to the expected."""
    rng = np.random.default_rng(seed)
    cluster = SimulatedCluster(trace, spec, placement)
    seen = 0
    while cluster.advance() and seen < steps:
        decision = Decision.of(codec, cluster.snapshot())
        while True:
            expected = Expected(codec, cluster.snapshot())
            assert_close(decision.observation, expected, codec.feature_names)
            assert decision.visible.tolist() == [job.id for job in expected.window]
            seen += 1
            valid = np.flatnonzero(decision.observation["action_mask"])
            choice = int(rng.choice(valid)) if len(valid) else codec.window
            if choice == codec.window:
                break
            action = decision.start(choice)
            assert isinstance(action, Start)
            cluster.apply(action)
    return seen


@pytest.mark.parametrize("features", ["basic", "full"])
@pytest.mark.parametrize("key", WINDOW_KEYS)
@settings(max_examples=30)
@given(
    case=cases(exact=True),
    placement=st.sampled_from(list(Placement)),
    window=st.sampled_from([1, 3, 12]),
    seed=st.integers(0, 9),
)
def test_small_states(case: Case, features: str, key: str, placement: Placement, window: int, seed: int) -> None:
    codec = Codec(window, key, features, placement.name.lower())
    walk(case.trace, case.cluster, codec, placement, seed)


@pytest.mark.parametrize("placement", Placement)
def test_long_queues(placement: Placement) -> None:
    codec = Codec(8, "saf", "full", placement.name.lower())
    assert walk(workload(11, jobs=90), CLUSTER, codec, placement, 1) > 100


@pytest.mark.parametrize("features", ["basic", "full"])
def test_without_requested_times(features: str) -> None:
    trace = workload(12, jobs=50, requested=False)
    assert np.isnan(trace.requested_time).all()
    walk(trace, CLUSTER, Codec(8, "sjf", features), Placement.FIRST, 2)


@pytest.mark.parametrize(("nodes", "groups"), [(256, 256), (257, 129), (600, 200)])
def test_nodes_are_grouped_above_256(nodes: int, groups: int) -> None:
    rng = np.random.default_rng(3)
    trace = Trace.from_columns(
        {
            "submit_time": np.cumsum(rng.integers(0, 3, 40)),
            "run_time": rng.integers(5, 90, 40),
            "gpus": rng.choice([0.5, 1, 2, 40, 300], 40),
            "gpu_memory_gib": rng.choice([np.nan, 12.0], 40),
        }
    )
    spec = ClusterSpec(nodes, 2)
    codec = Codec(4)
    shapes = codec.shapes(spec)
    assert {shapes[name] for name in ("load", "memory", "power")} == {(groups,)}
    assert codec.observation_space(spec)["load"].shape == (groups,)
    walk(trace, spec, codec, Placement.WORST, 4, steps=60)


def test_the_fast_logarithm_is_as_good_as_it_says() -> None:
    values = np.geomspace(1e-6, 1e12, 20_000).astype(np.float32)
    errors = [abs(fast_log(value) - math.log(value)) for value in values.tolist()]
    assert max(errors) < 1e-5  # 4e-6, and the float32 of the result itself
    assert abs(fast_log(1.0)) < 1e-6


def test_every_feature_is_explained() -> None:
    assert list(FEATURES) == list(FULL_FEATURES)
    assert Codec(features="basic").feature_names == FULL_FEATURES[:8]
    assert len(CONTEXT_FEATURES) == 12
