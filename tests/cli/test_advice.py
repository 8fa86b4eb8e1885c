"""`lepton-rl advise`: what it prints, and what it refuses."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lepton_rl.cli import main
from lepton_rl.workloads import gpu_cluster, write_csv

CAPTURE = pytest.CaptureFixture[str]
FILE = """\
groups:
  - {nodes: 1, gpus_per_node: 4, gpu: A100}
  - {nodes: 2, gpus_per_node: 2, gpu: T4, rent_usd_per_hour: 0.5}
electricity: 100
"""


def test_the_page(folder: Path, capsys: CAPTURE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # a terminal's width, to which the page keeps
    assert main(["advise", "--trace", "jobs.csv", "--nodes", "2", "--gpus-per-node", "4"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "jobs on 2 x 4 GPUs"
    assert lines[1].startswith("simulated on jobs 1 to 60 (offered load ")
    assert lines[1].endswith("), in one run: no figure has an interval")
    assert lines[2].startswith("now: fcfs, blocking skip, placement first: mean JCT ")
    assert any(line.startswith("Worth it") for line in lines)
    assert any(line.startswith("Tried") and line.endswith("GPUs") for line in lines)
    assert "  power limits: the cluster names no types of GPU (--cluster FILE does)" in lines
    assert err == "jobs: requested times: none are given, the run times stand in their place (a clairvoyant workload)\n"


def test_of_gpus_given_back_nothing_is_said_about_energy(folder: Path, capsys: CAPTURE) -> None:
    trace = gpu_cluster(60, 8, 1.1, seed=1)
    used = replace(trace, gpu_utilization=np.full(60, 0.3), gpu_memory_gib=np.full(60, 8.0))
    write_csv(used, folder / "used.csv")
    assert main(["advise", "--trace", "used.csv", "--nodes", "2", "--gpus-per-node", "4"]) == 0
    rows = capsys.readouterr().out.splitlines()
    head = next(row for row in rows if row.startswith("Tried")).split()
    row = next(row for row in rows if row.startswith("  one-GPU jobs as shares")).split()
    assert head[-4:] == ["p99", "wait", "energy", "GPUs"]
    assert row[-2:] == ["-", "0%"]
    assert main(["advise", "--trace", "used.csv", "--nodes", "2", "--gpus-per-node", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["advice"]
    assert set(next(a for a in found if a["kind"] == "over-asked GPUs")["changes"]) == {"mean_jct", "p99_wait", "gpus"}


def test_the_json_is_the_same_each_time_and_holds_every_figure(folder: Path, capsys: CAPTURE) -> None:
    (folder / "c.yaml").write_text(FILE)
    rules = "--policy sjf --blocking easy --placement best"
    command = f"advise --trace jobs.csv --cluster c.yaml {rules} --json".split()
    assert main(command) == 0
    text = capsys.readouterr().out
    assert main(command) == 0
    assert capsys.readouterr().out == text
    found = json.loads(text)
    assert found["policy"] == "sjf, blocking easy, placement best"
    assert (found["windows"], found["simulated"]) == (1, "jobs 1 to 60")
    assert set(found["now"]) == {"mean_jct", "p99_wait", "energy_kwh", "electricity_usd", "gpus", "rent_usd"}
    kinds = {advice["kind"] for advice in found["advice"]}
    assert {"placement", "power limit of T4", "fewer T4 (group 2)", "more A100-SXM4-80GB (group 1)"} <= kinds
    for advice in found["advice"]:
        assert set(advice["changes"]) == set(found["now"])
        assert set(advice) == {"kind", "title", "sentence", "goal", "changes", "worth", "beaten_by"}
    power = next(advice for advice in found["advice"] if advice["kind"] == "power limit of T4")
    change = power["changes"]["energy_kwh"]
    assert change["relative"]["mean"] == pytest.approx(change["after"] / change["before"] - 1)
    assert {entry["what"] for entry in found["not_tried"]} >= {
        "hours of low electricity",
        "hours of low carbon intensity",
    }


def test_the_present_figures_are_those_of_simulate(folder: Path, capsys: CAPTURE) -> None:
    (folder / "c.yaml").write_text(FILE)
    rules = "--policy saf --blocking skip --preemption-cost 5"
    options = f"--trace jobs.csv --cluster c.yaml {rules} --json".split()
    assert main(["advise", *options]) == 0
    now = json.loads(capsys.readouterr().out)["now"]
    assert main(["simulate", *options]) == 0
    simulated = json.loads(capsys.readouterr().out)
    assert {name: simulated[name] for name in now if name != "gpus"} == {
        name: value for name, value in now.items() if name != "gpus"
    }


def paragraphs(page: str) -> list[str]:
    """The lines of a page, the folded ones whole again."""
    return re.sub(r"\n +", " ", page).splitlines()


@pytest.mark.parametrize("columns", [45, 80, 200])
def test_lines_are_no_wider_than_the_screen(
    columns: int, folder: Path, capsys: CAPTURE, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    (folder / "c.yaml").write_text(FILE)
    assert main(["advise", "--trace", "jobs.csv", "--cluster", "c.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= min(columns, 100)
    assert "Worth it: nothing can be said of so few jobs;" in " ".join(" ".join(lines).split())
    assert not any("not worth it" in line for line in lines)


def test_short_windows_of_a_long_queue_are_named(folder: Path, capsys: CAPTURE) -> None:
    rows = "".join(f"{100 * number},110,1\n" for number in range(1000))
    (folder / "long.csv").write_text(f"submit_time,run_time,gpus\n{rows}")
    assert main(["advise", "--trace", "long.csv", "--gpus", "1", "--windows", "4"]) == 0
    lines = paragraphs(capsys.readouterr().out)
    assert (
        lines[1]
        == "simulated on jobs 1 to 1,000 in 4 windows of 250 (offered load 1.1), each begun on an empty cluster"
    )
    assert lines[3].startswith("note: in one run over these jobs the mean JCT is 5,105 s: the windows show less")
    assert main(["advise", "--trace", "long.csv", "--gpus", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["windows"] == 1
    assert main(["advise", "--trace", "long.csv", "--gpus", "1", "--windows", "1"]) == 0
    lines = paragraphs(capsys.readouterr().out)
    assert lines[1] == "simulated on jobs 1 to 1,000 (offered load 1.1), in one run: the mean JCT alone has an interval"
    assert "mean JCT 5,105 s" in lines[2]
    assert lines[3] == ""


def test_one_job_and_prices_below_zero(folder: Path, capsys: CAPTURE) -> None:
    (folder / "one.csv").write_text("submit_time,run_time,gpus\n0,5000,1\n")
    (folder / "prices.csv").write_text(
        "time,price_usd_per_mwh\n2023-01-01 00:00,10\n2023-01-01 01:00,-20\n2023-01-01 02:00,-30\n"
    )
    (folder / "c.yaml").write_text(FILE.replace("electricity: 100", "electricity: prices.csv"))
    assert main(["advise", "--trace", "one.csv", "--cluster", "c.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "prices.csv: 1 hour of 2 below 0 (counted from 0: 1), down to -20" in err
    assert "all jobs come at once" in out.splitlines()[1]
    assert "inf" not in out


def test_some_of_the_jobs(folder: Path, capsys: CAPTURE) -> None:
    assert main(["advise", "--trace", "jobs.csv", "--gpus", "8", "--first", "11", "--jobs", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["simulated"] == "jobs 11 to 30"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--gpus 8 --first 61", "jobs: there is no job 61: 60 jobs can run on the cluster"),
        ("--gpus 8 --policy sfj", "no policy named 'sfj'; did you mean 'sjf'?"),
        ("--gpus 8 --policy greedy --blocking easy", "greedy has no blocking setting"),
        ("--gpus 8 --blocking esay", "--blocking: 'esay' is not one of head, skip, easy, conservative; did you mean"),
        ("--gpus 8 --set a=1", "--set is a setting of a policy: name it with --policy"),
        ("--gpus 8 --windows 2", "--windows: 60 jobs can be cut into 1 window of 250 or more, not 2"),
        ("--gpus 8 --jobs 0", "--jobs"),
        ("--gpus 8 --defer-hours 0", "--defer-hours"),
        ("--gpus 8 --preemption-cost nan", "'--preemption-cost': 'nan' is no number of seconds from 0"),
        ("--gpus 8 --policy srtf --requested absent", "srtf needs requested times"),
        ("--gpus 8 --requested noisy", "need a sigma"),
        ("--gpus 1 --strict", "ask for more than 1 GPU"),
        ("", "the cluster has no size"),
        ("--cluster none.yaml", "none.yaml"),
        ("--cluster prices.yaml", "the series covers 1 hour"),
    ],
)
def test_wrong_use(options: str, says: str, folder: Path, capsys: CAPTURE) -> None:
    (folder / "prices.csv").write_text("time,price_usd_per_mwh\n2023-01-01 00:00,10\n")
    (folder / "prices.yaml").write_text(FILE.replace("electricity: 100", "electricity: prices.csv"))
    assert main(["advise", "--trace", "jobs.csv", *options.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert len(err.splitlines()) <= 3
