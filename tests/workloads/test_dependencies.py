"""Jobs that come after others: columns `after` and `stage`, and the edges through everything that makes a Trace."""

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.errors import TraceError
from lepton_rl.workloads import Trace, describe, read_csv, read_trace, write_csv
from lepton_rl.workloads.dependencies import MAX_EDGES, chains, edges_of_lists, predecessor_lists, selected

HEADER = "job_id,submit_time,run_time,gpus,stage,after\n"


def table(jobs: int, **more: Any) -> dict[str, Any]:
    return {"submit_time": np.arange(jobs), "run_time": np.arange(1, jobs + 1), "gpus": np.ones(jobs), **more}


def diamond() -> Trace:
    """Jobs 1 to 5, each a GPU bigger; 2 and 3 come after 1, 4 after both; 5 stands alone."""
    columns = table(5, after=["", "1", "1", "2|3", ""], gpus=[1, 2, 3, 4, 5])
    return Trace.from_columns(columns, name="diamond")


def read(folder: Path, rows: str) -> Trace:
    (folder / "jobs.csv").write_text(HEADER + rows)
    return read_csv(folder / "jobs.csv")


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    jobs = draw(st.integers(1, 12))
    order = draw(st.permutations(range(jobs)))
    pairs = st.tuples(st.integers(0, jobs - 1), st.integers(0, jobs - 1)).filter(lambda pair: pair[0] < pair[1])
    drawn = draw(st.lists(pairs, max_size=20)) if jobs > 1 else []
    times = draw(st.lists(st.integers(0, 5), min_size=jobs, max_size=jobs))
    edges = [(order[a], order[b]) for a, b in drawn]
    return Trace.from_columns(table(jobs, submit_time=times), edges=edges, name="jobs")


def pairs(trace: Trace) -> set[tuple[int, int]]:
    """Return the dependencies by job id."""
    return {(int(trace.job_id[a]), int(trace.job_id[b])) for a, b in trace.after}


def test_a_trace_without_dependencies_has_none() -> None:
    trace = Trace.from_columns(table(3))
    assert trace.after.shape == (0, 2)
    assert trace.after.dtype == np.int64
    assert "dependenc" not in repr(trace)
    assert trace.stage.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    "after",
    [
        ["", "1", " 1 ", "2|3|2", ""],
        [None, "1", "1.0", "3|2", float("nan")],
        [[], [1], 1, (2, 3), []],
        ["", [1], np.array([1]), ["2", 3], ""],
    ],
)
def test_after_is_text_or_job_ids(after: Any) -> None:
    trace = Trace.from_columns(table(5, after=after))
    assert trace.after.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    assert "4 dependencies" in repr(trace)
    with pytest.raises(ValueError, match="read-only"):
        trace.after[0, 0] = 1


def test_rows_are_those_of_the_sorted_trace() -> None:
    columns = table(3, submit_time=[30.0, 10.0, 20.0], job_id=[7, 8, 9], after=["8|9", "", "7x"])
    with pytest.raises(TraceError, match=r"row 3: column 'after': '7x' is neither a job_id nor stage:NAME"):
        Trace.from_columns(columns)
    columns["after"] = ["8|9", "", "8"]
    trace = Trace.from_columns(columns, edges=[(2, 0)])
    assert trace.job_id.tolist() == [8, 9, 7]
    assert trace.after.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert trace.submit_time.tolist() == [0.0, 10.0, 20.0]


def test_a_job_may_come_after_one_that_is_submitted_later() -> None:
    trace = Trace.from_columns(table(2, after=["2", ""]))
    assert trace.after.tolist() == [[1, 0]]


def test_a_stage_stands_for_all_its_jobs() -> None:
    columns = table(5, stage=["prep", "prep", "", "train", "train"], after=["", "", "", "stage:prep|3", "stage: prep"])
    trace = Trace.from_columns(columns)
    assert trace.after.tolist() == [[0, 3], [0, 4], [1, 3], [1, 4], [2, 3]]
    assert [trace.labels["stage"][code] for code in trace.stage[[0, 3]]] == ["prep", "train"]


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([(0, 0)], "row 1: column 'after': job 1 comes after itself"),
        ([(1, 0), (0, 1), (1, 2)], "row 1: column 'after': job 1 after 2 after 1: a job cannot wait for itself"),
        ([(0, 1), (2, 3), (3, 1), (1, 2)], "row 2: column 'after': job 2 after 4 after 3 after 2: a job"),
        (
            [((row + 1) % 9, row) for row in range(9)],
            "job 1 after 2 after 3 after 4 after 5 after 4 more jobs after 1: a job cannot",
        ),
        ([(0, 9)], "t: a dependency names row 9; the rows are 0 to 8"),
        ([(-1, 2)], "t: a dependency names row -1; the rows are 0 to 8"),
        ([(0, 1, 2)], "t: dependencies are pairs of whole numbers"),
        ([(0.0, 1.0)], "t: dependencies are pairs of whole numbers"),
    ],
)
def test_edges_that_cannot_be(edges: Any, message: str) -> None:
    with pytest.raises(TraceError, match=re.escape(message)):
        Trace.from_columns(table(9), edges=edges, name="t")
    with pytest.raises(TraceError, match=re.escape(message)):
        Trace.from_columns(table(9), name="t").with_after(edges)


def test_with_after_sorts_and_replaces() -> None:
    trace = diamond().with_after([(3, 4), (0, 1), (3, 4)])
    assert trace.after.tolist() == [[0, 1], [3, 4]]
    assert trace.with_after([]).after.shape == (0, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,0,5,1,,\n2,0,5,1,,11\n", "jobs.csv:3: column 'after': '11' is the job_id of no job; did you mean '1'?"),
        ("1,0,5,1,,\n2,0,5,1,,1|7\n", "jobs.csv:3: column 'after': '7' is the job_id of no job"),
        (
            "1,0,5,1,prep,\n2,0,5,1,,prep\n",
            "jobs.csv:3: column 'after': 'prep' is neither a job_id nor stage:NAME; did",
        ),
        (
            "1,0,5,1,prep,\n2,0,5,1,,stage:perp\n",
            "jobs.csv:3: column 'after': no job is of stage 'perp'; did you mean 'prep'?",
        ),
        ("1,0,5,1,,2\n2,0,5,1,,1\n", "jobs.csv:2: column 'after': job 1 after 2 after 1: a job cannot wait for itself"),
        ("1,0,5,1,a,stage:a\n", "jobs.csv:2: column 'after': job 1 comes after itself"),
        ("1,0,5,1,,\n2,0,5,1,,1|\n", "jobs.csv:3: column 'after': '' is neither a job_id nor stage:NAME"),
        ("1,0,5,1,,\n1.0,0,5,1,,\n3,0,5,1,,1\n", "jobs.csv:4: column 'after': more than one job has the job_id 1"),
    ],
)
def test_bad_csv_is_one_sentence_with_file_and_line(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(TraceError, match=re.escape(message)) as caught:
        read(tmp_path, rows)
    assert "\n" not in str(caught.value)


def test_ids_that_several_jobs_have_cannot_be_named() -> None:
    columns = table(3, job_id=[4, 4, 5], after=["", "", "4"])
    with pytest.raises(TraceError, match="row 3: column 'after': more than one job has the job_id 4"):
        Trace.from_columns(columns)
    columns["after"] = ["5", "", ""]
    assert Trace.from_columns(columns).after.tolist() == [[2, 0]]
    with pytest.raises(TraceError, match=r"x\.csv: several jobs have one id"):
        write_csv(Trace.from_columns(columns), Path("x.csv"))


def test_more_dependencies_than_memory_is_meant_for_are_refused() -> None:
    half = int(MAX_EDGES**0.5) + 1
    columns = table(2 * half, stage=["a"] * half + [""] * half, after=[""] * half + ["stage:a"] * half)
    with pytest.raises(
        TraceError, match="more than 20,000,000 dependencies; let one joining job, with a run time above 0"
    ):
        Trace.from_columns(columns)


def test_rows_dropped_from_a_csv(tmp_path: Path) -> None:
    """Job 3 takes no time: 4 and 5 come after 1 and 2 in its place. Job 6 has no GPU and counts as finished."""
    trace = read(tmp_path, "1,0,5,1,,\n2,0,5,1,,\n3,0,0,1,,1|2\n4,0,5,1,,3\n5,0,5,1,,3|6\n6,0,5,0,,1\n")
    assert pairs(trace) == {(1, 4), (2, 4), (1, 5), (2, 5)}
    assert trace.notes[0] == "1 dependency on jobs that were left out (no GPU): they count as finished"
    chain = read(tmp_path, "1,0,5,1,,2\n2,0,0,1,,3\n3,0,0,1,,4\n4,0,5,1,,\n")
    assert pairs(chain) == {(4, 1)}
    assert not any("left out" in note for note in chain.notes)
    for rows in ("1,0,5,1,,2\n2,0,0,1,,1\n", "1,0,0,1,,2\n2,0,5,0,,1\n3,0,5,1,,\n"):
        with pytest.raises(TraceError, match=r"jobs\.csv:2: column 'after': job 1 after 2 after 1"):
            read(tmp_path, rows)


def test_ids_are_rows_where_a_csv_has_none(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text("submit_time,run_time,gpus,after\n9,1,1,2\n8,1,1,\n")
    trace = read_trace(tmp_path / "jobs.csv")
    assert pairs(trace) == {(2, 1)}


def test_selections_keep_what_lies_inside() -> None:
    trace = diamond()  # rows: 0 -> 1, 0 -> 2, 1 -> 3, 2 -> 3
    assert trace[1:].after.tolist() == [[0, 2], [1, 2]]
    assert trace[1:].notes == trace.notes  # a window is not told what lies outside of it
    assert trace.window(1, 3).after.tolist() == [[0, 2], [1, 2]]
    assert trace.window(0, 2).after.tolist() == [[0, 1]]
    assert trace[::3].after.shape == (0, 2)
    assert trace[::2].after.tolist() == [[0, 1]]
    assert trace.between(1.0, 4.0).after.tolist() == [[0, 2], [1, 2]]
    first, rest = trace.split(0.6)
    assert first.after.tolist() == [[0, 1], [0, 2]]
    assert rest.after.shape == (0, 2)
    assert trace.scale_load(2.0).after is not None
    for same in (trace.scale_load(2.0), trace.with_requested("noisy:1"), trace.with_requested("absent"), trace[:]):
        assert same.after.tolist() == trace.after.tolist()


def test_jobs_left_out_count_as_finished_and_a_note_says_so() -> None:
    trace = diamond()
    without_first = trace.where(np.array([False, True, True, True, True]))
    assert without_first.after.tolist() == [[0, 2], [1, 2]]
    assert without_first.notes[-1] == "2 dependencies on jobs that were left out: they count as finished"
    small = trace.with_after([(2, 0), (4, 1), (0, 1)]).fit_to(3)
    assert small.after.tolist() == [[0, 1], [2, 0]]
    note = "1 dependency on jobs that were left out (asks for more than 3 GPUs): they count as finished"
    assert small.notes[-1] == note
    assert any(note in line for line in small.losses)
    assert trace.fit_to(4).notes == trace.notes  # nobody waits for the largest job
    assert trace.fit_to(9) is trace


@given(traces(), st.data())
@settings(max_examples=60, deadline=None)
def test_every_selection_keeps_the_pairs_inside_it(trace: Trace, data: st.DataObject) -> None:
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(trace), max_size=len(trace))))
    mask[data.draw(st.integers(0, len(trace) - 1))] = True
    start = data.draw(st.integers(0, len(trace) - 1))
    stop = data.draw(st.integers(start + 1, len(trace)))
    step = data.draw(st.integers(1, 3))
    for part in (trace.where(mask), trace[start:stop], trace[start:stop:step]):
        kept = set(part.job_id.tolist())
        assert pairs(part) == {pair for pair in pairs(trace) if set(pair) <= kept}
        rows = part.after.tolist()
        assert rows == sorted(rows)
        assert len(rows) == len(pairs(part))


@given(trace=traces())
@settings(max_examples=40, deadline=None)
def test_dependencies_survive_files_pickles_and_lists(tmp_path_factory: pytest.TempPathFactory, trace: Trace) -> None:
    folder = tmp_path_factory.getbasetemp()
    trace.save(folder / "deps.npz")
    write_csv(trace, folder / "jobs.csv")
    assert Trace.load(folder / "deps.npz") == trace
    assert read_csv(folder / "jobs.csv") == trace
    copy = pickle.loads(pickle.dumps(trace))
    assert copy == trace
    assert not copy.after.flags.writeable
    assert sorted(edges_of_lists(predecessor_lists(trace.after, len(trace)))) == [
        tuple(e) for e in trace.after.tolist()
    ]


def test_traces_with_other_dependencies_are_not_equal() -> None:
    assert diamond() == diamond()
    assert diamond() != diamond().with_after([])
    assert diamond() != replace(diamond(), stage=np.zeros(5, np.int32))


def test_a_saved_trace_whose_dependencies_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    diamond().save(path)
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored}
    for bad, message in ((np.array([[0, 9]]), "names row 9"), (np.array([[0, 1], [1, 0]]), "job 1 after 2 after 1")):
        np.savez(path, **(arrays | {"after": bad}))
        with pytest.raises(TraceError, match=message):
            Trace.load(path)
    del arrays["after"], arrays["stage"]  # as saved before there were any
    meta = json.loads(str(arrays["lepton_rl"]))
    del meta["labels"]["stage"]
    np.savez(path, **(arrays | {"lepton_rl": np.array(json.dumps(meta))}))
    assert Trace.load(path) == diamond().with_after([])


def test_parquet_keeps_dependencies(tmp_path: Path) -> None:
    diamond().save(tmp_path / "t.parquet")
    assert Trace.load(tmp_path / "t.parquet") == diamond()


def test_chains_by_hand() -> None:
    # run times 1 to 5: 1 -> 3 -> 4 takes 1 + 3 + 4 s and has three jobs
    trace = diamond()
    assert chains(trace.after, trace.run_time) == (3, 8.0)
    assert chains(trace.after[:0], trace.run_time) == (0, 0.0)
    # 4 -> 5 has two jobs and takes 9 s, 1 -> 2 -> 3 three and 6 s; submitted in any order
    assert chains(np.array([[0, 1], [1, 2], [4, 3]]), trace.run_time) == (3, 9.0)


def test_describe_counts_dependencies() -> None:
    figures = describe(diamond())
    assert (figures.dependencies, figures.waiting_jobs) == (4, 3)
    assert (figures.longest_chain, figures.critical_path) == (3, 8.0)
    rows = dict(figures.rows())
    assert rows["dependencies"] == "4"
    assert rows["jobs that come after others"] == "3"
    assert rows["longest chain"] == "3 jobs"
    assert rows["critical path"] == "8 s"
    plain = describe(diamond().with_after([]))
    assert "dependencies" not in dict(plain.rows())
    assert plain.to_dict()["critical_path"] == 0.0


def test_selected_by_row_numbers_renumbers() -> None:
    edges = np.array([[0, 1], [1, 2]])
    assert selected(edges, np.array([2, 1, 0]), 3).tolist() == [[1, 0], [2, 1]]
