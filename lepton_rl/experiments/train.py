"""`lepton-rl train FILE`: one experiment file in, a run folder with a policy bundle out (see `training_folder`)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lepton_rl.agents.bundle import BUNDLE_FOLDER, RANGE_KEY, LearnedPolicy, save_bundle
from lepton_rl.agents.sb3 import CHECKPOINT_FILE, mode_of
from lepton_rl.core import ClusterSpec
from lepton_rl.core.atomic import replacing
from lepton_rl.envs import EnvironmentBatch, Episodes
from lepton_rl.envs.quantization import Quantization, quantization_for
from lepton_rl.errors import ConfigError, missing_extra
from lepton_rl.experiments.config import seed_for
from lepton_rl.experiments.episode_length import check_lengths
from lepton_rl.experiments.loader import load, resolved_yaml
from lepton_rl.experiments.run_lock import alone_in
from lepton_rl.experiments.runs import make_folder, say
from lepton_rl.experiments.train_config import TrainConfig
from lepton_rl.experiments.training_folder import (
    MODEL_FILE,
    TENSORBOARD_FOLDER,
    Status,
    TrainingFolder,
    digests,
)
from lepton_rl.workloads import Trace
from lepton_rl.workloads.job_table import fit_to_cluster

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from lepton_rl.agents.sb3.evaluation import Evaluation
    from lepton_rl.agents.sb3.training import Schedule, TrainingCallback
    from lepton_rl.agents.sb3.vec_env import BatchVecEnv


@dataclass(frozen=True, eq=False)
class _Setup:
    """What a training runs on; `sources` are the workloads without the jobs that do not fit the cluster."""

    cluster: ClusterSpec
    train: EnvironmentBatch
    validation: EnvironmentBatch
    windows: Sequence[tuple[int, int]]
    sources: Sequence[Trace]
    quantization: Quantization | None


def train(
    file: Path,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    seed: int | None = None,
    console: Console | None = None,
    strict: bool = False,
) -> Path:
    """Train what the experiment file describes and return the run folder.

    A resumed training continues from its last checkpoint and, on CPU, ends with the weights that an uninterrupted
    one has. Ctrl-C keeps the best policy so far as a bundle and re-raises; the exception says what is left. With
    `strict`, a workload with jobs larger than the cluster is refused before anything is written.

    Raises:
        ConfigError: the file is wrong, or the folder holds another run or one that is under way.
        MissingExtra: torch or Stable-Baselines3 is not installed.
    """
    console = console or Console(stderr=True)
    config = load(file, TrainConfig, [*overrides, *([] if seed is None else [f"seed={seed}"])])
    files = digests([used.path for used in (config.workload, config.validation.workload) if used is not None])
    folder = TrainingFolder(out or Path("runs") / config.name, resolved_yaml(config), files)
    if resume:
        folder.check_resumable()
    else:
        folder.check_free(overwrite)
    with _saying_what_takes_memory():
        setup = _prepare(config, strict)
    device = _device(config.training.device)
    make_folder(folder.path)
    with alone_in(folder.path):
        if not resume:
            folder.check_free(overwrite)  # once more: another may have come first
            folder.claim({"name": config.name, "seed": config.seed, "device": device})
        try:
            with _saying_what_takes_memory():
                _Training(config, folder, setup, device, console).run(resume)
        except KeyboardInterrupt:
            folder.close("interrupted")
            raise
        except Exception:
            folder.close("failed")
            raise
    return folder.path


@contextmanager
def _saying_what_takes_memory() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise ConfigError(
            "there is not enough memory for this training: lower what is largest of training.environments, "
            "agent.n_steps, agent.buffer_size, agent.batch_size, observation.window, episode.jobs and workload.jobs"
        ) from None


def _prepare(config: TrainConfig, strict: bool) -> _Setup:
    whole, held_out = _workloads(config)
    cluster = config.cluster.build(whole)
    sources = [
        fit_to_cluster(source, cluster, strict)
        for source in (whole, held_out) if source is not None
    ]  # fmt: skip
    first, second = whole.split(1.0 - config.validation.fraction) if held_out is None else (whole, held_out)
    fitting = [fit_to_cluster(part, cluster) for part in (first, second)]
    check_lengths(config, *map(len, fitting))
    codec, chosen_by = config.observation.build(), config.validation.objective or config.objective
    if config.objective.preferences:
        codec = replace(codec, preferences=len(config.objective.build().components))
    episodes, validation_episodes = (Episodes([part], config.episode.jobs, config.episode.warmup) for part in fitting)
    batch = EnvironmentBatch(
        episodes, cluster, codec, config.objective.build(), config.training.environments,
        config.objective.relative_to_heuristic, config.timing,
    )  # fmt: skip
    count = config.validation.windows
    validation = EnvironmentBatch(
        validation_episodes, cluster, codec, chosen_by.build(), count, chosen_by.relative_to_heuristic,
        config.timing,
    )  # fmt: skip
    generator = np.random.default_rng(seed_for(config.seed, "windows"))
    windows = [validation_episodes.draw(generator) for _ in range(count)]
    quantization = quantization_for(config.training.observation_dtype, codec, cluster)
    return _Setup(cluster, batch, validation, windows, sources, quantization)


def _workloads(config: TrainConfig) -> tuple[Trace, Trace | None]:
    """Return the workload, and the one to validate on where it is another.

    Raises:
        ConfigError: the two share jobs: what is trained on would choose the weights.
    """
    trace = config.workload.build(seed_for(config.seed, "training"))
    held_out = config.validation.workload
    if held_out is None:
        return trace, None
    other = held_out.build(seed_for(config.seed, "validation"))
    if held_out.path is not None and held_out.path == config.workload.path:
        shared = len(np.intersect1d(trace.job_id, other.job_id))
        if shared:
            raise ConfigError(
                f"validation.workload: {shared} of its {len(other)} jobs are trained on; "
                "give it and workload a part of their own, e.g. part: [0.7, 1.0]"
            )
    return trace, other


def _device(wanted: str) -> str:
    """Return where torch computes, once all that training needs is known to be installed."""
    try:
        import sb3_contrib  # noqa: F401
        import tensorboard  # type: ignore[import-untyped]  # noqa: F401
        import torch
    except ImportError as error:
        raise missing_extra(error.name or "stable-baselines3", "train") from None
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("training.device is cuda, and torch sees no CUDA GPU here; use auto or cpu")
    return wanted


@dataclass(frozen=True, eq=False)
class _Training:
    """One training in its folder, from the first rollout to the bundle."""

    config: TrainConfig
    folder: TrainingFolder
    setup: _Setup
    device: str
    console: Console

    def run(self, resume: bool) -> None:
        """Train, and leave bundle and record whether it comes to the end or is interrupted by Ctrl-C."""
        import torch

        from lepton_rl.agents.sb3.training import TrainingCallback

        torch.set_num_threads(self.config.training.threads)
        progress = _progress(self.console)
        report = _reporter(progress, self.config.training.total_steps)
        model, env = self._model()
        callback = TrainingCallback(
            self.folder.path, env, self.setup.validation, self.setup.windows, self._schedule(), report
        )
        if resume:
            # SB3 prepares its logger and buffers for a fresh start; the checkpoint then replaces what it set.
            callback.resume(model)
        # only now: an error has nothing but its own sentence
        for text in dict.fromkeys(text for source in self.setup.sources for text in source.losses):
            say(self.console, text)
        left = self.config.training.total_steps - callback.num_timesteps
        if left <= 0:
            say(self.console, "already finished: nothing is left to train")
        try:
            self._record("running", callback)
            if left > 0:
                with progress:
                    model.learn(left, callback, tb_log_name="run", reset_num_timesteps=not resume)
            self._save_bundle(callback)
            with replacing(self.folder.path / MODEL_FILE) as draft, draft.open("wb") as file:
                model.save(file)
            self._record("finished", callback)
        except KeyboardInterrupt:
            self._save_bundle(callback)
            self._record("interrupted", callback)
            raise KeyboardInterrupt(*self._what_is_left()) from None
        best = callback.best
        if best.result is not None:
            say(self.console, f"kept: step {best.steps:,}, {mode_of(best.sample)}: {_in_words(**best.result)}")

    def _model(self) -> "tuple[BaseAlgorithm, BatchVecEnv]":
        from lepton_rl.agents.sb3.algorithms import make_algorithm
        from lepton_rl.agents.sb3.vec_env import BatchVecEnv

        agent = self.config.agent
        # SB3 takes a number of 32 bits, and seeds the environments with it, too
        seed = int(seed_for(self.config.seed, "learner").generate_state(1)[0])
        env = BatchVecEnv(self.setup.train, seed, agent.reward_scale, self.setup.quantization)
        settings = agent.algorithm_settings()
        if agent.algorithm != "dqn":
            settings["rollout_buffer_kwargs"] = {"on_device": self.config.training.rollout_on == "device"}
        model = make_algorithm(
            agent.algorithm, env, settings, agent.network_settings(), seed, self.device,
            str(self.folder.path / TENSORBOARD_FOLDER),
        )  # fmt: skip
        return model, env

    def _schedule(self) -> "Schedule":
        from lepton_rl.agents.sb3.training import Schedule

        training = self.config.training
        return Schedule(
            training.total_steps, training.evaluate_every, training.checkpoint_every, self.config.agent.entropy_schedule
        )

    def _save_bundle(self, callback: "TrainingCallback") -> None:
        """Write the bundle of the best weights so far, if any were measured."""
        best, config = callback.best, self.config
        if best.weights is None:
            return
        policy = LearnedPolicy(
            self.setup.train.codec, config.agent.network, best.weights, self.setup.train.cluster, best.sample,
            quantization=self.setup.quantization,
        )  # fmt: skip
        ranges = {name: [low.tolist(), high.tolist()] for name, (low, high) in best.ranges.items()}
        about = {
            "algorithm": config.agent.algorithm,
            "objective": config.objective.model_dump(),
            "trained_steps": callback.num_timesteps,
            "best_at_steps": best.steps,
            "validation": best.result,
            RANGE_KEY: ranges,
            "experiment": config.model_dump(mode="json"),
        }
        save_bundle(self.folder.path / BUNDLE_FOLDER, policy, about)

    def _record(self, status: Status, callback: "TrainingCallback") -> None:
        """Write run.json."""
        dropped = [entry for source in self.setup.sources for entry in source.dropped]
        about = {
            "name": self.config.name,
            "seed": self.config.seed,
            "device": self.device,
            "seconds": callback.seconds,
            "steps": callback.num_timesteps,
            "validation": callback.best.evaluation,
            "dropped": sum(entry.count for entry in dropped),
            "left_out": [asdict(entry) for entry in dropped],
        }
        self.folder.record(status, about)

    def _what_is_left(self) -> tuple[str, ...]:
        """Return what Ctrl-C leaves, in words; nothing where it leaves nothing."""
        path = self.folder.path
        kept = [f"the best policy so far is in {path / BUNDLE_FOLDER}"] if (path / BUNDLE_FOLDER).is_dir() else []
        kept += ["--resume continues"] if (path / CHECKPOINT_FILE).is_file() else []
        return (", ".join(kept),) if kept else ()


def _reporter(progress: Progress, total_steps: int) -> Callable[[int, "Evaluation | None"], None]:
    """Return what shows steps and last evaluation on the progress bar."""
    task = progress.add_task("training", total=total_steps, note="")

    def report(steps: int, last: "Evaluation | None") -> None:
        note = "" if last is None else f"held out: {_in_words(last.mean_bounded_slowdown, last.mean_jct)}"
        progress.update(task, completed=min(steps, total_steps), note=note)

    return report


def _in_words(mean_bounded_slowdown: float, mean_jct: float, **_: float) -> str:
    return f"slowdown {mean_bounded_slowdown:.2f}, JCT {mean_jct:,.0f} s"


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )
