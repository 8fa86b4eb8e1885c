"""The supervisor, run as a program on real processes: it starts a job at most once and leaves nothing of it behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lepton_rl.node import supervisor
from tests.node.conftest import fill_disk, until

ARGV = [sys.executable, "-I", "-S", supervisor.__file__]


def prepare(folder: Path, script: str, **settings: object) -> Path:
    """Write request.json for a shell script and return the folder."""
    folder.mkdir(exist_ok=True)
    request: dict[str, object] = {
        "argv": ["sh", "-c", script],
        "cwd": "/",
        "env": {"PATH": os.environ["PATH"]},
        "stdout": "stdout",
        "stderr": "stderr",
        "umask": 0o022,
        "log_bytes_limit": 0,
        "stop_grace_s": 10.0,
        "checkpoint_signal": int(signal.SIGUSR1),
        "checkpoint_grace_s": 10.0,
    }
    (folder / "request.json").write_text(json.dumps(request | settings))
    return folder


def run(folder: Path) -> dict[str, Any]:
    """Run a supervisor to its end and return what it wrote."""
    assert subprocess.run([*ARGV, str(folder)], timeout=60, check=False).returncode == 0, log(folder)
    return ending(folder)


def ending(folder: Path) -> dict[str, Any]:
    """Return exit.json."""
    found = json.loads((folder / "exit.json").read_text())
    assert isinstance(found, dict)
    return found


def log(folder: Path) -> str:
    """Return what the supervisor said."""
    return (folder / "supervisor.log").read_text()


def lines(folder: Path) -> list[str]:
    """Return the lines of stdout so far."""
    out = folder / "stdout"
    return out.read_text().split() if out.exists() else []


def signalled(folder: Path, number: signal.Signals, *, after: str = "ready") -> dict[str, Any]:
    """Run a supervisor, send it a signal once the job has written a word, and return exit.json."""
    with subprocess.Popen([*ARGV, str(folder)]) as process:
        until(lambda: after in lines(folder), after)
        process.send_signal(number)
        assert process.wait(timeout=60) == 0, log(folder)
    return ending(folder)


def gone(pid: int) -> bool:
    """Return whether a process has ended."""
    try:
        return supervisor.stat(pid)[0] == b"Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("code", [0, 1, 77, 255])
def test_an_exit_code_is_written_down(code: int, tmp_path: Path) -> None:
    found = run(prepare(tmp_path, f"exit {code}"))
    assert (found["exit_code"], found["signal"], found["stopped"], found["step"]) == (code, None, None, None)
    assert log(tmp_path) == ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_written_down(number: signal.Signals, tmp_path: Path) -> None:
    found = run(prepare(tmp_path, f"kill -{int(number)} $$"))
    assert (found["exit_code"], found["signal"]) == (None, number)


def test_a_command_that_is_not_there_says_so(tmp_path: Path) -> None:
    found = run(prepare(tmp_path, "", argv=["no-such-command"]))
    assert found["exit_code"] == 127
    assert found["reason"] == "the command 'no-such-command' cannot be run: No such file or directory"
    assert (tmp_path / "stderr").read_text().strip() == found["reason"]


def test_a_command_that_is_no_program_says_so(tmp_path: Path) -> None:
    found = run(prepare(tmp_path, "", argv=[str(tmp_path)]))
    assert (found["exit_code"], found["reason"]) == (126, f"the command '{tmp_path}' cannot be run: Permission denied")


def test_a_working_directory_that_is_not_there_says_so(tmp_path: Path) -> None:
    found = run(prepare(tmp_path, "true", cwd="/no/such/place"))
    assert found["exit_code"] == 126
    assert found["reason"] == "the working directory /no/such/place cannot be entered: No such file or directory"


def test_the_job_gets_its_environment_limits_and_clean_signals(tmp_path: Path) -> None:
    script = "echo $WHAT; ulimit -n; umask; grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | wc -l"
    environment = {"WHAT": "this", "PATH": os.environ["PATH"]}
    run(prepare(tmp_path, script, env=environment, rlimits={"RLIMIT_NOFILE": [64, 64]}, umask=0o027))
    zeros = "0" * 16
    # Four descriptors: the usual three, and the one that ls reads the folder by.
    *rest, blocked_label, blocked, ignored_label, ignored, descriptors = lines(tmp_path)
    assert rest == ["this", "64", "0027"]
    assert (blocked_label, blocked, ignored_label) == ("SigBlk:", zeros, "SigIgn:")
    # 32 and 33 are the C library's own: no program can set them, and whoever started the tests may ignore them.
    assert int(ignored, 16) & ~(0b11 << 31) == 0
    assert descriptors == "4"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_root_starts_the_job_as_its_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    run(prepare(tmp_path, "id -u; id -g; id -G", uid=65534, gid=65534, groups=[65534, 1]))
    assert lines(tmp_path) == ["65534", "65534", "65534", "1"]
    assert (tmp_path / "stdout").stat().st_uid == 65534


def test_what_it_used_is_written_down(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "x = bytearray(100 << 20)\nwhile __import__('time').process_time() < 0.3: pass"]
    found = run(prepare(tmp_path, "", argv=argv))
    assert found["max_rss_kib"] > 100 << 10
    assert found["cpu_s"] >= 0.3
    assert found["run_s"] >= 0.3


def test_a_stopped_job_may_tidy_up(tmp_path: Path) -> None:
    script = "trap 'echo tidied; exit 5' TERM; echo ready; while :; do sleep 0.02; done"
    found = signalled(prepare(tmp_path, script), signal.SIGTERM)
    assert (found["exit_code"], found["stopped"], found["step"]) == (5, "stop", "stop")
    assert lines(tmp_path) == ["ready", "tidied"]


def test_a_job_that_ignores_the_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.02; done"
    found = signalled(prepare(tmp_path, script, stop_grace_s=0.3), signal.SIGTERM)
    assert (found["signal"], found["stopped"], found["step"]) == (signal.SIGKILL, "stop", "kill")
    assert found["run_s"] >= 0.3


def test_a_kill_waits_for_no_grace(tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.02; done"
    found = signalled(prepare(tmp_path, script, stop_grace_s=3600), signal.SIGUSR2)
    assert (found["signal"], found["stopped"]) == (signal.SIGKILL, "kill")


def test_a_halted_job_can_be_stopped(tmp_path: Path) -> None:
    found = signalled(prepare(tmp_path, "echo ready; kill -STOP $$", stop_grace_s=3600), signal.SIGTERM)
    assert found["signal"] == signal.SIGTERM


def test_a_checkpoint_is_taken_by_those_who_can_and_ends_nobody_else(tmp_path: Path) -> None:
    # The outer shell does not catch the signal, which would end it before its child has written.
    inner = "trap 'echo saved; exit 7' USR1; echo ready; while :; do sleep 0.02; done"
    found = signalled(prepare(tmp_path, f'sh -c "{inner}"; echo code $?'), signal.SIGUSR1)
    assert lines(tmp_path) == ["ready", "saved", "code", "7"]
    assert (found["exit_code"], found["stopped"], found["step"]) == (0, "checkpoint", "checkpoint")


def test_a_real_time_signal_may_ask_for_the_checkpoint(tmp_path: Path) -> None:
    script = "trap 'echo saved; exit 0' 40; echo ready; while :; do sleep 0.02; done"
    found = signalled(prepare(tmp_path, script, argv=["bash", "-c", script], checkpoint_signal=40), signal.SIGUSR1)
    assert (lines(tmp_path), found["exit_code"]) == (["ready", "saved"], 0)


def test_after_the_checkpoint_grace_the_job_is_stopped(tmp_path: Path) -> None:
    script = "trap 'echo saved' USR1; echo ready; while :; do sleep 0.02; done"
    found = signalled(prepare(tmp_path, script, checkpoint_grace_s=0.2), signal.SIGUSR1)
    assert (found["signal"], found["stopped"], found["step"]) == (signal.SIGTERM, "checkpoint", "stop")
    assert lines(tmp_path) == ["ready", "saved"]


def test_a_job_that_knows_no_checkpoint_is_stopped_at_once(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "echo ready; exec sleep 1000", checkpoint_grace_s=3600)
    assert signalled(folder, signal.SIGUSR1)["signal"] == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTSTP])
def test_a_terminal_does_not_end_the_supervisor(number: signal.Signals, tmp_path: Path) -> None:
    found = signalled(prepare(tmp_path, "echo ready; sleep 0.2; exit 4"), number)
    assert (found["exit_code"], found["stopped"]) == (4, None)


def test_a_daemonised_process_ends_with_its_job(tmp_path: Path) -> None:
    daemonise = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "        print(os.getpid(), flush=True)\n"
        "        time.sleep(1000)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "while not open('stdout').read(): time.sleep(0.01)\n"
    )
    folder = prepare(tmp_path, "", argv=[sys.executable, "-c", daemonise], cwd=str(tmp_path), stop_grace_s=0.2)
    found = run(folder)
    assert (found["exit_code"], found["stopped"], found["step"]) == (0, None, "kill")
    assert gone(int(lines(folder)[0]))


def test_a_job_that_forks_while_it_is_killed_is_gone(tmp_path: Path) -> None:
    spawn = "spawn() { while :; do sleep 1000 & echo $!; sleep 0.001; done; }"
    folder = prepare(tmp_path, f"trap '' TERM; {spawn}; spawn & spawn & echo ready; wait", stop_grace_s=0.1)
    signalled(folder, signal.SIGTERM)
    started = [int(word) for word in lines(folder) if word.isdigit()]
    assert started
    assert all(gone(pid) for pid in started)


def test_a_second_supervisor_of_a_running_job_refuses(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "echo ready; sleep 0.5")
    with subprocess.Popen([*ARGV, str(folder)]) as first:
        until(lambda: "ready" in lines(folder), "ready")
        second = subprocess.run([*ARGV, str(folder)], check=False)
        assert second.returncode == supervisor.REFUSED
        assert first.wait(timeout=60) == 0
    assert lines(folder) == ["ready"]


def test_a_second_supervisor_of_an_ended_job_refuses(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "echo ready")
    run(folder)
    assert subprocess.run([*ARGV, str(folder)], check=False).returncode == supervisor.REFUSED
    assert lines(folder) == ["ready"]


def test_of_many_supervisors_started_at_once_one_runs_the_job(tmp_path: Path) -> None:
    folder = prepare(tmp_path, "echo ready; sleep 0.2")
    many = [subprocess.Popen([*ARGV, str(folder)]) for _ in range(8)]
    codes = sorted(process.wait(timeout=60) for process in many)
    assert codes == [0] + [supervisor.REFUSED] * 7
    assert lines(folder) == ["ready"]


def test_a_supervisor_that_cannot_write_its_start_starts_nothing(tmp_path: Path) -> None:
    folder = prepare(tmp_path, f"touch {tmp_path}/ran")
    (folder / ".started.json").mkdir()  # what it writes to is no file
    assert subprocess.run([*ARGV, str(folder)], timeout=60, check=False).returncode == 1
    assert "IsADirectoryError" in log(folder)
    assert not (folder / "ran").exists()
    assert not (folder / "started.json").exists()


def test_it_runs_without_the_package(tmp_path: Path) -> None:
    alone = tmp_path / "alone.py"
    alone.write_bytes(Path(supervisor.__file__).read_bytes())
    folder = prepare(tmp_path / "run", "exit 3")
    command = [sys.executable, "-I", "-S", str(alone), str(folder)]
    assert subprocess.run(command, cwd="/", env={}, check=False).returncode == 0
    assert ending(folder)["exit_code"] == 3


def test_time_is_measured_even_where_the_wall_clock_is_wrong(tmp_path: Path) -> None:
    before = time.monotonic()
    found = run(prepare(tmp_path, "sleep 0.2"))
    assert 0.2 <= found["run_s"] <= time.monotonic() - before


def test_a_full_disk_does_not_hide_how_a_job_ended(small_disk: Path) -> None:
    folder = prepare(small_disk / "run", f"cat /dev/zero > {small_disk}/ballast; echo full; exit 3")
    assert run(folder)["exit_code"] == 3
    assert lines(folder) == []  # there was no room for what it said


def test_a_log_that_fills_the_disk_does_not_end_the_supervisor(small_disk: Path) -> None:
    folder = prepare(small_disk / "run", "cat /dev/zero; sleep 2; exit 3", log_bytes_limit=1000)
    assert run(folder)["exit_code"] == 3


def test_a_full_disk_starts_nothing(small_disk: Path) -> None:
    folder = prepare(small_disk / "run", f"touch {small_disk}/ran")
    fill_disk(small_disk / "ballast")
    assert subprocess.run([*ARGV, str(folder)], check=False).returncode != 0
    assert not (small_disk / "ran").exists()
    assert not (folder / "started.json").exists()
