"""Short traces: the refusal names what is there, what is needed, and settings that would do."""

import re
from typing import Any

import pytest

from lepton_rl.errors import ConfigError
from lepton_rl.experiments.episode_length import check_lengths
from lepton_rl.experiments.train_config import TrainConfig


def config(**sections: Any) -> TrainConfig:
    return TrainConfig.model_validate({"name": "x", "workload": {"path": "jobs.csv"}, **sections})


@pytest.mark.parametrize(
    ("sections", "train", "held_out", "expected"),
    [
        ({}, 160, 40, "give it 1,276 jobs or more, or set episode.jobs=40 or less"),
        ({"episode": {"jobs": 10, "warmup": 50}}, 160, 40, "give it 296 jobs or more, or set episode.warmup=0 and"),
        ({"episode": {"jobs": 30, "warmup": 20}}, 160, 40, "or set episode.jobs=20 or less"),
        ({"validation": {"fraction": 0.9}}, 20, 180, "give it 2,560 jobs or more"),
        ({"workload": {"generator": "lublin", "gpus": 8, "jobs": 200}}, 160, 40, "set workload.jobs=1276 or more"),
        ({"validation": {"workload": {"path": "held.csv"}}}, 999, 40, "held: 40 jobs to validate on are too few"),
        ({"validation": {"workload": {"path": "held.csv"}}}, 99, 400, "jobs: 99 jobs to train on are too few"),
    ],
)
def test_too_few_jobs(sections: dict[str, Any], train: int, held_out: int, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)):
        check_lengths(config(**sections), train, held_out)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.3, 0.5, 0.7, 0.999])
@pytest.mark.parametrize("jobs", [1, 7, 256])
def test_the_minimum_named_is_the_least_that_does(fraction: float, jobs: int) -> None:
    from lepton_rl.workloads import gpu_cluster

    short = config(episode={"jobs": jobs}, validation={"fraction": fraction})
    with pytest.raises(ConfigError) as caught:
        check_lengths(short, 0, 0)
    found = re.search(r"give it ([\d,]+) jobs", str(caught.value))
    assert found is not None
    least = int(found[1].replace(",", ""))
    first, second = gpu_cluster(least, 8, 0.9, seed=0).split(1.0 - fraction)
    check_lengths(short, len(first), len(second))
    if least > 2:
        trace = gpu_cluster(least - 1, 8, 0.9, seed=0)
        cut = round((1.0 - fraction) * len(trace), 9) // 1
        assert min(cut, len(trace) - cut) < jobs
