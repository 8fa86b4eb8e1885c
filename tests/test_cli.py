"""The command line: what it prints, and that every mistake is at most three plain lines and exit code 2."""

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_rl import __version__
from lepton_rl.cli import main
from lepton_rl.core import ClusterSpec
from lepton_rl.core.metrics import DESCRIPTIONS, OF_FAULTS, PRICED
from lepton_rl.workloads import data_folder, gpu_cluster, read_trace, write_csv, write_swf


def run(line: str) -> int:
    """Run a command line without quotes in it."""
    return main(line.split())


CAPTURE = pytest.CaptureFixture[str]

# Two GPUs, three jobs, by hand: job 1 runs 0-100 on both; job 2 waits for it; job 3 runs beside job 2.
SWF = """\
; MaxProcs: 2
1 50 -1 100 2 -1 -1 2 -1 -1 1 1 1 -1 1 -1 -1 -1
2 60 -1 40 1 -1 -1 1 -1 -1 1 1 1 -1 1 -1 -1 -1
3 70 -1 10 1 -1 -1 1 -1 -1 1 1 1 -1 1 -1 -1 -1
4 80 -1 10 5 -1 -1 5 -1 -1 1 1 1 -1 1 -1 -1 -1
"""
KEYS = [
    "jobs", "dropped", "mean_jct", "mean_wait", "p50_jct", "p99_jct", "makespan", "mean_bounded_slowdown",
    "utilization", "preemptions", "throughput", "energy_kwh", "mean_power_w",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with some traces in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three.swf").write_text(SWF)
    write_csv(gpu_cluster(120, 8, 1.1, seed=1), tmp_path / "jobs.csv")
    (tmp_path / "empty.swf").touch()
    (tmp_path / "bad.csv").write_text("job_id,submit_time,run_time,gpus\n1,0,abc,1\n")
    (tmp_path / "a_folder").mkdir()
    return tmp_path


def test_simulate_by_hand(folder: Path, capsys: CAPTURE) -> None:
    assert run("simulate --trace three.swf --policy fcfs --json --jobs-out jobs-out.csv") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert list(found)[: len(KEYS)] == KEYS
    assert (found["jobs"], found["dropped"], found["preemptions"]) == (3, 1, 0)
    assert found["mean_jct"] == pytest.approx((100 + 130 + 90) / 3)
    assert found["mean_wait"] == pytest.approx((0 + 90 + 80) / 3)
    assert found["p50_jct"] == 100
    assert found["p99_jct"] == pytest.approx(100 + 0.98 * 30)
    assert found["makespan"] == 140
    assert found["mean_bounded_slowdown"] == pytest.approx((1 + 130 / 40 + 90 / 10) / 3)
    assert found["utilization"] == pytest.approx(250 / 280)
    assert found["throughput"] == pytest.approx(3 / 140 * 3600)
    assert found["energy_kwh"] == pytest.approx((50 * 2 * 140 + 350 * 250) / 3.6e6)
    assert found["mean_power_w"] == pytest.approx((50 * 2 * 140 + 350 * 250) / 140)
    assert "dropped 1" in err
    assert "job 4 asks for 5" in err
    assert "run times stand in their place" in err
    with (folder / "jobs-out.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == [
        "job_id", "submit_time", "start_time", "finish_time", "wait", "jct", "gpus", "preemptions", "nodes", "gpu_type",
    ]  # fmt: skip
    assert [float(rows[1][key]) for key in list(rows[1])[:-1]] == [2, 10, 100, 140, 90, 130, 1, 0, 0]
    assert rows[1]["gpu_type"] == ""


def test_simulate_prints_a_table(folder: Path, capsys: CAPTURE) -> None:
    assert run("simulate --trace jobs.csv --policy sjf --blocking easy --nodes 2 --gpus-per-node 4") == 0
    out = capsys.readouterr().out
    assert "120 jobs on 2 x 4 GPUs" in out
    names = [line.split()[0].rstrip(",") for line in out.splitlines()[2:]]
    assert names[:3] == ["blocking", "placement", "dropped"]
    assert sorted(names[3:]) == sorted(set(DESCRIPTIONS) - {*PRICED, *OF_FAULTS})
    assert re.search(r"^mean_jct, s +[\d,.]+$", out, re.MULTILINE)
    assert max(map(len, out.splitlines()[1:])) <= 80


def test_simulate_takes_a_policy_file_and_limits_and_seeds(folder: Path, capsys: CAPTURE) -> None:
    (folder / "mine.py").write_text(
        "from lepton_rl.core import Start\n"
        "class Mine:\n"
        "    def decide(self, snapshot):\n"
        "        return [Start(job) for job in list(snapshot.queue)[:1] if snapshot.free_gpus == 8]\n"
    )
    assert run("simulate --trace jobs.csv --policy mine.py:Mine --gpus 8 --limit 5 --json") == 0
    assert json.loads(capsys.readouterr().out)["jobs"] == 5
    outs = []
    for seed in (1, 1, 2):
        run(f"simulate --trace jobs.csv --policy random --gpus 8 --seed {seed} --json")
        outs.append(json.loads(capsys.readouterr().out)["mean_jct"])
    assert outs[0] == outs[1] != outs[2]


def test_options_that_a_policy_does_not_have_are_refused(folder: Path, capsys: CAPTURE) -> None:
    assert run("simulate --trace jobs.csv --policy greedy --blocking easy --gpus 8 --json") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: greedy has no blocking setting, so that blocking 'easy' cannot be used\n"


@pytest.mark.data
def test_philly_reference(capsys: CAPTURE) -> None:
    if data_folder() is None:
        pytest.skip("no folder of real traces: set LEPTON_RL_DATA, or put it at ../shared/data")
    references = {
        "head": (213047.7820, 179649.7578),
        "skip": (88986.8272, 55588.8030),
        "easy": (164546.2794, 131148.2552),
    }
    for blocking, figures in references.items():
        options = f"--policy fcfs --gpus 512 --limit 5000 --blocking {blocking} --json"
        assert run(f"simulate --trace data:philly/philly.csv.gz {options}") == 0
        found = json.loads(capsys.readouterr().out)
        assert (round(found["mean_jct"], 4), round(found["mean_wait"], 4)) == figures
        assert found["makespan"] == 5944538


def test_traces(folder: Path, capsys: CAPTURE) -> None:
    assert run("traces generate lublin --jobs 50 --gpus 64 --seed 3 --out made.swf.gz") == 0
    with gzip.open(folder / "made.swf.gz", "rt") as file:
        assert "; MaxProcs: 64" in file.read()
    assert run("traces generate gpu --jobs 50 --gpus 64 --load 0.7 --out made.csv") == 0
    assert len(read_trace("made.csv")) == 50
    capsys.readouterr()
    assert run("traces describe made.csv --gpus 32,64 --json --plot made.png") == 0
    assert set(json.loads(capsys.readouterr().out)["offered_load"]) == {"32", "64"}
    assert (folder / "made.png").read_bytes().startswith(b"\x89PNG")
    assert run("traces describe made.swf.gz") == 0
    assert "offered load, 64 GPUs" in capsys.readouterr().out
    assert run("traces describe made.csv --gpus 1") == 0
    assert "offered load, 1 GPU " in capsys.readouterr().out
    assert run("traces template") == 0
    (folder / "template.csv").write_text(capsys.readouterr().out)
    assert run("simulate --trace template.csv --policy fcfs --gpus 64 --json") == 0
    capsys.readouterr()
    assert run("traces describe template.csv --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["dependencies"], found["waiting_jobs"], found["longest_chain"]) == (1, 1, 2)
    assert found["critical_path"] == 3600 + 86400


def test_policies(capsys: CAPTURE) -> None:
    assert run("policies") == 0
    out = capsys.readouterr().out
    names = {line.split()[0] for line in out.splitlines() if line}
    assert {"fcfs", "genetic", "greedy", "heap_priority", "reserve"} <= names
    assert "none" not in out
    words = " ".join(out.split())
    assert "All but greedy, least_loaded, energy, cheapest, greenest, " in words
    assert " weighted_placement also take placement=first|best|worst|consolidated;" in words
    assert run("policies --json") == 0
    assert json.loads(capsys.readouterr().out)["policies"][0]["settings"]


def test_configs(folder: Path, capsys: CAPTURE) -> None:
    assert run("configs list") == 0
    lines = capsys.readouterr().out.splitlines()
    names = {line.split()[0] for line in lines}
    assert {"benchmark/quickstart.yaml", "benchmark/rlscheduler_lublin1.yaml", "train/lublin.yaml"} <= names
    assert all(len(line.split()) > 3 for line in lines), "each file says in its first line what it is"
    assert run("configs copy benchmark/quickstart.yaml mine") == 0
    assert (folder / "mine" / "quickstart.yaml").is_file()
    assert run("configs copy benchmark/quickstart mine --overwrite") == 0
    assert run("configs copy benchmark/quickstart mine/of/bench.yaml") == 0
    assert (folder / "mine/of/bench.yaml").read_text() == (folder / "mine/quickstart.yaml").read_text()
    assert run("configs copy benchmark/quickstart mine/of/bench.yaml") == 2


def test_settings_of_a_policy_on_the_command_line(folder: Path, capsys: CAPTURE) -> None:
    (folder / "mine.py").write_text(
        "from lepton_rl.core import Start\n"
        "class Mine:\n"
        "    def __init__(self, most=1): self.most = most\n"
        "    def decide(self, snapshot):\n"
        "        return [Start(int(job)) for job in snapshot.queue.id[: self.most - len(snapshot.running)]]\n"
    )
    (folder / "pair.csv").write_text("submit_time,run_time,gpus,gpu_memory_gib\n0,9,1,1\n0,10,1,5\n0,10,1,9\n")
    spans = []
    for settings in ("--policy mine.py:Mine", "--policy mine.py:Mine --set most=3"):
        assert run(f"simulate --trace pair.csv --gpus 3 --json {settings}") == 0
        spans.append(json.loads(capsys.readouterr().out)["makespan"])
    assert spans == [29, 10]
    options = "--policy power --set a=0 --set b=1 --set blocking=skip"
    assert run(f"simulate --trace pair.csv --gpus 1 --json {options}") == 0
    assert json.loads(capsys.readouterr().out)["mean_wait"] == pytest.approx((0 + 9 + 19) / 3)
    options = "--policy heap_priority --set compute_weight=0 --set time_weight=0 --set memory_weight=1e0"
    assert run(f"simulate --trace pair.csv --gpus 1 --json {options}") == 0
    assert json.loads(capsys.readouterr().out)["mean_wait"] == pytest.approx((0 + 10 + 20) / 3)


def test_every_shipped_benchmark_is_a_valid_experiment() -> None:
    from lepton_rl.experiments.benchmark_config import PROTOCOLS, BenchmarkConfig
    from lepton_rl.experiments.loader import load

    files = sorted((Path(__file__).parents[1] / "configs" / "benchmark").glob("*.yaml"))
    assert len(files) >= 7
    for file in files:
        protocol = re.search(r"^protocol: (\w+)$", file.read_text(), re.MULTILINE)
        load(file, PROTOCOLS[protocol[1]] if protocol else BenchmarkConfig)


BENCHMARK = """\
name: small
workloads:
  - generator: gpu_cluster
    gpus: 8
    load: 1.2
    cluster: {gpus: 8}
    windows: {kind: independent, count: 4, jobs: 20}
policies: [fcfs, sjf]
processes: 1
"""


def test_benchmark(folder: Path, capsys: CAPTURE) -> None:
    (folder / "small.yaml").write_text(BENCHMARK)
    assert run("benchmark small.yaml policies.+=saf --json --out run --seed 3") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert list(found) == ["rows"]
    assert {row["policy"] for row in found["rows"]} == {"fcfs", "sjf", "saf"}
    assert "run: run" in err
    assert run("benchmark small.yaml policies.+=saf --out run --seed 3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["run: run", "report: run/report.html"]
    page = (folder / "run" / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("data:image") == 8


def test_evaluate_beside_heuristics(folder: Path, capsys: CAPTURE) -> None:
    pytest.importorskip("sb3_contrib")
    from tests.agents.test_bundle import bundle_of, shaken_model

    bundle_of(shaken_model("maskable_ppo", "deepsets", read_trace("jobs.csv")), "deepsets", folder / "bundle")
    assert run("evaluate bundle --trace jobs.csv --gpus 8 --against sjf --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["against"]) == ["sjf"]
    assert run("evaluate bundle --trace jobs.csv --gpus 8") == 0
    assert "saf" in capsys.readouterr().out


def save_untrained(
    path: Path, trained: ClusterSpec, experiment: dict[str, float] | None = None, **codec_of: Any
) -> None:
    """Write a bundle whose weights are all 0."""
    from lepton_rl.agents.bundle import LearnedPolicy, save_bundle
    from lepton_rl.agents.network import expected_shapes
    from lepton_rl.envs import Codec

    codec = Codec(window=4, **codec_of)
    shapes = expected_shapes("deepsets", {"job.bias": np.zeros(2, np.float32)}, codec, trained)
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    about = {} if experiment is None else {"experiment": experiment}
    save_bundle(path, LearnedPolicy(codec, "deepsets", weights, trained), about)


def test_a_cluster_file_adds_prices_to_a_bundle_that_has_none(folder: Path, capsys: CAPTURE) -> None:
    """200 USD/MWh and the kWh that are told of the same run: with prices, and of every policy."""
    from lepton_rl.core.cluster import NodeGroup, Tariffs
    from lepton_rl.core.hardware import HourlySeries, gpu_type

    priced = Tariffs(electricity=HourlySeries.of(np.full(99, 200.0), "flat"))
    save_untrained(folder / "bundle", ClusterSpec.of_groups((NodeGroup(2, 4, gpu_type("T4")),), tariffs=priced))
    (folder / "c.yaml").write_text("groups:\n  - {nodes: 2, gpus_per_node: 4, gpu: T4}\nelectricity: 200\n")
    (folder / "small.csv").write_text("submit_time,run_time,gpus\n0,3600,8\n1,3600,8\n")
    assert run("evaluate bundle --trace small.csv --against fcfs --json") == 0
    out, err = capsys.readouterr()
    own = json.loads(out)
    assert "electricity_usd" not in own
    assert "the bundle was trained, without prices" in err
    assert run("evaluate bundle --trace small.csv --against fcfs --json --cluster c.yaml") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "without prices" not in err
    assert found["energy_kwh"] == own["energy_kwh"]
    for figures in (found, found["against"]["fcfs"]):
        assert figures["electricity_usd"] == pytest.approx(figures["energy_kwh"] / 1000 * 200)
    (folder / "c.yaml").write_text("groups:\n  - {nodes: 2, gpus_per_node: 4, gpu: T4}\nelectricity: no.csv\n")
    assert run("evaluate bundle --trace small.csv --cluster c.yaml") == 2
    assert capsys.readouterr().err.startswith("error: c.yaml:3: electricity: ")


def test_a_bundle_that_stops_jobs_pays_what_it_paid_in_training(folder: Path, capsys: CAPTURE) -> None:
    from lepton_rl.core.cluster import NodeGroup
    from lepton_rl.core.hardware import gpu_type

    two = ClusterSpec.of_groups((NodeGroup(1, 1, gpu_type("V100")), NodeGroup(1, 1, gpu_type("A100-SXM4-80GB"))))
    costs = {"preemption_cost": 60.0, "migration_cost": 30.0, "quantum": 50.0}
    save_untrained(folder / "bundle", two, costs, actions="preemptive", running=2)
    (folder / "few.csv").write_text("submit_time,run_time,gpus\n0,500,1\n0,500,1\n100,500,1\n200,500,1\n")

    def finished(command: str) -> tuple[float, str]:
        assert run(f"{command} --trace few.csv --json") == 0
        out, err = capsys.readouterr()
        return float(json.loads(out)["mean_jct"]), err

    own, said = finished("evaluate bundle --against srtf")
    assert "a preemption costs 60 s, a migration 30 s, and no run is stopped before it is 50 s old, as in" in said
    free, said = finished("evaluate bundle --against srtf --preemption-cost 0 --migration-cost 0 --quantum 0")
    assert (
        "a preemption costs 0 s, a migration 0 s, and no run is stopped before it is 0 s old, which is not so" in said
    )
    assert own != free
    (folder / "two.yaml").write_text(
        "groups:\n  - {nodes: 1, gpus_per_node: 1, gpu: V100}\n  - {nodes: 1, gpus_per_node: 1, gpu: A100-SXM4-80GB}\n"
    )
    assert finished("simulate --policy ./bundle --cluster two.yaml")[0] == own
    assert run("evaluate bundle --trace few.csv --nodes 1 --gpus-per-node 4") == 2
    assert "its actions are about groups of nodes or power limits, and 4 GPUs has neither" in capsys.readouterr().err


def test_evaluate_runs_on_the_cluster_that_the_bundle_was_trained_for(folder: Path, capsys: CAPTURE) -> None:
    save_untrained(folder / "bundle", ClusterSpec(2, 4, 40.0, 30.0, 300.0))
    (folder / "small.csv").write_text("submit_time,run_time,gpus\n0,3600,8\n1,3600,8\n")
    power = {}
    for size in ("", "--gpus 8", "--nodes 1 --gpus-per-node 9"):
        assert run(f"evaluate bundle --trace small.csv --against fcfs --json {size}") == 0
        out, err = capsys.readouterr()
        found = json.loads(out)
        power[size] = found["mean_power_w"]
        assert ("cluster: 2 x 4 GPUs, for which the bundle was trained" in err) == (size == "")
        shape = {"": [2, 4], "--gpus 8": [1, 8]}.get(size, [1, 9])
        assert list(found["cluster"].values())[:2] == shape
        assert found["against"]["fcfs"]["cluster"] == found["cluster"]
    assert power[""] == pytest.approx(8 * 300.0)
    assert power["--gpus 8"] == pytest.approx(8 * 300.0)  # another size of the same GPUs
    assert power["--nodes 1 --gpus-per-node 9"] == pytest.approx(8 * 300.0 + 30.0)


@pytest.mark.parametrize("command", ["", "simulate", "train", "benchmark", "evaluate", "pareto", "policies", "traces",
                                     "traces describe", "traces template", "traces generate", "configs",
                                     "configs list", "configs copy", "cluster",
                                     "cluster describe", "gpus", "deploy", "node", "node submit",
                                     "node restore"])  # fmt: skip
def test_help_has_an_example(command: str, capsys: CAPTURE) -> None:
    assert main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    examples = [line.strip() for line in out.splitlines() if "Example: " in line]
    assert any(line.startswith(f"Example: lepton-rl {command}".strip()) for line in examples)
    source = "".join(path.read_text() for path in (Path(__file__).parents[1] / "lepton_rl" / "cli").glob("*.py"))
    assert all(f"{line}\n" in source or f'"{line}"' in source for line in examples), "an example is one line, to paste"
    assert "╭" not in out


def test_version(capsys: CAPTURE) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"lepton-rl {__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'numba', 'torch', 'pydantic', 'gymnasium', 'matplotlib'}"
    code = f"import sys; from lepton_rl.cli import main; main(['--help']); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


MISTAKES = [
    "simulat",
    "--nonsense",
    "simulate",
    "simulate --trace three.swf",
    "simulate --trace none.swf --policy fcfs",
    "simulate --trace a_folder --policy fcfs",
    "simulate --trace empty.swf --policy fcfs",
    "simulate --trace bad.csv --policy fcfs --gpus 4",
    "simulate --trace data:nowhere/none.swf --policy fcfs",
    "simulate --trace three.swf --policy fcsf",
    "simulate --trace three.swf --policy none.py:Mine",
    "simulate --trace three.swf --policy a_folder",
    "simulate --trace three.swf --policy ./nothing",
    "simulate --trace three.swf --policy fcfs --blocking esay",
    "simulate --trace three.swf --policy fcfs --placement frist",
    "simulate --trace three.swf --policy srtf --blocking easy",
    "simulate --trace three.swf --policy reserve --blocking easy",
    "simulate --trace three.swf --policy fcfs --gpus 0",
    "simulate --trace three.swf --policy fcfs --gpus -4",
    "simulate --trace three.swf --policy fcfs --gpus nan",
    "simulate --trace three.swf --policy fcfs --gpus 1e9",
    "simulate --trace three.swf --policy fcfs --gpus 99999999999999999999",
    "simulate --trace three.swf --policy fcfs --gpus 4 --nodes 2 --gpus-per-node 2",
    "simulate --trace three.swf --policy fcfs --nodes 2",
    "simulate --trace three.swf --policy fcfs --nodes 1000000 --gpus-per-node 1000000",
    "simulate --trace jobs.csv --policy fcfs",
    "simulate --trace three.swf --policy fcfs --limit 0",
    "simulate --trace three.swf --policy srtf --preemption-cost 1e308",
    "simulate --trace three.swf --policy=",
    "simulate --trace= --policy fcfs",
    "traces describe three.swf --plot a_folder",
    "train small.yaml agent.width=1000000",
    "benchmark small.yaml policies.0={name:sjf,settings:3}",
    "benchmark small.yaml policies.0.label=[x]",
    "benchmark small.yaml policies.0=",
    "benchmark small.yaml policies.0=''",
    "benchmark small.yaml preemption_cost=1e300",
    "benchmark small.yaml name=../x",
    "benchmark small.yaml name=..",
    "benchmark small.yaml workloads.0.parameters={compute_intensity:[1]}",
    "simulate --trace three.swf --policy fcfs --set",
    "simulate --trace three.swf --policy fcfs --set blocking",
    "simulate --trace three.swf --policy fcfs --set =easy",
    "simulate --trace three.swf --policy fcfs --set blocking=",
    "simulate --trace three.swf --policy fcfs --set blocking=[",
    "simulate --trace three.swf --policy fcfs --set name=sjf",
    "simulate --trace three.swf --policy fcfs --set score=sjf",
    "simulate --trace three.swf --policy fcfs --set blocking=easy --set blocking=skip",
    "simulate --trace three.swf --policy fcfs --strict",
    "simulate --trace three.swf --policy fcfs --format swg",
    "simulate --trace three.swf --policy fcfs --format csv",
    "simulate --trace three.swf --policy fcfs --requested noisy",
    "simulate --trace three.swf --policy fcfs --requested noisy:x",
    "simulate --trace three.swf --policy sjf --requested absent",
    "simulate --trace three.swf --policy fcfs --seed -1",
    "simulate --trace three.swf --policy srtf --preemption-cost nan",
    "simulate --trace three.swf --policy srtf --quantum -1",
    "simulate --trace three.swf --policy srtf --quantum inf",
    "simulate --trace three.swf --policy fcfs --jobs-out none/out.csv",
    "simulate --trace three.swf --policy fcfs --jobs-out a_folder",
    "evaluate nothing --trace three.swf",
    "evaluate a_folder --trace three.swf",
    "evaluate a_folder",
    "train none.yaml",
    "train empty.swf",
    "benchmark none.yaml",
    "benchmark a_folder",
    "benchmark empty.swf",
    "benchmark three.swf",
    "benchmark small.yaml policies",
    "benchmark small.yaml policies.9=sjf",
    "benchmark small.yaml policys=[sjf]",
    "benchmark small.yaml policies=[]",
    "benchmark small.yaml workloads.0.windows.count=-3",
    "benchmark small.yaml workloads.0.load=.inf",
    "benchmark small.yaml workloads.0.cluster.gpus=2",
    "benchmark small.yaml --out three.swf",
    "benchmark small.yaml --out three.swf/run",
    "traces describe none.swf",
    "traces describe three.swf --gpus 4,x",
    "traces describe three.swf --gpus 0",
    "traces describe three.swf --plot none/plot.png",
    "traces describe three.swf --plot plot.xyz",
    "traces generate weibull --out x.csv",
    "traces generate gpu --out x.parq",
    "traces generate gpu --out none/x.csv",
    "traces generate gpu --jobs 0 --out x.csv",
    "traces generate gpu --load nan --out x.csv",
    "traces generate gpu --load -1 --out x.csv",
    "traces generate lublin --requested often --out x.csv",
    "traces nothing",
    "configs copy nothing",
    "configs copy benchmark/quickstart.yaml three.swf",
    "configs copy quickstart",
]


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_three_plain_lines_at_most(line: str, folder: Path, capsys: CAPTURE) -> None:
    (folder / "small.yaml").write_text(BENCHMARK)
    assert run(line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    complaint = err[err.index("error: ") :]
    assert 1 <= len(complaint.splitlines()) <= 3
    assert "Traceback" not in err
    assert "╭" not in err
    assert len(err) < 1500


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("simulate --trace three.swf --polcy fcfs", "there is no option --polcy; did you mean '--policy'?"),
        ("simulate --trace three.swf --policy fcfs --gpus 1.5", "--gpus: must be a whole number, not '1.5'"),
        ("simulate --trace three.swf --policy fcfs --gpus 0", "--gpus: must be greater than or equal to 1, not '0'"),
        ("traces generate weibull --out x.csv", "MODEL: 'weibull' is not one of 'lublin', 'gpu'"),
        (
            "simulate --trace jobs.csv --policy fcfs",
            "the cluster has no size: jobs.csv has no header that names one (MaxNodes or MaxProcs); give --gpus, or "
            "--nodes and --gpus-per-node",
        ),
        (
            "simulate --trace zz.swf --policy fcfs",
            "the cluster has no size: zz.swf has a header with 'MaxProcs: zz', which is no number above 0; give --gpus",
        ),
        (
            "simulate --trace three.swf --policy fcfs --gpus 1 --strict",
            "three: 2 of 4 jobs ask for more than 1 GPU (job 1 asks for 2); the largest needs 5",
        ),
        ("simulate --trace three.swf --bogus 1", "there is no option --bogus\nsee:"),
        ("simulate --trace three.swf --gpu 1", "there is no option --gpu; did you mean '--gpus'?"),
        ("configs copy nope.yaml", "no file is called 'nope.yaml'; see: lepton-rl configs list"),
        ("configs copy train/quikstart.yaml", "no file is called 'train/quikstart.yaml'; did you mean 'train/quick"),
        ("configs copy philli", "no file is called 'philli'; did you mean 'philly'?"),
        ("train quickstart.yaml foo", "'foo' is no override; write key.path=value, e.g. seed=1"),
        ("benchmark small.yaml foo", "'foo' is no override; write key.path=value, e.g. workloads.0.windows.count=50"),
        (
            "benchmark small.yaml policies=[fcfs,fcfs]",
            "override 'policies=[fcfs,fcfs]': policies.1: two policies are called 'fcfs'; give one of them",
        ),
        (
            "benchmark small.yaml policies.+=fcfs",
            "override 'policies.+=fcfs': policies.2: two policies are called 'fcfs'; give one of them another label",
        ),
        (
            "benchmark small.yaml policies.0=sjf",
            "override 'policies.0=sjf': policies.0: two policies are called 'sjf'; give one of them another label",
        ),
        ("traces generate", "Missing argument 'model'. Choose from: lublin, gpu"),
        ("train small.yaml", "small.yaml:2: workloads: this is a file for another command; use: lepton-rl benchmark"),
    ],
)
def test_usage_errors_say_what_is_right(line: str, sentence: str, folder: Path, capsys: CAPTURE) -> None:
    (folder / "small.yaml").write_text(BENCHMARK)
    (folder / "zz.swf").write_text(SWF.replace("MaxProcs: 2", "MaxProcs: zz"))
    run("configs copy train/quickstart.yaml")
    capsys.readouterr()
    assert run(line) == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}")


def test_a_copy_does_not_overwrite(folder: Path, capsys: CAPTURE) -> None:
    assert run("configs copy benchmark/philly.yaml") == 0
    assert run("configs copy benchmark/philly.yaml") == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m lepton_rl.cli policies | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("fcfs")
    assert done.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_ctrl_c_is_one_line_and_130(folder: Path) -> None:
    slow = BENCHMARK.replace("count: 4, jobs: 20", "count: 5000, jobs: 300")
    (folder / "slow.yaml").write_text(slow)
    command = [sys.executable, "-m", "lepton_rl.cli", "benchmark", "slow.yaml", "processes=2", "--out", "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rows = folder / "run" / "rows.jsonl"
    for _ in range(1200):
        if rows.is_file() and rows.stat().st_size > 0:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("\ninterrupted; finished rows are kept, --out run goes on from here\n")
    assert err.count("interrupted") == err.count("finished rows") == 1
    assert out == ""
    assert rows.read_text().count("\n") > 0


def test_gpu_shares_are_refused_by_swf_in_a_sentence(folder: Path, capsys: CAPTURE) -> None:
    (folder / "shares.csv").write_text("job_id,submit_time,run_time,gpus\n1,0,10,0.5\n2,1,10,1\n")
    assert run("simulate --trace shares.csv --policy fcfs --gpus 1 --json") == 0
    assert json.loads(capsys.readouterr().out)["makespan"] == 20
    write_swf(gpu_cluster(5, 4, 0.5, seed=0), folder / "five.swf")
    assert run("simulate --trace five.swf --policy fcfs --nodes 1 --gpus-per-node 4 --json") == 0
