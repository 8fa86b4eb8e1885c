"""`simulate` and `evaluate`: what they say of the run, and what they keep to themselves when it fails."""

import json
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lepton_rl.agents import make_policy
from lepton_rl.cli import main
from lepton_rl.cli.comparison import print_comparison
from lepton_rl.cli.run_files import MOST_PLACED
from lepton_rl.core import ClusterSpec
from lepton_rl.experiments.simulate import simulate
from lepton_rl.workloads import Trace, read_trace

CAPTURE = pytest.CaptureFixture[str]
TWO_SIZES = "; MaxNodes: 2\n; MaxProcs: 4\n"
ROWS = "1 0 -1 100 2 -1 -1 2 -1 -1 1 1 1 -1 1 -1 -1 -1\n2 1 -1 10 4 -1 -1 4 -1 -1 1 1 1 -1 1 -1 -1 -1\n"


def run(line: str) -> int:
    """Run a command line without quotes in it."""
    return main(line.split())


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ("fcfs", ("fcfs", "head", "first")),
        ("sjf --blocking easy --placement best", ("sjf", "easy", "best")),
        ("random", ("random", "skip", "first")),
        ("reserve_slowdown", ("reserve_slowdown", "skip", "first")),
        ("greedy", ("greedy", None, "best")),
        ("greedy --placement worst", ("greedy", None, "worst")),
        ("mine.py:Talks", ("Talks", None, None)),
    ],
)
def test_the_json_names_the_rules_in_force(
    options: str, rules: tuple[str, str | None, str | None], folder: Path, capsys: CAPTURE
) -> None:
    assert main(f"simulate --trace jobs.csv --gpus 8 --json --policy {options}".split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["policy"], found["blocking"], found["placement"]) == rules


@pytest.mark.parametrize("requested", ["exact", "noisy:0.5", "tsafrir", "absent"])
def test_the_json_names_the_requested_times(requested: str, folder: Path, capsys: CAPTURE) -> None:
    assert main(f"simulate --trace jobs.csv --gpus 8 --policy fcfs --json --requested {requested}".split()) == 0
    assert json.loads(capsys.readouterr().out)["requested"] == requested


def test_deadlines_are_drawn_where_that_is_asked_for(folder: Path, capsys: CAPTURE) -> None:
    base = "simulate --trace jobs.csv --gpus 8 --policy edf --json"
    found = []
    for options in ("", " --deadlines 1:1", " --deadlines 1000:1000"):
        assert run(base + options) == 0
        captured = capsys.readouterr()
        found.append(json.loads(captured.out)["deadlines_met"])
        assert ("deadlines: drawn" in captured.err) == bool(options)
    assert found[0] == found[2] == 1.0
    assert found[1] < 1.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("2", "deadlines '2': write LOW:HIGH, two factors of the run time, e.g. 1.2:10"),
        ("fast:slow", "write LOW:HIGH"),
        ("0.5:2", "the factors are 0.5 and 2; they must be two numbers from 1 to 1000, the smaller first"),
    ],
)
def test_deadlines_that_make_no_sense(text: str, sentence: str, folder: Path, capsys: CAPTURE) -> None:
    assert run(f"simulate --trace jobs.csv --gpus 8 --policy edf --deadlines {text}") == 2
    assert sentence in capsys.readouterr().err


def test_so_does_the_table(folder: Path, capsys: CAPTURE) -> None:
    assert main(["simulate", "--trace", "jobs.csv", "--gpus", "8", "--policy", "reserve"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["blocking", "skip"] in lines
    assert ["placement", "first"] in lines
    assert main(["simulate", "--trace", "jobs.csv", "--gpus", "8", "--policy", "genetic"]) == 0
    assert ["blocking", "its", "own"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_bundle_goes_by_the_name_of_its_run(folder: Path, capsys: CAPTURE) -> None:
    pytest.importorskip("sb3_contrib")
    from lepton_rl.workloads import gpu_cluster
    from tests.agents.test_bundle import bundle_of, shaken_model

    model = shaken_model("maskable_ppo", "deepsets", gpu_cluster(200, 8, 1.0, seed=1))
    bundle_of(model, "deepsets", folder / "runs" / "week" / "bundle")
    for path in ("runs/week", "runs/week/bundle"):
        assert main(f"simulate --trace jobs.csv --gpus 8 --policy {path} --json".split()) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["policy"], found["blocking"], found["placement"]) == ("week", None, "first")
        assert main(f"simulate --trace jobs.csv --gpus 8 --policy {path} --blocking easy".split()) == 2
        assert "week has no blocking setting" in capsys.readouterr().err


def test_a_failed_run_prints_its_error_and_no_notes(folder: Path, capsys: CAPTURE) -> None:
    (folder / "two.swf").write_text(TWO_SIZES + ROWS)
    notes = "simulate --trace two.swf --policy greedy"
    assert main(notes.split()) == 0
    assert len(capsys.readouterr().err.splitlines()) == 3
    for fails in ("--policy mine.py:Exits", "--policy genetic --requested absent", "--jobs-out none/jobs.csv"):
        assert main([*notes.split(), *fails.split()]) == 2
        err = capsys.readouterr().err.replace("imported\n", "")
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("columns", "tables"), [(60, 4), (80, 2), (120, 1)])
def test_many_rivals_fit_the_screen(columns: int, tables: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rivals = ["fcfs", "sjf", "saf", "wfp3", "unicep", "greedy", "heap_priority", "reserve_slowdown"]
    trace, cluster = read_trace("jobs.csv"), ClusterSpec.pool(8)
    simulations = [simulate(trace, cluster, make_policy(name)) for name in ("srtf", *rivals)]
    text = StringIO()
    print_comparison(simulations, Console(file=text, width=columns))
    lines = text.getvalue().splitlines()
    assert lines.pop(0) == "jobs: 60 jobs on 8 GPUs, requested times exact"
    assert max(map(len, lines)) <= columns
    heads = [line.split()[1:] for line in lines if line.startswith("metric")]
    assert len(heads) == tables
    assert {head[0] for head in heads} == {"srtf"}
    assert [name for head in heads for name in head[1:]] == rivals
    assert max(map(len, heads)) - min(map(len, heads)) <= 2
    assert sum(line.startswith("fairness") for line in lines) == tables


def test_one_of_a_thing_is_no_plural(folder: Path, capsys: CAPTURE) -> None:
    (folder / "one.csv").write_text("submit_time,run_time,gpus\n0,10,1\n")
    assert run("simulate --trace one.csv --gpus 1 --policy fcfs") == 0
    assert capsys.readouterr().out.startswith("one: 1 job on 1 GPU, requested times exact")
    assert run("traces generate gpu --jobs 1 --gpus 1 --requested tsafrir --out made.csv") == 0
    assert capsys.readouterr().err == "made.csv: 1 job\n"
    assert run("traces generate gpu --jobs 2 --gpus 1 --requested noisy:1 --out made.swf") == 0
    assert re.fullmatch(r"made\.swf: 2 jobs, offered load [\d.]+ on 1 GPU\n", capsys.readouterr().err)


@pytest.mark.parametrize(("queue", "fairness"), [("", 0.9), ("batch", 1.0)])
def test_fairness_is_between_jobs_where_nobody_is_known(
    queue: str, fairness: float, folder: Path, capsys: CAPTURE
) -> None:
    (folder / "two.csv").write_text(f"submit_time,run_time,gpus,queue\n0,10,1,{queue}\n0,10,1,{queue}\n")
    assert run("simulate --trace two.csv --gpus 1 --policy fcfs --json") == 0
    assert json.loads(capsys.readouterr().out)["fairness"] == pytest.approx(fairness)  # slowdowns 1 and 2


def test_a_row_of_jobs_out_says_where_the_job_ran_last(folder: Path) -> None:
    """Three nodes; a gang on the first two, a job that only the third can hold, one that is moved by a preemption."""
    (folder / "c.yaml").write_text(
        "groups:\n  - {nodes: 2, gpus_per_node: 2, gpu: A100}\n  - {nodes: 1, gpus_per_node: 1, gpu: T4}\n"
    )
    rows = ["job_id,submit_time,run_time,gpus,gpu_type", "7,0,100,3,", "8,0,50,1,T4", "9,1,50,1,"]
    (folder / "few.csv").write_text("\n".join(rows) + "\n")
    command = "simulate --trace few.csv --policy fcfs --jobs-out out.csv --json"
    assert run(f"{command} --cluster c.yaml") == 0
    written = [row.split(",") for row in (folder / "out.csv").read_text().splitlines()]
    assert written[0][-2:] == ["nodes", "gpu_type"]
    assert [row[-2:] for row in written[1:]] == [
        ["0|1", "A100-SXM4-80GB"],
        ["2", "T4"],
        ["1", "A100-SXM4-80GB"],
    ]
    assert run(f"{command} --nodes 5 --gpus-per-node 1 --overwrite") == 0
    plain = [row.split(",") for row in (folder / "out.csv").read_text().splitlines()]
    assert [row[-2:] for row in plain[1:]] == [["0|1|2", ""], ["3", ""], ["4", ""]]


def test_of_very_many_jobs_it_is_not_said_where_they_ran(folder: Path, capsys: CAPTURE) -> None:
    jobs = MOST_PLACED + 1
    columns = {"submit_time": np.arange(jobs) * 10.0, "run_time": np.ones(jobs), "gpus": np.ones(jobs)}
    Trace.from_columns(columns).save(folder / "many.npz")
    assert run("simulate --trace many.npz --policy fcfs --nodes 2 --gpus-per-node 1 --jobs-out out.csv --json") == 0
    assert "where jobs ran is left out, for there are more than 100,000 (--report records" in capsys.readouterr().err
    with (folder / "out.csv").open() as lines:
        assert next(lines).endswith("nodes,gpu_type\n")
        assert next(lines).endswith(",1,0,,\n")


def test_a_preempted_job_is_where_it_ended(tmp_path: Path) -> None:
    """On two nodes of one GPU: both run, a short job takes the second's place, and it goes on where one is free."""
    jobs = {"submit_time": [0.0, 0.0, 10.0], "run_time": [30.0, 100.0, 60.0], "gpus": [1.0, 1.0, 1.0]}
    for recorded, nodes in ((True, ["0", "0", "1"]), (False, ["", "", ""])):
        found = simulate(Trace.from_columns(jobs), ClusterSpec(2, 1), make_policy("srtf"), recorded=recorded)
        found.write_jobs(tmp_path / "out.csv")
        rows = [row.split(",") for row in (tmp_path / "out.csv").read_text().splitlines()[1:]]
        assert [row[-3:] for row in rows] == [[str(int(at == 1)), node, ""] for at, node in enumerate(nodes)]
