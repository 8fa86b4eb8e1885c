"""Where results may go: a free file, a run's folder; never over something of the user's."""

from pathlib import Path

import pytest

from lepton_rl.errors import ConfigError
from lepton_rl.experiments.loader import options
from lepton_rl.experiments.outputs import check_output_file, check_run_folder
from lepton_rl.experiments.train import train
from lepton_rl.experiments.train_config import TrainConfig

WORKLOAD = {"generator": "gpu_cluster", "gpus": 8}


def test_a_file_may_be_new_or_replaced_when_told(tmp_path: Path) -> None:
    old = tmp_path / "old.csv"
    old.touch()
    check_output_file(tmp_path / "new.csv")
    check_output_file(old, overwrite=True)
    check_output_file(Path("/dev/null"))
    for path, inputs, expected in (
        (old, (), "is there already; --overwrite replaces it"),
        (tmp_path, (), "is a folder; name a file"),
        (tmp_path / "none" / "new.csv", (), "there is no folder"),
    ):
        with pytest.raises(ConfigError, match=expected):
            check_output_file(path, inputs=inputs)


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    trace, link = tmp_path / "jobs.csv", tmp_path / "link.csv"
    trace.touch()
    link.symlink_to(trace)
    for path in (trace, link):
        with pytest.raises(ConfigError, match="is what this command reads"):
            check_output_file(path, overwrite=True, inputs=(tmp_path / "none.csv", trace))


@pytest.mark.parametrize(
    "ours", [(), ("experiment.yaml", "run.json"), ("benchmark.yaml", "benchmark_run.json", "rows.jsonl")]
)
def test_a_run_folder_is_new_or_empty_or_a_run_s(ours: tuple[str, ...], tmp_path: Path) -> None:
    check_run_folder(tmp_path / "new")
    for name in ours:
        (tmp_path / name).touch()
    check_run_folder(tmp_path)


@pytest.mark.parametrize(
    "left",
    [
        (".writable",),
        (".run.json.tmp",),
        ("run.json", ".experiment.yaml.tmp"),
        (".benchmark_run.json.tmp",),
        ("benchmark_run.json", ".benchmark.yaml.tmp"),
        (".benchmark.yaml.tmp",),
    ],
)
def test_a_run_killed_as_it_began_locks_no_folder(left: tuple[str, ...], tmp_path: Path) -> None:
    for name in left:
        (tmp_path / name).write_text('{"lepton_rl": "0.1.0"}' if name.endswith("run.json") else "")
    check_run_folder(tmp_path)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds no run of lepton_rl"):
        check_run_folder(tmp_path)


@pytest.mark.parametrize("theirs", ["thesis.tex", "experiment.yaml", "run.json", "benchmark.yaml", "bundle"])
def test_another_folder_is_not_written_into(theirs: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / theirs).write_text("name: mine\n")
    with pytest.raises(ConfigError, match="is not empty and holds no run of lepton_rl; choose another --out"):
        check_run_folder(folder)
    file = tmp_path / "train.yaml"
    file.write_text("name: small\nworkload: {generator: gpu_cluster, gpus: 8}\n")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="holds no run of lepton_rl"):
            train(file, out=folder, overwrite=overwrite)
    assert [path.name for path in folder.iterdir()] == [theirs]
    assert (folder / theirs).read_text() == "name: mine\n"


@pytest.mark.parametrize("name", ["", " ", ".", "..", "../../x", "/x", "a/b", "-x", ".x", "a b", "x" * 101, "a\n"])
def test_names_that_would_leave_the_folder_of_runs(name: str) -> None:
    with pytest.raises(ConfigError, match="name: must be 1 to 100 letters, digits"):
        options(TrainConfig, name=name, workload=WORKLOAD)


@pytest.mark.parametrize("name", ["x", "week-3", "a.b_c", "Größe", "2025-01"])
def test_names(name: str) -> None:
    assert options(TrainConfig, name=name, workload=WORKLOAD).name == name
