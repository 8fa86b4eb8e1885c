"""One training: evaluations on held-out windows, checkpoints, the best weights kept."""

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from lepton_rl.agents.network import Singles
from lepton_rl.agents.sb3 import CHECKPOINT_FILE, CURVE_FILE, mode_of
from lepton_rl.agents.sb3.checkpoint import load_checkpoint, save_checkpoint
from lepton_rl.agents.sb3.evaluation import Evaluation, evaluate, network_weights
from lepton_rl.agents.sb3.vec_env import BatchVecEnv
from lepton_rl.core.atomic import replacing
from lepton_rl.envs.batch import EnvironmentBatch

CURVE_COLUMNS = (
    "steps",
    "seconds",
    "mode",
    "cost",
    "mean_bounded_slowdown",
    "mean_jct",
    "utilization",
    "mean_power_w",
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often training looks up, in environment steps, and what changes on the way."""

    total_steps: int
    evaluate_every: int
    checkpoint_every: int
    entropy: tuple[float, float] | None = None  # first and last entropy coefficient


@dataclass
class Best:
    """The best weights so far by validation cost."""

    cost: float = float("inf")
    steps: int = 0
    sample: bool = False
    result: dict[str, float] | None = None
    weights: dict[str, Singles] | None = None
    ranges: dict[str, tuple[Singles, Singles]] = field(default_factory=dict)

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """Steps, mode and metrics of the evaluation that chose the weights; None where nothing was measured."""
        return None if self.result is None else {"steps": self.steps, "mode": mode_of(self.sample), **self.result}


class TrainingCallback(BaseCallback):
    """Runs between rollouts, where the state of a training is whole.

    Args:
        folder: The run folder.
        env: The training environments.
        validation: One environment for each held-out window.
        windows: The held-out windows.
        schedule: See `Schedule`.
        report: Called with (steps done, last evaluation) for a progress display.
    """

    def __init__(
        self,
        folder: Path,
        env: BatchVecEnv,
        validation: EnvironmentBatch,
        windows: Sequence[tuple[int, int]],
        schedule: Schedule,
        report: Callable[[int, Evaluation | None], None],
    ) -> None:
        super().__init__()
        self._folder = folder
        self._env = env
        self._validation = validation
        self._windows = windows
        self._schedule = schedule
        self._report = report
        self.best = Best()
        self.rows: list[dict[str, Any]] = []
        self._evaluated_at = -1
        self._saved_at = -1
        self._seconds_before = 0.0
        self._began = time.monotonic()
        self._last: Evaluation | None = None

    def resume(self, model: BaseAlgorithm) -> None:
        """Continue from the run folder's checkpoint."""
        progress = load_checkpoint(self._folder / CHECKPOINT_FILE, model, self._env)
        self.best = progress["best"]
        self.rows = progress["rows"]
        self._evaluated_at = progress["evaluated_at"]
        self._saved_at = model.num_timesteps
        self.num_timesteps = model.num_timesteps
        self._seconds_before = progress["seconds"]

    @property
    def seconds(self) -> float:
        """Training time so far, interruptions not counted."""
        return self._seconds_before + time.monotonic() - self._began

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        steps = self.num_timesteps
        if self._schedule.entropy is not None:
            first, last = self._schedule.entropy
            done = min(steps / self._schedule.total_steps, 1.0)
            self.model.ent_coef = first + (last - first) * done  # type: ignore[attr-defined]
        if self._evaluated_at < 0 or steps - self._evaluated_at >= self._schedule.evaluate_every:
            self.evaluate()
        if self._saved_at < 0 or steps - self._saved_at >= self._schedule.checkpoint_every:
            self.save()
        self._report(steps, self._last)

    def _on_training_end(self) -> None:
        if self._evaluated_at < self.num_timesteps:
            self.evaluate()
        self.save()
        self._report(self.num_timesteps, self._last)

    def save(self) -> None:
        """Write a checkpoint; call it between rollouts only."""
        self._saved_at = self.num_timesteps
        progress = {
            "best": self.best,
            "rows": self.rows,
            "evaluated_at": self._evaluated_at,
            "seconds": self.seconds,
        }
        save_checkpoint(self._folder / CHECKPOINT_FILE, self.model, self._env, progress)

    def evaluate(self) -> None:
        """Measure the network greedy and sampled, log both, and keep the weights if either is the best so far."""
        self._evaluated_at = self.num_timesteps
        for sample in (False, True):
            result, ranges = evaluate(self.model, self._validation, self._windows, sample)
            mode = mode_of(sample)
            for name, value in asdict(result).items():
                self.logger.record(f"validation/{mode}_{name}", value)
            self.rows.append({"steps": self.num_timesteps, "seconds": self.seconds, "mode": mode, **asdict(result)})
            # The untrained network is kept only until there is another: it just takes the window's order.
            cost = result.cost if self.num_timesteps > 0 else float("inf")
            if cost < self.best.cost or self.best.weights is None:
                weights = network_weights(self.model)
                self.best = Best(cost, self.num_timesteps, sample, asdict(result), weights, ranges)
            if not sample:
                self._last = result
        elapsed = max(self.seconds, 1e-9)
        self.logger.record("time/steps_per_second", self.num_timesteps / elapsed)
        self.logger.dump(self.num_timesteps)
        self._write_curve()

    def _write_curve(self) -> None:
        with replacing(self._folder / CURVE_FILE) as draft, draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, CURVE_COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
