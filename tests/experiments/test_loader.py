"""Experiment files: what is read, and that every complaint names its place and the right word."""

from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from lepton_rl.errors import ConfigError
from lepton_rl.experiments.benchmark_config import BenchmarkConfig, ProtocolConfig
from lepton_rl.experiments.config import ClusterConfig, Section, WorkloadConfig, load, resolved_yaml
from lepton_rl.experiments.policy_config import PolicyConfig
from lepton_rl.experiments.train_config import TrainConfig
from lepton_rl.experiments.yaml_tree import parse

Rate = Annotated[float, Field(gt=0)]


class Agent(Section):
    learning_rate: float = Field(default=1e-3, gt=0)
    steps: int = Field(default=10, ge=1)
    rates: Rate | tuple[Rate, Rate] = 1.0


class Experiment(Section):
    name: str = Field(min_length=1)
    agent: Agent = Field(default_factory=Agent)
    workload: WorkloadConfig
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    policies: tuple[PolicyConfig, ...] = ()
    trace: str | None = None


TEXT = """\
name: week
agent:
  learning_rate: 1e-4
  steps: 1e5
workload:
  generator: gpu_cluster
  gpus: 64
  parameters: {gap_cv: 2.0}
cluster: {nodes: 8, gpus_per_node: 8}
policies:
  - sjf
  - {name: sjf, blocking: easy}
  - mine/policy.py:Mine
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gpu-week.yaml"
    path.write_text(TEXT)
    return path


def complaint(file: Path, text: str = TEXT, *overrides: str) -> str:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, Experiment, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(file), "F")


def test_a_whole_file(file: Path) -> None:
    found = load(file, Experiment)
    assert (found.agent.learning_rate, found.agent.steps) == (1e-4, 100_000)
    assert [policy.label for policy in found.policies] == ["sjf", "sjf easy", "Mine"]
    assert found.policies[2].name == f"{file.parent}/mine/policy.py:Mine"
    assert found.cluster.build().gpus == 64


def test_the_resolved_file_is_the_same_experiment(file: Path, tmp_path: Path) -> None:
    found = load(file, Experiment, ["agent.steps=7", "policies.+=fcfs"])
    again = tmp_path / "elsewhere" / "experiment.yaml"
    again.parent.mkdir()
    again.write_text(resolved_yaml(found))
    assert load(again, Experiment) == found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "learning_rate:",
            "learnig_rate:",
            "F:3: agent.learnig_rate: unknown key; did you mean 'learning_rate'?",
        ),
        (
            "learning_rate: 1e-4",
            "learning_rate: -1",
            "F:3: agent.learning_rate: must be greater than 0, not -1",
        ),
        (
            "learning_rate: 1e-4",
            "learning_rate: .nan",
            "F:3: agent.learning_rate: must be a finite number, not nan",
        ),
        (
            "learning_rate: 1e-4",
            "learning_rate: much",
            "F:3: agent.learning_rate: must be a number, not 'much'",
        ),
        ("steps: 1e5", "steps: 1.5", "F:4: agent.steps: must be a whole number"),
        ("steps: 1e5", "learning_rate: 1", "F:4: learning_rate: this key was given before, at F:3"),
        ("  steps: 1e5", "\tsteps: 1e5", "F:4: a tab stands where YAML needs spaces"),
        ("gpus: 64", "gpu: 64", "F:7: workload.gpu: unknown key; did you mean 'gpus'?"),
        ("gpu_cluster", "gpu_clutser", "did you mean 'gpu_cluster'?"),
        ("gap_cv", "gap_cw", "parameters: gap_cw: unknown; did you mean 'gap_cv'?"),
        ("gap_cv: 2.0", "gap_cv: [1]", "parameters: gap_cv: must be a number, not [1]"),
        ("gap_cv: 2.0", "gap_cv: -2.0", "F:5: workload: "),
        (", gpus_per_node: 8", "", "F:9: cluster: nodes and gpus_per_node belong together"),
        (
            "gpus_per_node: 8",
            "gpus: 3",
            "F:9: cluster: give either gpus (one pool) or nodes and gpus_per_node",
        ),
        ("nodes: 8", "nodes: 0", "F:9: cluster.nodes: must be greater than or equal to 1, not 0"),
        ("- sjf\n", "- sfj\n", "F:11: policies.0: no policy named 'sfj'; did you mean 'sjf'?"),
        ("blocking: easy", "blocking: esay", "F:12: policies.1: sjf: blocking: 'esay' is not one of 'head',"),
        ("blocking: easy", "blokking: easy", "did you mean 'blocking'?"),
        ("name: week\n", "", "F:1: name: is missing"),
        ("name: week", "name: [a]", "F:1: name: must be text, not a list"),
        ("name: week", "name: &a week", "F:1: name"),
        ("name: week", "name: !!python/name:os.system x", "F:1: "),
        ("name: week", "name: 'week", "F:"),
        ("name: week", "name: we\x07ek", "F:1: the character '\\x07' does not belong in a text file"),
    ],
)
def test_complaints_name_file_line_and_key(file: Path, old: str, new: str, expected: str) -> None:
    if new == "name: &a week":
        file.write_text(TEXT.replace(old, new))  # an anchor alone is harmless
        assert load(file, Experiment).name == "week"
        return
    assert expected in complaint(file, TEXT.replace(old, new))


def test_files_that_are_no_experiment(file: Path, tmp_path: Path) -> None:
    assert complaint(file, "") == "F: the file is empty"
    assert complaint(file, "- a\n") == "F:1: a file of `key: value` lines is wanted here"
    assert "aliases" in complaint(file, "name: &a x\nagent: *a\n")
    assert "nested too deeply" in complaint(file, "[" * 5000)
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.yaml", Experiment)
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path, Experiment)
    file.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="not a text file"):
        load(file, Experiment)


def test_overrides(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    changed = load(
        file,
        Experiment,
        ["agent.steps=3", "policies.0=saf", "policies.+={name: las, label: L}", "policies.1.blocking=skip"],
    )
    assert changed.agent.steps == 3
    assert [policy.label for policy in changed.policies] == ["saf", "sjf skip", "Mine", "L"]


def test_paths_start_where_they_were_written(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    file.write_text("name: x\nworkload: {path: jobs.swf}\n")
    assert load(file, Experiment).workload.path == str(tmp_path / "jobs.swf")
    assert load(file, Experiment, ["workload.path=jobs.swf"]).workload.path == str(elsewhere / "jobs.swf")
    assert load(file, Experiment, ["workload.path=data:a/b.swf"]).workload.path == "data:a/b.swf"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("agent.stepz=1", "override 'agent.stepz=1': agent.stepz: unknown key; did you mean 'steps'?"),
        ("agent.steps", "is no override; write key.path=value"),
        ("=3", "is no override"),
        ("agent..steps=3", "is no override"),
        ("agent.steps=0", "override 'agent.steps=0': agent.steps: must be greater than or equal to 1, not 0"),
        ("agent.steps=[", "not YAML"),
        ("policies.7=sjf", "policies is a list of 3; its entries are 0 to 2, or + to add one"),
        ("name.first=x", "name is 'week' and has no entry 'first'"),
        ("workload.path=x.swf", "either a path or a generator"),
        ("workload={path: x.swf, part: [0.5]}", "workload.part: must be a list of 2, not of 1"),
        ("workload={path: x.swf, part: []}", "workload.part: must be a list of 2, not of 0"),
        ("workload={path: x.swf, part: [0, 0.5, 1]}", "workload.part: must have at most 2 entries, not 3"),
        ("workload=5", "workload: must be a mapping of `key: value` lines, not 5"),
        ("agent=", "agent: must be a mapping of `key: value` lines, not nothing"),
        ("agent.rates=[1e-3]", "agent.rates: must be a list of 2, not of 1"),
        ("agent.rates=[x, 1]", "agent.rates.0: must be a number, not 'x'"),
        ("agent.rates=x", "agent.rates: must be a number, not 'x'"),
        ("agent.rates=-1", "agent.rates: must be greater than 0, not -1"),
        ("agent.rates={a: 1}", "agent.rates: must be a number, not a mapping"),
        ("agent.learning_rate=1e400", "the number 1e400 is too large to compute with"),
        ("agent.learning_rate=.inf", "agent.learning_rate: must be a finite number, not inf"),
        ("agent.steps=1.5", "agent.steps: must be a whole number, not 1.5"),
        ("name=''", "name: must not be empty"),
        ("workload={path: ''}", "workload.path: must not be empty"),
        ("workload={path: x.swf, requested: noisy}", "workload.requested: requested times 'noisy' need a sigma"),
        ("workload={path: x.swf, requested: 'noisy:-1'}", "workload.requested: requested times 'noisy': sigma is -1"),
        ("workload.parameters={compute_intensity: [1]}", "compute_intensity must be two bounds, lower first, not 1"),
        ("policies.1={name: sjf, settings: 3}", "policies.1.settings: must be a mapping of `key: value` lines, not 3"),
        ("policies.1={name: ''}", "policies.1: must not be empty"),
    ],
)
def test_wrong_overrides(file: Path, text: str, expected: str) -> None:
    assert expected in complaint(file, TEXT, text)


def test_a_file_for_another_command_is_named(tmp_path: Path) -> None:
    training, comparison = tmp_path / "train.yaml", tmp_path / "benchmark.yaml"
    training.write_text("name: x\nworkload: {path: a.swf}\nagent: {}\n")
    comparison.write_text("name: x\nworkloads: []\npolicies: [sjf]\n")
    with pytest.raises(ConfigError, match=f"^{training}:3: agent: .*lepton-rl train {training}$"):
        load(training, BenchmarkConfig)
    with pytest.raises(ConfigError, match=f"^{comparison}:2: workloads: .*lepton-rl benchmark {comparison}$"):
        load(comparison, TrainConfig)
    with pytest.raises(ConfigError, match="policies: unknown key"):  # one stray key does not make another file
        load(training, TrainConfig, ["policies=[sjf]"])


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "a b"])
def test_a_name_is_that_of_a_folder(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    for model, keys in ((TrainConfig, "workload: {path: a.swf}"), (BenchmarkConfig, "policies: [sjf]")):
        file.write_text(f"name: '{name}'\n{keys}\n")
        with pytest.raises(ConfigError, match=f"^{file}:1: name: must be 1 to 100 letters, .*, not '{name}'$"):
            load(file, model)


def test_top_level_keys_belong_to_one_command() -> None:
    from lepton_rl.experiments.loader import _MARKS

    assert set(TrainConfig.model_fields) >= _MARKS["train"]
    assert BenchmarkConfig.model_fields.keys() | ProtocolConfig.model_fields.keys() >= _MARKS["benchmark"]
    assert not _MARKS["train"] & (BenchmarkConfig.model_fields.keys() | ProtocolConfig.model_fields.keys())
    assert not _MARKS["benchmark"] & TrainConfig.model_fields.keys()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("agent: {width: 1000000}", ":3: agent.width: must be less than or equal to 8192"),
        ("objective: {slowdown: 0, wait_hours: 0}", ":3: objective: an objective needs weights of 0 or more"),
        ("agent: {algorithm: dqn, n_steps: 5, entropy: 0.1}", ":3: agent: dqn does not read entropy, n_steps: leave"),
    ],
)
def test_settings_of_a_training_that_make_no_sense(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(f"name: x\nworkload: {{path: a.swf}}\n{text}\n")
    with pytest.raises(ConfigError, match=f"^{file}{expected}"):
        load(file, TrainConfig)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1e5", 100_000), ("0x10", "0x10"), ("no", "no"), ("12:30", "12:30"), ("010", 10),
     ("~", None), ("true", True), ("2017-09-25", "2017-09-25"), ("1_000", 1000), (".5", 0.5), ("'1'", "1")],
)  # fmt: skip
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    assert parse(text, "here").plain() == value


@given(st.text(max_size=60))
def test_any_text_is_a_tree_or_one_sentence(text: str) -> None:
    sentence = ""
    try:
        parse(text, "here")
    except ConfigError as error:
        sentence = str(error)
    assert len(sentence.splitlines()) <= 1
