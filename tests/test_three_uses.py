"""The three uses in a row: train an agent, compare it with heuristics, run it on a node, take what happened back."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_nvml import FakeNvml
from tests.fake_nvml.control import VARIABLE
from tests.fake_nvml.fixtures import fake_library

__all__ = ["fake_library"]
SMALL = [
    "workload={generator: lublin, gpus: 4, jobs: 3000, load: 0.9}",
    "cluster={nodes: 1, gpus_per_node: 4}",
    "episode.jobs=64",
    "training.environments=8",
    "training.total_steps=4096",
    "validation.windows=2",
]
BENCH = [
    "workloads=[{generator: lublin, gpus: 4, load: 0.9, "
    "cluster: {nodes: 1, gpus_per_node: 4}, windows: {kind: independent, count: 5, jobs: 64}}]",
]


SAY = "echo $CUDA_VISIBLE_DEVICES"


class Commands:
    """`lepton-rl`, as a user calls it, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "LEPTON_RL_NODE": str(folder / "n")}

    def __call__(self, *words: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "lepton_rl.cli", *words], cwd=self.folder, env=self.environment, text=True,
            capture_output=True, timeout=900, check=False,
        )  # fmt: skip
        assert result.returncode == 0, f"{words}: {result.stderr[-2000:]}"
        return result.stdout


@pytest.fixture
def run(tmp_path: Path, fake_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    with FakeNvml(tmp_path / "nvml-state", gpus=4) as fake:
        monkeypatch.setenv(VARIABLE, str(fake.path))
        (tmp_path / "node.yaml").write_text(f"devices: {{library_path: {fake_library}}}\n")
        commands = Commands(tmp_path)
        yield commands
        if (tmp_path / "n" / "socket").exists():
            commands("node", "stop")


def test_train_benchmark_deploy_export_replay(run: Commands) -> None:
    run("configs", "copy", "train/quickstart.yaml")
    run("configs", "copy", "benchmark/quickstart.yaml", "bench.yaml")
    run("train", "quickstart.yaml", *SMALL, "--out", "agent")
    run("benchmark", "bench.yaml", *BENCH, "policies.+={name: agent, label: agent}", "--out", "bench")
    figures = json.loads((run.folder / "bench" / "benchmark.json").read_text())
    assert {"agent", "greedy", "genetic"} <= {row["policy"] for row in figures["rows"]}

    run("node", "start", "--config", "node.yaml", "--policy", "agent")
    status = json.loads(run("node", "status", "--json"))
    assert status["simulated_devices"] is True
    jobs = [
        run(
            "node",
            "submit",
            "--gpus",
            gpus,
            "--time",
            "10s",
            "--",
            "sh",
            "-c",
            f"echo $CUDA_VISIBLE_DEVICES; sleep {s}",
        )
        for gpus, s in (("1", 0.5), ("2", 0.7), ("4", 0.3), ("0.5", 0.4), ("3", 0.2), ("1", 0.1))
    ]
    numbers = [job.strip() for job in jobs]
    assert numbers == ["1", "2", "3", "4", "5", "6"]
    assert run("node", "wait", *numbers).count("done") == 6
    assert [len(run("node", "logs", job).strip().split(",")) for job in numbers] == [1, 2, 4, 1, 3, 1]
    decided = json.loads(run("node", "decisions", "--json"))
    by_agent = [one for one in decided if one["fallback_reason"] is None]
    assert sum(len(one["detail"]["actions"]) for one in by_agent) == 6

    run("node", "export", "--out", "mine.csv")
    described = run("traces", "describe", "mine.csv", "--gpus", "4")
    assert "6" in described
    gap = json.loads(run("node", "replay", "--json"))
    assert gap["jobs"] == 6
    assert gap["rows"]["mean wait, s"]["node"] >= 0
    run("simulate", "--trace", "mine.csv", "--nodes", "1", "--gpus-per-node", "4", "--policy", "agent")
    compared = json.loads(run("node", "compare", "fcfs", "--json"))
    assert len(compared["simulated"]) == 2
    run("node", "stop")
