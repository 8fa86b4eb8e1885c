"""A node of several users, by real processes of real users: whose a job is, who may do what, and what survives."""

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from lepton_rl.errors import ConfigError, NodeError
from lepton_rl.experiments.deploy import node_setup, read_node_config
from lepton_rl.experiments.sharing import launcher_rules
from lepton_rl.node.cgroup import cgroup2_mount
from lepton_rl.node.paths import SOCKET_VARIABLE, find_socket
from lepton_rl.node.server import MOST_CLIENTS
from tests.node.conftest import until
from tests.node.shared_node import OPERATOR, STRANGER, USERS, SharedDaemon
from tests.node.users import ADA, BOB, SERVICE, need_root

PATIENT = "echo ready; exec sleep 1000"
CONFIG = "mode: shared\nshared: {{account: {account}, group: {group}}}\n"


@pytest.fixture(scope="module")
def daemon(fake_library: Path) -> Iterator[SharedDaemon]:
    """A shared node."""
    need_root()
    daemon = SharedDaemon(fake_library)
    yield daemon
    daemon.close()


@pytest.fixture
def node(daemon: SharedDaemon) -> Iterator[SharedDaemon]:
    """The shared node, without jobs of other tests."""
    yield daemon
    daemon.drained()


def test_each_job_runs_as_the_user_who_submitted_it(node: SharedDaemon) -> None:
    home = node.place.base / "ada"
    home.mkdir()
    os.chown(home, ADA, ADA)
    home.chmod(0o700)
    script = "id -u; id -g; id -G; umask; pwd; echo mine > made; ls -l /proc/self/fd | grep -c / "
    job = node.does(ADA, "submit", "--cwd", str(home), "--", "sh", "-c", script).strip()
    assert node.does(ADA, "wait", job) == f"job {job}: done\n"
    assert node.does(ADA, "logs", job).splitlines()[:5] == [str(ADA), str(ADA), str(ADA), "0022", str(home)]
    made = (home / "made").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (ADA, ADA, 0o644)
    plain = node.submit(ADA, "umask")  # sent without one: the launcher's
    assert node.ask(ADA, "wait", job=plain)["state"] == "done"
    assert node.does(ADA, "logs", str(plain)) == "0077\n"
    its = node.submit(BOB, "cat made", cwd=str(home))
    reason = f"the working directory {home} cannot be entered: Permission denied"
    assert node.run(BOB, "wait", str(its))[:2] == (1, f"job {its}: failed: {reason}\n")


def test_nobody_reads_ends_or_asks_after_the_job_of_another(node: SharedDaemon) -> None:
    job = node.submit(ADA, "echo password; " + PATIENT)
    node.running(ADA, job)
    for words in ("logs", "logs --stderr", "cancel", "cancel --kill", "wait", "explain", "job"):
        assert node.refused(BOB, *words.split(), str(job)) == f"job {job} is another user's"
    for verb in ("log", "job", "wait", "explain", "cancel"):
        more = {"run": 1} if verb == "log" else {}
        with pytest.raises(NodeError, match=f"^job {job} is another user's$"):
            node.ask(BOB, verb, job=job, **more)
    assert node.state(ADA, job) == "running"
    assert node.does(ADA, "logs", str(job)) == "password\nready\n"
    assert node.does(OPERATOR, "logs", str(job)) == "password\nready\n"
    assert node.does(ADA, "cancel", str(job)) == f"job {job}: stopping\n"
    until(lambda: node.state(ADA, job) == "cancelled", "the end")


def test_files_and_processes_of_a_job_are_closed_to_other_users(node: SharedDaemon) -> None:
    job = node.submit(ADA, PATIENT)
    node.running(ADA, job)
    folder, child = node.place.state / "jobs" / str(job) / "1", node.processes(job)["child"].pid
    assert (Path(f"/proc/{child}").stat().st_uid, Path(f"/proc/{child}").stat().st_gid) == (ADA, ADA)
    attempts = [
        f"cat {folder}/stdout", f"cat {folder}/request.json", f"ls {folder}", f"ls {node.place.state}",
        f"cat {node.place.state}/journal.sqlite3", f"cat /proc/{child}/environ", f"kill {child}",
        f"kill -9 {node.processes(job)['supervisor'].pid}", f"echo x > {folder}/exit.json",
        f"ls {node.place.private}",
    ]  # fmt: skip
    theirs = node.submit(BOB, "; ".join(f"{{ {attempt}; }} && echo DONE" for attempt in attempts) + "; exit 0")
    assert node.ask(BOB, "wait", job=theirs)["state"] == "done"
    assert node.does(BOB, "logs", str(theirs)) == ""
    denied = node.does(BOB, "logs", "--stderr", str(theirs))
    assert denied.count("ermission denied") + denied.count("not permitted") == len(attempts)
    assert f"SECRET=of-{ADA}" in Path(f"/proc/{child}/environ").read_text()


def test_listings_hide_the_commands_of_others(node: SharedDaemon) -> None:
    job = node.submit(ADA, PATIENT)
    named = node.submit(ADA, "exit 1", name="public name")
    node.running(ADA, job)
    assert node.ask(ADA, "wait", job=named)["reason"] == "ended with exit code 1"

    def seen_by(uid: int) -> list[tuple[object, ...]]:
        found = {entry["job"]: entry for entry in node.ask(uid, "queue", all=True)}
        fields = ("name", "command", "reason", "logs", "user")
        return [tuple(found[number][field] for field in fields) for number in (job, named)]

    folder = f"{node.place.state}/jobs"
    mine = [
        ("sh", ["sh", "-c", PATIENT], None, f"{folder}/{job}/1", str(ADA)),
        ("public name", ["sh", "-c", "exit 1"], "ended with exit code 1", f"{folder}/{named}/1", str(ADA)),
    ]
    assert seen_by(ADA) == seen_by(0) == seen_by(OPERATOR) == mine
    assert seen_by(BOB) == [("", None, None, None, str(ADA)), ("public name", None, None, None, str(ADA))]
    for uid in (ADA, BOB):
        assert "SECRET" not in json.dumps([node.ask(uid, verb) for verb in ("queue", "status", "decisions", "usage")])
    assert PATIENT not in json.dumps([node.ask(BOB, verb) for verb in ("queue", "status", "decisions", "usage")])
    assert [row["name"] for row in node.ask(BOB, "usage", by="user")].count(str(ADA)) == 1


def test_only_operators_operate(node: SharedDaemon) -> None:
    for words in (
        ("drain", "0"), ("resume", "0"), ("reserve", "1", "--begin", "+1h", "--for", "1h"), ("stop",), ("verify",),
        ("audit",),
    ):  # fmt: skip
        assert node.refused(ADA, *words) == f"only an operator of this node may {words[0]}; you are {ADA}"
    node.does(OPERATOR, "drain", "3")
    node.does(OPERATOR, "resume", "3")
    theirs = node.place.base / "copy"
    assert node.refused(OPERATOR, "backup", str(theirs)).startswith(
        f"{theirs.parent}: the daemon writes the copy, and its user {SERVICE} may not write there"
    )
    node.does(OPERATOR, "backup", str(node.place.state / "copy"))
    job = node.submit(ADA, PATIENT)
    node.running(ADA, job)
    assert node.does(OPERATOR, "cancel", "--kill", str(job))
    until(lambda: node.state(ADA, job) == "cancelled", "the end")
    entries = [(entry["uid"], entry["verb"], entry["outcome"]) for entry in node.ask(OPERATOR, "audit", last=200)]
    assert (OPERATOR, "cancel", "done") in entries
    assert (ADA, "submit", "done") in entries
    assert (ADA, "drain", f"refused: only an operator of this node may drain; you are {ADA}") in entries


def test_one_user_cannot_take_all_connections(node: SharedDaemon) -> None:
    with ExitStack() as open_ones:
        for _ in range(MOST_CLIENTS):
            open_ones.enter_context(node.connect(ADA)).call("ping")
        with node.connect(ADA) as one_more, pytest.raises(NodeError, match=f"{ADA} has 100 connections open already"):
            one_more.call("ping")
        assert node.ask(BOB, "ping")["pid"] == node.process.pid

    def let_in() -> bool:
        with suppress(NodeError):
            return bool(node.ask(ADA, "ping"))
        return False

    until(let_in, "room again")


def test_a_run_has_a_control_group_where_the_kernel_gives_one(node: SharedDaemon) -> None:
    mounted = cgroup2_mount()
    if mounted is None or not os.access(mounted, os.W_OK):
        pytest.skip("no cgroup v2 hierarchy is ours to write")
    job = node.submit(ADA, "grep ^0: /proc/self/cgroup; " + PATIENT)
    node.running(ADA, job)
    group = mounted / f"lepton-rl-{SERVICE}" / f"{job}.1"
    assert node.does(ADA, "logs", str(job)).splitlines()[0].endswith(f"/lepton-rl-{SERVICE}/{job}.1")
    assert node.processes(job)["child"].pid in map(int, (group / "cgroup.procs").read_text().split())
    node.ask(ADA, "cancel", job=job, kill=True)
    until(lambda: not group.exists(), "the removal of its group")


def test_who_is_in_no_group_may_not_call(node: SharedDaemon) -> None:
    found = node.place.socket.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (SERVICE, USERS, 0o660)
    sentence = f"{node.place.socket}: this user may not call this node; ask its operator for the group"
    assert node.refused(STRANGER, "queue") == sentence


def test_neither_root_nor_the_account_itself_has_jobs(node: SharedDaemon) -> None:
    with pytest.raises(NodeError, match="jobs do not run as root here"):
        node.submit(0, "id -u")
    with pytest.raises(NodeError, match="is the node's own account"):
        node.submit(SERVICE, "id -u")
    assert node.ask(0, "queue") == []


def test_what_is_read_from_the_state_is_for_operators(node: SharedDaemon) -> None:
    for words in (("telemetry",), ("export", "--out", "mine.csv"), ("compare",)):
        code, _, complaint = node.run(ADA, *words, "--state", str(node.place.state))
        assert (code, f"'{node.place.state}' is not readable" in complaint) == (2, True)
    assert "GPU" in node.does(SERVICE, "telemetry", "--state", str(node.place.state))


def test_jobs_are_found_again_after_the_daemon_was_killed(node: SharedDaemon) -> None:
    jobs = {uid: node.submit(uid, f"id -u; {PATIENT}") for uid in (ADA, BOB)}
    before = {uid: (node.running(uid, job), node.processes(job)) for uid, job in jobs.items()}
    node.kill()
    node.start()
    for uid, job in jobs.items():
        assert node.state(uid, job) == "running"
        assert node.processes(job) == before[uid][1]
        assert node.does(uid, "logs", str(job)) == f"{uid}\nready\n"
        assert node.ask(uid, "cancel", job=job)["state"] == "stopping"
    for uid, job in jobs.items():
        assert node.ask(uid, "wait", job=job)["state"] == "cancelled"


def test_jobs_outlive_the_launcher_and_wait_while_it_is_away(node: SharedDaemon) -> None:
    job = node.submit(ADA, PATIENT)
    node.running(ADA, job)
    node.launcher.end(signal.SIGKILL)
    waiting = node.submit(BOB, "id -u")
    until(lambda: f"job {waiting} was not started" in node.log.read_text(), "a try")
    assert "the launcher does not answer" in node.log.read_text()
    said = node.does(BOB, "explain", str(waiting))
    assert said.startswith(f"job {waiting} is waiting: it could not be started when that was tried last: ")
    assert "the launcher does not answer" in said
    assert node.ask(ADA, "cancel", job=job)["state"] == "stopping"
    assert node.processes(job)["child"].alive()  # nobody can tell it yet
    node.launcher.start()
    assert node.ask(ADA, "wait", job=job)["state"] == "cancelled"
    assert node.ask(BOB, "wait", job=waiting)["state"] == "done"
    assert node.does(BOB, "logs", str(waiting)) == f"{BOB}\n"
    assert node.ask(BOB, "job", job=waiting)["run"] == 1  # it was not written down as started before


def test_files_and_rows_of_jobs_that_ended_long_ago_are_forgotten(node: SharedDaemon) -> None:
    job = node.submit(ADA, "echo out")
    assert node.ask(ADA, "wait", job=job)["state"] == "done"
    folder, config = node.place.state / "jobs" / str(job), node.config.read_text()
    assert folder.exists()
    node.kill()
    node.config.write_text(config + "retention: {journal_days: 1.0e-6, logs_days: 1.0e-6}\n")  # a tenth of a second
    node.start()
    until(lambda: not folder.exists(), "its files' removal")

    def forgotten() -> bool:
        return job not in [entry["job"] for entry in node.ask(0, "queue", all=True)]

    until(forgotten, "its row's removal")
    assert sum(row["jobs"] for row in node.ask(0, "usage") if row["name"] == str(ADA)) >= 1
    node.kill()
    node.config.write_text(config)
    node.start()


def test_a_preempted_and_a_killed_supervisor_end_as_in_a_personal_node(node: SharedDaemon) -> None:
    job = node.submit(ADA, PATIENT)
    node.running(ADA, job)
    processes = node.processes(job)
    assert processes["supervisor"].signal(signal.SIGKILL)
    until(lambda: node.state(ADA, job) == "lost", "the loss")
    assert processes["child"].alive()
    gpus = [gpu["jobs"] for gpu in node.ask(0, "status")["gpus"]]
    assert [job] in gpus  # booked until the orphan is gone
    node.ask(ADA, "cancel", job=job)
    until(lambda: [job] not in [gpu["jobs"] for gpu in node.ask(0, "status")["gpus"]], "free GPUs")
    assert not processes["child"].alive()


def test_a_process_of_somebody_else_on_a_gpu_is_named_with_its_user(node: SharedDaemon) -> None:
    with subprocess.Popen(["sleep", "1000"], user=BOB, group=BOB, extra_groups=[]) as stranger:
        node.fake.add_process(3, stranger.pid, 100 << 20)

        def reason() -> str:
            return str(node.ask(ADA, "status")["gpus"][3]["reason"])

        until(lambda: str(stranger.pid) in reason(), "the process")
        assert reason() == f"process {stranger.pid} of {BOB} uses it and is no job of this node"
        stranger.kill()
    until(lambda: node.ask(ADA, "status")["gpus"][3]["state"] == "available", "its end")


# Configuration ------------------------------------------------------------------------------------------------------


def config_file(folder: Path, account: object = SERVICE, group: object = USERS, more: str = "") -> Path:
    """Write a node's file."""
    file = folder / "node.yaml"
    file.write_text(CONFIG.format(account=account, group=group) + more)
    return file


def test_the_launcher_command_reads_the_nodes_file(node: SharedDaemon) -> None:
    rules = launcher_rules(node.config, read_node_config(node.config))
    assert (rules.state_dir, rules.socket) == (node.place.state, node.place.launcher_socket)
    assert rules.users == node.launcher.rules.users
    assert (rules.service_gid, rules.runs.umask) == (SERVICE, 0o077)
    node.launcher.end()
    words = ["node", "launcher", "--config", str(node.config)]
    with node.spawn(0, words, stderr=subprocess.PIPE) as launcher:
        job = node.submit(ADA, "id -u")
        assert node.ask(ADA, "wait", job=job)["state"] == "done"
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(30) == 0
    node.launcher.start()


def test_a_launcher_takes_no_file_that_others_can_write(tmp_path: Path) -> None:
    file = config_file(tmp_path)
    file.chmod(0o664)
    with pytest.raises(ConfigError, match="must be root's and nobody else may write it"):
        launcher_rules(file, read_node_config(file))
    file.chmod(0o644)
    file.write_text("mode: personal\n")
    with pytest.raises(ConfigError, match="a personal node has no launcher"):
        launcher_rules(file, read_node_config(file))


@pytest.mark.parametrize(
    ("account", "group", "sentence"),
    [
        ("nobodyy", USERS, r"shared.account: there is no user 'nobodyy' on this machine; did you mean 'nobody'\?"),
        (SERVICE, "no-such-group", "shared.group: there is no group 'no-such-group' on this machine"),
        (0, USERS, "shared.account: the daemon of a shared node is not root"),
        (SERVICE, SERVICE, "shared.group: 20001 is the own group of account 20001"),
    ],
)
def test_accounts_that_cannot_be_are_refused(account: object, group: object, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        node_setup(read_node_config(config_file(tmp_path, account, group)))


def test_the_daemon_is_its_account_alone(node: SharedDaemon, tmp_path: Path) -> None:
    words = ("start", "--foreground", "--config", str(node.config))
    for uid, name in ((0, "root"), (ADA, str(ADA))):
        assert f"the daemon runs as user {SERVICE} in group {SERVICE}, not as {name}" in node.refused(uid, *words)


def test_where_a_client_finds_its_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    own = tmp_path / "lepton-rl" / "node" / "socket"
    assert find_socket(Path("/state")) == Path("/state/socket")
    shared = tmp_path / "shared.sock"
    monkeypatch.setattr("lepton_rl.node.paths.SHARED_SOCKET", shared)
    assert find_socket(None) == own
    shared.touch()
    assert find_socket(None) == shared
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_socket(None) == own
    monkeypatch.setenv(SOCKET_VARIABLE, "/named.sock")
    assert find_socket(None) == Path("/named.sock")
