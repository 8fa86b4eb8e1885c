"""`lepton-rl pareto`: runs and plans, weighed by completion time and energy."""

import json
from pathlib import Path
from typing import Any

import pytest

from lepton_rl.cli import main
from lepton_rl.workloads import gpu_cluster, write_csv

CAPTURE = pytest.CaptureFixture[str]
CLUSTER = """\
groups:
  - {nodes: 2, gpus_per_node: 4, gpu: A100-SXM4-80GB}
  - {nodes: 2, gpus_per_node: 4, gpu: A100-SXM4-80GB, power_limit_w: 200}
"""
LINE = ["pareto", "--trace", "jobs.csv", "--cluster", "two.yaml"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_csv(gpu_cluster(60, 16, 1.0, seed=1), tmp_path / "jobs.csv")
    (tmp_path / "two.yaml").write_text(CLUSTER)
    return tmp_path


def points(capsys: CAPTURE, *options: str) -> list[dict[str, Any]]:
    assert main([*LINE, "--json", *options]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["points"]
    return found


def test_runs_and_which_of_them_no_other_beats(capsys: CAPTURE) -> None:
    policies = ["--policy", "energy", "--policy", "{name: saf, blocking: skip}", "--policy", "cheapest"]
    found = points(capsys, *policies, "--energy-weights", "0,100")
    assert {point["label"] for point in found} == {
        "energy", "saf skip", "cheapest", "genetic, 0/kWh", "genetic, 100/kWh",
    }  # fmt: skip
    assert [point["mean_jct"] for point in found] == sorted(point["mean_jct"] for point in found)
    for one in found:
        beaten = any(
            other["mean_jct"] <= one["mean_jct"] and other["added_kwh"] <= one["added_kwh"] and other is not one
            for other in found
        )
        assert one["on_front"] is not beaten
    by_label = {point["label"]: point for point in found}
    assert by_label["genetic, 100/kWh"]["added_kwh"] < by_label["genetic, 0/kWh"]["added_kwh"]
    assert main(["simulate", *LINE[1:], "--policy", "energy", "--json"]) == 0
    energy = json.loads(capsys.readouterr().out)
    assert (by_label["energy"]["mean_jct"], by_label["energy"]["energy_kwh"]) == (
        energy["mean_jct"], energy["energy_kwh"],
    )  # fmt: skip


def test_plans_when_a_job_is_submitted(capsys: CAPTURE) -> None:
    found = points(capsys, "--at-job", "50")
    assert len(found) > 1
    assert all(point["on_front"] for point in found)
    energies = [point["added_kwh"] for point in found]
    assert energies == sorted(energies, reverse=True)


@pytest.mark.parametrize("options", [["--policy", "energy", "--energy-weights", ""], ["--at-job", "9"]])
def test_the_picture_and_the_table(options: list[str], capsys: CAPTURE, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    assert main([*LINE, *options, "--plot", "front.png"]) == 0
    out = capsys.readouterr().out
    assert "mean JCT, s" in out
    assert " yes" in out
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    assert main([*LINE, *options, "--plot", "front.png"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--energy-weights", "1,x"], "--energy-weights: 'x' is no number; write e.g. 0,1,10,100"),
        (["--energy-weights", " -1"], "genetic: energy_weight: must be greater than or equal to 0, not -1.0"),
        (
            ["--energy-weights", "1,1.0"],
            "two policies are called 'genetic, 1/kWh'; leave one out, or give it another label",
        ),
        (["--energy-weights", "", "--at-job", "1"], "there is nothing to run: give --policy or --energy-weights"),
        (["--policy", "saff"], "no policy named 'saff'; did you mean 'saf'?"),
        (["--at-job", "61"], "jobs has 60 jobs, none of number 61"),
        (["--plot", "x.doc"], "x.doc: no picture format is called 'doc'; use .png, .svg or .pdf"),
        (["--plot", "two.yaml"], "two.yaml: is what this command reads; name another file"),
    ],
)  # fmt: skip
def test_mistakes(options: list[str], message: str, capsys: CAPTURE, folder: Path) -> None:
    assert main([*LINE, *options]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"error: {message}\n")
    assert sorted(path.name for path in folder.iterdir()) == ["jobs.csv", "two.yaml"]


def test_equal_gpus_are_said_to_be(capsys: CAPTURE) -> None:
    line = ["pareto", "--trace", "jobs.csv", "--gpus", "16", "--policy", "fcfs", "--energy-weights", ""]
    assert main(line) == 0
    assert "the GPUs are all the same" in capsys.readouterr().err
