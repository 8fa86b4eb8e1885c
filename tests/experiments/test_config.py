"""Workloads and clusters from an experiment file."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from lepton_rl.errors import ConfigError, TraceError
from lepton_rl.experiments.config import ClusterConfig, DeadlinesConfig, Purpose, WorkloadConfig, seed_for
from lepton_rl.experiments.loader import options
from lepton_rl.experiments.policy_config import PolicyConfig

SWF = "".join(f"{i} {10 * i} -1 {100 + i} {i} -1 -1 {i} -1 -1 1 1 1 -1 1 -1 -1 -1\n" for i in range(1, 11))


@pytest.fixture
def trace_file(tmp_path: Path) -> str:
    path = tmp_path / "ten.swf"
    path.write_text(f"; MaxProcs: 12\n{SWF}")
    return str(path)


def test_a_file_is_cut_after_skipping_and_limiting(trace_file: str) -> None:
    trace = WorkloadConfig(path=trace_file, skip=1, limit=8, part=(0.25, 0.75), scale_load=2.0).build()
    assert trace.job_id.tolist() == [4, 5, 6, 7]
    assert np.diff(trace.submit_time).tolist() == [5.0, 5.0, 5.0]


def test_nothing_left_is_an_error(trace_file: str) -> None:
    with pytest.raises(TraceError, match="skip: 10 leaves no job of 10"):
        WorkloadConfig(path=trace_file, skip=10).build()
    with pytest.raises(TraceError, match=r"part \[0.0, 0.01\] holds no job"):
        WorkloadConfig(path=trace_file, part=(0.0, 0.01)).build()


def test_requested_times_follow_the_seed(trace_file: str) -> None:
    config = WorkloadConfig(path=trace_file, requested="noisy:0.5")
    assert config.build(1) == config.build(1)
    assert not np.array_equal(config.build(1).requested_time, config.build(2).requested_time)


def test_deadlines_follow_the_seed_and_move_nothing_else(trace_file: str) -> None:
    config = WorkloadConfig(path=trace_file, requested="noisy:0.5", deadlines=DeadlinesConfig(factors=(2.0, 4.0)))
    assert config.build(1) == config.build(1)
    assert not np.array_equal(config.build(1).deadline, config.build(2).deadline)
    without = config.model_copy(update={"deadlines": None}).build(1)
    assert np.isnan(without.deadline).all()
    assert config.build(1).requested_time.tolist() == without.requested_time.tolist()
    generated = options(
        WorkloadConfig, generator="gpu_cluster", gpus=8, deadlines={"of": "requested_time", "share": 0.5}
    )
    first, second = (generated.generate(40, seed_for(0, "evaluation", window)) for window in (1, 2))
    assert np.isnan(first.deadline).tolist() != np.isnan(second.deadline).tolist()


@pytest.mark.parametrize("generator", ["lublin", "lublin_256", "gpu_cluster"])
def test_generated_workloads_follow_the_seed(generator: str) -> None:
    config = options(WorkloadConfig, generator=generator, gpus=256, jobs=50)
    assert config.build(3) == config.build(3)
    assert config.build(3) != config.build(4)
    assert config.generate(20, seed_for(0, "evaluation", 1)) != config.generate(20, seed_for(0, "evaluation", 2))
    assert len(config.build()) == 50


def test_no_purpose_shares_a_seed_with_another() -> None:
    purposes: tuple[Purpose, ...] = get_args(Purpose)
    roots = [seed_for(root, purpose, i) for root in (0, 1) for purpose in purposes for i in range(3)]
    states = {tuple(root.generate_state(4).tolist()) for root in [*roots, np.random.SeedSequence(0)]}
    assert len(states) == 2 * 3 * len(purposes) + 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "either a path or a generator"),
        ({"path": "a", "generator": "lublin"}, "either a path or a generator"),
        ({"path": "a", "jobs": 5}, "jobs: only a generator has that"),
        ({"generator": "gpu_cluster"}, "needs gpus"),
        ({"generator": "lublin_256", "gpus": 128}, "has 256 processors"),
        ({"path": "a", "part": (0.5, 0.5)}, "0 <= first < second <= 1"),
        ({"path": "a", "format": "swg"}, "did you mean 'swf'"),
        ({"path": "a", "requested": "nois:1"}, "no such mode"),
        ({"path": "a", "deadlines": {"factors": [3, 2]}}, r"deadlines.factors: deadlines: the factors are 3 and 2"),
        ({"path": "a", "deadlines": {"factor": [1, 2]}}, "did you mean 'factors'"),
        ({"path": "a", "deadlines": {"share": 0}}, "deadlines.share: must be greater than 0"),
        ({"path": "a", "scale_load": 0}, "must be greater than or equal to 0.000001"),
        ({"generator": "lublin", "gpus": 8, "parameters": {"cycle": 3}}, "must be a list of numbers"),
        ({"generator": "gpu_cluster", "gpus": 8, "parameters": {"users": 1.5}}, "must be a whole number"),
    ],
)
def test_workloads_that_make_no_sense(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        options(WorkloadConfig, **values)


def test_the_size_of_a_cluster(trace_file: str, tmp_path: Path) -> None:
    trace = WorkloadConfig(path=trace_file).build()
    assert str(ClusterConfig().build(trace)) == "12 GPUs"
    assert str(ClusterConfig(gpus=7).build(trace)) == "7 GPUs"
    assert str(ClusterConfig(nodes=2, gpus_per_node=4).build()) == "2 x 4 GPUs"
    bare = tmp_path / "bare.swf"
    bare.write_text(SWF)
    with pytest.raises(ConfigError, match=r"no size.*bare has no header that names one \(MaxNodes or MaxProcs\)"):
        ClusterConfig().build(WorkloadConfig(path=str(bare)).build())
    both = tmp_path / "both.swf"
    both.write_text(f"; MaxNodes: 20\n; MaxProcs: 40\n{SWF}")
    assert ClusterConfig().build(WorkloadConfig(path=str(both)).build()).gpus == 20


def test_policies_know_what_they_are(tmp_path: Path) -> None:
    assert PolicyConfig.model_validate("sjf").label == "sjf"
    assert PolicyConfig.model_validate({"name": "saf", "placement": "best"}).label == "saf best"
    assert PolicyConfig.model_validate({"name": "saf", "label": "mine"}).label == "mine"
    bundle = PolicyConfig.model_validate("runs/week/bundle")
    assert (bundle.label, bundle.is_learned) == ("week", True)
    assert not PolicyConfig.model_validate("mine.py:Mine").is_learned


def test_a_seed_reaches_policies_that_have_one_and_none_of_their_own() -> None:
    assert PolicyConfig.model_validate("random").build(seed=5) == PolicyConfig.model_validate(
        {"name": "random", "seed": 5}
    ).build(seed=9)
    assert PolicyConfig.model_validate("sjf").build(seed=5) == PolicyConfig.model_validate("sjf").build()
