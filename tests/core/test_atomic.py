"""Files and folders are replaced whole or not at all."""

from pathlib import Path

import pytest

from lepton_rl.core.atomic import draft_of, remove_all_of, replacing


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_with_all_that_it_held(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").touch()
    with replacing(path) as draft:
        draft.mkdir()
        (draft / "new").touch()
        assert [file.name for file in path.iterdir()] == ["old"]
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_folder_put_aside_comes_back(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").touch()

    def fail(*_: object) -> None:
        raise error

    def replace() -> None:
        with replacing(path) as draft:
            draft.mkdir()
            monkeypatch.setattr(Path, "replace", fail)  # the moment between the two renames

    with pytest.raises(error):
        replace()
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_a_killed_process_put_aside_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    (tmp_path / ".bundle.old").mkdir()
    (tmp_path / ".bundle.old" / "old").touch()

    def fail() -> None:
        with replacing(path):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_removed_does_not_come_back(tmp_path: Path) -> None:
    for name in ("bundle", ".bundle.old", ".bundle.tmp"):
        (tmp_path / name).mkdir()
    remove_all_of(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    draft_of(path).mkdir()
    (draft_of(path) / "half").touch()
    with replacing(path) as draft:
        draft.mkdir()
    assert list(path.iterdir()) == []
