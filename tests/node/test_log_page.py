"""A log is read whole and once, whatever its supervisor moves meanwhile."""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lepton_rl.node.log_page import LogPage, read_page, tail_position
from lepton_rl.node.supervisor import Log
from tests.node.conftest import PATIENCE_S
from tests.node.test_logs import collapsing

__all__ = ["collapsing"]
LIMIT = 64 << 10

_WRITER = """
import sys
for number in range(int(sys.argv[1])):
    sys.stdout.write(f"{number:09d}\\n")
    if number % 100 == 0:
        sys.stdout.flush()
"""


class Reader:
    """Follows a log and keeps all that it read, and how much it was told is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.position, self.missing = folder, 0, 0
        self.pieces: list[LogPage] = []

    def turn(self) -> LogPage:
        """Read one page."""
        page = read_page(self.folder, "stdout", self.position, 7000)
        if page.data:
            self.missing += page.begin - self.position
            self.pieces.append(page)
            self.position = page.after
        return page

    def to_the_end(self) -> None:
        """Read until there is no more."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.turn().end:
            assert time.monotonic() < deadline


def test_nothing_is_lost_or_repeated_when_each_rotation_is_seen(collapsing: Path) -> None:
    chance, written, reader = random.Random(3), bytearray(), Reader(collapsing)
    log = Log(collapsing / "stdout", LIMIT)
    with (collapsing / "stdout").open("ab", buffering=0) as out:
        for number in range(3000):
            line = b"%d%s\n" % (number, b"x" * chance.randrange(400))
            out.write(line)
            written += line
            if chance.random() < 0.3:
                reader.turn()
            if len(written) - reader.position < LIMIT // 2:
                log.rotate()
    reader.to_the_end()
    assert b"".join(page.data for page in reader.pieces) == bytes(written)
    assert (reader.missing, log.begin > 3 * LIMIT) == (0, True)


def test_a_fast_writer_and_a_tiny_limit(collapsing: Path) -> None:
    total, reader, ended = 400_000, Reader(collapsing), threading.Event()
    log = Log(collapsing / "stdout", 8192)

    def rotate() -> None:
        while not ended.is_set():
            log.rotate()

    rotating = threading.Thread(target=rotate)
    rotating.start()
    try:
        with (collapsing / "stdout").open("ab", buffering=0) as out:
            words = [sys.executable, "-c", _WRITER, str(total)]
            with subprocess.Popen(words, stdout=out) as writer:
                while writer.poll() is None:
                    reader.turn()
        assert writer.returncode == 0
    finally:
        ended.set()
        rotating.join()
    reader.to_the_end()
    assert log.begin > 8192
    written = b"".join(b"%09d\n" % number for number in range(total))
    assert sum(len(page.data) for page in reader.pieces) + reader.missing == len(written) == reader.position
    assert all(page.data == written[page.begin : page.after] for page in reader.pieces)


@pytest.mark.parametrize(
    ("lines", "text"), [(0, b""), (1, b"c\n"), (2, b"bb\nc\n"), (3, b"a\nbb\nc\n"), (9, b"a\nbb\nc\n")]
)
def test_the_last_lines(tmp_path: Path, lines: int, text: bytes) -> None:
    (tmp_path / "stdout").write_bytes(b"a\nbb\nc\n")
    assert read_page(tmp_path, "stdout", tail_position(tmp_path, "stdout", lines)).data == text


def test_the_last_lines_reach_into_the_older_part(tmp_path: Path) -> None:
    (tmp_path / "stdout.1").write_bytes(b"one\ntwo\nth")
    (tmp_path / "stdout").write_bytes(b"ree\nfour")
    (tmp_path / "stdout.begin").write_text(f"{110:020d} rests  {110:020d}\n")
    first = read_page(tmp_path, "stdout", tail_position(tmp_path, "stdout", 2))
    assert (first.begin, first.data, first.end) == (108, b"th", False)
    assert read_page(tmp_path, "stdout", first.after) == LogPage(110, b"ree\nfour", end=True)
    assert read_page(tmp_path, "stdout", 0) == LogPage(100, b"one\ntwo\nth", end=False)


def test_while_it_moves_nothing_is_read_unless_its_supervisor_is_gone(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"hello")
    note = tmp_path / "stdout.begin"
    note.write_text(f"{0:020d} moving {0:020d}\n")
    assert read_page(tmp_path, "stdout", 0) == LogPage(0, b"", end=False)
    os.utime(note, (1.0, 1.0))
    assert read_page(tmp_path, "stdout", 0) == LogPage(0, b"hello", end=True)


def test_the_last_lines_of_a_log_that_is_being_rotated(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"a\nb\n")
    note = tmp_path / "stdout.begin"
    note.write_text(f"{0:020d} moving {0:020d}\n")
    assert tail_position(tmp_path, "stdout", 1) == 0  # all of it, rather than nothing
    os.utime(note, (1.0, 1.0))
    assert tail_position(tmp_path, "stdout", 1) == 2


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_page(tmp_path, "stderr", 0) == LogPage(0, b"", end=True)
    assert tail_position(tmp_path, "stderr", 5) == 0


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "stdout").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        read_page(tmp_path, "stdout", 0)
