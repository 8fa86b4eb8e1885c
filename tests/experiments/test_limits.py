"""Numbers of absurd size in an experiment file: each works, or is refused in one sentence that names it."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from lepton_rl.errors import ConfigError
from lepton_rl.experiments.benchmark_config import BenchmarkConfig, ProtocolConfig
from lepton_rl.experiments.cluster_config import ClusterConfig, GroupConfig
from lepton_rl.experiments.loader import load
from lepton_rl.experiments.train_config import TrainConfig

TRAIN = "name: t\nworkload: {generator: gpu_cluster, gpus: 8}\n"
COMPARISON = """\
name: b
workloads: [{generator: gpu_cluster, gpus: 8, windows: {kind: independent}}]
policies: [fcfs]
"""
PROTOCOL = "name: p\nprotocol: rlscheduler\nworkload: {generator: gpu_cluster, gpus: 8}\n"
CLUSTER = "groups: [{nodes: 1, gpus_per_node: 1, gpu: A100}]\n"
FILES: dict[type[BaseModel], str] = {
    TrainConfig: TRAIN, BenchmarkConfig: COMPARISON, ProtocolConfig: PROTOCOL, ClusterConfig: CLUSTER,
}  # fmt: skip
UNLIMITED = {"seed", "limit", "quantum", "evaluate_every", "checkpoint_every"}
"""Where more than enough means all of it, or never."""


def numbers(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Yield the keys of a model that hold one number, the parts of its sections included."""
    for name, field in model.model_fields.items():
        kinds = {field.annotation, *get_args(field.annotation)}
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if name == "workloads":
            yield from numbers(get_args(field.annotation)[0], "workloads.0.")
        elif name == "groups" and not before:
            yield from numbers(GroupConfig, "groups.0.")
        elif name in ("groups", "locality", "accelerators", "faults", "reservations"):  # of a cluster file's own test
            continue
        elif inner and not before.startswith("validation"):  # its workload and objective are the same as above
            yield from numbers(inner[0], f"{before}{name}.")
        elif not inner and kinds & {int, float} and name not in ("part", "seeds", "factors"):
            yield f"{before}{name}"


@pytest.mark.parametrize(
    ("model", "key"), [(model, key) for model in FILES for key in numbers(model)], ids=lambda value: str(value)
)
def test_every_number_has_a_limit(model: type[BaseModel], key: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(FILES[model])
    if key.rpartition(".")[2] in UNLIMITED:
        key += "=1000000000000000000000000000000"
        also = ["observation.actions=preemptive"] if model is TrainConfig else []  # quantum is read there alone
        assert load(file, model, [key, *also])
        return
    with pytest.raises(
        ConfigError, match=rf"^override '{key}=1e30': {key}: must be less than or equal to [\d.]+, not 1"
    ):
        load(file, model, [f"{key}=1e30"])


@pytest.mark.parametrize(
    ("override", "key", "actions"),
    [
        ("quantum=60", "quantum", "preemptive"),
        ("observation.running=8", "observation.running", "preemptive"),
        ("observation.power_levels=[1, 0.5]", "observation.power_levels", "power"),
    ],
)
def test_what_no_action_reads_is_refused_where_it_stands(override: str, key: str, actions: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(TRAIN)
    with pytest.raises(ConfigError) as caught:
        load(file, TrainConfig, [override])
    only = f"{key}: read where observation.actions is {actions} alone; leave it out"
    assert str(caught.value) == f"override '{override}': {only}"
    assert load(file, TrainConfig, [override, f"observation.actions={actions}"])


def test_a_rollout_that_nothing_could_hold_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(TRAIN)
    assert load(file, TrainConfig, ["training.environments=1024", "agent.n_steps=256"])
    with pytest.raises(
        ConfigError, match=r"agent\.n_steps=1000000 in training\.environments=64 is too large to be held"
    ):
        load(file, TrainConfig, ["agent.n_steps=1000000"])
    with pytest.raises(ConfigError, match=r"agent\.n_steps=2048 in training\.environments=16384"):
        load(file, TrainConfig, ["training.environments=16384"])
