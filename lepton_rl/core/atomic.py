"""Files and folders that are never seen half written."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a draft beside `path`, to be written as a file or a folder; it then takes the place of `path`.

    Where the block fails, `path` stays as it was. What a killed process has left of a draft is removed by the next, and
    a folder that it had put aside comes back.

    Raises:
        OSError: the draft cannot be written, or cannot take the place.
    """
    draft, former = draft_of(path), _former_of(path)
    remove(draft)
    _put_back(former, path)
    try:
        yield draft
        for file in draft.rglob("*") if draft.is_dir() else [draft]:
            _flush(file)
        if path.is_dir() and not draft.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))  # it is not ours to remove
        if path.is_dir():  # no system call replaces a folder that is not empty
            remove(former)
            path.rename(former)
        draft.replace(path)
        _flush_names(path.parent)
    except BaseException:
        _put_back(former, path)
        remove(draft)
        raise
    remove(former)


def _put_back(former: Path, path: Path) -> None:
    """Return a folder that was put aside to its name, unless another has taken it."""
    if former.is_dir() and not path.exists():
        former.rename(path)


def draft_of(path: Path) -> Path:
    """Return where `replacing` writes before it renames."""
    return path.with_name(f".{path.name}.tmp")


def remove_all_of(path: Path) -> None:
    """Remove a file or folder, with what a killed process has left beside it."""
    for place in (draft_of(path), _former_of(path), path):
        remove(place)


def _former_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush_names(folder: Path) -> None:
    """Bring the names in a folder to the disk: what was renamed stays so after a power cut."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _flush(file: Path) -> None:
    """Bring a file to the disk, so that a power cut does not leave a whole name on an empty file."""
    if file.is_file():
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())
