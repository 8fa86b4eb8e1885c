"""`lepton-rl train FILE`: one experiment file in, a run folder with a policy bundle out.

experiment.yaml      the resolved file          run.json           seed, versions, commit, times
learning_curve.csv   held-out metrics           tensorboard/       the same and the losses
checkpoint.pt        to resume from             bundle/            the best policy, runs without torch
model.zip            Stable-Baselines3's own file
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lepton_rl.agents.bundle import LearnedPolicy, save_bundle
from lepton_rl.core import ClusterSpec
from lepton_rl.envs import EnvironmentBatch, Episodes
from lepton_rl.errors import ConfigError, missing_extra
from lepton_rl.experiments.config import seed_for
from lepton_rl.experiments.episode_length import check_lengths
from lepton_rl.experiments.loader import load, resolved_yaml
from lepton_rl.experiments.runs import provenance, say
from lepton_rl.experiments.train_config import TrainConfig
from lepton_rl.workloads import Trace

RUN_FILES = (
    "experiment.yaml",
    "run.json",
    "learning_curve.csv",
    "checkpoint.pt",
    "tensorboard",
    "bundle",
    "model.zip",
)
BUNDLE_FOLDER = "bundle"


@dataclass(frozen=True, eq=False)
class _Setup:
    """What a training runs on."""

    cluster: ClusterSpec
    train: EnvironmentBatch
    validation: EnvironmentBatch
    windows: Sequence[tuple[int, int]]


def train(
    file: Path,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    seed: int | None = None,
    console: Console | None = None,
) -> Path:
    """Train what the experiment file describes and return the run folder.

    A resumed training continues from its last checkpoint and, on CPU, ends with the weights that an uninterrupted
    one has. Ctrl-C keeps the best policy so far as a bundle and re-raises.

    Raises:
        ConfigError: the file is wrong, or the folder holds another run.
        MissingExtra: torch or Stable-Baselines3 is not installed.
    """
    console = console or Console(stderr=True)
    config = load(file, TrainConfig, [*overrides, *([] if seed is None else [f"seed={seed}"])])
    folder = out or Path("runs") / config.name
    text = resolved_yaml(config)
    _check_folder(folder, text, resume, overwrite)
    setup = _prepare(config, console)
    device = _device(config.training.device)
    if not resume:
        _claim(folder, text)
    return _run(config, folder, setup, device, resume, console)


def _check_folder(folder: Path, text: str, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that this run may not use; nothing is written."""
    recorded = folder / "experiment.yaml"
    if resume:
        if not (folder / "checkpoint.pt").is_file():
            raise ConfigError(f"{folder}: there is no checkpoint to resume from")
        if not recorded.is_file() or recorded.read_text() != text:
            raise ConfigError(
                f"{folder}: the experiment differs from the one recorded there; resume with the same file"
            )
        return
    held = _held(folder)
    if held and not overwrite:
        raise ConfigError(f"{folder} already holds a run ({held[0]}); use --resume, --overwrite or another --out")


def _held(folder: Path) -> list[str]:
    """Return what a training left in the folder."""
    return [name for name in RUN_FILES if (folder / name).exists()]


def _claim(folder: Path, text: str) -> None:
    """Make the folder this run's: what an earlier one left there goes."""
    for name in _held(folder):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "experiment.yaml").write_text(text)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror})") from None


def _prepare(config: TrainConfig, console: Console) -> _Setup:
    traces, held_out = _workloads(config)
    cluster = config.cluster.build(traces[0])
    fitted = [trace.fit_to(cluster.gpus, gpu_memory_gib=cluster.gpu_memory_gib) for trace in traces]
    held_fitted = [trace.fit_to(cluster.gpus, gpu_memory_gib=cluster.gpu_memory_gib) for trace in held_out]
    for before, after in zip([*traces, *held_out], [*fitted, *held_fitted], strict=True):
        if len(after) < len(before):
            console.print(
                f"{before.name}: {len(before) - len(after)} jobs too large for {cluster} are left out"
            )
    check_lengths(config, min(map(len, fitted)), min(map(len, held_fitted)))
    codec, chosen_by = config.observation.build(), config.validation.objective or config.objective
    episodes = Episodes(fitted, config.episode.jobs, config.episode.warmup)
    batch = EnvironmentBatch(
        episodes, cluster, codec, config.objective.build(), config.training.environments,
        config.objective.relative_to_heuristic,
    )  # fmt: skip
    validation_episodes = Episodes(held_fitted, config.episode.jobs, config.episode.warmup)
    count = config.validation.windows
    validation = EnvironmentBatch(
        validation_episodes, cluster, codec, chosen_by.build(), count, chosen_by.relative_to_heuristic
    )
    generator = np.random.default_rng(seed_for(config.seed, "validation", 1))
    return _Setup(cluster, batch, validation, [validation_episodes.draw(generator) for _ in range(count)])


def _workloads(config: TrainConfig) -> tuple[list[Trace], list[Trace]]:
    """Return the traces to train on and those to validate on."""
    trace = config.workload.build(seed_for(config.seed, "training"))
    if config.validation.workload is not None:
        return [trace], [config.validation.workload.build(seed_for(config.seed, "validation"))]
    first, second = trace.split(1.0 - config.validation.fraction)
    return [first], [second]


def _run(
    config: TrainConfig, folder: Path, setup: _Setup, device: str, resume: bool, console: Console
) -> Path:
    try:
        import torch

        from lepton_rl.agents.sb3.algorithms import make_algorithm
        from lepton_rl.agents.sb3.evaluation import Evaluation
        from lepton_rl.agents.sb3.training import Schedule, TrainingCallback
        from lepton_rl.agents.sb3.vec_env import BatchVecEnv
    except ImportError as error:
        raise missing_extra(error.name or "stable-baselines3", "train") from None
    torch.set_num_threads(config.training.threads)
    env = BatchVecEnv(setup.train, config.seed, config.agent.reward_scale)
    schedule = Schedule(
        config.training.total_steps,
        config.training.evaluate_every,
        config.training.checkpoint_every,
        config.agent.entropy_schedule,
    )
    model = make_algorithm(
        config.agent.algorithm, env, config.agent.algorithm_settings(), config.agent.network_settings(), config.seed,
        device, str(folder / "tensorboard"),
    )  # fmt: skip
    with _progress(console) as progress:
        task = progress.add_task("training", total=config.training.total_steps, note="")

        def report(steps: int, last: Evaluation | None) -> None:
            note = (
                ""
                if last is None
                else f"held out: slowdown {last.mean_bounded_slowdown:.2f}, JCT {last.mean_jct:,.0f} s"
            )
            progress.update(task, completed=min(steps, config.training.total_steps), note=note)

        callback = TrainingCallback(folder, env, setup.validation, setup.windows, schedule, report)
        left = config.training.total_steps
        if resume:
            # SB3 prepares its logger and buffers for a fresh start; the checkpoint then replaces what it set.
            callback.resume(model)
            left -= model.num_timesteps
        try:
            if left > 0:
                model.learn(left, callback, tb_log_name="run", reset_num_timesteps=not resume)
        except KeyboardInterrupt:
            _finish(config, folder, setup, callback, device)
            kept = [f"the best policy so far is in {folder / BUNDLE_FOLDER}"] if callback.best.weights else []
            kept += ["--resume continues"] if (folder / "checkpoint.pt").is_file() else []
            say(console, "; ".join(["interrupted", *kept]))
            raise
    model.save(folder / "model.zip")
    _finish(config, folder, setup, callback, device)
    return folder


def _device(wanted: str) -> str:
    try:
        import torch
    except ImportError:
        raise missing_extra("torch", "train") from None
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("training.device is cuda, and torch sees no CUDA GPU here; use auto or cpu")
    return wanted


def _finish(config: TrainConfig, folder: Path, setup: _Setup, callback: Any, device: str) -> None:
    """Write the bundle of the best weights and the record of the run."""
    best = callback.best
    if best.weights is None:
        return
    ranges = {name: [low.tolist(), high.tolist()] for name, (low, high) in best.ranges.items()}
    policy = LearnedPolicy(
        setup.validation.codec, config.agent.network, best.weights, setup.cluster, best.sample, config.seed
    )
    about = {
        "algorithm": config.agent.algorithm,
        "objective": config.objective.model_dump(),
        "trained_steps": callback.num_timesteps,
        "best_at_steps": best.steps,
        "validation": best.result,
        "observation_range": ranges,
        "experiment": config.model_dump(mode="json"),
    }
    save_bundle(folder / BUNDLE_FOLDER, policy, about)
    record = {
        "name": config.name,
        "seed": config.seed,
        "device": device,
        "seconds": callback.seconds,
        "steps": callback.num_timesteps,
        "validation": best.result,
        **provenance(),
    }
    (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )
