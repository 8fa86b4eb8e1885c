"""The benchmarks run, and the Python environment that they compare with follows the same rules as ours."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from benchmarks import policies
from benchmarks.__main__ import BENCHMARKS
from benchmarks.python_env import PythonSchedulingEnv
from benchmarks.report import BEGIN, END, write_markdown
from benchmarks.rows import Row, at_least, at_most
from benchmarks.workloads import workload
from lepton_rl.core import ClusterSpec
from lepton_rl.envs import Codec, Objective, SchedulingEnv
from lepton_rl.experiments.benchmark import benchmark
from lepton_rl.workloads import Trace

ROOT = Path(__file__).parents[1]


def short_jobs(jobs: int) -> Trace:
    """Return a crowded workload with runs below the slowdown's floor, equal times and memory figures."""
    rng = np.random.default_rng(3)
    return Trace.from_columns(
        {
            "submit_time": rng.integers(0, jobs * 3, jobs).astype(float),
            "run_time": rng.choice([2.0, 5.0, 9.0, 30.0, 200.0], jobs),
            "requested_time": rng.choice([10.0, 20.0, 60.0, 500.0], jobs),
            "gpus": rng.choice([1.0, 2.0, 5.0, 12.0], jobs),
            "gpu_memory_gib": rng.choice([np.nan, 8.0, 40.5], jobs),
        }
    )


CASES = [
    (workload(400, 128, 1.6, seed=2), ClusterSpec(16, 8), Objective(), 24, 0),
    (workload(400, 128, 2.5, seed=2), ClusterSpec(16, 8), Objective(), 128, 90),
    (short_jobs(400), ClusterSpec(3, 4), Objective(1.0, 0.5, 2.0, 3.0), 16, 0),
    (short_jobs(400), ClusterSpec(2, 8), Objective(energy_kwh=0.1), 16, 33),
]


@pytest.mark.parametrize(("trace", "cluster", "objective", "window", "warmup"), CASES)
def test_the_peer_follows_the_same_rules(
    trace: Trace, cluster: ClusterSpec, objective: Objective, window: int, warmup: int
) -> None:
    jobs = 200
    ours = SchedulingEnv(trace, cluster, Codec(window, features="basic"), objective, jobs, warmup)
    peer = PythonSchedulingEnv(trace, cluster, window, objective, jobs, warmup)
    rng = np.random.default_rng(0)
    for first in (0, 57):
        seen, info = ours.reset(options={"window": (0, first)})
        peer_seen, peer_info = peer.reset(options={"first": first})
        assert peer_info["return"] == pytest.approx(info["return"], rel=1e-9, abs=1e-12)
        terminated = False
        while not terminated:
            mask = ours.action_masks()
            np.testing.assert_array_equal(peer.action_masks(), mask)
            for name, values in seen.items():
                np.testing.assert_allclose(peer_seen[name], values, rtol=1e-6, atol=1e-7, err_msg=name)
            # now and then an action that is not valid: both must take it as waiting
            action = rng.choice(np.flatnonzero(mask)) if rng.random() < 0.95 else rng.integers(window + 1)
            seen, reward, terminated, _, info = ours.step(action)
            peer_seen, peer_reward, peer_terminated, _, peer_info = peer.step(action)
            assert peer_terminated == terminated
            assert peer_reward == pytest.approx(reward, rel=1e-9, abs=1e-12)
        np.testing.assert_array_equal(peer.finish_times(), ours.outcome().finish)
        for name in ("return", "length", "mean_jct", "mean_bounded_slowdown"):
            expected = pytest.approx(info["episode_metrics"][name], rel=1e-9)
            assert peer_info["episode_metrics"][name] == expected


def test_the_peer_is_a_gymnasium_environment() -> None:
    check_env(PythonSchedulingEnv(CASES[0][0], CASES[0][1], 24, jobs=50), skip_render_check=True)


def test_a_bar_is_held_from_the_right_side() -> None:
    assert Row("speed", 2.0, "x", at_least(2)).met(quick=False)
    assert not Row("speed", 1.9, "x", at_least(2)).met(quick=False)
    assert Row("time", 0.5, "s", at_most(0.5)).met(quick=False)
    assert not Row("time", 0.6, "s", at_most(0.5)).met(quick=False)
    assert Row("time", 0.6, "s", at_most(0.5)).met(quick=True) is None
    assert Row("time", 0.6, "s").met(quick=False) is None


def test_markdown_replaces_what_is_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_markdown([Row("speed", 2.0, "x", at_least(1))], {"processor": "P"}, page)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "| speed | 2 x | ≥ 1 | yes |" in text
    write_markdown([Row("speed", 2.0, "x", at_least(1))], {"processor": "P"}, page)
    assert page.read_text() == text
    page.write_text("nothing\n")
    with pytest.raises(SystemExit, match="markers"):
        write_markdown([], {}, page)


def test_the_page_has_its_markers() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert page.index(BEGIN) < page.index(END)


def test_a_quick_run_reaches_the_end(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert set(report["machine"]) >= {"processor", "cores", "python", "numba", "numpy"}
    assert {row["benchmark"] for row in report["rows"]} == set(BENCHMARKS)
    assert all(np.isfinite(row["measured"]) and row["measured"] > 0 for row in report["rows"])
    assert "vector env" in done.stdout


def test_an_unknown_name_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks", "vektor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "vektor" in done.stderr


TINY = """\
name: tiny
workloads:
  - generator: gpu_cluster
    gpus: 8
    load: 1.2
    cluster: {groups: [{nodes: 2, gpus_per_node: 4, gpu: A100-SXM4-80GB}], electricity: 80}
    windows: {kind: independent, count: 3, jobs: 20}
policies: [fcfs, {name: saf, blocking: skip}, energy]
processes: 1
"""


def test_the_table_of_all_policies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    benchmark(tmp_path / "tiny.yaml", out=tmp_path / "run")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{policies.BEGIN}\nold\n{policies.END}\nafter\n")
    line = [str(tmp_path / "run"), "--markdown", str(page), "--windows", "2"]
    assert policies.main(line) == 0
    text = page.read_text()
    assert text.startswith(
        f"before\n{policies.BEGIN}\n**gpu_cluster_8**: 3 independent windows of 20 jobs on 2 x 4 A100"
    )
    assert text.endswith(f"{policies.END}\nafter\n")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] not in ("| policy", "| ---")]
    assert [row[0] for row in rows] == ["| fcfs", "| saf skip", "| energy"]
    fcfs = json.loads((tmp_path / "run" / "benchmark.json").read_text())["rows"][0]
    assert (fcfs["policy"], fcfs["metric"]) == ("fcfs", "mean_jct")
    assert rows[0][1] == f"{fcfs['mean']:,.0f} [{fcfs['low']:,.0f}, {fcfs['high']:,.0f}]"
    assert sum("strongest" in row[6] for row in rows) == 1
    assert all(0 < float(row[7]) <= float(row[8].rstrip(" |").replace(",", "")) for row in rows)
    assert policies.main([*line, "--keep-times"]) == 0
    assert page.read_text() == text
    capsys.readouterr()


def test_the_page_of_policies_has_its_markers() -> None:
    page = (ROOT / "docs" / "policies.md").read_text()
    assert page.index(policies.BEGIN) < page.index(policies.END)
