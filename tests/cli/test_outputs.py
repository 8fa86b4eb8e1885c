"""The files that commands write: none that is there is lost."""

import shutil
from pathlib import Path

import pytest

from lepton_rl.cli import main
from lepton_rl.experiments.config import WorkloadConfig
from lepton_rl.workloads import Trace

CAPTURE = pytest.CaptureFixture[str]

WRITERS = [
    "simulate --trace jobs.csv --gpus 8 --policy fcfs --jobs-out there.csv",
    "traces describe jobs.csv --plot there.csv.png",
    "gpus A100 --plot there.csv.png",
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


@pytest.fixture
def bundle(folder: Path) -> Path:
    """A trained policy, in the folder of its run and as a zip."""
    pytest.importorskip("sb3_contrib")
    from lepton_rl.workloads import gpu_cluster
    from tests.agents.test_bundle import bundle_of, shaken_model

    model = shaken_model("maskable_ppo", "deepsets", gpu_cluster(200, 8, 1.0, seed=1))
    bundle_of(model, "deepsets", folder / "week" / "bundle")
    shutil.make_archive("week", "zip", folder / "week" / "bundle")
    return folder / "week" / "bundle"


@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("evaluate week/bundle", "week/bundle/weights.npz"),
        ("evaluate week", "week/../week/bundle/bundle.json"),
        ("evaluate week", "week/bundle/jobs.csv"),
        ("evaluate week.zip", "week.zip"),
        ("evaluate week --against mine.py:Talks", "mine.py"),
        ("simulate --gpus 8 --policy week.zip", "week.zip"),
        ("simulate --gpus 8 --policy ./week", "week/bundle/weights.npz"),
    ],
)
def test_a_bundle_is_never_written_into(line: str, out: str, bundle: Path, folder: Path, capsys: CAPTURE) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([*line.split(), "--trace", "jobs.csv", "--jobs-out", out, "--overwrite"]) == 2
    assert "which this command reads" in capsys.readouterr().err.replace("is what", "which")
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_times_of_jobs_may_stand_beside_a_bundle(bundle: Path, folder: Path) -> None:
    assert main(["evaluate", "week", "--trace", "jobs.csv", "--against", "fcfs", "--jobs-out", "week/jobs.csv"]) == 0
    assert (folder / "week" / "jobs.csv").is_file()


def test_a_trained_policy_and_its_rivals_have_one_page(bundle: Path, folder: Path, capsys: CAPTURE) -> None:
    line = ["evaluate", "week", "--trace", "jobs.csv", "--against", "fcfs,sjf"]
    assert main([*line, "--json"]) == 0
    plain = capsys.readouterr().out
    assert main([*line, "--json", "--report", "pages"]) == 0
    out, err = capsys.readouterr()
    assert out == plain
    assert err.splitlines()[-1] == "report: pages/report.html"
    page = (folder / "pages" / "report.html").read_text(encoding="utf-8")
    assert page.count("GPUs over time</h3>") == 3
    assert "Completion time against energy" in page
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for inside in ("week/bundle", "week/bundle/pages"):
        assert main([*line, "--report", inside, "--overwrite"]) == 2
        assert "which this command reads" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_trace_is_read_once_for_all_policies(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str | None] = []
    original = WorkloadConfig.build

    def counting(workload: WorkloadConfig, seed: int = 0) -> Trace:
        built.append(workload.path)
        return original(workload, seed)

    monkeypatch.setattr(WorkloadConfig, "build", counting)
    assert main(["evaluate", "week", "--trace", "jobs.csv", "--against", "fcfs,sjf"]) == 0
    assert len(built) == 1


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
