"""Windows: the same for every policy, disjoint where they say so, warm-up not counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_rl.agents import make_policy, run_policy
from lepton_rl.core import ClusterSpec
from lepton_rl.errors import ConfigError, TraceError
from lepton_rl.experiments.benchmark_config import BenchmarkWorkload
from lepton_rl.experiments.loader import options
from lepton_rl.experiments.windows import counted_metrics, make_windows
from lepton_rl.workloads import Trace, gpu_cluster, write_csv


@pytest.fixture
def jobs_file(tmp_path: Path) -> str:
    write_csv(gpu_cluster(100, 8, 0.9, seed=1), tmp_path / "jobs.csv")
    return str(tmp_path / "jobs.csv")


def workload(windows: dict[str, Any], **values: Any) -> BenchmarkWorkload:
    return options(BenchmarkWorkload, windows=windows, cluster={"gpus": 8}, **values)


def test_counted_jobs_of_disjoint_windows_do_not_overlap(jobs_file: str) -> None:
    made = make_windows(
        workload({"kind": "disjoint", "count": 7, "jobs": 10, "warmup": 20, "cooldown": 5}, path=jobs_file),
        [0, 1],
    )
    counted = [trace[made.counted].job_id for trace in made.traces[0]]
    assert [len(jobs) for jobs in counted] == [10] * 7
    assert len(np.unique(np.concatenate(counted))) == 70
    assert made.traces[0] is made.traces[1]
    assert made.block == 2
    assert all(len(trace) == 35 for trace in made.traces[0])


def test_too_few_jobs_for_disjoint_windows_says_how_many_there_are(jobs_file: str) -> None:
    with pytest.raises(ConfigError, match="100 jobs hold 8 disjoint windows of 10 jobs with warm-up 20, not 9"):
        make_windows(workload({"kind": "disjoint", "count": 9, "jobs": 10, "warmup": 20}, path=jobs_file), [0])


def test_independent_windows_differ_by_index_and_seed() -> None:
    config = workload({"kind": "independent", "count": 3, "jobs": 10}, generator="gpu_cluster", gpus=8)
    made = make_windows(config, [0, 1])
    every = [trace for traces in made.traces.values() for trace in traces]
    assert len({trace.run_time.tobytes() for trace in every}) == 6
    assert made.block == 1
    again = make_windows(config, [1])
    assert again.traces[1] == made.traces[1]


def test_overlapping_windows_have_no_block_and_say_so(jobs_file: str) -> None:
    made = make_windows(workload({"kind": "overlapping", "count": 30, "jobs": 40}, path=jobs_file), [0])
    assert made.block is None
    assert any("overlap" in note for note in made.notes)
    assert {len(trace) for trace in made.traces[0]} == {40}


@pytest.mark.parametrize(
    ("windows", "values", "expected"),
    [
        (
            {"kind": "independent", "count": 3, "jobs": 5},
            {"path": "x.csv"},
            "independent windows need a generator",
        ),
        ({"kind": "disjoint", "count": 0, "jobs": 5}, {"path": "x.csv"}, "greater than or equal to 1"),
        ({"kind": "disjoin"}, {"path": "x.csv"}, "did you mean 'disjoint'"),
        ({}, {"path": "x.csv"}, "windows.kind: is missing"),
    ],
)
def test_windows_that_make_no_sense(windows: dict[str, Any], values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        workload(windows, **values)


def test_jobs_generated_for_a_larger_machine_are_refused() -> None:
    config = workload({"kind": "independent", "count": 3, "jobs": 500}, generator="gpu_cluster", gpus=64)
    with pytest.raises(ConfigError, match="are generated for a cluster of 8"):
        make_windows(config, [0])


def test_warm_up_jobs_run_but_do_not_count() -> None:
    # one GPU; the warm-up job runs 100 s, so the counted ones wait 90 and 95 s
    trace = Trace.from_columns(
        {"submit_time": [0.0, 10.0, 10.0], "run_time": [100.0, 5.0, 5.0], "gpus": [1.0, 1.0, 1.0]}
    )
    outcome = run_policy(make_policy("fcfs"), trace, ClusterSpec.pool(1))
    metrics = counted_metrics(outcome, slice(1, 3))
    assert metrics["mean_wait"] == 92.5
    assert metrics["mean_jct"] == 97.5
    assert metrics["mean_bounded_slowdown"] == pytest.approx((9.5 + 10.0) / 2)
    assert metrics["p50_bounded_slowdown"] == pytest.approx(9.75)
    assert metrics["makespan"] == 110.0
    assert metrics["utilization"] == 1.0


def test_jobs_of_a_window_come_together_on_request(jobs_file: str) -> None:
    windows = {"kind": "disjoint", "count": 5, "jobs": 10}
    apart, together = (
        make_windows(workload({**windows, "together": wanted}, path=jobs_file), [0]).traces[0]
        for wanted in (False, True)
    )
    for first, second in zip(apart, together, strict=True):
        assert second.submit_time.tolist() == [first.submit_time[0]] * 10
        assert second.run_time.tolist() == first.run_time.tolist()


def test_generated_jobs_that_the_cluster_cannot_hold_are_named_before_anything_runs() -> None:
    data = {"generator": "gpu_cluster", "gpus": 8, "windows": {"kind": "independent", "count": 50, "jobs": 40}}
    small = BenchmarkWorkload.model_validate(data | {"cluster": {"groups": [GROUP | {"gpu": "T4"}]}})
    with pytest.raises(TraceError, match=r"no node group can ever run .* GiB of GPU memory"):
        make_windows(small, [0])
    large = BenchmarkWorkload.model_validate(data | {"cluster": {"groups": [GROUP | {"gpu": "A100"}]}})
    assert len(make_windows(large, [0]).traces[0]) == 50


GROUP = {"nodes": 2, "gpus_per_node": 4}
