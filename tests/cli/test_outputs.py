"""The files that commands write: none that is there is lost."""

from pathlib import Path

import pytest

from lepton_rl.cli import main

CAPTURE = pytest.CaptureFixture[str]

WRITERS = [
    "simulate --trace jobs.csv --gpus 8 --policy fcfs --jobs-out there.csv",
    "traces describe jobs.csv --plot there.csv.png",
    "traces generate gpu --jobs 10 --out there.csv",
    "traces generate gpu --jobs 10 --out there.swf.gz",
    "traces generate gpu --jobs 10 --out there.npz",
    "configs copy train/quickstart.yaml copies",
]


@pytest.fixture
def there(folder: Path) -> list[Path]:
    """Files of the user's, under the names that WRITERS use."""
    (folder / "copies").mkdir()
    names = ("there.csv", "there.csv.png", "there.swf.gz", "there.npz", "copies/quickstart.yaml")
    for name in names:
        (folder / name).write_text("mine")
    return [folder / name for name in names]


@pytest.mark.parametrize("line", WRITERS)
def test_a_file_that_is_there_is_kept(line: str, there: list[Path], capsys: CAPTURE) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "is there already; --overwrite replaces it" in err
    assert [path.read_text() for path in there] == ["mine"] * len(there)


@pytest.mark.parametrize("line", WRITERS)
def test_unless_told_otherwise(line: str, there: list[Path]) -> None:
    assert main([*line.split(), "--overwrite"]) == 0
    assert sum(path.read_bytes() != b"mine" for path in there) == 1


@pytest.mark.parametrize(
    "line",
    [
        "simulate --trace jobs.csv --gpus 8 --policy fcfs --jobs-out ./jobs.csv",
        "simulate --trace jobs.csv --gpus 8 --policy mine.py:Talks --jobs-out mine.py",
        "simulate --trace jobs.csv --gpus 8 --policy fcfs --jobs-out linked.csv",
        "traces describe jobs.csv --plot jobs.csv",
    ],
)
def test_what_a_command_reads_is_never_replaced(line: str, folder: Path, capsys: CAPTURE) -> None:
    (folder / "linked.csv").hardlink_to(folder / "jobs.csv")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main([*line.split(), "--overwrite"]) == 2
    assert "is what this command reads; name another file" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "line",
    [
        ["traces", "generate", "gpu", "--out", ""],
        ["traces", "describe", "jobs.csv", "--plot", ""],
        ["simulate", "--trace", "jobs.csv", "--policy", "fcfs", "--gpus", "8", "--jobs-out", " "],
        ["benchmark", "small.yaml", "--out", ""],
        ["train", "small.yaml", "--out", ""],
        ["configs", "copy", "train/quickstart.yaml", ""],
    ],
)
def test_an_empty_path_is_not_the_working_directory(line: list[str], folder: Path, capsys: CAPTURE) -> None:
    before = sorted(folder.iterdir())
    assert main(line) == 2
    assert "a path is needed, not an empty text" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_a_pipe_may_be_written_to(folder: Path) -> None:
    assert main(["simulate", "--trace", "jobs.csv", "--gpus", "8", "--policy", "fcfs", "--jobs-out", "/dev/null"]) == 0
