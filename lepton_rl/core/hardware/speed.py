"""How fast GPUs are: classes of job, and the fit that gives a speed from two figures of a datasheet."""

from collections.abc import Mapping
from dataclasses import dataclass

from lepton_rl.errors import ConfigError, nearest

JOB_CLASSES: Mapping[str, str] = {
    "vision": "convolutional networks (ResNet-18, ResNet-50, ShuffleNetV2, CycleGAN)",
    "language": "recurrent and transformer language models (LSTM, Transformer, BERT)",
    "recommendation": "recommenders (autoencoder on MovieLens)",
    "speech": "speech recognition (DeepSpeech2)",
    "general": "a job of no known class: the geometric mean of the other four",
}
"""Classes of job with a speed of their own, and the models that stand for them in the data."""

REFERENCE = "V100-SXM2-16GB"
"""The GPU type whose speed is 1 in every class."""


@dataclass(frozen=True, slots=True)
class SpeedFit:
    """One class's log-linear fit, `speed = (FP32 ratio) ** fp32 * (bandwidth ratio) ** bandwidth`."""

    fp32: float
    bandwidth: float


def predicted_speed(fp32_ratio: float, bandwidth_ratio: float, fp32: float, bandwidth: float) -> float:
    """Return the speed relative to the reference from ratios of FP32 rate and memory bandwidth to the reference's."""
    return float(fp32_ratio**fp32 * bandwidth_ratio**bandwidth)


def known_job_class(name: str) -> str:
    """Return the name of a class of job.

    Raises:
        ConfigError: there is no such class.
    """
    if name not in JOB_CLASSES:
        raise ConfigError(
            f"there is no class of job called {name!r}{nearest(name, JOB_CLASSES)}; known: {', '.join(JOB_CLASSES)}"
        )
    return name
