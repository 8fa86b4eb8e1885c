"""Training with Stable-Baselines3 and sb3-contrib (the `train` extra); the names here need neither."""

from typing import Literal, get_args

AlgorithmName = Literal["maskable_ppo", "ppo", "a2c", "dqn"]
ALGORITHMS: tuple[AlgorithmName, ...] = get_args(AlgorithmName)

CHECKPOINT_FILE = "checkpoint.pt"
"""What a training is resumed from, in its run folder."""
CURVE_FILE = "learning_curve.csv"
"""The held-out evaluations of a training, in its run folder."""


def mode_of(sample: bool) -> str:
    """Return what the evaluations call it that actions are drawn from the policy, or the likeliest taken."""
    return "sampled" if sample else "greedy"
