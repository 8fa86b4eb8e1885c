"""The published evaluation of RLScheduler: every printed figure, and any other trace."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from lepton_rl.errors import ConfigError, LeptonError, TraceError
from lepton_rl.experiments.benchmark import benchmark
from lepton_rl.simulator.rlscheduler import mean_bounded_slowdown, run_window, start_indices
from lepton_rl.workloads import lublin, write_swf

CONFIG = Path(__file__).parents[2] / "configs" / "benchmark" / "rlscheduler_lublin1.yaml"

# SC'20 protocol, lublin_256, seed 1: mean bounded slowdown of ten windows of 1,024 jobs.
PRINTED = {
    ("published", "commit"): {
        "fcfs": 7273.77, "wfp3": 19753.53, "unicep": 22274.74, "sjf": 277.35, "f1": 258.37,
    },
    ("published", "commit-backfill"): {
        "fcfs": 235.82, "wfp3": 133.87, "unicep": 307.23, "sjf": 73.31, "f1": 75.07,
    },
    ("published-wait-fixed", "commit"): {
        "fcfs": 7273.77, "wfp3": 337.34, "unicep": 381.71, "sjf": 277.35, "f1": 258.37,
    },
    ("repick", "head"): {
        "fcfs": 7273.77, "wfp3": 129.51, "unicep": 34.84, "sjf": 47.16, "f1": 34.53, "saf": 26.95,
    },
}  # fmt: skip


@pytest.mark.data
def test_every_printed_figure(data: Path, tmp_path: Path) -> None:
    result = benchmark(CONFIG, ["processes=1"], out=tmp_path / "run")
    slowdowns = {
        (row["rule"], row["blocking"], row["policy"]): row
        for row in result.rows
        if row["metric"] == "mean_bounded_slowdown"
    }
    for (rule, blocking), figures in PRINTED.items():
        for policy, figure in figures.items():
            row = slowdowns[rule, blocking, policy]
            assert round(row["mean"], 2) == figure
            assert (row["workload"], row["n"], row["low"], row["high"]) == ("lublin_256", 10, None, None)
    assert {row["metric"] for row in result.rows} == {"mean_bounded_slowdown", "mean_jct"}


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "OTHER.swf"
    write_swf(lublin(300, 64, seed=5), path)
    return path


def test_another_trace(other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ["workload.path=OTHER.swf", "window=50", "processes=1"]
    result = benchmark(CONFIG, changes, out=tmp_path / "run")
    assert {row["workload"] for row in result.rows} == {"OTHER"}
    assert result.report is not None
    page = result.report.read_text()
    assert "Every policy ran the same windows. A mean is over windows." in page
    assert not any(word in page for word in ("bootstrap", "paired", "99th percentiles"))  # it has means only
    trace = lublin(300, 64, seed=5)
    expected = []
    for start in start_indices(1, 300, 50):
        window = trace[start : start + 50]
        submit = window.submit_time + trace.origin
        begun = run_window(
            submit, window.run_time, window.requested_time, window.gpus, processors=64, rule="published",
            score="f1", backfill=True,
        )  # fmt: skip
        expected.append(mean_bounded_slowdown(begun, submit, window.run_time))
    row = next(
        row for row in result.rows
        if (row["policy"], row["rule"], row["blocking"], row["metric"])
        == ("f1", "published", "commit-backfill", "mean_bounded_slowdown")
    )  # fmt: skip
    assert row["mean"] == pytest.approx(np.mean(expected))


def test_jobs_go_by_number_not_by_submit_time(other: Path, tmp_path: Path) -> None:
    lines = other.read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith(";")]
    rows[100][1], rows[101][1] = rows[101][1], rows[100][1]
    swapped = tmp_path / "swapped.swf.gz"
    head = [line for line in lines if line.startswith(";")]
    swapped.write_bytes(gzip.compress("\n".join([*head, *(" ".join(row) for row in reversed(rows))]).encode()))
    result = benchmark(CONFIG, [f"workload.path={swapped}", "window=50", "processes=1"], out=tmp_path / "run")
    assert {row["workload"] for row in result.rows} == {"swapped"}


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        ([], TraceError, "OTHER: .*at least 2050; the trace has 300; window=149 would do"),
        (["window=50", "workload.requested=absent"], TraceError, "set workload.requested to given, exact"),
        (["policies=[fcfs,saf2]"], ConfigError, "no policy 'saf2'"),
        (["protocol=rlschedule"], ConfigError, "did you mean 'rlscheduler'"),
        (["windows=50"], ConfigError, "did you mean 'window'"),
    ],
)
def test_mistakes(other: Path, tmp_path: Path, changes: list[str], error: type[LeptonError], expected: str) -> None:
    with pytest.raises(error, match=expected):
        benchmark(CONFIG, [f"workload.path={other}", *changes], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
