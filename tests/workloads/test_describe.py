"""What is said of a trace."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lepton_rl.errors import ConfigError
from lepton_rl.workloads import Trace, describe, duration_text, read_swf


@pytest.fixture
def small() -> Trace:
    columns: dict[str, list[float] | list[str]] = {
        "submit_time": [0.0, 10.0, 10.0, 40.0],
        "run_time": [30.0, 20.0, 5.0, 60.0],
        "gpus": [1.0, 2.0, 1.0, 8.0],
        "user": ["ada", "bob", "ada", ""],
    }
    return Trace.from_columns(columns, name="small")


def test_figures_by_hand(small: Trace) -> None:
    figures = describe(small, [2, 4])
    assert (figures.jobs, figures.span) == (4, 40.0)
    assert figures.run_time["mean"] == 28.75
    assert figures.run_time["p50"] == 25.0
    assert figures.run_time["max"] == 60.0
    assert figures.gap["mean"] == pytest.approx(40 / 3)
    assert figures.gap["cv"] == pytest.approx(0.9354, abs=1e-4)
    assert list(figures.gpus_shares.items()) == [(1.0, 0.5), (2.0, 0.25), (8.0, 0.25)]
    assert figures.gpu_seconds == 555.0
    assert figures.mean_demand == 555.0 / 40.0
    assert figures.offered_load == {2: 555.0 / 80.0, 4: 555.0 / 160.0}
    assert (figures.users, figures.queues) == (2, 0)


def test_rows_and_json_tell_the_same(small: Trace) -> None:
    fitted = small.fit_to(4)
    figures = describe(fitted, [4])
    rows = figures.rows()
    assert ("jobs", "3") in rows
    assert ("offered load, 4 GPUs", "1.88") in rows
    assert ("dropped", "1 asks for more than 4 GPUs (job 4 asks for 8)") in rows
    source = "exact: none are given, the run times stand in their place (a clairvoyant workload)"
    assert ("requested times", source) in rows
    assert not any(what == "note" for what, _ in rows)
    plain = json.loads(json.dumps(figures.to_dict(), allow_nan=False))
    assert plain["offered_load"] == {"4": 1.875}
    assert plain["gpus_shares"]["1"] == pytest.approx(2 / 3)
    assert plain["dropped"] == [{"reason": "asks for more than 4 GPUs", "count": 1, "examples": ["job 4 asks for 8"]}]


def test_requested_times_show_how_far_off_they_are(small: Trace) -> None:
    noisy = describe(small.with_requested("noisy:1"))
    head, *rows = noisy.quantile_rows()
    assert head == ("", "run time", "gap between arrivals", "requested / run time")
    assert [row[0] for row in rows] == ["mean", "p1", "p5", "p25", "p50", "p75", "p95", "p99", "max", "cv"]
    assert rows[4][1] == "25 s"
    absent = describe(small.with_requested("absent"))
    assert absent.requested_ratio == {}
    assert ("requested times", "absent") in absent.rows()


def test_measured_use_of_gpus_is_told_where_there_is_some(small: Trace) -> None:
    assert describe(small).gpu_utilization == {}
    assert not any(what == "GPU utilisation" for what, _ in describe(small).rows())
    jobs = {"submit_time": [0.0, 1.0, 2.0], "run_time": [1.0] * 3, "gpus": [1.0] * 3}
    figures = describe(Trace.from_columns(jobs | {"gpu_utilization": [0.2, np.nan, 0.6]}))
    assert figures.gpu_utilization["mean"] == pytest.approx(0.4)
    assert ("GPU utilisation", "40.0% in the mean, known of 66.7% of the jobs") in figures.rows()


def test_one_job_has_no_gap_and_no_load(small: Trace) -> None:
    figures = describe(small[:1], [2])
    assert figures.gap == {}
    assert figures.mean_demand is None
    assert figures.offered_load == {2: None}
    json.dumps(figures.to_dict(), allow_nan=False)
    assert ("offered load, 2 GPUs", "-") in figures.rows()
    one = describe(small[:1], [1]).rows()
    assert {("largest job", "1 GPU"), ("offered load, 1 GPU", "-")} <= set(one)


def test_header_and_long_lists_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.swf"
    rows = [f"{i} {i} -1 0 1 -1 -1 1 -1 -1 1 -1 -1 -1 0 -1 -1 -1" for i in range(7)]
    rows.append("9 9 -1 5 1 -1 -1 1 -1 -1 1 -1 -1 -1 0 -1 -1 -1")
    path.write_text("; MaxNodes: 4\n" + "\n".join(rows))
    shown = describe(read_swf(path)).rows()
    assert ("header MaxNodes", "4") in shown
    assert ("dropped", "7 run time 0 (job 0, job 1, job 2, job 3, job 4, ...)") in shown


def test_a_cluster_has_a_gpu(small: Trace) -> None:
    with pytest.raises(ConfigError, match="a cluster has at least 1"):
        describe(small, [0])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (0.5, "0.5 s"), (48.0, "48 s"), (174.0, "2.9 min"), (7200.0, "2 h"), (267840.0, "3.1 d")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_importing_the_package_loads_neither_numba_nor_matplotlib() -> None:
    import subprocess

    code = "import sys, lepton_rl.workloads; print([m for m in ('numba', 'matplotlib') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert importlib.import_module("lepton_rl.workloads").__all__


def test_a_small_share_is_not_called_none() -> None:
    size = np.ones(5000)
    size[7] = 8
    trace = Trace.from_columns({"submit_time": np.arange(5000.0), "run_time": np.ones(5000), "gpus": size})
    assert dict(describe(trace).rows())["GPUs of a job"] == "1: 100.0%  8: <0.1%"
