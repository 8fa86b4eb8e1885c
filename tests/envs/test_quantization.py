"""Observations in fewer bytes: what is left of them, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import gpu_type
from lepton_rl.envs import Codec, EnvironmentBatch, Episodes, Objective
from lepton_rl.envs.quantization import Quantization, feature_ranges, quantization_for
from lepton_rl.errors import ConfigError
from lepton_rl.workloads import gpu_cluster
from lepton_rl.workloads.job_table import fit_to_cluster

TYPED = ClusterSpec.of_groups(
    (NodeGroup(2, 2, gpu_type("V100-SXM2-32GB")), NodeGroup(1, 4, gpu_type("A100-SXM4-80GB")))
)
bounds = st.tuples(
    st.floats(-100, 100, width=32), st.floats(-100, 100, width=32)
).map(sorted).filter(lambda pair: pair[1] - pair[0] > 1e-3)  # fmt: skip


def quantization(dtype: str, low: float, high: float) -> Quantization:
    return Quantization(dtype, {"x": (np.float32(low) + np.zeros(1, np.float32), np.full(1, high, np.float32))})


@given(bounds, st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
def test_a_level_is_off_by_a_step_at_most_and_by_half_a_step_away_from_zero(
    limits: list[float], parts: list[float]
) -> None:
    low, high = limits
    kind = quantization("uint8", low, high)
    values = np.clip(np.float32(low) + np.array(parts, np.float32)[:, None] * np.float32(high - low), low, high)
    values = values.astype(np.float32)
    encoded = kind.encode({"x": values})["x"]
    assert encoded.dtype == np.uint8
    error = np.abs(kind.decode({"x": encoded})["x"] - values)
    step = float(kind.levels["x"][1][0])
    widest = max(high, 0.0) - min(low, 0.0)
    assert step <= 1.5 * widest / 255 * (1 + 1e-6)  # 0 is a level: where one side has hardly any, these lie further
    assert (error <= step * 1.001).all()
    assert (error[np.abs(values) > step] <= step * 0.501).all()


@given(bounds, st.floats(-200, 200, width=32))
def test_zero_stays_zero_and_what_is_above_it_above_it(limits: list[float], value: float) -> None:
    low, high = limits
    kind = quantization("uint8", low, high)
    left = float(kind.rounded({"x": np.array([value], np.float32)})["x"][0])
    if min(low, 0) <= 0 <= max(high, 0) and low <= 0 <= high:
        assert kind.rounded({"x": np.zeros(1, np.float32)})["x"][0] == 0.0
        assert (left > 0) == (min(value, high) > 0)
    step = float(kind.levels["x"][1][0])
    # Steps are up to 1.5 times as wide as the range asks for, so that the last level may lie that far out.
    assert 1.5 * min(low, 0.0) - step <= left <= 1.5 * max(high, 0.0) + step


@given(st.lists(st.floats(-1, 2, width=32), min_size=1, max_size=50))
def test_a_half_is_off_by_its_last_bit(values: list[float]) -> None:
    kind = quantization("float16", -1, 2)
    array = np.array(values, np.float32)[:, None]
    left = kind.rounded({"x": array})["x"]
    assert left.dtype == np.float32
    assert (np.abs(left - array) <= np.maximum(np.abs(array) * 2**-11, 2**-25)).all()


def test_one_is_kept_exactly() -> None:
    for dtype in ("float16", "uint8"):
        assert quantization(dtype, 0, 1).rounded({"x": np.ones(1, np.float32)})["x"][0] == 1.0


@pytest.mark.parametrize(
    ("features", "key", "actions"),
    [("full", "fcfs", "order"), ("full", "sjf", "power"), ("full", "saf", "order"), ("basic", "saf", "order")],
)
def test_observations_lie_within_the_documented_ranges(features: str, key: str, actions: str) -> None:
    codec = Codec(window=8, key=key, features=features, actions=actions)
    trace = fit_to_cluster(gpu_cluster(n_jobs=800, gpus=TYPED.gpus, load=3.0, seed=1), TYPED)
    batch = EnvironmentBatch(Episodes([trace], 200), TYPED, codec, Objective(), 4)
    ranges = feature_ranges(codec, TYPED)
    kinds = [quantization_for(dtype, codec, TYPED) for dtype in ("float16", "uint8")]
    rng = np.random.default_rng(0)
    for env in range(4):
        batch.reset(env, (0, 100 * env))
    for _ in range(300):
        observation = batch.observation()
        assert ranges.keys() == observation.keys() - {"action_mask"}
        for name, (low, high) in ranges.items():
            assert (observation[name] >= low - 1e-6).all(), name
            assert (observation[name] <= high + 1e-6).all(), name
        for kind in kinds:
            assert kind is not None
            encoded = kind.encode(observation)
            assert kind.space(codec.observation_space(TYPED)).contains({name: a[0] for name, a in encoded.items()})
            left = kind.decode(encoded)
            rounded = kind.rounded(observation)
            assert rounded.keys() == left.keys()
            assert all(np.array_equal(rounded[name], left[name]) for name in left)
            np.testing.assert_array_equal(left["queue"][..., 1] > 0, observation["queue"][..., 1] > 0)
            np.testing.assert_array_equal(left["queue"][..., 5], observation["queue"][..., 5])
        masks = batch.masks
        batch.step(np.array([rng.choice(np.flatnonzero(mask)) for mask in masks], np.int64))
        for ended in np.flatnonzero(batch.terminated):
            batch.reset(int(ended), (0, 0))


def test_it_is_the_same_after_a_journey_through_a_bundle() -> None:
    codec, cluster = Codec(window=4), ClusterSpec(nodes=2, gpus_per_node=4)
    kind = quantization_for("uint8", codec, cluster)
    assert kind is not None
    again = Quantization.from_description(kind.describe())
    queue = np.random.default_rng(0).uniform(-2, 2, (5, 4, 17)).astype(np.float32)
    np.testing.assert_array_equal(again.rounded({"queue": queue})["queue"], kind.rounded({"queue": queue})["queue"])


def test_float32_is_stored_as_it_is() -> None:
    assert quantization_for("float32", Codec(), ClusterSpec(nodes=1, gpus_per_node=1)) is None


@pytest.mark.parametrize(
    ("dtype", "low", "high", "match"),
    [
        ("uint8", 0.0, np.inf, r"observation 'x', feature 0: it lies within 0 to inf, and uint8 needs a lower"),
        ("uint8", -np.inf, 1.0, "within -inf to 1"),
        ("uint8", 1.0, 1.0, "within 1 to 1"),
        ("float16", 0.0, 1e5, "an upper bound within ±65504; use float32"),
        ("unit8", 0.0, 1.0, "cannot be stored as 'unit8'.*did you mean 'uint8'"),
    ],
)
def test_a_range_that_it_cannot_hold_is_refused(dtype: str, low: float, high: float, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        quantization(dtype, low, high)
