"""`lepton-rl cluster describe`, and simulations on the cluster of a file."""

import json
from pathlib import Path

import pytest

from lepton_rl.cli import main

FILE = """\
groups:
  - {nodes: 1, gpus_per_node: 4, gpu: A100, cpu_cores: 32}
  - {nodes: 2, gpus_per_node: 2, gpu: T4}
electricity: 100
"""


def test_describe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yaml").write_text(FILE)
    assert main(["cluster", "describe", "c.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "8 GPUs on 3 nodes" in shown
    assert main(["cluster", "describe", "c.yaml", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert [group["gpu"] for group in about["groups"]] == ["A100-SXM4-80GB", "T4"]
    assert about["speed"]["A100-SXM4-80GB"]["vision"] == 1
    assert about["speed"]["T4"]["vision"] < 0.5


def test_simulate_on_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yaml").write_text(FILE)
    command = ["simulate", "--trace", "jobs.csv", "--policy", "sjf", "--cluster", "c.yaml", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cluster"]["gpus"] == 8
    assert found["electricity_usd"] == pytest.approx(found["energy_kwh"] * 0.1)
    assert "carbon_kg" not in found
    assert main(["simulate", "--trace", "jobs.csv", "--policy", "sjf", "--gpus", "8", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["mean_jct"] < found["mean_jct"]  # half of the file's GPUs are slower
    assert "electricity_usd" not in plain


def test_prices_below_zero_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "jobs.csv").write_text("submit_time,run_time,gpus\n0,5000,1\n")
    (folder / "prices.csv").write_text(
        "time,price_usd_per_mwh\n2023-01-01 00:00,10\n2023-01-01 01:00,-20\n2023-01-01 02:00,-30\n"
    )
    (folder / "c.yaml").write_text(FILE.replace("electricity: 100", "electricity: prices.csv"))
    assert main(["simulate", "--trace", "jobs.csv", "--policy", "sjf", "--cluster", "c.yaml"]) == 0
    assert "prices: 1 hour of 2 below 0 (counted from 0: 1), down to -20" in capsys.readouterr().err


def test_wrong_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yaml").write_text(FILE)
    (folder / "empty.yaml").write_text("gpu_memory_gib: 16\n")
    trace = ["--trace", "jobs.csv", "--policy", "sjf"]
    for command, says in (
        (["simulate", *trace, "--cluster", "c.yaml", "--gpus", "4"], "give either --cluster or a size"),
        (["simulate", *trace, "--cluster", "none.yaml"], "none.yaml"),
        (["cluster", "describe", "empty.yaml"], "the cluster has no size"),
        (["cluster", "describe", "small.yaml"], "unknown key"),
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert says in error
        assert len(error.splitlines()) <= 3
