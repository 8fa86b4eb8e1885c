"""`simulate --report`: where the page goes, and that nothing of the user's is lost."""

import json
import os
import sys
from pathlib import Path

import pytest

from lepton_rl.cli import main

CAPTURE = pytest.CaptureFixture[str]
LINE = ["simulate", "--trace", "jobs.csv", "--gpus", "8", "--policy", "sjf"]

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def test_the_page_is_written_and_named(folder: Path, capsys: CAPTURE) -> None:
    assert main([*LINE, "--json"]) == 0
    plain = capsys.readouterr().out
    assert main([*LINE, "--json", "--report", "runs/sjf"]) == 0
    out, err = capsys.readouterr()
    assert out == plain
    assert json.loads(out)["policy"] == "sjf"
    assert err.splitlines()[-1] == "report: runs/sjf/report.html"
    assert sorted(path.name for path in (folder / "runs" / "sjf").iterdir()) == ["report.html"]


def test_a_page_that_is_there_is_kept_unless_told_otherwise(folder: Path, capsys: CAPTURE) -> None:
    (folder / "out").mkdir()
    page, other = folder / "out" / "report.html", folder / "out" / "other.txt"
    page.write_text("mine")
    other.write_text("mine")
    assert main([*LINE, "--report", "out"]) == 2
    assert capsys.readouterr().err == "error: out/report.html: is there already; --overwrite replaces it\n"
    assert page.read_text() == "mine"
    assert main([*LINE, "--report", "out", "--overwrite"]) == 0
    assert page.read_text() != "mine"
    assert other.read_text() == "mine"


@pytest.mark.parametrize(
    ("report", "error"),
    [
        ("jobs.csv", "jobs.csv: is a file; a report needs a folder"),
        ("jobs.csv/new", "jobs.csv/new: jobs.csv is a file; a report needs a folder"),
        ("folder", "folder/report.html: is a folder; name a file"),
        ("", "Invalid value for '--report': a path is needed, not an empty text"),
        ("a.csv --jobs-out a.csv", "--jobs-out a.csv is what --report writes; name another file"),
        ("x --jobs-out x/../x/report.html", "x/../x/report.html: there is no folder x/../x"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(report: str, error: str, folder: Path, capsys: CAPTURE) -> None:
    (folder / "folder" / "report.html").mkdir(parents=True)
    before = sorted(folder.rglob("*"))
    assert main([*LINE, "--report", *(report.split() or [""])]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].removeprefix("error: ") == error
    assert sorted(folder.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_leave_to_write_is_refused(folder: Path, capsys: CAPTURE) -> None:
    (folder / "out").mkdir(mode=0o500)
    assert main([*LINE, "--report", "out"]) == 2
    assert "out: cannot be written" in capsys.readouterr().err


def test_a_missing_extra_is_named_before_anything_runs(
    folder: Path, capsys: CAPTURE, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([*LINE, "--report", "out"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: matplotlib is not installed; install it with: pip install 'lepton-rl[report]'\n"
    assert not (folder / "out").exists()


def test_a_run_that_fails_leaves_no_folder(folder: Path) -> None:
    line = ["simulate", "--trace", "jobs.csv", "--gpus", "8", "--policy", "mine.py:Exits", "--report", "out"]
    assert main(line) == 2
    assert not (folder / "out").exists()
