"""`lepton-rl gpus`: the list, one type in full, and its picture."""

import json
from pathlib import Path

import pytest

from lepton_rl.cli import main
from lepton_rl.core.hardware import gpu_types

CAPTURE = pytest.CaptureFixture[str]


def test_the_list_fits_a_terminal(capsys: CAPTURE) -> None:
    assert main(["gpus"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert [line.split("  ")[0] for line in lines[1 : len(gpu_types()) + 1]] != []
    assert all(any(line.startswith(f"{gpu.name} ") for line in lines) for gpu in gpu_types())


def test_the_list_as_json(capsys: CAPTURE) -> None:
    assert main(["gpus", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["gpus"]
    assert [entry["name"] for entry in listed] == [gpu.name for gpu in gpu_types()]
    assert listed[0]["speed"]["general"] == gpu_types()[0].speed["general"]
    assert listed[0]["sources"]["memory_gib"].startswith("Tesla K80")


def test_one_in_full(capsys: CAPTURE) -> None:
    assert main(["gpus", "A40"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("A40\n")
    for part in ("48 GiB", "NVIDIA A40 Datasheet, https://", "least average draw in zeus_power", "assumption"):
        assert part in out
    assert main(["gpus", "NVIDIA H100 80GB HBM3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "H100-SXM5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["A1000"], "error: no GPU type is called 'A1000'; did you mean 'A100'? (`lepton-rl gpus` lists them)\n"),
        (["--plot", "x.png"], "error: --plot draws one GPU type; name it: lepton-rl gpus A100 --plot a100.png\n"),
        (["A100", "--plot", "nowhere/x.png"], "error: nowhere/x.png: there is no folder nowhere\n"),
        (["A100", "--plot", "x.doc"], "error: x.doc: no picture format is called 'doc'; use .png, .svg or .pdf\n"),
    ],
)
def test_mistakes(
    arguments: list[str], message: str, capsys: CAPTURE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["gpus", *arguments]) == 2
    assert capsys.readouterr() == ("", message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_picture(suffix: str, tmp_path: Path, capsys: CAPTURE) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"a100.{suffix}"
    assert main(["gpus", "A100", "--plot", str(path)]) == 0
    assert path.stat().st_size > 10_000
    assert capsys.readouterr().err == f"written: {path}\n"
