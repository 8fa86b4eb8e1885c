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


EVERYTHING = """\
groups:
  - {nodes: 2, gpus_per_node: 4, gpu: A100, cpu_cores: 32, ram_gib: 256, accelerators: {fpga: 2}, power_limit_w: 300}
electricity: prices.csv
first_hour: 1
carbon: 300
faults: {outages: [{node: 1, down_s: 5, up_s: 60}, {gpus: [2, 2], down_s: 9, up_s: 70}]}
reservations: [{begin_s: 100, end_s: 200, nodes: [0]}]
"""


@pytest.mark.parametrize("columns", [80, 200])
def test_describe_hides_nothing_that_was_set(
    columns: int, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    hours = "".join(f"2023-01-01 {hour:02}:00,{10 - 20 * (hour == 2)}\n" for hour in range(4))
    (folder / "prices.csv").write_text(f"time,price_usd_per_mwh\n{hours}")
    (folder / "c.yaml").write_text(EVERYTHING)
    assert main(["cluster", "describe", "c.yaml"]) == 0
    page = capsys.readouterr().out
    for word in ("A100-SXM4-80GB", "power_limit_w", "cpu_cores", "ram_gib", "fpga", "300", "256"):
        assert word in page
    where = f"{folder / 'prices.csv'} from hour 1 on (first_hour)"
    assert f"electricity: 3 hours of {where}, -10 to 10 USD/MWh, 3.333 in the mean\n" in page
    assert f"{where}: 1 hour of 3 below 0" in page
    assert "carbon: 300 gCO2eq/kWh at all hours\n" in page
    assert "down from 5 to 60 s: GPUs 4 to 7\n" in page
    assert "down from 9 to 70 s: GPU 2\n" in page
    (folder / "c.yaml").write_text(EVERYTHING.replace("electricity: prices.csv", "electricity: -5"))
    assert main(["cluster", "describe", "c.yaml"]) == 0
    assert "electricity: -5 USD/MWh at all hours, below 0: energy earns money\n" in capsys.readouterr().out
    (folder / "c.yaml").write_text(EVERYTHING.replace("first_hour: 1", "first_hour: 5000"))
    for command in (["cluster", "describe"], ["simulate", "--trace", "jobs.csv", "--policy", "sjf", "--cluster"]):
        assert main([*command, "c.yaml"]) == 2
        assert "c.yaml:4: first_hour: " in capsys.readouterr().err


def test_wishes_that_nobody_knows_get_the_nearest_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yaml").write_text(FILE)
    (folder / "odd.csv").write_text("submit_time,run_time,gpus,gpu_type,cpu_core_per_gpu\n0,9,1,A10O,1\n1,9,1,A100,1\n")
    command = ["simulate", "--trace", "odd.csv", "--policy", "sjf", "--cluster", "c.yaml"]
    assert main(command) == 0
    err = capsys.readouterr().err
    assert "odd: job 1: no GPU type is called 'A10O'; did you mean 'A100'?" in err
    assert "cpu_core_per_gpu is not counted: no node group offers cpu_core; did you mean 'cpu_cores'?" in err
    assert main([*command, "--strict"]) == 2
    assert "cpu_core a GPU); job 1: no GPU type is called 'A10O'; did" in capsys.readouterr().err


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
    assert "prices.csv: 1 hour of 2 below 0 (counted from 0: 1), down to -20" in capsys.readouterr().err


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
