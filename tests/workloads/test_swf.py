"""The SWF reader and writer on small hand-made files."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.errors import TraceError
from lepton_rl.workloads import Dropped, Trace, read_swf, write_swf

HEADER = """; Version: 2.2
; UnixStartTime: 749458803
; MaxNodes: 16 (of 4 processors)
; MaxProcs: 64
;
; Note: nothing else
"""


def row(job: int, submit: float, run: float, allocated: int, asked: int = -1, limit: float = -1) -> str:
    return f"{job} {submit} -1 {run} {allocated} -1 -1 {asked} {limit} -1 1 3 2 -1 0 -1 -1 -1"


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "small.swf"


def read_text(path: Path, text: str) -> Trace:
    path.write_text(text)
    return read_swf(path)


def test_rows_become_jobs(write: Path) -> None:
    text = HEADER + "\n".join([row(1, 50, 100, 4, 8, 600), row(2, 55, 10, 4, 2, 30), ""])
    trace = read_text(write, text)
    assert trace.name == "small"
    assert trace.job_id.tolist() == [1, 2]
    assert trace.submit_time.tolist() == [0.0, 5.0]
    assert trace.origin == 50.0
    assert trace.gpus.tolist() == [8.0, 4.0]  # the larger of allocated and requested
    assert trace.requested_time.tolist() == [600.0, 30.0]
    assert trace.requested == "given"
    assert (trace.labels["user"], trace.labels["project"], trace.labels["queue"]) == (("3",), ("2",), ("0",))
    assert np.isnan(trace.gpu_memory_gib).all()
    assert trace.dropped == ()
    assert trace.notes == ()


def test_header_fields(write: Path) -> None:
    machine = read_text(write, HEADER + row(1, 0, 1, 1)).machine
    assert machine is not None
    assert (machine.max_nodes, machine.max_procs, machine.unix_start_time) == (16, 64, 749458803.0)
    assert machine.fields["Version"] == "2.2"
    assert read_text(write, row(1, 0, 1, 1)).machine is None
    odd = read_text(write, "; MaxNodes: many\n" + row(1, 0, 1, 1)).machine
    assert odd is not None
    assert odd.max_nodes is None


def test_row_rules_drop_and_mend_and_count(write: Path) -> None:
    rows = [
        row(1, 0, 0, 4),  # run time 0
        row(2, 5, -1, 4),  # negative: 10 s
        row(3, 6, 9, -1, 0),  # no processors
        row(4, -1, 9, 1),  # no submit time
        row(5, 7, 9, 1, 1, 20),
    ]
    trace = read_text(write, "\n".join(rows))
    assert trace.job_id.tolist() == [2, 5]
    assert trace.run_time.tolist() == [10.0, 9.0]
    assert trace.requested_time.tolist() == [10.0, 20.0]
    assert trace.dropped == (
        Dropped("run time 0", 1, ("job 1",)),
        Dropped("no processors", 1, ("job 3",)),
        Dropped("no submit time", 1, ("job 4",)),
    )
    assert trace.notes == (
        "negative run time in 1 row: 10 s is used",
        "requested times: none in 1 row, the run time stands in its place",
    )


def test_no_requested_time_at_all_is_a_clairvoyant_workload(write: Path) -> None:
    trace = read_text(write, row(1, 0, 7, 1))
    assert trace.requested == "exact"
    assert trace.requested_time.tolist() == [7.0]


def test_order_is_job_number_then_stable_by_submit(write: Path) -> None:
    rows = [row(9, 5, 1, 1), row(2, 5, 2, 1), row(7, 1, 3, 1), row(2, 5, 4, 1)]
    trace = read_text(write, "\n".join(rows))
    assert trace.job_id.tolist() == [7, 2, 2, 9]
    assert trace.run_time.tolist() == [3.0, 2.0, 4.0, 1.0]


def test_blanks_tabs_crlf_comments_decimals_and_extra_fields(write: Path) -> None:
    first = "  " + row(1, 0.5, 1.25e2, 1).replace(" ", "\t") + "   {1,2} q_2w 1:ppn=1\r\n"
    text = "\r\n; a comment: here\n" + first + "\n; another\n" + row(2, 1, 2, 1) + " ; trailing"
    trace = read_text(write, text)
    assert trace.run_time.tolist() == [125.0, 2.0]
    assert trace.submit_time.tolist() == [0.0, 0.5]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (row(1, 0, 1, 1).rsplit(" ", 1)[0], "small.swf:8: 17 fields; a row of SWF has 18"),
        ("job", "small.swf:8: field 1 \\(job number\\): 'job' is not a number"),
        (row(1, 0, 1, 1).replace(" 0 ", " 0x5 ", 1), "small.swf:8: field 2 \\(submit time\\): '0x5' is not"),
        (row(1, 0, 1, 1).replace(" 0 ", " nan ", 1), "field 2 \\(submit time\\): 'nan' is not a number"),
        (row(1, 0, 1, 1).replace(" 0 ", " 1e999 ", 1), "field 2 \\(submit time\\): '1e999' is not a number"),
        (row(1, 0, 1, 1).replace(" 0 ", " 1e ", 1), "field 2 \\(submit time\\): '1e' is not a number"),
        (row(1, 0, 1, 1).replace(" 0 ", " - ", 1), "field 2 \\(submit time\\): '-' is not a number"),
        (row(1, 0, 1, 1).removesuffix("-1") + "?", "field 18 \\(think time\\): '\\?' is not a number"),
        (row(1, 0, 1, 1).replace("1 3 2", "1 3.5 2"), "field 12 \\(user\\): 3.5 is not a whole number"),
        (row(1, 0, 1, 1).replace("1 0 -1 1 1", "1 0 -1 1 2.5"), "small.swf:8: column 'gpus': 2.5 is neither"),
        (row(1, 0, 1e13, 1), "small.swf:8: column 'run_time': 1e\\+13 is above 1e\\+12"),
    ],
)
def test_bad_rows_are_named_by_line_and_field(write: Path, line: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        read_text(write, HEADER + row(1, 0, 1, 1) + "\n" + line + "\n")


def test_files_without_a_job(write: Path) -> None:
    with pytest.raises(TraceError, match=r"small\.swf: there are no job rows"):
        read_text(write, HEADER)
    with pytest.raises(TraceError, match=r"no job is left: all 2 rows dropped \(2 run time 0\)"):
        read_text(write, row(1, 0, 0, 1) + "\n" + row(2, 0, 0, 1))


def test_gzip_is_seen_from_the_content(write: Path) -> None:
    write.write_bytes(gzip.compress((HEADER + row(1, 0, 5, 1)).encode()))
    assert read_swf(write).run_time.tolist() == [5.0]


numbers = st.one_of(
    st.integers(0, 10**9).map(str),
    st.decimals(0, 10**6, places=3).map(str),
    st.floats(0.0, 1e9, allow_subnormal=False).map(lambda x: f"{x:.12g}"),
)


@given(submits=st.lists(numbers, min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_numbers_mean_what_python_reads(tmp_path_factory: pytest.TempPathFactory, submits: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "numbers.swf"
    rows = [row(i, 0, 1, 1).replace(" 0 ", f" {text} ", 1) for i, text in enumerate(submits)]
    trace = read_text(path, "\n".join(rows))
    expected = np.sort([float(text) for text in submits])
    assert np.allclose(trace.submit_time + trace.origin, expected, rtol=1e-14)


@given(
    jobs=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(1, 512)), min_size=1),
    limits=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_write_and_read_give_the_same_jobs(
    tmp_path_factory: pytest.TempPathFactory, jobs: list[tuple[int, int, int]], limits: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.swf.gz"
    submit, run, gpus = zip(*sorted(jobs), strict=True)
    columns = {"submit_time": submit, "run_time": run, "gpus": gpus}
    if limits:
        columns["requested_time"] = tuple(2 * r for r in run)
    trace = Trace.from_columns(columns)
    write_swf(trace, path)
    again = read_swf(path)
    for column in ("job_id", "submit_time", "run_time", "requested_time", "gpus"):
        assert getattr(again, column).tolist() == getattr(trace, column).tolist()
    assert again.requested == trace.requested
    assert again.origin == trace.origin


def test_what_swf_cannot_hold_is_refused(tmp_path: Path) -> None:
    share = Trace.from_columns({"submit_time": [0], "run_time": [1], "gpus": [0.5]})
    with pytest.raises(TraceError, match="SWF counts whole processors"):
        write_swf(share, tmp_path / "x.swf")
    whole = Trace.from_columns({"submit_time": [0], "run_time": [1], "gpus": [1]})
    with pytest.raises(TraceError, match="cannot be written"):
        write_swf(whole, tmp_path / "missing" / "x.swf")
