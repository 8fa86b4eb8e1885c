"""A node in a terminal, and an encrypted backup of it: through the command line, on the same daemon."""

import io
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from lepton_rl.node.encryption import decrypt_file, is_encrypted
from lepton_rl.node.journal import Journal
from lepton_rl.node.top import frame
from tests.node.http.conftest import RunningNode


def command(node: RunningNode, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lepton_rl.cli", "node", *words, "--state", str(node.folder)],
        capture_output=True, text=True, env={**os.environ, "TZ": "UTC"},
    )  # fmt: skip


@pytest.mark.parametrize("width", [80, 120])
def test_one_frame_fits_the_screen_and_shows_what_there_is(node: RunningNode, width: int) -> None:
    long = node.submit("/bin/sleep", "300", gpus=4, requested_s=3600.0, name="[red]\x1b[2Jtrain" + "x" * 200)
    node.wait_for(long, "running")  # first: the policy prefers the others
    late = [node.submit("/bin/sleep", "5", gpus=1, name=f"late-{number}") for number in range(3)]
    node.over_socket("drain", gpu="3", reason="its fan is loud")
    done = command(node, "top", "--once", "--width", str(width))
    node.over_socket("resume", gpu="3")
    for job in (*late, long):
        node.over_socket("cancel", job=job, kill=True)
        node.wait_for(job, "cancelled")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert "simulated devices: no number here was measured on hardware" in lines
    assert "running (1)" in done.stdout.replace("  ", "")
    assert "waiting (3)" in done.stdout.replace("  ", "")
    assert "\x1b" not in done.stdout
    row = next(line for line in lines if "train" in line)
    assert row.split()[:3] == [str(long), "running", "4"]
    assert row.split()[4] == "s", "it has not waited for a minute"
    assert "[red]" in row
    gpu = next(line for line in lines if "its fan is loud" in line)
    assert "drained" in gpu
    assert "0.0/80" in gpu
    assert "62/400" in gpu
    assert ("submit-token@http" in done.stdout) == (width == 120)
    assert f"start {long} on GPU 0, 1, 2, 3" in done.stdout


def test_decisions_are_told_in_words_and_long_ones_are_cut(node: RunningNode) -> None:
    status, starts = node.over_socket("status"), [f"Start(job={job}, gpus=(0,))" for job in range(1, 51)]
    decisions = [
        {"time": 0.0, "fallback_reason": None, "detail": {"by": "saf", "actions": actions, **more}}
        for actions, more in (
            (["Preempt(job=52)", "Migrate(job=7, gpus=(1, 2))", "SetPowerLimit(gpu=1, watts=250.0)"], {}),
            (starts, {"count": 60}),
        )
    ]
    console = Console(width=200, file=io.StringIO())
    console.print(frame(status, [], decisions, 200))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "preempt 52; move 7 to GPU 1, 2; limit GPU 1 to 250 W" in shown
    assert "start 5 on GPU 0; and 55 more" in shown


def test_it_lives_in_a_terminal_until_ctrl_c(node: RunningNode) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "lepton_rl.cli", "node", "top", "--period", "0.2", "--state", str(node.folder)]
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    seen, asked = b"", False
    with suppress(OSError):  # the terminal is closed on the other side
        while block := os.read(ours, 1 << 16):
            seen += block
            if seen.count(b"lepton-rl node") >= 3 and not asked:  # it has been drawn anew
                process.send_signal(signal.SIGINT)
                asked = True
    os.close(ours)
    assert process.wait(60.0) == 0, seen
    assert b"\x1b[?1049l" in seen  # the screen of before is back


def test_an_encrypted_backup_holds_the_journal_and_leaves_no_plain_copy(node: RunningNode, tmp_path: Path) -> None:
    pytest.importorskip("pyrage")
    job = node.submit("/bin/true", name="kept")
    node.wait_for(job, "done")
    passphrase, file = tmp_path / "passphrase", tmp_path / "journal.age"
    passphrase.write_text("correct horse battery staple\n")
    passphrase.chmod(0o600)
    done = command(node, "backup", str(file), "--encrypt", "--passphrase-file", str(passphrase))
    assert (done.returncode, done.stdout) == (0, f"written: {file}\n"), done.stderr
    assert is_encrypted(file)
    assert not list(node.folder.glob(".backup*"))
    decrypt_file(file, tmp_path / "journal.sqlite3", "correct horse battery staple")
    with Journal(tmp_path / "journal.sqlite3", read_only=True) as journal:
        assert journal.job(job).request.name == "kept"
    refused = command(node, "backup", str(tmp_path / "x"), "--encrypt", "--passphrase-file", str(tmp_path / "none"))
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
