"""Training from one file: what it leaves behind, and that an interrupted one ends as an uninterrupted one does."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lepton_rl.agents import make_policy
from lepton_rl.agents.sb3 import training
from lepton_rl.errors import ConfigError
from lepton_rl.experiments.train import train

EXPERIMENT = """
name: small
seed: 4
workload: {generator: gpu_cluster, gpus: 8, jobs: 2000, load: 1.3}
cluster: {nodes: 2, gpus_per_node: 4}
episode: {jobs: 40, warmup: 10}
observation: {window: 8}
agent: AGENT
training: {environments: 4, total_steps: 1200, evaluate_every: 400, checkpoint_every: 200, device: cpu}
validation: {windows: 3}
"""
AGENTS = {
    "maskable_ppo": "{n_steps: 50, batch_size: 50, n_epochs: 2, entropy: [0.01, 0.0]}",
    "ppo": "{algorithm: ppo, network: mlp, n_steps: 50, batch_size: 50, n_epochs: 2}",
    "a2c": "{algorithm: a2c, n_steps: 10, entropy: 0.01}",
    "dqn": "{algorithm: dqn, buffer_size: 500, learning_starts: 100, batch_size: 32, train_every: 4}",
}


def write_experiment(folder: Path, agent: str = "maskable_ppo") -> Path:
    path = folder / f"{agent}.yaml"
    path.write_text(EXPERIMENT.replace("AGENT", AGENTS[agent]))
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoint.pt", weights_only=False)
    found: dict[str, torch.Tensor] = state["policy"]
    return found


class Killed(Exception):
    pass


@pytest.mark.parametrize("agent", AGENTS)
def test_a_resumed_training_ends_bit_for_bit_as_an_uninterrupted_one(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_experiment(tmp_path, agent)
    train(file, out=tmp_path / "whole")
    save = training.TrainingCallback.save

    def save_and_die(self: training.TrainingCallback) -> None:
        save(self)
        if self.num_timesteps >= 600:
            raise Killed

    monkeypatch.setattr(training.TrainingCallback, "save", save_and_die)
    with pytest.raises(Killed):
        train(file, out=tmp_path / "broken")
    monkeypatch.undo()
    assert (
        torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=False)["counters"]["num_timesteps"]
        < 1200
    )
    train(file, out=tmp_path / "broken", resume=True)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    for array in ("weights.npz",):
        first = np.load(tmp_path / "whole" / "bundle" / array)
        second = np.load(tmp_path / "broken" / "bundle" / array)
        assert all(np.array_equal(first[name], second[name]) for name in first.files)


def test_a_run_folder_holds_what_a_rerun_needs(tmp_path: Path) -> None:
    folder = train(write_experiment(tmp_path), out=tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    assert record["seed"] == 4
    assert record["lepton_rl"]
    assert record["steps"] >= 1200
    with (folder / "learning_curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["mode"] for row in rows} == {"greedy", "sampled"}
    assert float(rows[-1]["mean_jct"]) > 0
    assert list((folder / "tensorboard").rglob("events.out.tfevents.*"))
    assert (folder / "model.zip").is_file()
    assert make_policy(str(folder / "bundle"))
    # the resolved file trains the same thing again
    again = train(folder / "experiment.yaml", out=tmp_path / "again")
    assert torch.equal(next(iter(weights(folder).values())), next(iter(weights(again).values())))


def test_tensorboard_shows_reward_held_out_metrics_losses_and_speed(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    folder = train(write_experiment(tmp_path), out=tmp_path / "run")
    (events,) = (folder / "tensorboard").rglob("events.out.tfevents.*")
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    tags = set(accumulator.Tags()["scalars"])
    assert {
        "rollout/ep_rew_mean",
        "train/value_loss",
        "time/fps",
        "validation/greedy_mean_jct",
        "validation/greedy_mean_bounded_slowdown",
        "validation/greedy_utilization",
    } <= tags


def test_folders_are_not_overwritten_or_mixed(tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    short = ["training.total_steps=200"]
    folder = train(file, short, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="already holds a run"):
        train(file, short, out=folder)
    with pytest.raises(ConfigError, match="differs from the one recorded"):
        train(file, ["seed=5"], out=folder, resume=True)
    with pytest.raises(ConfigError, match="no checkpoint to resume from"):
        train(file, out=tmp_path / "empty", resume=True)
    train(file, ["seed=5", *short], out=folder, overwrite=True)


def test_settings_of_another_algorithm_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a2c does not read clip_range"):
        train(write_experiment(tmp_path, "a2c"), ["agent.clip_range=0.2"], out=tmp_path / "run")


def test_ctrl_c_leaves_a_usable_run(tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    folder = tmp_path / "run"
    code = (
        "from pathlib import Path\n"
        "from lepton_rl.experiments.train import train\n"
        f"train(Path({str(file)!r}), ['training.total_steps=100000000'], out=Path({str(folder)!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not (folder / "checkpoint.pt").is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in errors
    assert "--resume continues" in " ".join(errors.split())
    assert make_policy(str(folder / "bundle"))


def test_a_refused_training_leaves_the_old_run_alone(tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    folder = train(file, ["training.total_steps=200"], out=tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    for wrong in ("workload.jobs=30", "agent.learning_rate=-1", *([] if torch.cuda.is_available() else ["training.device=cuda"])):
        with pytest.raises(ConfigError):
            train(file, [wrong], out=folder, overwrite=True)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_resuming_a_finished_run_keeps_its_record(tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    folder = train(file, ["training.total_steps=200"], out=tmp_path / "run")
    steps = json.loads((folder / "run.json").read_text())["steps"]
    train(file, ["training.total_steps=200"], out=folder, resume=True)
    assert json.loads((folder / "run.json").read_text())["steps"] == steps >= 200


def test_a_benchmark_beside_its_training_can_be_resumed(tmp_path: Path) -> None:
    from lepton_rl.experiments.benchmark import benchmark

    folder = train(write_experiment(tmp_path), ["training.total_steps=200"], out=tmp_path / "run")
    file = tmp_path / "benchmark.yaml"
    file.write_text(
        "name: small\nworkloads:\n"
        "  - {generator: gpu_cluster, gpus: 8, load: 1.3, cluster: {nodes: 2, gpus_per_node: 4},\n"
        "     windows: {kind: independent, count: 50, jobs: 10}}\n"
        f"policies: [fcfs, sjf, {folder}]\n"
    )
    first = benchmark(file, [], folder).rows
    assert benchmark(file, [], folder).rows == first
