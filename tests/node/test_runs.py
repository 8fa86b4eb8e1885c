"""Runs: launched, watched, stopped, and settled by the next daemon whatever state they were left in."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from lepton_rl.errors import IllegalAction, IllegalTransition, JobError, JournalError, JournalFull
from lepton_rl.node.cgroup import Cgroups
from lepton_rl.node.environment import RunSettings, supervisor_request
from lepton_rl.node.events import EventKind, RunEvent
from lepton_rl.node.jobs import JobState, RunRecord, StopHow
from lepton_rl.node.processes import Process, boot_id, members
from lepton_rl.node.run_folder import RunFolder
from lepton_rl.node.runs import Runs
from lepton_rl.node.starter import OwnStarter
from tests.node.conftest import Node, drain, shell, until

STUBBORN = "trap '' TERM USR1; echo ready; while :; do sleep 0.02; done"
PATIENT = "echo ready; exec sleep 1000"


def told(node: Node, job: int) -> tuple[JobState, int | None, int | None, str | None]:
    """Return what the journal says of a job's end."""
    record = node.journal.job(job)
    return record.state, record.exit_code, record.signal, record.reason


def kinds(events: list[RunEvent]) -> list[str]:
    """Return the kinds of events."""
    return [str(event.kind) for event in events]


def kill_supervisor(node: Node, job: int) -> None:
    """Kill -9 the supervisor of a job, which goes on without it."""
    run = node.journal.run(job)
    assert run.supervisor_pid is not None
    assert run.supervisor_ticks is not None
    process = Process(run.supervisor_pid, run.supervisor_ticks, run.boot_id)
    assert process.signal(signal.SIGKILL)
    until(lambda: not process.alive(), "the supervisor's end")


def write_json(path: Path, **values: object) -> None:
    """Write a file of a run's folder as a supervisor might have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", (JobState.DONE, 0, None, None)),
        ("exit 3", (JobState.FAILED, 3, None, "ended with exit code 3")),
        ("kill -11 $$", (JobState.FAILED, None, 11, "ended by SIGSEGV")),
        ("kill -40 $$", (JobState.FAILED, None, 40, "ended by signal 40")),
    ],
)
def test_a_job_ends_as_it_ends(
    script: str, expected: tuple[JobState, int | None, int | None, str | None], node: Node
) -> None:
    job = node.start(shell(script))
    events = drain(node.runs)
    assert [event.kind for event in events] == [EventKind.STARTED, EventKind.ENDED]
    assert (events[-1].state, events[-1].holds_gpus) == (expected[0], False)
    assert told(node, job) == expected
    assert node.journal.holding() == []


def test_a_job_sees_its_own_gpus_whatever_its_user_asks(node: Node) -> None:
    script = "env | grep -E '^(CUDA|LEPTON_(JOB_ID|RUN|GPUS)=|MINE)' | sort"
    theirs = {"CUDA_VISIBLE_DEVICES": "all", "MINE": "x", "PATH": os.environ["PATH"]}
    job = node.start(shell(script, gpu_milli=2000, env=theirs), ("GPU-a", "GPU-b"))
    drain(node.runs)
    assert (node.runs.folder(job, 1) / "stdout").read_text().split() == [
        "CUDA_DEVICE_ORDER=PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES=GPU-a,GPU-b",
        "LEPTON_GPUS=2",
        f"LEPTON_JOB_ID={job}",
        "LEPTON_RUN=1",
        "MINE=x",
    ]


def test_only_a_waiting_job_is_launched(node: Node) -> None:
    job = node.run_to_end(shell("true"))
    with pytest.raises(IllegalTransition, match=rf"job {job} is done and cannot become starting"):
        node.runs.launch(job, ["GPU-a"])


def test_a_job_that_cannot_be_started_waits_again(node: Node) -> None:
    (node.folder / "jobs").write_text("in the way")
    job = node.journal.submit(shell("true"), 0.0)
    with pytest.raises(JobError, match=rf"job {job} could not be started: .*; it waits again"):
        node.runs.launch(job, ["GPU-a"])
    assert node.journal.job(job).state is JobState.WAITING
    assert node.journal.holding() == []
    (node.folder / "jobs").unlink()
    node.runs.launch(job, ["GPU-a"])
    drain(node.runs)
    assert (node.journal.job(job).state, node.journal.job(job).run) == (JobState.DONE, 2)


def test_a_folder_of_another_history_is_not_taken_for_ours(node: Node) -> None:
    write_json(node.runs.folder(1, 1) / "started.json", supervisor=[1, 1], child=[1, 1], boot_id="x",
               started_time=0.0, started_monotonic_s=0.0)  # fmt: skip
    job = node.journal.submit(shell("true"), 0.0)
    with pytest.raises(JobError, match="holds files of a job of another journal"):
        node.runs.launch(job, ["GPU-a"])
    node.runs.launch(job, ["GPU-a"])
    drain(node.runs)
    assert node.journal.job(job).state is JobState.DONE


def test_a_stopped_job_is_what_the_caller_said(node: Node) -> None:
    job = node.start(shell(PATIENT))
    node.wait_for_output(job, "ready")
    node.runs.stop(job, "cancelled by ada")
    assert node.journal.job(job).state is JobState.STOPPING
    drain(node.runs)
    assert told(node, job) == (JobState.CANCELLED, None, signal.SIGTERM, "cancelled by ada")


def test_a_stop_that_comes_before_the_start_is_not_lost(node: Node) -> None:
    job = node.start(shell(STUBBORN, stop_grace_s=0.1))
    node.runs.stop(job, "changed my mind")
    drain(node.runs)
    assert told(node, job)[0] is JobState.CANCELLED


def test_a_second_stop_may_be_harsher(node: Node) -> None:
    job = node.start(shell(STUBBORN, stop_grace_s=3600, restartable=True))
    node.wait_for_output(job, "ready")
    node.runs.stop(job, "make room", then=JobState.WAITING)
    node.runs.stop(job, "now", how=StopHow.KILL)
    node.runs.stop(job, "make room again", then=JobState.WAITING)
    drain(node.runs)
    assert told(node, job)[:3] == (JobState.CANCELLED, None, signal.SIGKILL)


def test_a_preempted_job_waits_and_runs_again_elsewhere(node: Node) -> None:
    script = "echo $LEPTON_RUN $CUDA_VISIBLE_DEVICES; [ $LEPTON_RUN = 2 ] && exit 0; trap 'exit 0' USR1; " + (
        "while :; do sleep 0.02; done"
    )
    job = node.start(shell(script, restartable=True))
    node.wait_for_output(job, "GPU-a")
    node.runs.stop(job, "preempted for job 9", then=JobState.WAITING, how=StopHow.CHECKPOINT)
    assert drain(node.runs)[-1].state is JobState.WAITING
    assert [run.stop_reason for run in node.journal.runs(job)] == ["preempted for job 9"]
    node.runs.launch(job, ["GPU-b"])
    drain(node.runs)
    assert told(node, job) == (JobState.DONE, 0, None, None)
    assert (node.runs.folder(job, 2) / "stdout").read_text() == "2 GPU-b\n"


def test_a_job_that_is_not_restartable_is_not_preempted(node: Node) -> None:
    job = node.start(shell("sleep 0.1"))
    with pytest.raises(IllegalAction, match=rf"job {job} is not declared restartable and is never preempted"):
        node.runs.stop(job, "make room", then=JobState.WAITING)
    drain(node.runs)
    assert node.journal.job(job).state is JobState.DONE


def test_an_ended_job_cannot_be_stopped(node: Node) -> None:
    job = node.run_to_end(shell("true"))
    with pytest.raises(IllegalAction, match=f"job {job} is done: only a starting or running job can be stopped"):
        node.runs.stop(job, "too late")


def test_a_job_stopped_behind_the_daemons_back_has_failed(node: Node) -> None:
    job = node.start(shell(PATIENT))
    node.wait_for_output(job, "ready")
    os.kill(node.supervisor(job), signal.SIGTERM)
    drain(node.runs)
    assert told(node, job)[0] is JobState.FAILED
    assert "not by the daemon" in str(told(node, job)[3])


def test_the_next_daemon_watches_a_job_that_still_runs(node: Node) -> None:
    job = node.start(shell(f"echo ready; while [ ! -e {node.folder}/enough ]; do sleep 0.02; done; exit 6"))
    node.wait_for_output(job, "ready")
    node.crash()
    assert kinds(node.restart()) == ["started"]
    assert node.runs.watching() == {job}
    (node.folder / "enough").touch()
    drain(node.runs)
    assert told(node, job)[:2] == (JobState.FAILED, 6)


def test_the_next_daemon_learns_how_a_job_ended_meanwhile(node: Node) -> None:
    job = node.start(shell("exit 9"))
    folder = node.runs.folder(job, 1)
    until(lambda: (folder / "exit.json").exists(), "the end")
    node.crash()
    assert kinds(node.restart() + drain(node.runs)) == ["started", "ended"]
    assert told(node, job)[:2] == (JobState.FAILED, 9)


def test_what_was_only_intended_waits_again(node: Node) -> None:
    job = node.journal.submit(shell("exit 2"), 0.0)
    node.journal.begin_run(job, ["GPU-a"], 0.0, 0.0, boot_id())
    node.crash()
    assert kinds(node.restart()) == ["not_launched"]
    assert told(node, job)[0] is JobState.WAITING
    assert node.journal.holding() == []


def test_the_next_daemon_starts_what_was_prepared(node: Node) -> None:
    job = node.journal.submit(shell("exit 2"), 0.0)
    run = node.journal.begin_run(job, ["GPU-a"], 0.0, 0.0, boot_id())
    asked = supervisor_request(node.journal.job(job), run, node.journal.node_id, None)
    RunFolder(node.runs.folder(job, 1)).prepare(RunSettings().complete(asked))
    node.crash()
    assert node.restart() == []
    drain(node.runs)
    assert told(node, job)[:2] == (JobState.FAILED, 2)
    assert node.journal.job(job).run == 1


def test_what_was_intended_and_then_cancelled_never_starts(node: Node) -> None:
    job = node.journal.submit(shell(f"touch {node.folder}/ran"), 0.0)
    node.journal.begin_run(job, ["GPU-a"], 0.0, 0.0, boot_id())
    node.journal.intend_stop(job, StopHow.STOP, JobState.CANCELLED, "no need", 0.0)
    RunFolder(node.runs.folder(job, 1)).prepare({})
    node.crash()
    assert kinds(node.restart()) == ["not_launched"]
    assert told(node, job) == (JobState.CANCELLED, None, None, "no need")
    assert not (node.folder / "ran").exists()


def test_the_next_daemon_waits_for_a_supervisor_that_is_just_starting(node: Node) -> None:
    job = node.journal.submit(shell(f"echo x >> {node.folder}/ran"), 0.0)
    node.runs.launch(job, ["GPU-a"])  # the daemon dies right after
    node.crash()
    node.restart()
    drain(node.runs)
    assert node.journal.job(job).state is JobState.DONE
    assert (node.folder / "ran").read_text() == "x\n"


def test_a_stop_that_was_not_signalled_is_signalled_by_the_next_daemon(node: Node) -> None:
    job = node.start(shell(PATIENT))
    node.wait_for_output(job, "ready")
    node.runs.poll()
    node.journal.intend_stop(job, StopHow.STOP, JobState.CANCELLED, "cancelled", 0.0)
    node.crash()
    node.restart()
    drain(node.runs)
    assert told(node, job) == (JobState.CANCELLED, None, signal.SIGTERM, "cancelled")


@pytest.mark.parametrize("daemon", ["lives", "was away"])
def test_a_job_without_supervisor_is_lost_and_keeps_its_gpus_until_it_ends(daemon: str, node: Node) -> None:
    job = node.start(shell(f"echo ready; while [ ! -e {node.folder}/enough ]; do sleep 0.02; done"))
    node.wait_for_output(job, "ready")
    node.supervisor(job)
    if daemon == "was away":
        node.crash()
        node.restart()
    kill_supervisor(node, job)
    if daemon == "was away":
        node.crash()
        events = node.restart()
    else:
        events = drain(node.runs)
    assert (events[-1].kind, events[-1].state, events[-1].holds_gpus) == (EventKind.LOST, JobState.LOST, True)
    assert [run.job for run in node.journal.holding()] == [job]
    node.crash()
    assert node.restart() == []
    assert [run.job for run in node.journal.holding()] == [job]
    (node.folder / "enough").touch()
    seen: list[RunEvent] = []

    def told_of_it() -> bool:
        seen.extend(node.runs.poll())
        return bool(seen)

    until(told_of_it, "the orphan's end")
    assert kinds(seen) == ["orphan_gone"]
    assert node.journal.holding() == []
    assert node.journal.job(job).state is JobState.LOST


def test_a_lost_job_whose_processes_are_gone_holds_nothing(node: Node) -> None:
    job = node.start(shell(PATIENT))
    node.wait_for_output(job, "ready")
    node.supervisor(job)
    node.crash()
    node.restart()
    run = node.journal.run(job)
    kill_supervisor(node, job)
    assert run.child_pid is not None
    os.kill(run.child_pid, signal.SIGKILL)
    until(lambda: not Process(run.child_pid or 0, run.child_ticks or 0, run.boot_id).alive(), "the job's end")
    events = drain(node.runs)
    assert (events[-1].kind, events[-1].holds_gpus) == (EventKind.LOST, False)
    assert node.journal.holding() == []


def test_an_orphan_that_left_its_session_is_found_and_can_be_ended(node: Node) -> None:
    job = node.start(shell("setsid sh -c 'trap \"\" TERM; echo ready; while :; do sleep 0.02; done' & wait"))
    node.wait_for_output(job, "ready")
    node.supervisor(job)
    run = node.journal.run(job)
    kill_supervisor(node, job)
    assert run.child_pid is not None
    os.kill(run.child_pid, signal.SIGKILL)
    assert drain(node.runs)[-1].holds_gpus
    assert node.runs.end_orphan(job) > 0
    assert node.runs.end_orphan(job, StopHow.KILL) > 0
    until(lambda: bool(node.runs.poll()), "the orphan's end")
    assert node.journal.holding() == []


def test_a_supervisor_that_cannot_begin_says_why(node: Node) -> None:
    job = node.journal.submit(shell("true"), 0.0)
    (node.runs.folder(job, 1) / ".started.json").mkdir(parents=True)
    node.runs.launch(job, ["GPU-a"])
    assert drain(node.runs)[-1].kind is EventKind.NOT_LAUNCHED
    state, _, _, reason = told(node, job)
    assert state is JobState.WAITING
    assert "its supervisor did not start it" in str(reason)
    assert "Is a directory" in str(reason)


def reboot(node: Node, job: int) -> None:
    """Let the newest run of a job be one of an earlier boot, whose process numbers are other processes' now."""
    boot, me = "an-earlier-boot", os.getpid()
    with closing(sqlite3.connect(node.journal.path, isolation_level=None)) as connection:
        connection.execute("UPDATE runs SET boot_id = ? WHERE job = ?", (boot, job))
    started = node.runs.folder(job, 1) / "started.json"
    if started.exists():
        found = json.loads(started.read_text())
        write_json(started, **(found | {"boot_id": boot, "supervisor": [me, 1], "child": [me, 1]}))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"exit_code": 0}', '{"supervisor": [1], "child": "x"}'])
@pytest.mark.parametrize("name", ["exit.json", "started.json"])
def test_files_that_a_job_wrote_over_do_not_end_the_daemon(name: str, text: str, node: Node) -> None:
    job = node.start(shell(PATIENT))
    node.wait_for_output(job, "ready")
    node.supervisor(job)
    (node.runs.folder(job, 1) / name).write_text(text)
    kill_supervisor(node, job)
    event = drain(node.runs)[-1]
    assert (event.kind, event.holds_gpus) == (EventKind.LOST, True)
    assert node.runs.end_orphan(job, StopHow.KILL) == 1
    until(lambda: bool(node.runs.poll()), "the orphan's end")
    assert node.journal.holding() == []


def test_a_start_that_a_job_wrote_over_still_counts_as_one(node: Node) -> None:
    job = node.start(shell(f"echo x >> {node.folder}/ran; echo ready; exec sleep 1000"))
    node.wait_for_output(job, "ready")
    started = node.runs.folder(job, 1) / "started.json"
    supervisor = Process.of(json.loads(started.read_text())["supervisor"][0])
    assert supervisor is not None
    started.write_text("?")
    supervisor.signal(signal.SIGKILL)
    until(lambda: not supervisor.alive(), "the supervisor's end")
    node.crash()
    node.restart()
    assert node.journal.job(job).state is JobState.LOST
    assert [run.job for run in node.journal.holding()] == [job]
    assert node.runs.end_orphan(job, StopHow.KILL) == 1
    until(lambda: bool(node.runs.poll()), "the orphan's end")
    assert (node.folder / "ran").read_text() == "x\n"


def test_a_running_job_whose_folder_was_removed_is_watched_and_never_run_again(node: Node) -> None:
    job = node.start(shell(f"echo x >> {node.folder}/ran; echo ready; exec sleep 1000", restartable=True))
    node.wait_for_output(job, "ready")
    node.supervisor(job)
    node.crash()
    shutil.rmtree(node.folder / "jobs")
    node.restart()
    assert node.runs.watching() == {job}
    kill_supervisor(node, job)
    assert drain(node.runs)[-1].kind is EventKind.LOST
    node.runs.end_orphan(job, StopHow.KILL)
    until(lambda: bool(node.runs.poll()), "the orphan's end")
    node.crash()
    assert node.restart() == []
    assert node.journal.job(job).state is JobState.LOST
    assert (node.folder / "ran").read_text() == "x\n"


def test_without_descriptors_a_job_is_started_once_and_found_by_its_folder(node: Node) -> None:
    job = node.journal.submit(shell(f"echo x >> {node.folder}/ran; exit 3"), 0.0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    fillers = [os.open(os.devnull, os.O_RDONLY)]  # a limit is on the number of a descriptor: leave no gap below it
    while fillers[-1] < highest:
        fillers.append(os.open(os.devnull, os.O_RDONLY))
    spare = fillers[-1] + 1
    refused = 0
    for room in range(12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + room, before[1]))
        try:
            node.runs.launch(job, ["GPU-a"])
            break
        except (JobError, JournalError):
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for filler in fillers:
        os.close(filler)
    assert refused > 0
    until(lambda: bool(node.runs.poll()) or node.journal.job(job).state is JobState.FAILED, "the end")
    drain(node.runs)
    assert (node.journal.job(job).state, node.journal.job(job).exit_code) == (JobState.FAILED, 3)
    assert (node.folder / "ran").read_text() == "x\n"


@pytest.mark.parametrize(
    ("restartable", "cancelled", "state"),
    [
        (True, False, JobState.WAITING),
        (False, False, JobState.LOST),
        (True, True, JobState.CANCELLED),
        (False, True, JobState.CANCELLED),
    ],
)
def test_after_a_reboot_only_what_may_be_restarted_waits(
    restartable: bool, cancelled: bool, state: JobState, node: Node
) -> None:
    job = node.start(shell(PATIENT, restartable=restartable))
    node.wait_for_output(job, "ready")
    node.supervisor(job)
    run = node.journal.run(job)
    kill_supervisor(node, job)
    assert run.child_pid is not None
    os.kill(run.child_pid, signal.SIGKILL)
    if cancelled:
        node.journal.intend_stop(job, StopHow.STOP, JobState.CANCELLED, "no need", 0.0)
    node.crash()
    reboot(node, job)
    assert kinds(node.restart()) == ["rebooted"]
    assert told(node, job)[0] is state
    assert node.journal.holding() == []


def test_after_a_reboot_a_job_that_never_began_waits(node: Node) -> None:
    job = node.journal.submit(shell("true"), 0.0)
    node.journal.begin_run(job, ["GPU-a"], 0.0, 0.0, "an-earlier-boot")
    assert kinds(node.runs.adopt()) == ["not_launched"]
    assert node.journal.job(job).state is JobState.WAITING


def test_after_a_reboot_a_written_end_counts(node: Node) -> None:
    job = node.start(shell("exit 8"))
    until(lambda: (node.runs.folder(job, 1) / "exit.json").exists(), "the end")
    node.crash()
    reboot(node, job)
    node.restart()
    assert told(node, job)[:2] == (JobState.FAILED, 8)


def test_a_full_journal_forgets_no_end(node: Node) -> None:
    job = node.start(shell("exit 5"))
    until(lambda: (node.runs.folder(job, 1) / "exit.json").exists(), "the end")
    wal = node.journal.path.with_name("journal.sqlite-wal")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size, before[1]))
    try:
        for _ in range(2):
            with pytest.raises(JournalFull, match="nothing of this change was written"):
                drain(node.runs)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert kinds(drain(node.runs)) == ["started", "ended"]
    assert told(node, job)[:2] == (JobState.FAILED, 5)


class JumpingClock:
    """A wall clock that is set back by an hour at each look."""

    def __init__(self) -> None:
        self.now = 1e9

    def wall(self) -> float:
        """Return a time before the last."""
        self.now -= 3600.0
        return self.now

    def monotonic(self) -> float:
        """Return the real one."""
        return time.monotonic()


def test_a_wall_clock_set_back_makes_no_duration_negative(tmp_path: Path, node: Node) -> None:
    node.runs.close()
    node.runs = Runs(node.folder, node.journal, JumpingClock())
    lost = node.start(shell(PATIENT))
    node.wait_for_output(lost, "ready")
    node.supervisor(lost)
    kill_supervisor(node, lost)
    drain(node.runs)
    node.runs.end_orphan(lost, StopHow.KILL)
    ended = node.run_to_end(shell("sleep 0.1"))
    runs: list[RunRecord] = [node.journal.run(job) for job in (lost, ended)]
    assert all(run.run_s is not None and 0 < run.run_s < 3600 for run in runs)
    usage = node.journal.usage("queue", 0.0, time.time() + 10)
    assert usage[0].gpu_s == pytest.approx(sum(run.run_s or 0.0 for run in runs), abs=1e-3)


def test_a_number_taken_over_by_another_process_is_not_ours(node: Node) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        now = Process.of(stranger.pid)
        assert now is not None
        former = Process(now.pid, now.start_ticks - 1, now.boot_id)
        assert former.open() is None
        assert not former.alive()
        assert not former.signal(signal.SIGKILL)
        assert now.alive()
        stranger.communicate(b"\n")
        assert stranger.returncode == 0


def test_settings_reach_the_job(node: Node) -> None:
    node.runs.close()
    settings = RunSettings(umask=0o077, rlimits={"RLIMIT_NOFILE": (50, 50)})
    node.runs = Runs(node.folder, node.journal, starter=OwnStarter(node.journal.node_id, settings=settings))
    job = node.run_to_end(shell("umask; ulimit -n"))
    assert (node.runs.folder(job, 1) / "stdout").read_text().split() == ["0077", "50"]
    asked = node.run_to_end(shell("umask", umask=0o027))  # the job's own goes before
    assert (node.runs.folder(asked, 1) / "stdout").read_text() == "0027\n"


def test_a_held_run_cannot_be_locked_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.prepare({})
    held = folder.lock()
    assert held is not None
    assert folder.lock() is None
    os.close(held)
    again = folder.lock()
    assert again is not None
    os.close(again)


def test_a_run_in_a_control_group_is_limited_and_leaves_none(node: Node, cgroups: Cgroups) -> None:
    node.runs.close()
    node.runs = Runs(node.folder, node.journal, starter=OwnStarter(node.journal.node_id, cgroups))
    job = node.journal.submit(shell("grep ^0: /proc/self/cgroup; exit 3"), 0.0)
    node.runs.launch(job, ["GPU-a"], gpu_minors=[0])
    drain(node.runs)
    assert told(node, job)[:2] == (JobState.FAILED, 3)
    group = cgroups.parent / f"{node.journal.node_id}.{job}.1"  # another node on this machine may have a job 1
    assert (node.runs.folder(job, 1) / "stdout").read_text() == f"0::/{cgroups.parent.name}/{group.name}\n"
    assert not group.exists()


def test_an_orphan_that_hides_from_all_else_is_found_by_its_control_group(node: Node, cgroups: Cgroups) -> None:
    node.runs.close()
    node.runs = Runs(node.folder, node.journal, starter=OwnStarter(node.journal.node_id, cgroups))
    job = node.start(shell("env -i setsid sh -c 'echo ready; while :; do sleep 0.05; done' & wait"))
    node.wait_for_output(job, "ready")
    node.supervisor(job)
    kill_supervisor(node, job)
    os.kill(node.journal.run(job).child_pid or 0, signal.SIGKILL)
    assert drain(node.runs)[-1].holds_gpus
    node.runs.end_orphan(job, StopHow.KILL)
    until(lambda: bool(node.runs.poll()), "the orphan's end")
    assert node.journal.holding() == []
    assert not (cgroups.parent / f"{job}.1").exists()


def test_a_session_taken_over_by_a_stranger_is_not_signalled() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 1000 & wait"], start_new_session=True) as stranger:
        now = Process.of(stranger.pid)
        assert now is not None
        former = Process(now.pid, now.start_ticks - 1, now.boot_id)
        until(lambda: len(members(now, "NO=1")) == 2, "its child")
        assert members(former, "NO=1") == []
        stranger.kill()
        stranger.wait()
        left = members(now, "NO=1")
        assert len(left) == 1
        assert members(now, "NO=1", sure=True) == []
        assert members(now, "NO=1", [left[0].pid], sure=True) == left
        assert left[0].signal(signal.SIGKILL)
