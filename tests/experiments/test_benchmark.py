"""A whole benchmark: the same numbers from any number of processes, resumable, refused where it would mix."""

import csv
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_rl.agents import make_policy, run_policy
from lepton_rl.cli import main
from lepton_rl.core.metrics import OF_FAULTS, PRICED
from lepton_rl.errors import BundleError, ConfigError, LeptonError
from lepton_rl.experiments.benchmark import BenchmarkResult, benchmark
from lepton_rl.experiments.benchmark_config import BenchmarkConfig
from lepton_rl.experiments.loader import load
from lepton_rl.experiments.policy_config import PolicyConfig
from lepton_rl.experiments.runner import Measurement, Task
from lepton_rl.experiments.summary import METRICS, OPTIMUM_GAP
from lepton_rl.experiments.windows import WindowBench, counted_metrics, make_windows

Write = Callable[..., Path]


def cell(result: BenchmarkResult, policy: str, metric: str, **rules: str | None) -> dict[str, Any]:
    wanted = {"policy": policy, "metric": metric, **rules}
    found = [row for row in result.rows if wanted.items() <= row.items()]
    assert len(found) == 1
    return found[0]


def test_rows_are_what_the_policies_do(benchmark_file: Write, tmp_path: Path) -> None:
    file = benchmark_file()
    result = benchmark(file, out=tmp_path / "run")
    config = load(file, BenchmarkConfig)
    windows = make_windows(config.workloads[0], [0])
    jct = [
        run_policy(make_policy("sjf", blocking="easy"), trace, windows.cluster).jct[5:25].mean()
        for trace in windows.traces[0]
    ]
    row = cell(result, "sjf", "mean_jct", blocking="easy")
    assert row["mean"] == pytest.approx(sum(jct) / 6, rel=1e-12)
    assert list(row) == [
        "policy", "rule", "blocking", "placement", "workload", "metric", "mean", "low", "high", "n", "dropped",
    ]  # fmt: skip
    assert row["dropped"] == 0
    assert (row["rule"], row["placement"], row["workload"], row["n"]) == ("repick", "first", "gpu_cluster_8", 6)
    assert row["low"] <= row["mean"] <= row["high"]
    assert len(result.rows) == 4 * len(set(METRICS) - {OPTIMUM_GAP, *PRICED, *OF_FAULTS})


@pytest.fixture
def with_giants(benchmark_file: Write, tmp_path: Path) -> Path:
    """A benchmark on a file in which two jobs are larger than the cluster, and one never ran."""
    jobs = [f"{10 * index},{5 if index else 0},{99 if index in (3, 7) else 1}" for index in range(133)]
    (tmp_path / "jobs.csv").write_text("\n".join(["submit_time,run_time,gpus", *jobs]))
    return benchmark_file(
        ("generator: gpu_cluster\n    gpus: 8\n    load: 1.2", "path: jobs.csv"), ("independent", "disjoint")
    )


def test_jobs_larger_than_the_cluster_are_counted(with_giants: Path, tmp_path: Path) -> None:
    result = benchmark(with_giants, out=tmp_path / "run")
    assert {row["dropped"] for row in result.rows} == {2}
    found = json.loads((result.folder / "benchmark.json").read_text())
    assert found["rows"] == result.rows
    assert found["workloads"][0]["left_out"] == [
        {"reason": "run time 0", "count": 1, "examples": ["line 2"]},
        {"reason": "asks for more than 8 GPUs", "count": 2, "examples": ["job 4 asks for 99", "job 8 asks for 99"]},
    ]


def test_unless_they_are_refused(with_giants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protocol = tmp_path / "protocol.yaml"
    protocol.write_text(
        "name: p\nprotocol: rlscheduler\nworkload: {path: jobs.csv}\ncluster: {gpus: 8}\nwindow: 20\niterations: 2\n"
    )
    for file in (with_giants, protocol):
        assert main(["benchmark", str(file), "--strict", "--out", str(tmp_path / "run")]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "error: jobs: 2 of 132 jobs ask for more than 8 GPUs (job 4 asks for 99)" in err
        assert not (tmp_path / "run").exists()


def test_a_bundle_that_cannot_read_a_cluster_is_named_before_anything_runs(
    benchmark_file: Write, tmp_path: Path
) -> None:
    pytest.importorskip("sb3_contrib")
    from lepton_rl.workloads import gpu_cluster
    from tests.agents.test_bundle import bundle_of, shaken_model

    model = shaken_model("maskable_ppo", "mlp", gpu_cluster(200, 8, 1.0, seed=1))
    bundle_of(model, "mlp", tmp_path / "runs" / "week" / "bundle")
    (tmp_path / "mine.py").write_text("class Mine:\n    def decide(self, snapshot):\n        1 / 0\n")
    file = benchmark_file(
        ("[fcfs,", "['mine.py:Mine', runs/week, fcfs,"), ("{nodes: 2, gpus_per_node: 4}", "{gpus: 8}")
    )
    with pytest.raises(BundleError, match=r"^week: this mlp bundle was trained on .* and cannot read"):
        benchmark(file, out=tmp_path / "run")


def test_rows_name_policies_barely_and_labels_tell_twins_apart(benchmark_file: Write, tmp_path: Path) -> None:
    policies = (
        "[reserve_slowdown, {name: saf, placement: best}, {name: power, a: 1}, {name: power, a: 2, label: steep}, "
        "{name: sjf, blocking: easy}]"
    )
    file = benchmark_file(("[fcfs, sjf, {name: sjf, blocking: easy}, random]", policies))
    result = benchmark(file, out=tmp_path / "run")
    who = list(dict.fromkeys((row["policy"], row["blocking"], row["placement"]) for row in result.rows))
    assert who == [
        ("reserve_slowdown", "skip", "first"),
        ("saf", "head", "best"),
        ("power", "head", "first"),
        ("steep", "head", "first"),
        ("sjf", "easy", "first"),
    ]
    text = (result.folder / "benchmark.md").read_text()
    assert "| saf best |" in text
    assert "| sjf easy |" in text
    assert benchmark(result.folder / "benchmark.yaml", out=tmp_path / "again").rows == result.rows


def test_a_table_of_deadlines_where_a_policy_misses_one(benchmark_file: Write, tmp_path: Path) -> None:
    jobs = [f"{10 * index},100,4,{150 + 40 * (index % 3)}" for index in range(133)]
    (tmp_path / "jobs.csv").write_text("\n".join(["submit_time,run_time,gpus,deadline", *jobs]))
    named = ("generator: gpu_cluster\n    gpus: 8\n    load: 1.2", "path: jobs.csv")
    result = benchmark(benchmark_file(named, ("independent", "disjoint")), out=tmp_path / "run")
    table = (result.folder / "benchmark.md").read_text().partition("Deadlines")[2]
    met = cell(result, "sjf", "deadlines_met", blocking="easy")
    assert f"| sjf easy | {met['mean']:.4g} [{met['low']:.4g}, {met['high']:.4g}] |" in table
    assert benchmark(benchmark_file(), out=tmp_path / "without").folder.is_dir()
    assert "Deadlines" not in (tmp_path / "without" / "benchmark.md").read_text()


def test_deadlines_are_drawn_for_each_window(benchmark_file: Write, tmp_path: Path) -> None:
    drawn = ("load: 1.2", "load: 1.2\n    deadlines: {factors: [1.5, 2], least_slack: 30}")
    config = load(benchmark_file(drawn), BenchmarkConfig)
    windows = make_windows(config.workloads[0], [3])
    factors = [tuple((trace.deadline / trace.run_time).tolist()) for trace in windows.traces[3]]
    assert len(set(factors)) == len(factors)
    assert [note for note in windows.notes if note.startswith("deadlines: drawn, 1.5 to 2 times")]
    run = run_policy(make_policy("sjf"), windows.traces[3][0], windows.cluster)
    part = counted_metrics(run, windows.counted)
    late = (run.jct - windows.traces[3][0].deadline)[windows.counted]
    assert part["deadlines_met"] == pytest.approx((late <= 0.0).mean())
    assert part["mean_tardiness"] == pytest.approx(np.maximum(late, 0.0).mean())


def test_the_run_folder(benchmark_file: Write, tmp_path: Path) -> None:
    result = benchmark(benchmark_file(), out=tmp_path / "run")
    folder = result.folder
    assert json.loads((folder / "benchmark.json").read_text())["rows"] == result.rows
    with (folder / "benchmark.csv").open() as lines:
        table = list(csv.DictReader(lines))
    assert [float(row["mean"]) for row in table] == [row["mean"] for row in result.rows]
    text = (folder / "benchmark.md").read_text()
    assert "strongest heuristic" in text
    assert "won–lost–tied" in text
    assert len((folder / "rows.jsonl").read_text().splitlines()) == 24
    assert json.loads((folder / "benchmark_run.json").read_text())["lepton_rl"]
    again = benchmark(folder / "benchmark.yaml", out=tmp_path / "again")
    assert again.rows == result.rows


def test_two_processes_give_the_same_rows(benchmark_file: Write, tmp_path: Path) -> None:
    one = benchmark(benchmark_file(), out=tmp_path / "one")
    two = benchmark(benchmark_file(("processes: 1", "processes: 2")), out=tmp_path / "two")
    assert two.rows == one.rows


def test_an_interrupted_run_goes_on_and_computes_nothing_twice(
    benchmark_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = benchmark_file()
    whole = benchmark(file, out=tmp_path / "whole")
    lines = (tmp_path / "whole" / "rows.jsonl").read_text().splitlines(keepends=True)
    folder = tmp_path / "part"
    benchmark(file, out=folder)
    (folder / "rows.jsonl").write_text("".join(lines[:10]) + lines[10][:50])
    measured: list[Task] = []
    original = WindowBench.measure

    def counting(bench: WindowBench, task: Task) -> Measurement:
        measured.append(task)
        return original(bench, task)

    monkeypatch.setattr(WindowBench, "measure", counting)
    resumed = benchmark(file, out=folder)
    assert len(measured) == 14
    assert resumed.rows == whole.rows
    assert sorted(_untimed(folder)) == sorted(_untimed(tmp_path / "whole"))


@pytest.mark.parametrize("foreign", ['{"workload": "later"}', "[1]", "", "\xff", '{"cut sh'])
def test_rows_that_are_not_understood_are_refused_and_kept(foreign: str, benchmark_file: Write, tmp_path: Path) -> None:
    file = benchmark_file(("count: 6", "count: 2"))
    rows = benchmark(file, out=tmp_path / "run").folder / "rows.jsonl"
    first, *others = rows.read_bytes().splitlines(keepends=True)
    rows.write_bytes(first + foreign.encode("latin-1") + b"\n" + b"".join(others))
    before = rows.read_bytes()
    with pytest.raises(ConfigError, match=r"rows\.jsonl: line 2 is no row .* choose another --out"):
        benchmark(file, out=tmp_path / "run")
    assert rows.read_bytes() == before


def _untimed(folder: Path) -> list[str]:
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [json.dumps({key: value for key, value in row.items() if key != "seconds"}) for row in rows]


def test_another_experiment_in_the_same_folder_is_refused(benchmark_file: Write, tmp_path: Path) -> None:
    file = benchmark_file()
    benchmark(file, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="holds another experiment"):
        benchmark(file, ["workloads.0.load=1.1"], out=tmp_path / "run")
    benchmark(file, ["processes=1"], out=tmp_path / "run")  # how it is computed is not what it is
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        benchmark(file, out=tmp_path / "other")
    with pytest.raises(ConfigError, match="is a file"):
        benchmark(file, out=file)


def test_a_benchmark_killed_as_it_began_locks_no_folder(benchmark_file: Write, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    whole = benchmark(benchmark_file(), out=tmp_path / "whole")
    folder.mkdir()
    (folder / "benchmark_run.json").write_text('{"files": {}, "lepton_rl": "0.1.0"}')
    (folder / ".benchmark.yaml.tmp").write_text("na")
    assert benchmark(benchmark_file(), out=folder).rows == whole.rows
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("damaged", ["{", "[]", "", '{"files": null}', "\xff"])
def test_a_damaged_record_is_refused_in_one_sentence(damaged: str, benchmark_file: Write, tmp_path: Path) -> None:
    file = benchmark_file(("count: 6", "count: 1"))
    folder = benchmark(file, out=tmp_path / "run").folder
    (folder / "benchmark_run.json").write_bytes(damaged.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"benchmark_run\.json is damaged"):
        benchmark(file, out=folder)


def test_a_changed_policy_file_is_refused(benchmark_file: Write, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(POLICY)
    file = benchmark_file(("policies: [fcfs,", "policies: ['mine.py:Mine', fcfs,"))
    result = benchmark(file, out=tmp_path / "run")
    assert cell(result, "Mine", "mean_jct")["mean"] == pytest.approx(cell(result, "fcfs", "mean_jct")["mean"])
    mine.write_text(POLICY + "# changed\n")
    with pytest.raises(ConfigError, match=r"mine\.py has changed"):
        benchmark(file, out=tmp_path / "run")


POLICY = """\
from lepton_rl.core import Start


class Mine:
    def decide(self, snapshot):
        actions, free = [], snapshot.free_gpus
        for job, gpus in zip(snapshot.queue, snapshot.queue.gpus):
            if gpus > free:
                break
            actions.append(Start(job))
            free -= gpus
        return actions
"""


def test_seeds_multiply_independent_windows_and_average_disjoint_ones(benchmark_file: Write, tmp_path: Path) -> None:
    several = ("name: small\n", "name: small\nseeds: [0, 1]\n")
    result = benchmark(benchmark_file(several), out=tmp_path / "a")
    assert cell(result, "sjf", "mean_jct", blocking="head")["n"] == 12
    from lepton_rl.workloads import gpu_cluster, write_csv

    write_csv(gpu_cluster(130, 8, 1.2, seed=1), tmp_path / "jobs.csv")
    file = benchmark_file(
        several,
        ("generator: gpu_cluster\n    gpus: 8\n    load: 1.2", "path: jobs.csv"),
        ("independent", "disjoint"),
    )
    result = benchmark(file, out=tmp_path / "b")
    assert cell(result, "random", "mean_jct")["n"] == 6


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[fcfs,", "[fcfs, fcfs,", "small.yaml:8: policies.1: two policies are called 'fcfs'; give one of them"),
        ("[fcfs,", "[fcfs, {name: fcfs, blocking: head},", "small.yaml:8: policies.1: 'fcfs' and 'fcfs head' are both"),
        (
            "load: 1.2",
            "load: 1.2\n    requested: absent",
            "sjf needs requested times and gpu_cluster_8 has none; set workloads.0.requested to exact or noisy:SIGMA",
        ),
        ("[fcfs,", "[fcsf,", "small.yaml:8: policies.0: no policy named 'fcsf'; did you mean 'fcfs'"),
        ("[fcfs,", "[runs/none/bundle,", "no such bundle"),
        ("[fcfs,", "['none.py:Mine',", "no such file"),
        ("name: small", "name: a/b", "small.yaml:1: name: must be 1 to 100 letters, digits"),
        ("name: small", "name: ..", "not '..'"),
        ("name: small", "name: ''", "not ''"),
        ("name: small", "name: 12", "small.yaml:1: name: must be text"),
        ("name: small", "name: small\nseeds: [1, 1]", "must be different whole numbers"),
        ("kind: independent, ", "", "windows.kind: is missing"),
    ],
)
def test_mistakes(benchmark_file: Write, tmp_path: Path, old: str, new: str, expected: str) -> None:
    with pytest.raises(LeptonError) as caught:
        benchmark(benchmark_file((old, new)), out=tmp_path / "run")
    assert expected in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_failure_before_the_first_row_leaves_no_folder(benchmark_file: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine:\n    def decide(self, snapshot):\n        return []\n")
    file = benchmark_file(("[fcfs,", "['mine.py:Mine', fcfs,"))
    for _ in range(2):
        with pytest.raises(LeptonError, match="waiting for ever"):
            benchmark(file, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(LeptonError, match="waiting for ever"):
        benchmark(file, out=tmp_path / "run")
    assert (tmp_path / "run").is_dir(), "it was there before"


def test_a_failure_after_it_keeps_the_rows(benchmark_file: Write, tmp_path: Path) -> None:
    # Python goes first: six rows of Mine, then Later fails
    (tmp_path / "mine.py").write_text(
        POLICY + "\n\nclass Later(Mine):\n    def decide(self, snapshot):\n        1 / 0\n"
    )
    file = benchmark_file(("[fcfs,", "['mine.py:Mine', 'mine.py:Later',"))
    with pytest.raises(ConfigError, match=r"^Later failed at .*ZeroDivisionError"):
        benchmark(file, out=tmp_path / "run")
    assert len((tmp_path / "run" / "rows.jsonl").read_text().splitlines()) == 6


def test_a_policy_file_is_run_once_for_each_policy_made(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    log = tmp_path / "log"
    mine.write_text(
        "from pathlib import Path\nfrom pydantic import BaseModel\n"
        f"with Path({str(log)!r}).open('a') as file:\n    file.write('run ')\n\n\n"
        "class Mine(BaseModel):\n    seed: int = 0\n\n    def decide(self, snapshot):\n        return []\n"
    )
    policy = PolicyConfig.model_validate(f"{mine}:Mine").build(seed=3)
    assert policy.seed == 3  # type: ignore[attr-defined]
    assert log.read_text() == "run "


def test_other_processes_of_the_program_are_left_alone(benchmark_file: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine:\n    def decide(self, snapshot):\n        return []\n")
    file = benchmark_file(("[fcfs,", "['mine.py:Mine', fcfs,"), ("processes: 1", "processes: 2"))
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()
    try:
        with pytest.raises(LeptonError, match="waiting for ever"):
            benchmark(file, out=tmp_path / "run")
        other.join(1.0)
        assert other.is_alive()
    finally:
        other.terminate()
        other.join()


def test_without_matplotlib_the_tables_are_still_written(
    benchmark_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = benchmark(benchmark_file(), out=tmp_path / "run")
    assert result.report is None
    assert (tmp_path / "run" / "benchmark.md").is_file()
    assert "pip install 'lepton-rl[report]'" in capsys.readouterr().err


def test_a_twin_from_the_command_line_is_blamed_on_it(benchmark_file: Write, tmp_path: Path) -> None:
    twin = "policies.0={name: sjf, blocking: head}"
    with pytest.raises(LeptonError) as caught:
        benchmark(benchmark_file(), [twin], out=tmp_path / "run")
    assert str(caught.value).startswith(
        f"override {twin!r}: policies.0: 'sjf head' and 'sjf' are both sjf with blocking"
    )


@pytest.fixture
def optimum_file(benchmark_file: Write) -> Path:
    """A benchmark of tiny windows with the optimum as a yardstick."""
    pytest.importorskip("ortools")
    file = benchmark_file(("generator: gpu_cluster", "generator: lublin"), ("jobs: 20, warmup: 5}", "jobs: 5}"))
    file.write_text(file.read_text() + "optimum: {objective: mean_jct}\n")
    return file


def test_gaps_to_the_optimum(optimum_file: Path, tmp_path: Path) -> None:
    result = benchmark(optimum_file, out=tmp_path / "run")
    best = cell(result, "optimum", "mean_jct")
    assert (best["rule"], best["blocking"]) == ("clairvoyant", None)
    assert cell(result, "optimum", OPTIMUM_GAP)["mean"] == 0.0
    for policy in ("fcfs", "random"):
        assert cell(result, policy, "mean_jct")["mean"] >= best["mean"] - 1e-9
        assert cell(result, policy, OPTIMUM_GAP)["low"] >= 0.0
    summary = result.outcome.summaries[0]
    strongest = summary.strongest("mean_jct")
    assert strongest is not None
    assert strongest.policy != "optimum"
    gaps = summary.samples[strongest]["mean_jct"] / summary.samples[summary.contenders[-1]]["mean_jct"] - 1
    assert cell(result, strongest.policy, OPTIMUM_GAP, blocking=strongest.blocking)["mean"] == gaps.mean()
    text = (result.folder / "benchmark.md").read_text()
    assert "Gap to the optimum in mean job completion time, %" in text
    assert "time in steps of 1 s, in which nothing is rounded" in text
    assert benchmark(result.folder / "benchmark.yaml", out=tmp_path / "run").rows == result.rows


def test_the_optimum_is_for_few_jobs(benchmark_file: Write, tmp_path: Path) -> None:
    file = benchmark_file()
    for override, sentence in (
        ("workloads.0.windows.warmup=0", "for windows of 12 jobs or fewer .* gpu_cluster_8 has 20"),
        ("workloads.0.windows.jobs=5", "gpu_cluster_8 has 10, 5 of them counted"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            benchmark(file, ["optimum.objective=makespan", override], out=tmp_path / "run")
    with pytest.raises(ConfigError, match="a policy is called 'optimum' beside the optimum"):
        benchmark(
            file,
            [
                "optimum={}",
                "policies=[{name: sjf, label: optimum}]",
                "workloads.0.windows={kind: independent, jobs: 5}",
            ],
            out=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()
