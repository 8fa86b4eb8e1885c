"""The three CSV readers: plain, Philly and PAI."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.errors import TraceError
from lepton_rl.workloads import (
    COLUMNS,
    PLAIN_COLUMNS,
    Dropped,
    Trace,
    csv_template,
    read_csv,
    read_pai,
    read_philly,
    write_csv,
)

PHILLY = "timestamp,duration,num_gpus,gpu_time,cluster\n"
PAI = "arrival_time,length,cpus\n"
PLAIN = "submit_time,run_time,gpus\n"


def read(reader: Callable[[Path], Trace], folder: Path, text: str | bytes) -> Trace:
    path = folder / "jobs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return reader(path)


def test_philly(tmp_path: Path) -> None:
    rows = "2017-10-01 00:01:00,60.0,8,480.0,vc2\n2017-10-01 00:00:00,30.0,1,30.0,vc1\n"
    trace = read(read_philly, tmp_path, PHILLY + rows)
    assert trace.job_id.tolist() == [2, 1]  # rows of the file, in order of time
    assert trace.submit_time.tolist() == [0.0, 60.0]
    assert trace.origin == 1506816000.0  # 2017-10-01 as if UTC
    assert trace.run_time.tolist() == [30.0, 60.0]
    assert trace.gpus.tolist() == [1.0, 8.0]
    assert [trace.labels["queue"][code] for code in trace.queue] == ["vc1", "vc2"]
    assert trace.requested == "exact"


def test_pai_hours_become_seconds(tmp_path: Path) -> None:
    trace = read(read_pai, tmp_path, PAI + "0.5,0.25,1\n1.5,2.0,16\n")
    assert trace.submit_time.tolist() == [0.0, 3600.0]
    assert trace.origin == 1800.0
    assert trace.run_time.tolist() == [900.0, 7200.0]
    assert trace.gpus.tolist() == [1.0, 16.0]


def test_plain_csv_with_every_column(tmp_path: Path) -> None:
    trace = read(read_csv, tmp_path, csv_template())
    assert trace.job_id.tolist() == [1, 2, 3]
    assert trace.submit_time.tolist() == [0.0, 60.0, 95.5]
    assert trace.gpus.tolist() == [1.0, 8.0, 0.25]
    assert trace.requested_time.tolist() == [7200.0, 172800.0, 600.0]
    assert trace.requested == "given"
    assert trace.gpu_memory_gib.tolist() == [16.0, 80.0, 4.0]
    assert trace.labels["user"] == ("ada", "grace")
    assert trace.project.tolist() == [1, 0, -1]
    assert trace.compute_intensity.tolist() == [80.0, 120.0, 1.0]
    assert trace.time_sensitivity.tolist() == [3.0, 6.0, 1.0]
    assert all(f"# {column.name} " in csv_template() for column in PLAIN_COLUMNS)


def test_plain_csv_in_its_smallest_form(tmp_path: Path) -> None:
    text = "\ufeff# mine\n\n gpus , submit_time,run_time\r\n1, 5 ,2\r\n\r\n# more\r\n2,1,3\r\n"
    trace = read(read_csv, tmp_path, text)
    assert trace.submit_time.tolist() == [0.0, 4.0]
    assert trace.job_id.tolist() == [2, 1]
    assert trace.gpus.tolist() == [2.0, 1.0]
    assert read(read_csv, tmp_path, gzip.compress(text.encode())) == trace


def test_rows_that_never_run_are_dropped_and_named(tmp_path: Path) -> None:
    trace = read(read_csv, tmp_path, PLAIN + "0,5,1\n1,0,1\n2,5,0\n3,0,1\n")
    assert trace.job_id.tolist() == [1]
    assert trace.dropped == (
        Dropped("run time 0", 2, ("line 3", "line 5")),
        Dropped("no GPU", 1, ("line 4",)),
    )
    assert read(read_pai, tmp_path, PAI + "0,1,1\n0,0,1\n").dropped == (Dropped("length 0", 1, ("line 3",)),)
    stamp = "2017-10-01 00:01:00"
    philly = read(read_philly, tmp_path, f"{PHILLY}{stamp},0,1,0,a\n{stamp},5,1,5,a\n")
    assert philly.dropped == (Dropped("duration 0", 1, ("line 2",)),)
    assert philly.job_id.tolist() == [2]
    with pytest.raises(TraceError, match=r"no job is left: all 1 row dropped \(run time 0\)"):
        read(read_csv, tmp_path, PLAIN + "0,0,1\n")


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (read_csv, PLAIN + "0,abc,1\n", "jobs.csv:2: column 'run_time': 'abc' is not a number"),
        (read_csv, "# x\n" + PLAIN + "0,1,1\n0,abc,1\n", "jobs.csv:4: column 'run_time': 'abc'"),
        (read_csv, PLAIN + "0,1,1\n0,-5,1\n", "jobs.csv:3: column 'run_time': -5 is negative"),
        (read_csv, PLAIN + "0,nan,1\n", "jobs.csv:2: column 'run_time': 'nan' is not a number"),
        (read_csv, PLAIN + "0,inf,1\n", "jobs.csv:2: column 'run_time': 'inf' is not a number"),
        (read_csv, PLAIN + "0,1_000,1\n", "jobs.csv:2: column 'run_time': '1_000' is not a number"),
        (read_csv, PLAIN + "0,,1\n", "jobs.csv:2: column 'run_time': the field is empty; it must hold a number"),
        (read_csv, PLAIN + "0,1\n", "jobs.csv:2: 2 fields; the header has 3 columns"),
        (read_csv, PLAIN + "0,1,1,1\n", "jobs.csv:2: 4 fields; the header has 3 columns"),
        (read_csv, PLAIN + "0,1,1.5\n", "jobs.csv:2: column 'gpus': 1.5 is neither a whole number nor"),
        (read_csv, PLAIN + '0,"1,1\n', "jobs.csv:2: not CSV: "),
        (read_csv, PLAIN, "jobs.csv: there are no jobs below the header line"),
        (read_csv, "", "jobs.csv: the file is empty; expected a header line: submit_time,run_time,gpus"),
        (read_csv, "# only\n", "jobs.csv: the file holds only comments"),
        (read_csv, "submit_time,run_time,gpus,gpus\n", "jobs.csv:1: column 'gpus' appears twice"),
        (
            read_csv,
            "submit_time,runtime,gpus\n",
            "jobs.csv:1: no column is called 'runtime'; did you mean 'run_time'",
        ),
        (
            read_csv,
            "submit_time,run_time,gpus,zzz\n",
            "no column is called 'zzz'; known: job_id, submit_time",
        ),
        (read_csv, "submit_time,run_time\n0,1\n", "jobs.csv:1: column 'gpus' is missing"),
        (read_csv, PLAIN.encode() + b"0,1,\xff\n", "jobs.csv:2: byte 0xff is not UTF-8 text"),
        (read_csv, PLAIN.encode() + b"0,1,\x00\n", "jobs.csv:2: binary data, not text"),
        (read_csv, gzip.compress(PLAIN.encode() + b"0,1,1\n", mtime=0)[:-12], "jobs.csv: the gzip data is damaged"),
        (
            read_csv,
            "job_id," + PLAIN + "1,0,1,1\n1,0,1,1\n",
            "jobs.csv:3: column 'job_id': '1' was used in line 2",
        ),
        (
            read_csv,
            "job_id," + PLAIN + "1.5,0,1,1\n",
            "jobs.csv:2: column 'job_id': 1.5 is not a whole number",
        ),
        (read_csv, "gpu_memory_gib," + PLAIN + "0,0,1,1\n", "column 'gpu_memory_gib': 0 is not above 0"),
        (
            read_csv,
            "requested_time," + PLAIN + ",0,1,1\n-3,0,1,1\n",
            "jobs.csv:3: column 'requested_time': -3",
        ),
        (
            read_csv,
            "requested_time," + PLAIN + ",0,1,1\nx,0,1,1\n",
            "jobs.csv:3: column 'requested_time': 'x'",
        ),
        (
            read_philly,
            PHILLY + "yesterday,5,1,5,a\n",
            "jobs.csv:2: column 'timestamp': 'yesterday' is not a local",
        ),
        (read_philly, PHILLY + "2017-10-01 00:00:00+02:00,5,1,5,a\n", "is not a local date and time"),
        (read_philly, PHILLY + "2017-10-01,5,1,x,a\n", "column 'gpu_time': 'x' is not a number"),
        (read_philly, PHILLY + "2017-10-01,-5,1,5,a\n", "column 'duration': -5 is negative"),
        (read_philly, "timestamp,duration\n", "column 'num_gpus' is missing"),
        (read_pai, PAI + "0,x,1\n", "jobs.csv:2: column 'length': 'x' is not a number"),
        (read_pai, PAI + "-1,1,1\n", "jobs.csv:2: column 'arrival_time': -1 is negative"),
    ],
)
def test_bad_input_is_one_sentence_with_file_and_line(
    tmp_path: Path, reader: Callable[[Path], Trace], text: str | bytes, message: str
) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        read(reader, tmp_path, text)
    assert "\n" not in str(caught.value)


@given(
    jobs=st.lists(
        st.tuples(
            st.floats(0.0, 1e8),
            st.floats(0.001, 1e6),
            st.one_of(st.integers(1, 99).map(float), st.integers(1, 999).map(lambda n: n / 1000)),
            st.text(alphabet='ab"#, é', max_size=3).map(str.strip),
        ),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=40, deadline=None)
def test_write_and_read_give_the_same_jobs(
    tmp_path_factory: pytest.TempPathFactory, jobs: list[tuple[float, float, float, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.csv"
    submit, run, gpus, user = zip(*jobs, strict=True)
    columns = {"submit_time": submit, "run_time": run, "gpus": gpus, "user": user}
    trace = Trace.from_columns(columns, name="round")
    write_csv(trace, path)
    again = read_csv(path)
    for column in COLUMNS:
        rtol = 1e-15 if column == "submit_time" else 0.0
        assert np.allclose(getattr(again, column), getattr(trace, column), rtol=rtol, atol=1e-7 * rtol, equal_nan=True)
    assert again.labels == trace.labels
    assert again.requested == trace.requested


def test_a_csv_that_cannot_be_written(tmp_path: Path) -> None:
    trace = Trace.from_columns({"submit_time": [0], "run_time": [1], "gpus": [1]})
    with pytest.raises(TraceError, match="cannot be written"):
        write_csv(trace, tmp_path / "missing" / "x.csv")
