"""Training from one file: what it leaves behind, and that an interrupted one ends as an uninterrupted one does."""

import csv
import functools
import json
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
from lepton_rl.cli import main
from lepton_rl.errors import ConfigError, LeptonError
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


@pytest.mark.parametrize(
    ("agent", "options"),
    [
        *((agent, ()) for agent in AGENTS),
        ("maskable_ppo", ("training.observation_dtype=float16", "training.rollout_on=device")),
        ("maskable_ppo", ("training.observation_dtype=uint8",)),
        ("dqn", ("training.observation_dtype=uint8",)),
    ],
)
def test_a_resumed_training_ends_bit_for_bit_as_an_uninterrupted_one(
    agent: str, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_experiment(tmp_path, agent)
    train(file, options, out=tmp_path / "whole")
    save = training.TrainingCallback.save

    def save_and_die(self: training.TrainingCallback) -> None:
        save(self)
        if self.num_timesteps >= 600:
            raise Killed

    monkeypatch.setattr(training.TrainingCallback, "save", save_and_die)
    with pytest.raises(Killed):
        train(file, options, out=tmp_path / "broken")
    monkeypatch.undo()
    assert torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=False)["counters"]["num_timesteps"] < 1200
    train(file, options, out=tmp_path / "broken", resume=True)
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


def test_observations_in_fewer_bytes_are_said_in_the_bundle(tmp_path: Path) -> None:
    file, short = write_experiment(tmp_path), "training.total_steps=200"
    plain = train(file, [short], out=tmp_path / "plain")
    assert "quantization" not in json.loads((plain / "bundle" / "bundle.json").read_text())
    folder = train(file, [short, "training.observation_dtype=uint8"], out=tmp_path / "run")
    assert json.loads((folder / "bundle" / "bundle.json").read_text())["quantization"]["dtype"] == "uint8"
    trace = tmp_path / "jobs.csv"
    trace.write_text("submit_time,run_time,gpus\n" + "".join(f"{job},{50 + job},1\n" for job in range(20)))
    assert main(["evaluate", str(folder), "--trace", str(trace), "--against", "saf"]) == 0


def test_a_rollout_on_the_device_trains_as_one_on_the_host(tmp_path: Path) -> None:
    file, short = write_experiment(tmp_path), "training.total_steps=400"
    first = weights(train(file, [short], out=tmp_path / "host"))
    second = weights(train(file, [short, "training.rollout_on=device"], out=tmp_path / "device"))
    assert all(torch.equal(first[name], second[name]) for name in first.keys() | second.keys())


@pytest.mark.parametrize(
    ("override", "match"),
    [
        (
            "training.observation_dtype=unit8",
            "training.observation_dtype: 'unit8' is not one of 'float32', 'float16' or 'uint8'; did you mean 'uint8'",
        ),
        ("training.rollout_on=gpu", "training.rollout_on: 'gpu' is not one of 'host' or 'device'"),
    ],
)
def test_an_unknown_way_of_transfer_is_refused(override: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        train(write_experiment(tmp_path), [override], out=tmp_path / "run")


def test_dqn_has_no_rollout_to_keep_on_the_device(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dqn has no rollouts.*leave out training\.rollout_on"):
        train(write_experiment(tmp_path, "dqn"), ["training.rollout_on=device"], out=tmp_path / "run")


LONG = ("training.total_steps=6000", "training.evaluate_every=2000")


def start(file: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lepton_rl.cli", "train", str(file), "--out", str(folder), *arguments]
    # a shell starts background jobs with Ctrl-C ignored, and children inherit that
    heed_ctrl_c = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)


def steps_saved(folder: Path) -> int:
    """Steps in the checkpoint, -1 where there is none yet."""
    path = folder / "checkpoint.pt"
    return int(torch.load(path, weights_only=False)["counters"]["num_timesteps"]) if path.is_file() else -1


def await_checkpoint(process: subprocess.Popen[str], folder: Path, beyond: int) -> None:
    deadline = time.monotonic() + 240
    while steps_saved(folder) <= beyond:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_training_is_resumed_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    file, folder = write_experiment(tmp_path), tmp_path / "killed"
    reached = 0
    for arguments in ([], ["--resume"]):
        process = start(file, folder, *LONG, *arguments)
        await_checkpoint(process, folder, reached)
        process.kill()
        process.communicate()
        reached = steps_saved(folder)
        assert json.loads((folder / "run.json").read_text())["status"] == "running"
    assert 200 < reached < 6000
    begun = json.loads((folder / "run.json").read_text())["begun"]
    train(file, LONG, out=folder, resume=True)
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["begun"]) == ("finished", begun)
    whole = train(file, LONG, out=tmp_path / "whole")
    expected, found = weights(whole), weights(folder)
    assert all(torch.equal(expected[name], found[name]) for name in expected.keys() | found.keys())
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "failed"), (KeyboardInterrupt, "interrupted")])
@pytest.mark.parametrize("method", ["save", "__init__"])
def test_what_ends_a_training_is_recorded(
    error: type[BaseException], status: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(training.TrainingCallback, method, fail)
    with pytest.raises(error):
        train(write_experiment(tmp_path), out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == status
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("extra", [False, True])
def test_a_training_that_dies_before_its_first_step_locks_no_folder(extra: bool, tmp_path: Path) -> None:
    file, folder = write_experiment(tmp_path), tmp_path / "run"
    short = ["training.total_steps=200"]
    if extra:  # an old run, and a file of the user's beside it
        train(file, short, out=folder)
        (folder / "notes.txt").write_text("mine")
    die = (
        "import os; from lepton_rl.experiments import training_folder, train; from pathlib import Path\n"
        "training_folder.write_atomically = lambda path, text: os._exit(9)  # after the record, before the experiment\n"
        f"train.train(Path({str(file)!r}), ['seed=5'], out=Path({str(folder)!r}), overwrite=True)"
    )
    assert subprocess.run([sys.executable, "-c", die], check=False).returncode == 9
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["seed"]) == ("running", 5)
    with pytest.raises(ConfigError, match="no checkpoint to resume from"):
        train(file, short, out=folder, resume=True)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(file, short, out=folder)
    train(file, short, out=folder, overwrite=True)
    assert json.loads((folder / "run.json").read_text())["seed"] == 4
    assert not extra or (folder / "notes.txt").read_text() == "mine"


def test_ctrl_c_leaves_a_usable_run(tmp_path: Path) -> None:
    file, folder = write_experiment(tmp_path), tmp_path / "run"
    process = start(file, folder, "training.total_steps=100000000")
    await_checkpoint(process, folder, 0)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.rstrip().endswith(
        f"\ninterrupted; the best policy so far is in {folder / 'bundle'}, --resume continues"
    )
    assert errors.count("interrupted") == 1
    assert "Traceback" not in errors
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert make_policy(str(folder))


JOBS = "submit_time,run_time,gpus\n" + "".join(
    f"{60 * i},{90 + 7 * i % 400},{9 if i == 5 else 1 + i % 4}\n" for i in range(400)
)


def write_own_trace(folder: Path) -> list[str]:
    """Write a trace whose sixth job is larger than the cluster, and return the overrides that train on it."""
    (folder / "jobs.csv").write_text(JOBS)
    return [f"workload={{path: {folder / 'jobs.csv'}}}", "training.total_steps=200"]


def test_a_trace_that_changed_is_not_resumed_on(tmp_path: Path) -> None:
    file, overrides = write_experiment(tmp_path), write_own_trace(tmp_path)
    folder = train(file, overrides, out=tmp_path / "run")
    (tmp_path / "jobs.csv").write_text(JOBS.replace("60,97,2", "60,98,2"))
    with pytest.raises(ConfigError, match=r"jobs\.csv has changed since .*run was begun"):
        train(file, overrides, out=folder, resume=True)
    (tmp_path / "jobs.csv").write_text(JOBS)
    train(file, overrides, out=folder, resume=True)


def test_jobs_that_are_left_out_are_named_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(write_experiment(tmp_path), write_own_trace(tmp_path), out=tmp_path / "run")
    assert "jobs: dropped 1 (asks for more than 8 GPUs): job 6 asks for 9\n" in capsys.readouterr().err
    record = json.loads((folder / "run.json").read_text())
    assert record["dropped"] == 1
    assert record["left_out"] == [{"reason": "asks for more than 8 GPUs", "count": 1, "examples": ["job 6 asks for 9"]}]


def test_unless_they_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*write_own_trace(tmp_path), "--strict", "--out", str(tmp_path / "run")]
    assert main(["train", str(write_experiment(tmp_path)), *arguments]) == 2
    assert "error: jobs: 1 of 400 jobs asks for more than 8 GPUs (job 6 asks for 9)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        ("[0.0, 0.7]", "[0.5, 1.0]", "80 of its 200 jobs are trained on"),
        ("[0.0, 1.0]", "[0.0, 1.0]", "400 of its 400 jobs are trained on"),
    ],
)
def test_held_out_jobs_are_not_trained_on(tmp_path: Path, first: str, second: str, match: str) -> None:
    file, overrides = write_experiment(tmp_path), write_own_trace(tmp_path)
    path = tmp_path / "jobs.csv"
    parts = [
        f"workload={{path: {path}, part: {first}}}",
        f"validation.workload={{path: {path}, part: {second}}}",
    ]
    with pytest.raises(ConfigError, match=match):
        train(file, [*overrides, *parts], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_held_out_jobs_are_not_generated_twice(tmp_path: Path) -> None:
    same = "{generator: gpu_cluster, gpus: 8, jobs: 2000, seed: 3}"
    with pytest.raises(ConfigError, match=r"workload's generator and seed \(3\)"):
        train(write_experiment(tmp_path), [f"workload={same}", f"validation.workload={same}"], out=tmp_path / "run")


def test_a_refused_training_leaves_the_old_run_alone(tmp_path: Path) -> None:
    file = write_experiment(tmp_path)
    folder = train(file, ["training.total_steps=200"], out=tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    for wrong in (
        "workload.jobs=30",
        "agent.learning_rate=-1",
        *([] if torch.cuda.is_available() else ["training.device=cuda"]),
    ):
        with pytest.raises(ConfigError):
            train(file, [wrong], out=folder, overwrite=True)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_training_names_the_evaluation_that_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(write_experiment(tmp_path), out=tmp_path / "run")
    found = json.loads((folder / "run.json").read_text())["validation"]
    bundle = json.loads((folder / "bundle" / "bundle.json").read_text())
    assert found["steps"] == bundle["best_at_steps"]
    assert found["mode"] == ("sampled" if bundle["sample"] else "greedy")
    with (folder / "learning_curve.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if int(row["steps"]) > 0]
    best = min(rows, key=lambda row: float(row["cost"]))
    assert (int(best["steps"]), best["mode"], float(best["mean_jct"])) == (
        found["steps"], found["mode"], found["mean_jct"],
    )  # fmt: skip
    last = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert last == (
        f"kept: step {found['steps']:,}, {found['mode']}: slowdown {found['mean_bounded_slowdown']:.2f}, "
        f"JCT {found['mean_jct']:,.0f} s"
    )


def test_resuming_a_finished_run_says_so_and_keeps_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_experiment(tmp_path)
    folder = train(file, ["training.total_steps=200"], out=tmp_path / "run")
    steps = json.loads((folder / "run.json").read_text())["steps"]
    capsys.readouterr()
    train(file, ["training.total_steps=200"], out=folder, resume=True)
    said = capsys.readouterr().err.splitlines()
    assert said[-2] == "already finished: nothing is left to train"
    assert said[-1].startswith("kept: step ")
    assert "steps" not in "".join(said)  # no bar
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


@pytest.mark.parametrize("actions", ["order", "placement", "power"])
def test_a_training_with_choices_and_preferences_leaves_a_bundle_that_runs(
    actions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = "{groups: [{nodes: 1, gpus_per_node: 4, gpu: V100}, {nodes: 2, gpus_per_node: 2, gpu: T4}]}"
    file = write_experiment(tmp_path)
    overrides = [
        f"cluster={groups}", f"observation.actions={actions}", "objective.preferences=true", "training.total_steps=400",
    ]  # fmt: skip
    folder = train(file, overrides, tmp_path / "run")
    about = json.loads((folder / "bundle" / "bundle.json").read_text())
    assert about["codec"]["actions"] == actions
    assert about["codec"]["preferences"] == 2
    trace = tmp_path / "jobs.csv"
    trace.write_text("submit_time,run_time,gpus\n" + "".join(f"{job},{50 + job},1\n" for job in range(20)))
    assert main(["evaluate", str(folder), "--trace", str(trace), "--against", "saf"]) == 0
    assert "run" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, short = write_experiment(tmp_path), ["training.total_steps=200"]
    folder = train(file, short, out=tmp_path / "run")
    whole = (folder / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    for damaged in (b"", b"no pickle", whole[: len(whole) // 2]):
        (folder / "checkpoint.pt").write_bytes(damaged)
        with pytest.raises(LeptonError) as refusal:
            train(file, short, out=folder, resume=True)
        assert str(refusal.value) == (
            f"{folder / 'checkpoint.pt'}: this checkpoint cannot be continued: it is damaged, or another version "
            "wrote it; train anew with --overwrite"
        )
        assert capsys.readouterr().err == ""  # no bar before it
    (folder / "checkpoint.pt").write_bytes(whole)
    for text in ("{", '{"files": null}'):
        (folder / "run.json").write_text(text)
        with pytest.raises(ConfigError, match=r"run\.json is damaged"):
            train(file, short, out=folder, resume=True)


def test_too_little_memory_is_said_in_one_sentence(tmp_path: Path) -> None:
    file = write_experiment(tmp_path, "dqn")
    sizes = ["agent.buffer_size=100000000", "observation.window=4096"]  # 28 TB
    with pytest.raises(ConfigError, match=r"not enough memory for this training: lower .* agent\.buffer_size"):
        train(file, sizes, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"
