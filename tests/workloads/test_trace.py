"""Trace: checks, order, selections, load, saving."""

import importlib
import json
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.errors import ConfigError, MissingExtra, TraceError
from lepton_rl.workloads import COLUMNS, Dropped, MachineHeader, Trace, read_csv, write_csv
from lepton_rl.workloads.storage import SUFFIXES

# Four jobs on a 2-GPU cluster: (submit, run, gpus); they arrive at 0, 10, 10 and 40 s after the first.
SMALL = {
    "submit_time": [100.0, 110.0, 110.0, 140.0],
    "run_time": [30.0, 20.0, 5.0, 60.0],
    "gpus": [1.0, 2.0, 0.5, 4.0],
}


def small(**more: Any) -> Trace:
    return Trace.from_columns({**SMALL, **more}, name="small")


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    jobs = draw(st.integers(1, 30))

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=jobs, max_size=jobs))

    seconds = st.floats(0.001, 1e7)
    sizes = st.one_of(st.integers(1, 64).map(float), st.integers(1, 999).map(lambda n: n / 1000))
    names = st.text(alphabet="abc ,é#", max_size=4)
    return Trace.from_columns(
        {
            "submit_time": column(st.floats(0.0, 1e7)),
            "run_time": column(seconds),
            "requested_time": column(st.one_of(st.just(math.nan), seconds)),
            "gpus": column(sizes),
            "gpu_memory_gib": column(st.one_of(st.just(math.nan), st.floats(0.1, 80.0))),
            "queue": column(names),
            "user": column(st.integers(-1, 5)),
            "time_sensitivity": column(st.floats(0.0, 10.0)),
        },
        name=draw(names),
        machine=draw(st.sampled_from([None, MachineHeader(4, 8, 7.0, {"MaxNodes": "4"})])),
        dropped=[Dropped("too odd", 2, ("job 7",))],
    )


def test_delayed_jobs_change_places_and_keep_their_deadlines() -> None:
    trace = small(deadline=[50.0, math.nan, 5.0, 60.0], user=["a", "b", "c", "d"], cpu_cores_per_gpu=[1, 2, 3, 4])
    later = trace.delayed(np.array([0.0, 20.0, 10.0, 0.0]))
    assert later.submit_time.tolist() == [0.0, 20.0, 30.0, 40.0]
    assert later.job_id.tolist() == [1, 3, 2, 4]
    assert later.gpus.tolist() == [1.0, 0.5, 2.0, 4.0]
    assert later.asks["cpu_cores"].tolist() == [1.0, 3.0, 2.0, 4.0]
    assert np.array_equal(later.deadline, [50.0, 0.0, math.nan, 60.0], equal_nan=True)  # job 3 can no longer meet it


def test_the_first_job_is_at_0_and_the_origin_keeps_its_stamp() -> None:
    trace = small()
    assert trace.submit_time.tolist() == [0.0, 10.0, 10.0, 40.0]
    assert trace.origin == 100.0
    assert trace.job_id.tolist() == [1, 2, 3, 4]
    assert trace.compute_intensity.tolist() == trace.time_sensitivity.tolist() == [1.0] * 4
    assert np.isnan(trace.gpu_memory_gib).all()
    assert trace.queue.tolist() == [-1] * 4


def test_jobs_are_sorted_by_submit_time_and_equal_times_keep_their_order() -> None:
    trace = Trace.from_columns({"submit_time": [5, 3, 5, 3], "run_time": [1, 2, 3, 4], "gpus": [1, 1, 1, 1]})
    assert trace.job_id.tolist() == [2, 4, 1, 3]
    assert trace.run_time.tolist() == [2.0, 4.0, 1.0, 3.0]


def test_a_given_origin_keeps_the_times() -> None:
    columns = {"submit_time": [50.0, 60.0], "run_time": [1.0, 1.0], "gpus": [1.0, 1.0]}
    trace = Trace.from_columns(columns, origin=1000.0)
    assert trace.submit_time.tolist() == [50.0, 60.0]
    assert trace.origin == 1000.0


def test_arrays_are_read_only_also_after_pickling() -> None:
    copy = pickle.loads(pickle.dumps(small()))
    assert copy == small()
    for trace in (small(), copy):
        for column in COLUMNS:
            with pytest.raises(ValueError, match="read-only"):
                getattr(trace, column)[0] = 1


def test_names_become_codes() -> None:
    trace = small(queue=["b", "a", "", "b"], user=[7, -1, 3, 7], project=[5_000_000_000, -1, 2, 2])
    assert trace.queue.tolist() == [1, 0, -1, 1]
    assert trace.labels["queue"] == ("a", "b")
    assert trace.user.tolist() == [1, -1, 0, 1]
    assert trace.labels["user"] == ("3", "7")
    assert trace.project.tolist() == [1, -1, 0, 0]
    assert trace.labels["project"] == ("2", "5000000000")


def test_missing_requested_times_are_the_run_times_and_the_trace_says_so() -> None:
    none = small()
    assert none.requested == "exact"
    assert none.requested_time.tolist() == none.run_time.tolist()
    assert "clairvoyant" in none.notes[0]
    some = small(requested_time=[90.0, math.nan, 10.0, math.nan])
    assert some.requested == "given"
    assert some.requested_time.tolist() == [90.0, 20.0, 10.0, 60.0]
    assert some.notes == ("requested times: none in 2 rows, the run time stands in its place",)
    every = small(requested_time=[90.0, 90.0, 90.0, 90.0])
    assert every.requested == "given"
    assert every.notes == ()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"run_time": [30.0, -5.0, 5.0, 60.0]}, "small: row 2: column 'run_time': -5 is not above 0"),
        ({"run_time": [30.0, 0.0, 5.0, 60.0]}, "row 2: column 'run_time': 0 is not above 0"),
        ({"run_time": [30.0, 1.0, math.nan, 60.0]}, "row 3: column 'run_time': no number is given"),
        ({"run_time": [30.0, 1.0, math.inf, 60.0]}, "row 3: column 'run_time': inf is above 1e\\+12"),
        ({"run_time": [30.0, "x", 5.0, 60.0]}, "row 2: column 'run_time': 'x' is not a number"),
        ({"run_time": [30.0, None, 5.0, 60.0]}, "row 2: column 'run_time': no number is given"),
        ({"run_time": [30.0, 1.0]}, "column 'run_time' has 2 rows; submit_time has 4"),
        ({"run_time": [[1.0, 2.0]]}, "column 'run_time' has 2 dimensions"),
        ({"submit_time": [-1.0, 1.0, 2.0, 3.0]}, "row 1: column 'submit_time': -1 is below 0"),
        ({"gpus": [1.0, 2.5, 0.5, 4.0]}, "row 2: column 'gpus': 2.5 is neither a whole number nor a share"),
        ({"gpus": [1.0, 0.0005, 0.5, 4.0]}, "row 2: column 'gpus': 0.0005 is neither"),
        ({"gpus": [1.0, 0.0, 0.5, 4.0]}, "row 2: column 'gpus': 0 is not above 0"),
        ({"requested_time": [1.0, 0.0, 1.0, 1.0]}, "column 'requested_time': 0 is not above 0"),
        ({"gpu_memory_gib": [1.0, -2.0, 1.0, 1.0]}, "column 'gpu_memory_gib': -2 is not above 0"),
        ({"time_sensitivity": [1.0, -2.0, 1.0, 1.0]}, "column 'time_sensitivity': -2 is below 0"),
        ({"job_id": [1.0, 2.5, 3.0, 4.0]}, "row 2: column 'job_id': 2.5 is not a whole number"),
        ({"job_id": [1.0, math.nan, 3.0, 4.0]}, "row 2: column 'job_id': nan is not a whole number"),
        ({"job_id": [1, 2]}, "column 'job_id' has 2 rows"),
        ({"gpu": [1.0, 2.0, 3.0, 4.0]}, "no column is called 'gpu'; did you mean 'gpus'"),
        ({"submit_time": [], "run_time": [], "gpus": []}, "there are no jobs"),
    ],
)
def test_bad_columns_are_one_sentence_naming_row_and_column(columns: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        small(**columns)
    assert "\n" not in str(caught.value)


def test_a_missing_column_and_bad_codes_are_refused() -> None:
    with pytest.raises(TraceError, match="column 'gpus' is missing"):
        Trace.from_columns({"submit_time": [1.0], "run_time": [1.0]})
    with pytest.raises(TraceError, match="row 1: column 'queue': code 3 has no label"):
        Trace.from_columns({**SMALL, "queue": [3, 0, 0, 0]}, labels={"queue": ["a"]})
    with pytest.raises(TraceError, match="called absent"):
        Trace.from_columns({**SMALL, "requested_time": [1.0] * 4}, requested="absent")


def test_shares_become_exact_thousandths() -> None:
    trace = small(gpus=[0.1 + 0.2, 1.0, 0.999, 3.0])
    assert trace.gpus.tolist() == [0.3, 1.0, 0.999, 3.0]


def test_selections_keep_the_times_of_the_trace() -> None:
    trace = small()
    window = trace.window(1, 2)
    assert window == trace[1:3]
    assert window.submit_time.tolist() == [10.0, 10.0]
    assert window.origin == 100.0
    assert [w.job_id.tolist() for w in trace.windows(2, [0, 2])] == [[1, 2], [3, 4]]
    assert trace.between(10.0, 40.0).job_id.tolist() == [2, 3]
    first, rest = trace.split(0.5)
    assert first.job_id.tolist() == [1, 2]
    assert rest.job_id.tolist() == [3, 4]


def test_selections_outside_the_trace_are_errors() -> None:
    trace = small()
    for start, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(TraceError, match=f"a window of {n} jobs from index {start} does not fit in 4"):
            trace.window(start, n)
    with pytest.raises(TraceError, match="selects no job"):
        trace[4:]
    with pytest.raises(TraceError, match="submit time from 41 to 50 s selects no job"):
        trace.between(41.0, 50.0)
    with pytest.raises(TraceError, match="selects no job"):
        trace.split(0.01)
    with pytest.raises(ConfigError, match=r"the fraction is 1\.5"):
        trace.split(1.5)
    with pytest.raises(TypeError, match="forward slice"):
        trace[::-1]


def test_offered_load_and_its_scaling_by_hand() -> None:
    # 1*30 + 2*20 + 0.5*5 + 4*60 = 312.5 GPU-seconds in 40 s on 2 GPUs
    trace = small()
    assert trace.offered_load(2) == 312.5 / 80.0
    double = trace[1:].scale_load(2.0)
    assert double.submit_time.tolist() == [10.0, 10.0, 25.0]
    assert trace[1:3].offered_load(2) == math.inf
    for factor in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="load factor"):
            trace.scale_load(factor)


def test_jobs_too_large_for_the_cluster_are_dropped_counted_and_named() -> None:
    trace = small()
    assert trace.fit_to(4) is trace
    fitted = trace.fit_to(1)
    assert fitted.job_id.tolist() == [1, 3]
    entry = Dropped("asks for more than 1 GPU", 2, ("job 2 asks for 2", "job 4 asks for 4"))
    assert fitted.dropped == (entry,)
    with pytest.raises(TraceError, match=r"2 of 4 jobs ask for more than 1 GPU \(job 2 asks for 2\)"):
        trace.fit_to(1, strict=True)
    with pytest.raises(TraceError, match="1 of 1 job asks for more than 3"):
        trace[3:].fit_to(3)


@given(traces(), st.data())
@settings(max_examples=40, deadline=None)
def test_split_window_and_scale_agree(trace: Trace, data: st.DataObject) -> None:
    if len(trace) > 1:
        cut = data.draw(st.integers(1, len(trace) - 1))
        first, rest = trace.split(cut / len(trace))
        assert first == trace[:cut]
        assert rest == trace.window(cut, len(trace) - cut)
    factor = data.draw(st.floats(0.1, 10.0))
    back = trace.scale_load(factor).scale_load(1.0 / factor)
    assert np.allclose(back.submit_time, trace.submit_time)
    assert (np.diff(trace.submit_time) >= 0.0).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(trace=traces())
@settings(max_examples=40, deadline=None)
def test_saving_loses_nothing(suffix: str, tmp_path_factory: pytest.TempPathFactory, trace: Trace) -> None:
    path = tmp_path_factory.getbasetemp() / f"round{suffix}"
    for original in (trace, trace[len(trace) // 2 :], trace.with_requested("absent")):
        original.save(path)
        assert Trace.load(path) == original


def test_parquet_is_read_by_other_tools(tmp_path: Path) -> None:
    small().save(tmp_path / "t.parquet")
    table = importlib.import_module("pyarrow.parquet").read_table(tmp_path / "t.parquet")
    assert table["run_time"].to_pylist() == small().run_time.tolist()


def test_parquet_without_pyarrow_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small().save(tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for use in (lambda: small().save(tmp_path / "other.parquet"), lambda: Trace.load(tmp_path / "t.parquet")):
        with pytest.raises(MissingExtra, match=r"lepton-rl\[parquet\]"):
            use()
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    small().save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(TraceError, match=r"t\.parquet: not a trace saved by lepton_rl, or cut short"):
        Trace.load(path)
    with pytest.raises(TraceError, match=r"none\.parquet: no such file"):
        Trace.load(tmp_path / "none.parquet")


def test_bad_saved_files(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    with pytest.raises(TraceError, match=r"t\.npz: no such file"):
        Trace.load(path)
    small().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match="not a trace saved by lepton_rl, or cut short"):
        Trace.load(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(TraceError, match="not a trace saved by lepton_rl"):
        Trace.load(path)
    arrays = {column: getattr(small(), column) for column in COLUMNS}
    np.savez(path, **arrays, lepton_rl=np.array("{}"))
    with pytest.raises(TraceError, match="its description is damaged"):
        Trace.load(path)
    np.savez(path, **arrays, lepton_rl=np.array(json.dumps({"format": 99})))
    with pytest.raises(TraceError, match="saved in format 99"):
        Trace.load(path)
    with pytest.raises(TraceError, match=r"saved as \.npz or \.parquet"):
        small().save(tmp_path / "t.txt")
    with pytest.raises(TraceError, match="cannot be written"):
        small().save(tmp_path / "missing" / "t.npz")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "folder.npz" / "mine.txt").write_text("mine")
    with pytest.raises(TraceError, match="cannot be written"):
        small().save(tmp_path / "folder.npz")
    assert (tmp_path / "folder.npz" / "mine.txt").is_file()
    assert {file.name for file in tmp_path.iterdir()} == {"folder.npz", path.name}


def test_equality_and_repr() -> None:
    trace = small()
    assert trace == small()
    assert trace != trace[:3]
    assert trace != "small"
    assert repr(trace) == "<Trace 'small': 4 jobs over 40 s, requested times exact>"


def test_deadlines_are_kept_by_csv_and_save(tmp_path: Path) -> None:
    trace = Trace.from_columns(
        {"submit_time": [5.0, 6.0], "run_time": [1.0, 2.0], "gpus": [1.0, 1.0], "deadline": [30.0, np.nan]}
    )
    write_csv(trace, tmp_path / "jobs.csv")
    trace.save(tmp_path / "jobs.npz")
    for copy in (read_csv(tmp_path / "jobs.csv"), Trace.load(tmp_path / "jobs.npz")):
        assert copy.deadline.tolist()[0] == 30.0
        assert np.isnan(copy.deadline[1])
    with pytest.raises(TraceError, match="column 'deadline': 0 is not above 0"):
        Trace.from_columns({"submit_time": [0.0], "run_time": [1.0], "gpus": [1.0], "deadline": [0.0]})


@pytest.mark.parametrize("later", ["deadline", "job_class", "gpu_type", "stage", "gpu_utilization"])
def test_a_trace_saved_before_there_was_a_column_is_read(later: str, tmp_path: Path) -> None:
    trace = Trace.from_columns({"submit_time": [5.0], "run_time": [1.0], "gpus": [1.0]})
    trace.save(tmp_path / "jobs.npz")
    with np.load(tmp_path / "jobs.npz") as stored:
        columns = {name: stored[name] for name in stored if name != later}
    np.savez(tmp_path / "old.npz", **columns)
    assert Trace.load(tmp_path / "old.npz") == trace


def test_measured_utilization_is_kept_by_csv_and_save_and_a_share_of_1(tmp_path: Path) -> None:
    jobs = {"submit_time": [5.0, 6.0], "run_time": [1.0, 2.0], "gpus": [1.0, 8.0]}
    trace = Trace.from_columns(jobs | {"gpu_utilization": [0.25, np.nan]})
    write_csv(trace, tmp_path / "jobs.csv")
    trace.save(tmp_path / "jobs.npz")
    for copy in (read_csv(tmp_path / "jobs.csv"), Trace.load(tmp_path / "jobs.npz")):
        assert copy.gpu_utilization[0] == 0.25
        assert np.isnan(copy.gpu_utilization[1])
    with pytest.raises(TraceError, match="row 1: column 'gpu_utilization': 35 is above 1, the largest value allowed"):
        Trace.from_columns(jobs | {"gpu_utilization": [35.0, 1.0]})
