"""The launcher: jobs as their users, nothing else for nobody else, and it outlives nothing that it must not."""

import asyncio
import concurrent.futures.thread  # noqa: F401 - while we are root: the service's user may not read it
import json
import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_rl.errors import JobError, NodeError
from lepton_rl.node.accounts import Account, JobUsers
from lepton_rl.node.environment import RunSettings
from lepton_rl.node.events import EventKind
from lepton_rl.node.handover import check_limits, check_request
from lepton_rl.node.helper_socket import HelperSocket, Reply
from lepton_rl.node.jobs import JobState, StopHow
from lepton_rl.node.launcher import LauncherRules
from lepton_rl.node.launcher_client import LauncherStarter
from lepton_rl.node.past import DAY_S
from lepton_rl.node.processes import Process
from lepton_rl.node.retention import RetentionRules, forget, removed_jobs
from lepton_rl.node.run_folder import RunFolder
from lepton_rl.node.runs import Runs
from tests.node.conftest import Node, drain, shell, until
from tests.node.users import ADA, BOB, SERVICE, LauncherProcess, SharedPlace, acting_as, need_root

PATIENT = "echo ready; exec sleep 1000"
ENV = {"LEPTON_JOB_ID": "1", "LEPTON_RUN": "1", "LEPTON_RUN_KEY": "node:1:1"}
REQUEST: dict[str, Any] = {
    "argv": ["true"], "cwd": "/", "env": ENV, "uid": ADA, "checkpoint_signal": 10, "checkpoint_grace_s": 1.0,
    "stop_grace_s": 1.0,
}  # fmt: skip


class SharedNode(Node):
    """The daemon's half, as the service's user, with a launcher that is root."""

    def __init__(self, place: SharedPlace, launcher: LauncherProcess) -> None:
        super().__init__(place.state)
        self.place, self.launcher = place, launcher
        self.crash()
        self.restart()

    def restart(self) -> Any:
        """Start the next daemon."""
        from lepton_rl.node.journal import Journal

        self.journal = Journal(self.folder / "journal.sqlite3", now=time.time())
        starter = LauncherStarter(self.place.launcher_socket, self.journal.node_id)
        self.runs = Runs(self.folder, self.journal, starter=starter)
        return self.runs.adopt()

    def ended(self, job: int) -> tuple[JobState, int | None, str | None]:
        """Wait for a job's end; return what the journal says of it."""
        drain(self.runs)
        record = self.journal.job(job)
        return record.state, record.exit_code, record.reason

    def out(self, job: int, name: str = "stdout") -> str:
        """Return what a job wrote."""
        return (self.runs.folder(job, 1) / name).read_text()


@pytest.fixture
def place() -> Iterator[SharedPlace]:
    """The folders of a shared node."""
    need_root()
    place = SharedPlace()
    yield place
    place.close()


@pytest.fixture
def launcher(place: SharedPlace) -> Iterator[LauncherProcess]:
    """A launcher that runs."""
    launcher = LauncherProcess(place.rules(), place.base / "launcher.log")
    yield launcher
    if launcher.process.poll() is None:
        launcher.end(signal.SIGKILL)


@pytest.fixture
def shared(place: SharedPlace, launcher: LauncherProcess) -> Iterator[SharedNode]:
    """A node in shared mode; the test acts as the service's user."""
    with acting_as(SERVICE):
        node = SharedNode(place, launcher)
        yield node
        node.crash()


def ask(launcher: LauncherProcess, *requests: object, as_user: int = SERVICE) -> list[dict[str, Any]]:
    """Send requests over one connection; return the answers, none where it hangs up."""
    with acting_as(as_user), socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(30)
        raw.connect(str(launcher.rules.socket))
        answers: list[dict[str, Any]] = []
        with raw.makefile("rb") as lines, suppress(ConnectionError):
            for request in requests:
                raw.sendall(request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n")
                line = lines.readline()
                if not line:
                    break
                answers.append(json.loads(line))
    return answers


def prepared(place: SharedPlace, job: int = 1, **changes: Any) -> Path:
    """Prepare a run's folder as the daemon does."""
    folder = place.state / "jobs" / str(job) / "1"
    before = os.umask(0o077)
    with acting_as(SERVICE):
        env = {"LEPTON_JOB_ID": str(job), "LEPTON_RUN": "1", "LEPTON_RUN_KEY": f"node:{job}:1"}
        RunFolder(folder).prepare(REQUEST | {"env": env} | changes)
    os.umask(before)
    return folder


def refused(launcher: LauncherProcess, **changes: Any) -> str:
    """Ask for the start of job 1; return why it is refused, which is in the log too."""
    (answer,) = ask(launcher, {"verb": "start", "job": 1, "run": 1, "uid": ADA, **changes})
    assert not answer["ok"], answer
    assert f"refused: {answer['error']}" in launcher.log.read_text()
    return str(answer["error"])


# Jobs of two users --------------------------------------------------------------------------------------------------


def test_a_job_runs_as_its_user_and_the_daemon_reads_how_it_ended(shared: SharedNode) -> None:
    script = "id -u; id -g; id -G; umask; echo to-stderr > /dev/stderr; exit 3"
    jobs = [shared.start(shell(script, uid=uid), (f"GPU-{uid}",)) for uid in (ADA, BOB)]
    for job, uid in zip(jobs, (ADA, BOB), strict=True):
        assert shared.ended(job) == (JobState.FAILED, 3, "ended with exit code 3")
        assert shared.out(job).split() == [str(uid), str(uid), str(uid), "0077"]
        assert shared.out(job, "stderr") == "to-stderr\n"


def test_a_job_has_the_umask_it_was_submitted_with_else_the_launchers(shared: SharedNode) -> None:
    job = shared.run_to_end(shell("umask", uid=ADA, umask=0o027))
    assert shared.out(job) == "0027\n"
    other = shared.run_to_end(shell("umask", uid=ADA))
    assert shared.out(other) == "0077\n"


def test_a_job_can_neither_forge_how_it_ended_nor_reach_what_is_others(shared: SharedNode) -> None:
    others = shared.start(shell(PATIENT, uid=BOB), ("GPU-b",))
    shared.wait_for_output(others, "ready")
    shared.supervisor(others)
    run = shared.journal.run(others)
    mine = shared.journal.submit(shell("true", uid=ADA), 0.0)
    folder, its = shared.runs.folder(mine + 1, 1), shared.runs.folder(others, 1)
    attempts = f"""
    for file in exit.json started.json request.json .exit.json supervisor.log; do
      echo '{{}}' > {folder}/$file; rm -f {folder}/$file; mv {folder}/$file {folder}/other
    done
    cat {its}/stdout; cat {its}/request.json; cat {shared.folder}/journal.sqlite3; echo x >> {its}/stdout
    cat /proc/{run.child_pid}/environ; kill -9 {run.child_pid}; kill -9 {run.supervisor_pid}; kill -9 $PPID
    cd {folder} && echo entered
    exit 5
    """
    forger = shared.start(shell(attempts, uid=ADA), ("GPU-a",))
    assert forger == mine + 1
    until(lambda: bool(shared.runs.poll()) and shared.journal.job(forger).state is JobState.FAILED, "its end")
    assert shared.journal.job(forger).exit_code == 5
    assert shared.out(forger) == ""
    assert shared.out(forger, "stderr").count("ermission denied") >= 20
    assert shared.out(forger, "stderr").count("not permitted") == 3
    shared.runs.stop(others, "enough")
    assert shared.ended(others)[0] is JobState.CANCELLED


def test_a_job_has_the_network_that_the_launcher_has_not(shared: SharedNode) -> None:
    job = shared.run_to_end(shell("readlink /proc/self/ns/net", uid=ADA))
    assert shared.out(job).strip() == str(Path("/proc/self/ns/net").readlink())


def test_who_owns_what_in_the_folder_of_a_run(shared: SharedNode) -> None:
    job = shared.run_to_end(shell("echo out", uid=ADA))
    folder = shared.runs.folder(job, 1)
    found = {path.name: path.stat() for path in [folder, *folder.iterdir()]}
    assert (found["1"].st_uid, stat.S_IMODE(found["1"].st_mode)) == (0, 0o2750)
    for name in ("request.json", "started.json", "exit.json", "supervisor.log"):
        assert (found[name].st_uid, found[name].st_gid, stat.S_IMODE(found[name].st_mode)) == (0, SERVICE, 0o640), name
    for name in ("stdout", "stderr"):
        assert (found[name].st_uid, found[name].st_gid, stat.S_IMODE(found[name].st_mode)) == (ADA, SERVICE, 0o640)


def test_a_folder_that_its_user_may_not_enter_is_no_working_directory(shared: SharedNode) -> None:
    job = shared.run_to_end(shell("pwd", uid=ADA, cwd=str(shared.folder)))
    state, code, reason = shared.ended(job)
    assert (state, code) == (JobState.FAILED, 126)
    assert reason == f"the working directory {shared.folder} cannot be entered: Permission denied"


@pytest.mark.parametrize(
    ("how", "trap", "expected"),
    [
        (StopHow.CHECKPOINT, "trap 'echo saved; exit 0' USR1", "saved\n"),
        (StopHow.STOP, "trap 'echo stopped; exit 0' TERM", "stopped\n"),
        (StopHow.KILL, "trap '' TERM USR1", ""),
    ],
)
def test_a_job_of_another_user_is_stopped_through_the_launcher(
    how: StopHow, trap: str, expected: str, shared: SharedNode
) -> None:
    job = shared.start(shell(f"{trap}; echo ready; while :; do sleep 0.02; done", uid=ADA))
    shared.wait_for_output(job, "ready")
    shared.supervisor(job)
    shared.runs.stop(job, "asked to", how=how)
    assert shared.ended(job)[0] is JobState.CANCELLED
    assert shared.out(job) == f"ready\n{expected}"


def test_what_a_dead_supervisor_leaves_is_found_and_ended(shared: SharedNode) -> None:
    job = shared.start(shell("setsid sh -c 'echo ready; exec sleep 1000' & wait", uid=ADA))
    shared.wait_for_output(job, "ready")
    pid = shared.supervisor(job)
    with acting_as(0):
        os.kill(pid, signal.SIGKILL)
    (event,) = drain(shared.runs)
    assert (event.kind, event.holds_gpus) == (EventKind.LOST, True)
    child = Process.of(shared.journal.run(job).child_pid or 0)
    assert child is not None
    with acting_as(0):
        assert child.signal(signal.SIGKILL)
    until(lambda: not child.alive(), "its end")
    assert shared.runs.poll() == []  # one that has left the session is found by its mark
    assert shared.runs.end_orphan(job) == 1
    until(lambda: bool(shared.runs.poll()), "the orphan's end")
    assert shared.journal.holding() == []


# Crashes ------------------------------------------------------------------------------------------------------------


def test_jobs_survive_daemon_and_launcher_and_are_stopped_by_the_next(shared: SharedNode) -> None:
    job = shared.start(shell(PATIENT, uid=BOB), ("GPU-b",))
    shared.wait_for_output(job, "ready")
    supervisor = shared.supervisor(job)
    with acting_as(0):
        shared.launcher.end(signal.SIGKILL)
    shared.crash()
    shared.restart()
    assert shared.runs.watching() == {job}
    shared.runs.stop(job, "no longer wanted")  # nobody can tell the supervisor yet
    shared.runs.poll()
    assert Process.of(supervisor) is not None
    with pytest.raises(JobError, match="the launcher does not answer"):
        shared.start(shell("true", uid=ADA), ("GPU-a",))
    assert shared.journal.queue()[0].run == 0  # it was not even tried
    with acting_as(0):
        shared.launcher.start()
    until(lambda: bool(shared.runs.poll()), "the stop")
    assert shared.journal.job(job).state is JobState.CANCELLED


def test_a_run_that_the_daemon_gave_up_is_never_started(shared: SharedNode) -> None:
    job = shared.journal.submit(shell("true", uid=ADA), 0.0)
    now = time.time()
    shared.journal.begin_run(job, ["GPU-a"], now, now, Process.of(os.getpid()).boot_id)  # type: ignore[union-attr]
    RunFolder(shared.runs.folder(job, 1)).prepare(REQUEST)
    shared.crash()
    (event,) = shared.restart()
    assert (event.kind, event.state) == (EventKind.NOT_LAUNCHED, JobState.WAITING)
    (answer,) = ask(shared.launcher, {"verb": "start", "job": job, "run": 1, "uid": ADA})
    assert answer["error"] == "request.json of the run cannot be opened: No such file or directory"
    assert answer["lasting"] is False, "what may pass fails no job"
    shared.runs.launch(job, ["GPU-a"])
    assert shared.ended(job)[0] is JobState.DONE
    assert shared.journal.job(job).run == 2


def test_a_job_that_the_launcher_refuses_fails_and_is_not_tried_for_ever(shared: SharedNode) -> None:
    job = shared.journal.submit(shell("true", uid=SERVICE), 0.0)
    with pytest.raises(JobError, match=r"the launcher refuses: user 20001 is the node's own account.*; it has failed"):
        shared.runs.launch(job, ["GPU-a"])
    (event,) = shared.runs.poll()
    assert (event.kind, event.state) == (EventKind.NOT_LAUNCHED, JobState.FAILED)


def test_a_run_is_started_once(place: SharedPlace, launcher: LauncherProcess) -> None:
    prepared(place)
    asked = {"verb": "start", "job": 1, "run": 1, "uid": ADA}
    first, second = ask(launcher, asked, asked)
    assert first["ok"]
    assert second["error"] == "the folder 1 of the run is user 0's, or others may write it; not taken"


# Removing what has ended ------------------------------------------------------------------------------------------


def test_the_files_of_ended_runs_go_and_those_of_living_ones_stay(shared: SharedNode) -> None:
    ended = [shared.run_to_end(shell("echo out", uid=uid)) for uid in (ADA, BOB)]
    living = shared.start(shell(PATIENT, uid=BOB))
    shared.wait_for_output(living, "ready")
    never = shared.journal.submit(shell("true", uid=ADA), 0.0)  # given up before the launcher heard of it
    RunFolder(shared.runs.folder(never, 1)).prepare(REQUEST)
    shared.journal.cancel_waiting(never, time.time(), "enough")
    starter = LauncherStarter(shared.place.launcher_socket, shared.journal.node_id)
    later = time.time() + 31 * DAY_S
    assert asyncio.run(forget(shared.journal, shared.folder, RetentionRules(), later, starter)) == (3, 0)
    assert {place.name for place in (shared.folder / "jobs").iterdir()} == {str(living), "removed"}
    assert removed_jobs(shared.folder) == {*ended, never}
    assert f"job {ended[0]}, run 1: its files were removed" in shared.launcher.log.read_text()
    assert asyncio.run(forget(shared.journal, shared.folder, RetentionRules(), later + 60 * DAY_S, starter)) == (0, 3)
    shared.supervisor(living)
    shared.runs.stop(living, "enough")
    assert shared.ended(living)[0] is JobState.CANCELLED


def test_nothing_of_a_run_is_removed_before_its_last_process_has_ended(shared: SharedNode) -> None:
    job = shared.start(shell(PATIENT, uid=ADA))
    shared.wait_for_output(job, "ready")
    asked = {"verb": "remove", "job": job, "run": 1}
    (answer,) = ask(shared.launcher, asked)
    assert answer["error"] == "the run is held by another process"
    supervisor = shared.supervisor(job)
    child = Process.of(shared.journal.run(job).child_pid or 0)
    assert child is not None
    with acting_as(0):
        os.kill(supervisor, signal.SIGKILL)
    drain(shared.runs)
    (answer,) = ask(shared.launcher, asked)
    assert answer["error"] == f"process {child.pid} of the run has not ended; its files stay"
    assert shared.out(job) == "ready\n"
    with acting_as(0):
        assert child.signal(signal.SIGKILL)
    until(lambda: not child.alive(), "its end")
    (answer,) = ask(shared.launcher, asked)
    assert answer["ok"], answer
    assert not shared.runs.folder(job, 1).exists()
    (answer,) = ask(shared.launcher, asked)
    assert answer["error"] == "the folder 1 of the run cannot be opened: No such file or directory"


def test_a_removal_that_was_cut_off_is_ended_by_the_next(shared: SharedNode) -> None:
    job = shared.run_to_end(shell("true", uid=ADA))
    with acting_as(0):  # in the order in which the launcher removes them
        (shared.runs.folder(job, 1) / "started.json").unlink()
        (shared.runs.folder(job, 1) / "request.json").unlink()
    (answer,) = ask(shared.launcher, {"verb": "remove", "job": job, "run": 1})
    assert answer["ok"], answer
    assert list((shared.folder / "jobs" / str(job)).iterdir()) == []


def test_a_removal_follows_no_link_and_takes_nothing_that_is_not_a_runs(
    place: SharedPlace, launcher: LauncherProcess
) -> None:
    precious = place.base / "precious"
    precious.mkdir()
    (precious / "file").write_text("precious")
    asked = {"verb": "remove", "job": 1, "run": 1}
    folder = prepared(place)
    (answer,) = ask(launcher, asked)
    assert answer["error"] == f"the folder 1 of the run is user {SERVICE}'s, or others may write it; not taken"
    os.chown(folder, 0, SERVICE)
    (folder / "link").symlink_to(precious)
    (folder / "other").symlink_to(precious / "file")
    (folder / "folder").mkdir()
    (answer,) = ask(launcher, asked)
    assert answer["error"] == "the folder of the run holds a folder, 'folder', that no run makes; not removed"
    assert (folder / "request.json").exists()
    (folder / "folder").rmdir()
    (answer,) = ask(launcher, asked)
    assert answer["ok"], answer
    folder.symlink_to(precious)
    (answer,) = ask(launcher, asked)
    assert answer["error"] == "the folder 1 of the run cannot be opened: Not a directory"
    assert (precious / "file").read_text() == "precious"


def test_files_stay_while_the_launcher_is_away(shared: SharedNode) -> None:
    job = shared.run_to_end(shell("true", uid=ADA))
    with acting_as(0):
        shared.launcher.end(signal.SIGKILL)
    starter = LauncherStarter(shared.place.launcher_socket, shared.journal.node_id)
    with pytest.raises(JobError, match="the launcher does not answer"):
        asyncio.run(forget(shared.journal, shared.folder, RetentionRules(), time.time() + 400 * DAY_S, starter))
    assert shared.runs.folder(job, 1).exists()
    assert removed_jobs(shared.folder) == set()


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"verb": "shell", "job": 1, "run": 1}, "the launcher knows start"),
        ({"verb": "start", "job": 1, "run": 1}, "the launcher knows start"),
        ({"verb": "start", "job": 1, "run": 1, "uid": ADA, "gid": 0}, "the launcher knows start"),
        ({"verb": "start", "job": "../../etc", "run": 1, "uid": ADA}, "job must be a whole number"),
        ({"verb": "start", "job": 1, "run": "1/../2", "uid": ADA}, "run must be a whole number"),
        ({"verb": "start", "job": 1, "run": True, "uid": ADA}, "run must be a whole number"),
        ({"verb": "start", "job": 1, "run": 1, "uid": -1}, "uid must be a whole number"),
        ({"verb": "start", "job": 1, "run": 1, "uid": "root"}, "uid must be a whole number"),
        ({"verb": "signal", "job": 1, "run": 1, "how": 9}, "how must be one of checkpoint, stop, kill"),
        ({"verb": "signal", "job": 1, "run": 1, "how": "stop", "pid": 1}, "the launcher knows start"),
        ({"verb": "remove", "job": 1, "run": "../../jobs"}, "run must be a whole number"),
        ({"verb": "remove", "job": 1, "run": 1, "path": "/"}, "the launcher knows start"),
        ({"verb": "remove", "job": 9, "run": 1}, "the folder jobs of the run cannot be opened"),
        ({"verb": "reap", "job": 9, "run": 1}, "the folder jobs of the run cannot be opened"),
        ({"verb": ["start"]}, "job must be a whole number"),
        ({}, "job must be a whole number"),
        ([], "a request must be an object"),
        (b"\xff\xfe{\n", "a request must be one line of JSON"),
        (b"[" * 4000 + b"\n", "a request must be one line of JSON"),
    ],
)
def test_the_launcher_knows_its_verbs_alone(request_: object, sentence: str, launcher: LauncherProcess) -> None:
    (answer,) = ask(launcher, request_)
    assert not answer["ok"]
    assert answer["error"].startswith(sentence)
    assert f"refused: {answer['error']}" in launcher.log.read_text()


def test_whose_jobs_run() -> None:
    users = JobUsers(service_uid=SERVICE, also=frozenset({65534, 7}))
    for uid, sentence in (
        (0, "jobs do not run as root here"),
        (SERVICE, "user 20001 is the node's own account"),
        (2, "has number 2, below 1000: jobs do not run as an account of the system"),
        (ADA, f"user {ADA} is not known to this machine"),
        (2**40, f"user {2**40} is not known to this machine"),
    ):
        with pytest.raises(JobError, match=sentence):
            users.check(uid)
    assert users.check(65534).uid == 65534
    assert users.check(7).uid == 7
    assert JobUsers(service_uid=SERVICE, root_jobs=True).check(0).gid == 0
    unknown = JobUsers(service_uid=SERVICE, without_account=True)
    assert unknown.check(ADA) == Account(ADA, ADA, (ADA,))
    with pytest.raises(JobError, match="is not known"):
        unknown.check(2**32 - 1)


def test_the_launcher_starts_nothing_as_root_or_as_an_account_of_the_system(
    place: SharedPlace, launcher: LauncherProcess
) -> None:
    for uid in (0, 1, SERVICE):
        folder = prepared(place, job=1, uid=uid)
        assert refused(launcher, uid=uid)
        assert folder.stat().st_uid == SERVICE  # not taken
    prepared(place, uid=BOB)
    assert refused(launcher) == f"the run is not recorded as one of user {ADA}"


def test_the_request_of_another_run_is_refused(place: SharedPlace, launcher: LauncherProcess) -> None:
    folder, other = prepared(place), prepared(place, job=2)
    shutil.copyfile(other / "request.json", folder / "request.json")
    assert refused(launcher) == "the request in the folder of job 1, run 1, is another run's by its variables"
    assert folder.stat().st_uid == SERVICE  # not taken


def test_links_and_what_is_others_are_refused(place: SharedPlace, launcher: LauncherProcess) -> None:
    outside = place.base / "outside"
    shutil.copytree(prepared(place, job=7), outside)
    os.chown(outside, SERVICE, SERVICE)
    (place.state / "jobs" / "1").mkdir()
    os.chown(place.state / "jobs" / "1", SERVICE, SERVICE)
    run = place.state / "jobs" / "1" / "1"
    run.symlink_to(outside)
    assert refused(launcher) == "the folder 1 of the run cannot be opened: Not a directory"
    run.unlink()
    run.symlink_to("../7/1")
    assert refused(launcher) == "the folder 1 of the run cannot be opened: Not a directory"
    run.unlink()
    run.mkdir(mode=0o777)
    assert refused(launcher) == "the folder 1 of the run is user 0's, or others may write it; not taken"
    os.chown(run, SERVICE, SERVICE)
    run.chmod(0o770)
    assert "others may write it" in refused(launcher)
    run.chmod(0o700)
    (run / "request.json").symlink_to(place.state / "jobs" / "7" / "1" / "request.json")
    assert refused(launcher) == "request.json of the run cannot be opened: Too many levels of symbolic links"
    (run / "request.json").unlink()
    os.mkfifo(run / "request.json")
    assert refused(launcher) == f"request.json of the run is no plain file of user {SERVICE}"
    (run / "request.json").unlink()
    os.link(place.state / "jobs" / "7" / "1" / "request.json", run / "request.json")
    assert refused(launcher) == f"request.json of the run is no plain file of user {SERVICE}"


@pytest.mark.parametrize("planted", ["stdout", "supervisor.log", ".exit.json", "started.json"])
def test_a_link_planted_for_root_to_write_through_is_not_followed(
    planted: str, place: SharedPlace, launcher: LauncherProcess
) -> None:
    precious = place.base / "precious"
    precious.write_text("precious")
    folder = prepared(place)
    (folder / planted).symlink_to(precious)
    assert refused(launcher) == "the folder of the run holds more than request.json"
    assert precious.read_text() == "precious"
    assert refused(launcher).startswith("the folder 1 of the run is user 0's")


def test_a_forged_start_gives_no_process_to_signal(place: SharedPlace, launcher: LauncherProcess) -> None:
    victim = Process.of(os.getpid())
    assert victim is not None
    folder = prepared(place)
    known = {"supervisor": [victim.pid, victim.start_ticks], "child": [victim.pid, victim.start_ticks]}
    with acting_as(SERVICE):
        (folder / "started.json").write_text(json.dumps(known | {"boot_id": victim.boot_id}))
    assert refused(launcher) == "the folder of the run holds more than request.json"  # it is root's now
    for how in ("stop", "kill"):
        (answer,) = ask(launcher, {"verb": "signal", "job": 1, "run": 1, "how": how})
        assert answer["result"] == {"signalled": 0}  # and we are still here


def test_nobody_but_the_service_and_root_may_call(place: SharedPlace, launcher: LauncherProcess) -> None:
    with acting_as(ADA), socket.socket(socket.AF_UNIX) as raw, pytest.raises(PermissionError):
        raw.connect(str(launcher.rules.socket))
    place.private.chmod(0o755)
    launcher.rules.socket.chmod(0o666)  # even so: the kernel tells who calls
    assert ask(launcher, {"verb": "reap", "job": 1, "run": 1}, as_user=ADA) == []
    assert f"of user {ADA} may not call" in launcher.log.read_text()
    assert len(ask(launcher, {"verb": "reap", "job": 1, "run": 1})) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"argv": []}, "argv of the run is no list of words"),
        ({"argv": ["a\0b"]}, "argv of the run is no list of words"),
        ({"argv": "sh"}, "argv of the run is no list of words"),
        ({"cwd": "here"}, "cwd of the run is no absolute path"),
        ({"cwd": None}, "cwd of the run is no absolute path"),
        ({"env": {"A=B": "1"}}, "env of the run has a name that no variable can have"),
        ({"env": {"A": 1}}, "env of the run is no map of texts"),
        ({"env": {"A": "\udfff\ud800"}}, "env of the run is no map of texts"),
        ({"checkpoint_signal": 0}, "checkpoint_signal of the run is no signal"),
        ({"checkpoint_signal": True}, "checkpoint_signal of the run is no signal"),
        ({"stop_grace_s": -1}, "stop_grace_s of the run is no time"),
        ({"checkpoint_grace_s": float("nan")}, "checkpoint_grace_s of the run is no time"),
        ({"umask": 0o1000}, "umask of the run is no number from 0 to 0o777"),
        ({"umask": "0o22"}, "umask of the run is no number from 0 to 0o777"),
        ({"umask": True}, "umask of the run is no number from 0 to 0o777"),
        ({"env": {}}, "the request in the folder of job 1, run 1, is another run's by its variables"),
        ({"env": ENV | {"LEPTON_JOB_ID": "2"}}, "is another run's"),
        ({"env": ENV | {"LEPTON_RUN": "2"}}, "is another run's"),
        ({"env": ENV | {"LEPTON_RUN_KEY": "node:2:1"}}, "is another run's"),
        ({"env": ENV | {"LEPTON_RUN_KEY": "node:1:1:1"}}, "is another run's"),
        ({"uid": True}, f"the run is not recorded as one of user {ADA}"),
    ],
)
def test_what_the_daemon_asks_of_a_run_is_checked(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(JobError, match=sentence):
        check_request(REQUEST | changes, ADA, 1, 1)


def test_what_is_not_the_daemons_to_decide_counts_for_nothing() -> None:
    more = {"stdout": "/etc/passwd", "gid": 0, "groups": [0], "rlimits": {}, "cgroups": ["/"]}
    assert not check_request(REQUEST | more, ADA, 1, 1).keys() & more.keys()


@pytest.mark.parametrize(
    "limits", [[], {"ram_mib": 0}, {"ram_mib": "1"}, {"cpus": float("inf")}, {"gpu_minors": [-1]}, {"gpu_minors": 0}]
)
def test_limits_of_the_wrong_kind_are_refused(limits: object) -> None:
    with pytest.raises(JobError, match="limits"):
        check_limits(limits)
    assert check_limits({"ram_mib": 5, "cpus": 0.5, "gpu_minors": [0, 3]}) == (5, 0.5, (0, 3))
    assert check_limits({}) == (None, None, None)


# The process itself -------------------------------------------------------------------------------------------------


def test_rules_survive_the_way_to_the_process(tmp_path: Path) -> None:
    users = JobUsers(service_uid=3, also=frozenset({7, 5}), root_jobs=True)
    runs = RunSettings(log_bytes_limit=9, umask=0o077, rlimits={"RLIMIT_NOFILE": (5, 6)})
    rules = LauncherRules(tmp_path, tmp_path / "s", users, 4, runs)
    assert LauncherRules.from_json(rules.to_json()) == rules
    with_mps = replace(rules, runs=replace(runs, mps_pipe_directory=tmp_path))  # the daemon's own affair
    assert LauncherRules.from_json(with_mps.to_json()) == rules


def test_the_launcher_loads_no_driver_no_kernels_and_opens_no_network(launcher: LauncherProcess) -> None:
    maps = Path(f"/proc/{launcher.process.pid}/maps").read_text()
    assert not [word for word in ("numpy", "numba", "nvidia-ml", "llvmlite", "pydantic") if word in maps]
    opened = [str(place.readlink()) for place in Path(f"/proc/{launcher.process.pid}/fd").iterdir()]
    inodes = {name[8:-1] for name in opened if name.startswith("socket:")}
    namespaces = {pid: Path(f"/proc/{pid}/ns/net").readlink() for pid in (launcher.process.pid, os.getpid())}
    assert len(set(namespaces.values())) == 2, "it is kept from the network"
    unix = {line.split()[6] for line in Path(f"/proc/{launcher.process.pid}/net/unix").read_text().splitlines()[1:]}
    assert inodes
    assert inodes <= unix


def test_a_socket_is_not_made_where_others_could_replace_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(NodeError, match="needs a folder of its own user, root, that nobody else can write"):
        HelperSocket(tmp_path / "s", 0, lambda request: Reply(), lambda: None)
    with pytest.raises(NodeError, match="No such file"):
        HelperSocket(tmp_path / "no" / "s", 0, lambda request: Reply(), lambda: None)


def test_a_helper_that_lives_keeps_its_socket(launcher: LauncherProcess) -> None:
    path = launcher.rules.socket
    with pytest.raises(NodeError, match=f"process {launcher.process.pid} listens here already; end it before another"):
        HelperSocket(path, SERVICE, lambda request: Reply(), lambda: None)
    (answer,) = ask(launcher, {"verb": "shell", "job": 1, "run": 1})
    assert answer["error"].startswith("the launcher knows start")
    launcher.end(signal.SIGKILL)
    assert path.exists()
    HelperSocket(path, SERVICE, lambda request: Reply(), lambda: None).close()


def test_only_root_can_be_the_launcher(place: SharedPlace) -> None:
    from lepton_rl.node.launcher import run_launcher

    with acting_as(SERVICE), pytest.raises(NodeError, match="run it as root"):
        run_launcher(place.rules())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
REQUESTS = st.fixed_dictionaries(
    {"verb": st.sampled_from(["start", "signal", "reap", "remove"]) | JSON},
    optional={"job": st.integers() | JSON, "run": st.integers() | JSON, "uid": st.integers() | JSON, "how": JSON},
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=6000) | REQUESTS.map(lambda request: json.dumps(request).encode() + b"\n"))
def test_nothing_that_is_sent_ends_the_launcher(launcher: LauncherProcess, data: bytes) -> None:
    with acting_as(SERVICE), socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(launcher.rules.socket))
        raw.sendall(data)
    (answer,) = ask(launcher, {"verb": "reap", "job": 1, "run": 1})
    assert answer["error"] == "the folder jobs of the run cannot be opened: No such file or directory"
