"""Stages, arrays and parts: every dependency and run time by hand."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.errors import ConfigError, TraceError
from lepton_rl.workloads import Trace, describe, job_array, parent_jct, pipeline, read_csv, split_jobs, write_csv


def three(**more: Any) -> Trace:
    """Jobs 5, 6, 7 with 100, 200 and 400 s on 1, 2 and 4 GPUs, 10 s apart; 6 comes after 5, and 7 after 6."""
    columns: dict[str, Any] = {
        "job_id": [5, 6, 7],
        "submit_time": [0, 10, 20],
        "run_time": [100, 200, 400],
        "requested_time": [150, 300, 600],
        "gpus": [1, 2, 4],
        "after": ["", "5", "6"],
        "cpu_cores_per_gpu": [1, 2, 3],
    }
    return Trace.from_columns(columns | more, name="three")


def stages(trace: Trace) -> list[str]:
    return [trace.labels["stage"][code] if code >= 0 else "" for code in trace.stage]


def test_a_pipeline_of_rows_and_stages() -> None:
    trace = three(after=["", "", "5"], stage=["", "b", "c"])
    assert pipeline(trace, [0, 1, 2]).after.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert pipeline(trace, [[0, 1], "c"]).after.tolist() == [[0, 2], [1, 2]]
    assert pipeline(trace, ["c", "b"]).after.tolist() == [[0, 2], [2, 1]]
    assert pipeline(trace, [2]) == trace
    assert pipeline(trace, [np.array([0]), np.array([1, 2])]).after.tolist() == [[0, 1], [0, 2]]  # type: ignore[list-item]


def test_a_stage_of_which_a_window_has_no_job() -> None:
    with pytest.raises(TraceError, match=r"three: no job is of stage 'a'$"):
        pipeline(three(stage=["a", "", "b"])[1:], ["a", "b"])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([0, 3], "three: there is no row 3; the rows are 0 to 2"),
        ([0, -1], "three: there is no row -1"),
        ([0, "trian"], "three: no job is of stage 'trian'; did you mean 'train'?"),
        ([0, []], "three: a stage has no job"),
        ([0, [0.5]], "three: rows are whole numbers"),
        ([2, 0], "row 1: column 'after': job 5 after 7 after 6 after 5: a job cannot wait for itself"),
        ([0, 0], "job 5 comes after itself"),
    ],
)
def test_a_pipeline_that_cannot_be(steps: Any, message: str) -> None:
    with pytest.raises(TraceError, match=re.escape(message)):
        pipeline(three(stage=["", "", "train"]), steps)


def test_an_array_stands_where_its_job_stood() -> None:
    trace = job_array(three(), 1, 3)
    assert trace.job_id.tolist() == [5, 8, 9, 10, 7]
    assert trace.run_time.tolist() == [100, 200, 200, 200, 400]
    assert trace.submit_time.tolist() == [0, 10, 10, 10, 20]
    assert trace.asks["cpu_cores"].tolist() == [1, 2, 2, 2, 3]
    assert trace.after.tolist() == [[0, 1], [0, 2], [0, 3], [1, 4], [2, 4], [3, 4]]
    assert stages(trace) == ["", *["array of job 6"] * 3, ""]
    named = job_array(three(stage=["", "sweep", ""]), 1, 2)
    assert stages(named) == ["", "sweep", "sweep", ""]


def test_an_array_with_a_joining_job() -> None:
    trace = job_array(three(), 1, 2, join_s=5.0)
    assert trace.job_id.tolist() == [5, 8, 9, 10, 7]
    assert trace.run_time.tolist() == [100, 200, 200, 5, 400]
    assert trace.requested_time.tolist() == [150, 300, 300, 5, 600]
    assert trace.gpus.tolist() == [1, 2, 2, 1, 4]
    assert trace.after.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3], [3, 4]]
    assert stages(trace) == ["", "array of job 6", "array of job 6", "", ""]
    assert job_array(three(gpus=[1, 0.5, 4]), 1, 1, join_s=1.0).gpus.tolist() == [1, 0.5, 0.5, 4]
    used = job_array(three(gpu_utilization=[0.1, 0.2, 0.3]), 1, 2, join_s=5.0).gpu_utilization
    assert np.array_equal(used, [0.1, 0.2, 0.2, np.nan, 0.3], equal_nan=True)  # of the joining job nothing is known
    absent = job_array(three().with_requested("absent"), 1, 2, join_s=5.0)
    assert np.isnan(absent.requested_time).all()


def test_arrays_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="n is 0; it must be a whole number, 1 or more"):
        job_array(three(), 1, 0)
    with pytest.raises(TraceError, match="there is no row 3"):
        job_array(three(), 3, 2)
    with pytest.raises(TraceError, match="joining job: column 'run_time': 0 is not above 0"):
        job_array(three(), 1, 2, join_s=0.0)


def test_parts_share_the_work_and_wait_for_the_same_jobs() -> None:
    trace = split_jobs(three(), [1], parts=4, overhead_s=3.0)
    assert trace.job_id.tolist() == [5, 8, 9, 10, 11, 7]
    assert trace.run_time.tolist() == [100, 53, 53, 53, 53, 400]  # 200 / 4 + 3
    assert trace.requested_time.tolist() == [150, 78, 78, 78, 78, 600]  # 300 / 4 + 3
    assert trace.gpus.tolist() == [1, 2, 2, 2, 2, 4]
    assert trace.after.tolist() == [[0, row] for row in (1, 2, 3, 4)] + [[row, 5] for row in (1, 2, 3, 4)]
    assert stages(trace) == ["", *["parts of job 6"] * 4, ""]
    # 100 + 53 + 400 s, where it was 100 + 200 + 400
    assert (describe(three()).critical_path, describe(trace).critical_path) == (700.0, 553.0)


def test_parts_come_after_all_parts_of_what_they_waited_for() -> None:
    trace = split_jobs(three(), np.array([True, True, False]), parts=2)
    assert trace.job_id.tolist() == [8, 9, 10, 11, 7]
    assert trace.after.tolist() == [[0, 2], [0, 3], [1, 2], [1, 3], [2, 4], [3, 4]]
    assert stages(trace) == ["parts of job 5"] * 2 + ["parts of job 6"] * 2 + [""]


def test_splitting_without_requested_times_and_without_rows() -> None:
    assert np.isnan(split_jobs(three().with_requested("absent"), [0], 2).requested_time).all()
    exact = split_jobs(three().with_requested("exact"), [0, 2], 3, 0.1)
    assert exact.requested_time.tolist() == exact.run_time.tolist()
    assert split_jobs(three(), [], 7) == three()


def test_splits_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="parts is 0; it must be a whole number"):
        split_jobs(three(), [0], 0)
    with pytest.raises(ConfigError, match="overhead_s is -1; a part takes 0 or more"):
        split_jobs(three(), [0], 2, -1.0)
    with pytest.raises(TraceError, match="several jobs have the job_id 5; their parts would be mixed up"):
        split_jobs(three(job_id=[5, 5, 7], after=["", "", ""]), [1], 2)
    with pytest.raises(TraceError, match=r"column 'run_time': 2e\+12 is above 1e\+12"):
        split_jobs(three(), [0], 2, 2e12)
    with pytest.raises(TraceError, match="more than 20,000,000 dependencies"):
        split_jobs(three(), [0, 1], 5000)


def test_the_jct_of_a_parent_is_that_of_its_last_part(tmp_path: Path) -> None:
    trace = split_jobs(three(), [1], parts=2)
    ids, jct = parent_jct(trace, [100.0, 200.0, 250.0, 700.0])
    assert ids.tolist() == [5, 6, 7]
    assert jct.tolist() == [100.0, 240.0, 680.0]  # submitted at 0, 10, 20
    ids, jct = parent_jct(three(), [100.0, 300.0, 700.0])
    assert (ids.tolist(), jct.tolist()) == ([5, 6, 7], [100.0, 290.0, 680.0])
    again = split_jobs(trace, [1], parts=2)  # a part of a part has the same parent
    assert parent_jct(again, [100.0, 150.0, 260.0, 250.0, 700.0])[1].tolist() == [100.0, 250.0, 680.0]
    write_csv(trace, tmp_path / "parts.csv")
    assert parent_jct(read_csv(tmp_path / "parts.csv"), [100.0, 200.0, 250.0, 700.0])[0].tolist() == [5, 6, 7]
    own = three(stage=["parts of job x", "parts of job x", "b"])  # a stage of the user's own
    assert parent_jct(own, [1.0, 12.0, 23.0])[0].tolist() == [5, 6, 7]
    with pytest.raises(TraceError, match=r"finish has shape \(2,\); the trace has 3 jobs"):
        parent_jct(three(), [1.0, 2.0])


@given(
    run=st.lists(st.floats(1.0, 1e6), min_size=1, max_size=8),
    parts=st.integers(1, 6),
    overhead=st.sampled_from([0.0, 2.5]),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_work_is_conserved(run: list[float], parts: int, overhead: float, data: st.DataObject) -> None:
    jobs = len(run)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=jobs, max_size=jobs)))
    gpus = np.arange(1, jobs + 1)
    edges = [(row, row + 1) for row in range(jobs - 1)]
    trace = Trace.from_columns({"submit_time": np.zeros(jobs), "run_time": run, "gpus": gpus}, edges=edges)
    cut = split_jobs(trace, mask, parts, overhead)
    extra = overhead * parts * gpus[mask].sum()
    assert math.isclose(cut.run_time @ cut.gpus, trace.run_time @ trace.gpus + extra)
    assert len(set(cut.job_id.tolist())) == len(cut) == jobs + (parts - 1) * np.count_nonzero(mask)
    sizes = np.where(mask, parts, 1)
    assert len(cut.after) == (sizes[:-1] * sizes[1:]).sum()
    assert parent_jct(cut, np.zeros(len(cut)))[0].tolist() == trace.job_id.tolist()
