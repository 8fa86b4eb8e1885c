"""Pictures and their files."""

import re
import sys
from pathlib import Path

import pytest

from lepton_rl.errors import ConfigError, MissingExtra
from lepton_rl.experiments.drawing import check_picture, new_figure, save_picture


def test_the_format_follows_from_the_name(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, begin in (("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.pdf", b"%PDF"), ("a", b"\x89PNG")):
        save_picture(new_figure(2, 2), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begin)


def test_what_is_no_picture_is_told_which_are(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    message = re.escape("a.xyz: no picture format is called 'xyz'; use .png, .svg or .pdf")
    with pytest.raises(ConfigError, match=message + "$"):
        check_picture(Path("a.xyz"))
    with pytest.raises(ConfigError, match=r"a\.png: cannot be written: No such file or directory"):
        save_picture(new_figure(2, 2), tmp_path / "missing" / "a.png")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"lepton-rl\[report\]"):
        check_picture(Path("a.png"))
