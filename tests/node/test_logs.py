"""Logs stay small, and what is dropped is counted to the byte."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_rl.node.supervisor import Log
from tests.node.conftest import until
from tests.node.test_supervisor import ARGV, ending, prepare

LIMIT = 64 << 10

_WRITER = """
import sys
for number in range(int(sys.argv[1])):
    sys.stdout.write(f"{number:09d}\\n")
    if number % 1000 == 0: sys.stdout.flush()
"""


@pytest.fixture
def collapsing(tmp_path: Path) -> Path:
    """A folder whose file system can cut off the front of a file."""
    probe = tmp_path / "probe"
    probe.write_bytes(bytes(1 << 16))
    with probe.open("r+b") as file:
        arguments = (ctypes.c_int(file.fileno()), ctypes.c_int(8), ctypes.c_int64(0), ctypes.c_int64(1 << 15))
        if ctypes.CDLL(None).fallocate(*arguments) != 0:
            pytest.skip("this file system cannot cut off the front of a file")
    probe.unlink()
    return tmp_path


def numbers(folder: Path) -> list[int]:
    """Return the lines that are left, older part first; each line is a number of nine digits."""
    older = folder / "stdout.1"
    data = (older.read_bytes() if older.exists() else b"") + (folder / "stdout").read_bytes()
    return [int(line) for line in data[-(len(data) // 10) * 10 :].split(b"\n") if len(line) == 9]


def test_rotation_while_the_job_writes_loses_nothing(collapsing: Path) -> None:
    total = 600_000
    with (collapsing / "stdout").open("ab", buffering=0) as out:
        log = Log(collapsing / "stdout", LIMIT)
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(total)], stdout=out) as writer:
            rotations = 0
            while writer.poll() is None:
                before = (collapsing / "stdout").stat().st_size
                log.rotate()
                rotations += before > LIMIT
        assert writer.returncode == 0
    left = numbers(collapsing)
    assert left == list(range(total - len(left), total))
    kept = sum((collapsing / name).stat().st_size for name in ("stdout", "stdout.1"))
    assert kept + log.dropped == total * 10
    assert rotations > 1


def test_a_file_is_kept_near_its_limit(collapsing: Path) -> None:
    out = collapsing / "stdout"
    log = Log(out, LIMIT)
    with out.open("ab", buffering=0) as writer:
        for _ in range(10):
            writer.write(b"x" * (LIMIT + 1))
            log.rotate()
            assert out.stat().st_size <= LIMIT
            assert (collapsing / "stdout.1").stat().st_size <= LIMIT


def test_where_the_front_cannot_be_cut_off_the_file_is_copied_and_emptied() -> None:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        pytest.skip("there is no tmpfs at /dev/shm")
    out = shared / f"lepton-test-{os.getpid()}"
    older = out.with_name(out.name + ".1")
    try:
        log = Log(out, LIMIT)
        with out.open("ab", buffering=0) as writer:
            writer.write(b"a" * (LIMIT + 5000))
            log.rotate()
            assert out.stat().st_size == 0
            writer.write(b"next")
        assert out.read_bytes() == b"next"
        assert len(older.read_bytes()) + log.dropped == LIMIT + 5000
    finally:
        out.unlink(missing_ok=True)
        older.unlink(missing_ok=True)


def test_a_small_file_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "stdout"
    out.write_bytes(b"x" * LIMIT)
    log = Log(out, LIMIT)
    log.rotate()
    assert (out.stat().st_size, log.dropped) == (LIMIT, 0)
    assert not (tmp_path / "stdout.1").exists()


def test_no_link_is_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"x" * (LIMIT * 2))
    (tmp_path / "stdout").symlink_to(precious)
    Log(tmp_path / "stdout", 10).rotate()
    assert precious.stat().st_size == LIMIT * 2


def test_a_supervisor_keeps_the_logs_of_a_job_small(collapsing: Path) -> None:
    writing = f"head -c {LIMIT * 4} /dev/zero; echo; while [ ! -e {collapsing}/enough ]; do sleep 0.05; done"
    folder = prepare(collapsing, writing, log_bytes_limit=LIMIT)
    with subprocess.Popen([*ARGV, str(folder)]) as process:
        until(lambda: (folder / "stdout.1").exists(), "a rotation")
        (folder / "enough").touch()
        assert process.wait(timeout=60) == 0
    kept = (folder / "stdout").stat().st_size + (folder / "stdout.1").stat().st_size
    assert kept + ending(folder)["log_bytes_dropped"] == LIMIT * 4 + 1
