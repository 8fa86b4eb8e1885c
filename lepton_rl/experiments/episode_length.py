"""Whether the jobs of a training are enough for its episodes, and which settings would do if not."""

import math

from lepton_rl.errors import ConfigError, counted
from lepton_rl.experiments.train_config import EpisodeConfig, TrainConfig


def check_lengths(config: TrainConfig, train: int, held_out: int) -> None:
    """Refuse parts that are shorter than an episode.

    Args:
        config: the experiment.
        train: jobs to train on, those too large for the cluster left out.
        held_out: jobs of the validation, in the same way.

    Raises:
        ConfigError: names the jobs that there are, those that are needed, and the settings.
    """
    needed = config.episode.jobs + config.episode.warmup
    if min(train, held_out) >= needed:
        return
    if config.validation.workload is None:
        fraction = config.validation.fraction
        workload, key, enough = config.workload, "workload", _enough(needed, fraction)
        found = (
            f"{counted(train + held_out, 'job')}, split by validation.fraction={fraction:g} into "
            f"{train:,} to train on and {held_out:,} held out,"
        )
    elif train < needed:
        workload, key, enough, found = config.workload, "workload", needed, f"{counted(train, 'job')} to train on"
    else:
        workload, key, enough = config.validation.workload, "validation.workload", needed
        found = f"{counted(held_out, 'job')} to validate on"
    more = f"set {key}.jobs={enough} or more" if workload.is_generated else f"give it {enough:,} jobs or more"
    raise ConfigError(
        f"{workload.label}: {found} are too few for episodes of {needed:,} (episode.jobs + episode.warmup); "
        f"{more}, or set {_shorter(config.episode, min(train, held_out))}"
    )


def _enough(needed: int, fraction: float) -> int:
    """Return the fewest jobs of which both parts hold `needed`, as `Trace.split` cuts them."""
    jobs = math.floor((needed - 1) / min(fraction, 1.0 - fraction))  # a part is rounded up to a job at most
    while min(cut := math.floor(round((1.0 - fraction) * jobs, 9)), jobs - cut) < needed:
        jobs += 1
    return jobs


def _shorter(episode: EpisodeConfig, shortest: int) -> str:
    """Return the episode's settings that fit into the `shortest` part."""
    if shortest > episode.warmup:
        return f"episode.jobs={shortest - episode.warmup} or less"
    return f"episode.warmup=0 and episode.jobs={shortest} or less"
