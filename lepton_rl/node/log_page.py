"""What a run has written, read piece by piece while its supervisor moves the older part away.

A position counts bytes from the run's beginning, whatever has been moved or dropped since. Beside each log that was
rotated lies a note of the position at which the log's file begins now; while that changes, nothing is read.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = 256 << 10
TAIL_BYTES = 1 << 20
"""How far back the last lines are looked for."""
_MOVING_S = 5.0  # a supervisor that was killed meanwhile leaves its note so
_TAIL_PATIENCE_S = 0.25  # others wait for the daemon meanwhile
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class LogPage:
    """A piece of a log.

    Attributes:
        begin: position of its first byte; beyond the one that was asked for where that part was dropped.
        data: its bytes.
        end: whether there is no more for now; not said of a piece that is empty because the log is being rotated.
    """

    begin: int
    data: bytes
    end: bool

    @property
    def after(self) -> int:
        """Position of the byte that follows it."""
        return self.begin + len(self.data)


def read_page(folder: Path, stream: str, position: int, most: int = PAGE_BYTES) -> LogPage:
    """Return what a run wrote to stdout or stderr from a position on; nothing where it is just being rotated.

    Raises:
        OSError: it cannot be read.
    """
    begins, moving = _note(folder, stream)
    if moving:
        return LogPage(position, b"", end=False)
    older, start = _older(folder, stream, begins, position, most)
    if older is not None and older.data:
        page = older
    else:
        data, size = _read(folder / stream, max(0, max(position, start) - begins), most)
        begin = min(max(position, start), begins + size)
        page = LogPage(begin, data, end=begin + len(data) >= begins + size)
    if _note(folder, stream) != (begins, False):  # it was rotated under us: what we read may be of another place
        return LogPage(position, b"", end=False)
    return page


def tail_position(folder: Path, stream: str, lines: int) -> int:
    """Return where the last lines of a log begin, looking at most TAIL_BYTES back.

    Raises:
        OSError: it cannot be read.
    """
    deadline = time.monotonic() + _TAIL_PATIENCE_S
    while True:
        last = read_page(folder, stream, 1 << 62)
        begin, found, page = 0, b"", last
        if last.end:  # else it is being rotated
            page = read_page(folder, stream, max(0, last.begin - TAIL_BYTES), TAIL_BYTES)
            begin = page.begin
            while page.data:
                found += page.data
                page = read_page(folder, stream, page.after, TAIL_BYTES)
        if page.end:
            break
        if time.monotonic() > deadline:
            return begin
        time.sleep(0.002)
    if lines == 0:
        return begin + len(found)
    at = len(found) - found.endswith(b"\n")
    for _ in range(lines):
        at = found.rfind(b"\n", 0, at)
        if at < 0:
            return begin
    return begin + at + 1


def _older(folder: Path, stream: str, begins: int, position: int, most: int) -> tuple[LogPage | None, int]:
    """Return a piece of the part that was moved away, if the position lies in it or before; and where that begins."""
    if position >= begins:
        return None, 0
    path = folder / f"{stream}.1"
    with suppress(FileNotFoundError):
        size = path.lstat().st_size
        start = max(0, begins - size)
        begin = max(position, start)
        data, _ = _read(path, begin - start, min(most, begins - begin))
        return LogPage(begin, data, end=False), start
    return None, begins


def _read(path: Path, offset: int, most: int) -> tuple[bytes, int]:
    """Return bytes of a file and its size; of one that is not there, none."""
    try:
        opened = os.open(path, _FLAGS)
    except FileNotFoundError:
        return b"", 0
    try:
        return os.pread(opened, most, offset), os.fstat(opened).st_size
    finally:
        os.close(opened)


def _note(folder: Path, stream: str) -> tuple[int, bool]:
    """Return the position at which a log's file begins, and whether that is changing."""
    try:
        opened = os.open(folder / f"{stream}.begin", _FLAGS)
    except FileNotFoundError:
        return 0, False
    try:
        words = os.pread(opened, 64, 0).split()
        recent = abs(time.time() - os.fstat(opened).st_mtime) < _MOVING_S
    finally:
        os.close(opened)
    if len(words) != 3 or words[0] != words[2] or not words[0].isdigit():  # being written at this moment
        return 0, recent
    return int(words[0]), words[1] == b"moving" and recent
