"""`simulate` and `evaluate`: what they say of the run, and what they keep to themselves when it fails."""

import json
from pathlib import Path

import pytest

from lepton_rl.cli import main

CAPTURE = pytest.CaptureFixture[str]
TWO_SIZES = "; MaxNodes: 2\n; MaxProcs: 4\n"
ROWS = "1 0 -1 100 2 -1 -1 2 -1 -1 1 1 1 -1 1 -1 -1 -1\n2 1 -1 10 4 -1 -1 4 -1 -1 1 1 1 -1 1 -1 -1 -1\n"


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
