"""What a policy of the user's own does inside a command: it cannot end it, nor write among its results."""

import json
from pathlib import Path

import pytest

from lepton_rl.cli import main

CAPTURE = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("Exits", "error: Exits failed at 0 s: mine.py:9: SystemExit"),
        ("ExitsAtOnce", "mine.py: ExitsAtOnce() failed: mine.py:14: SystemExit: 0"),
    ],
)
def test_a_policy_that_exits_has_failed(policy: str, expected: str, folder: Path, capsys: CAPTURE) -> None:
    command = f"simulate --trace jobs.csv --gpus 8 --policy mine.py:{policy} --json"
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert expected in err


def test_a_file_that_exits_cannot_be_imported(folder: Path, capsys: CAPTURE) -> None:
    (folder / "script.py").write_text("import sys\nsys.exit()\n")
    assert main(["simulate", "--trace", "jobs.csv", "--gpus", "8", "--policy", "script.py:Mine"]) == 2
    assert "script.py cannot be imported: script.py:2: SystemExit" in capsys.readouterr().err


def test_what_a_policy_prints_is_not_among_the_results_of_simulate(folder: Path, capsys: CAPTURE) -> None:
    assert main(["simulate", "--trace", "jobs.csv", "--gpus", "8", "--policy", "mine.py:Talks", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["jobs"] == 60
    assert "imported\n" in err
    assert "deciding\n" in err


@pytest.mark.parametrize("processes", [1, 2])
def test_nor_among_those_of_benchmark(processes: int, folder: Path, capfd: CAPTURE) -> None:
    override = ["workloads.0.windows.count=8", f"processes={processes}"]  # 16 tasks: shared by two processes
    assert main(["benchmark", "small.yaml", *override, "--json", "--out", "run"]) == 0
    out, err = capfd.readouterr()
    assert {row["policy"] for row in json.loads(out)["rows"]} == {"fcfs", "Talks"}
    assert "deciding\n" in err


@pytest.mark.parametrize("processes", [1, 2])
def test_a_policy_that_exits_ends_a_benchmark_with_an_error(processes: int, folder: Path, capfd: CAPTURE) -> None:
    override = ["policies.+=mine.py:Exits", "workloads.0.windows.count=8", f"processes={processes}"]
    assert main(["benchmark", "small.yaml", *override, "--out", "run"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "error: Exits failed at 0 s: mine.py:9: SystemExit" in err


def test_a_failed_benchmark_prints_its_error_and_no_notes(folder: Path, capsys: CAPTURE) -> None:
    """Its four windows are too few to rank policies, which only a finished benchmark says."""
    assert main(["benchmark", "small.yaml", "policies=['mine.py:Exits']", "--out", "run"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line != "imported"]
    assert lines[-1].startswith("error: ")
    assert len(lines) <= 2  # a progress bar
    assert not (folder / "run").exists()
    assert main(["benchmark", "small.yaml", "policies=[fcfs, sjf]", "--out", "run"]) == 0
    assert "4 windows cannot rank policies" in capsys.readouterr().err
