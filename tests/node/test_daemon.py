"""A daemon as an operator meets it: every command, on a fake driver, with real processes."""

import csv
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_rl.agents.bundle import LearnedPolicy, save_bundle
from lepton_rl.agents.network import expected_shapes
from lepton_rl.core.cluster import ClusterSpec, NodeGroup
from lepton_rl.core.hardware.catalogue import gpu_type
from lepton_rl.envs.codec import Codec
from lepton_rl.errors import NodeError
from lepton_rl.node.former import remember, replaced
from lepton_rl.node.paths import JOBS, JOURNAL
from tests.fake_nvml import FakeNvml
from tests.node.conftest import fill_disk, until
from tests.node.daemons import DaemonNode


@pytest.fixture
def idle(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> Iterator[DaemonNode]:
    """A node without a daemon."""
    with DaemonNode(tmp_path, four_gpus, fake_library) as node:
        yield node


@pytest.fixture
def node(idle: DaemonNode) -> DaemonNode:
    """A node whose daemon runs."""
    idle.start()
    return idle


def queue(node: DaemonNode, *words: str) -> dict[int, dict[str, Any]]:
    """Return what `queue --json` lists, by job."""
    return {job["job"]: job for job in json.loads(node.node("queue", "--json", *words))}


def readings(node: DaemonNode) -> list[dict[str, str]]:
    """Return what `telemetry --csv` prints."""
    return list(csv.DictReader(io.StringIO(node.node("telemetry", "--csv"))))


def test_jobs_from_submission_to_their_ends(node: DaemonNode) -> None:
    good = node.submit("--name", "good", "--env", "WHO=ada", "--", "sh", "-c", "echo hello $WHO; pwd")
    bad = node.submit("--gpus", "0.5", "--memory", "20GiB", "--time", "2h", "--", "sh", "-c", "echo no >&2; exit 7")
    done = node.command("node", "wait", str(good), str(bad))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"job {good}: done", f"job {bad}: failed: ended with exit code 7"]
    assert node.command("node", "wait", str(good)).returncode == 0
    assert node.node("logs", str(good)).splitlines() == ["hello ada", str(node.folder)]
    assert node.node("logs", "--stderr", str(bad)) == "no\n"
    assert queue(node) == {}
    found = queue(node, "--all")
    assert (found[good]["name"], found[good]["state"]) == ("good", "done")
    assert (found[bad]["gpus"], found[bad]["requested_s"], found[bad]["exit_code"]) == (0.5, 7200.0, 7)
    assert "(exit code 7)" in node.node("queue", "--since", "1h")
    assert node.job(good)["runs"][0]["gpu_uuids"] == [node.fake.uuid(0)]


def test_a_job_has_the_umask_of_the_shell_that_submits_it(node: DaemonNode) -> None:
    before = os.umask(0o027)
    try:
        job = node.submit("--", "sh", "-c", "umask")
        assert os.umask(0o027) == 0o027, "asking for it has left it as it was"
    finally:
        os.umask(before)
    with node.client() as client:  # as by HTTP: no umask is sent
        other = client.call("submit", argv=["sh", "-c", "umask"], cwd="/", env={"PATH": os.environ["PATH"]})["job"]
    node.node("wait", str(job), str(other))
    assert [node.node("logs", str(number)) for number in (job, other)] == ["0027\n", "0022\n"]


def test_logs_are_followed_until_the_job_ends(node: DaemonNode) -> None:
    os.mkfifo(node.folder / "fifo")
    job = node.submit("--", "sh", "-c", "echo one; read line < fifo; echo two")
    words = [sys.executable, "-m", "lepton_rl.cli", "node", "logs", "-f", str(job)]
    with subprocess.Popen(words, env=node.environment, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "one\n"
        (node.folder / "fifo").write_text("go\n")
        assert follower.stdout.read() == "two\n"
    assert follower.returncode == 0


def test_the_last_lines_of_a_log_and_leaving_it_by_ctrl_c(node: DaemonNode) -> None:
    job = node.submit("--", "sh", "-c", "echo one; echo two; echo bad >&2; exec sleep 1000")
    until(lambda: node.command("node", "logs", "--stderr", str(job)).stdout == "bad\n", "output")
    assert node.node("logs", "--tail", "1", str(job)) == "two\n"
    words = [sys.executable, "-m", "lepton_rl.cli", "node", "logs", "-f", "-n", "2", str(job)]
    with subprocess.Popen(
        words, env=node.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert [follower.stdout.readline() for _ in range(2)] == ["one\n", "two\n"]
        follower.send_signal(signal.SIGINT)
        said, complained = follower.communicate(timeout=60.0)
    assert (follower.returncode, said, complained) == (0, "", "")
    assert node.job(job)["state"] == "running"


def test_a_log_that_is_rotated_is_followed_whole(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> None:
    config = "policy: fcfs\njobs: {log_megabytes: 0.0625}\n"
    with DaemonNode(tmp_path, four_gpus, fake_library, config) as node:
        node.start()
        writer = "i=0; while [ $i -lt 300 ]; do i=$((i + 1)); printf '%1000d\\n' $i; sleep 0.01; done"
        job = node.submit("--", "sh", "-c", writer)
        found = node.process("node", "logs", "-f", str(job))
        assert found.stderr == ""
        assert [int(line) for line in found.stdout.splitlines()] == list(range(1, 301))
        assert (node.state / "jobs" / str(job) / "1" / "stdout.1").exists()


def test_cancel_explain_drain_and_resume(node: DaemonNode) -> None:
    holds = node.submit("--gpus", "3", "--time", "1h", "--", "sleep", "1000")
    waits = node.submit("--gpus", "4", "--", "true")
    until(lambda: queue(node)[holds]["state"] == "running", "the first job")
    said = node.node("explain", str(waits))
    assert f"job {waits} is waiting: job {waits} needs 4 GPUs of a type and on nodes that suit it, 1 is free" in said
    assert f"it fits when job {holds} has ended, in about 3," in said
    assert node.node("drain", "3", "--reason", "dust").endswith(": drained\n")
    assert "GPU 3 is drained: dust" in node.node("explain", str(waits))
    assert "drained" in node.node("status")
    assert node.node("resume", "3").endswith(": available\n")
    assert node.node("cancel", str(holds)) in (f"job {holds}: stopping\n", f"job {holds}: cancelled\n")
    assert node.command("node", "wait", str(holds), str(waits)).stdout.splitlines() == [
        f"job {holds}: cancelled: cancelled by {node.job(holds)['user']}",
        f"job {waits}: done",
    ]


def test_status_usage_telemetry_decisions_audit_and_verify(node: DaemonNode) -> None:
    job = node.submit("--project", "vision", "--", "sleep", "1.2")
    node.node("wait", str(job))
    found = node.status()
    assert (found["policy"], found["simulated_devices"]) == ("fcfs", True)
    assert (found["jobs"]["done"], found["decisions"] > 0, found["fallbacks"]) == (1, True, {})
    assert [gpu["type"] for gpu in found["gpus"]] == ["A100-SXM4-80GB"] * 4
    assert "on simulated devices" in node.command("node", "status").stderr
    assert node.node("usage", "--by", "project").splitlines()[1].split()[:2] == ["vision", "1"]
    (row,) = json.loads(node.node("usage", "--json"))
    assert row["gpu_hours"] >= 1.2 / 3600.0
    until(lambda: len(readings(node)) > 0, "the first batch of readings")
    assert {row["uuid"] for row in readings(node)} == {node.fake.uuid(gpu) for gpu in range(4)}
    assert len(node.node("telemetry", "--since", "5m").splitlines()) == 5
    said = node.refused("node", "telemetry", "--state", str(node.folder))
    assert said == f"{node.folder}: there is no telemetry of a node here; name the state of one with --state"
    assert " fcfs (" in (said := node.node("decisions"))
    assert f"µs): job {job} (sleep) starts on GPU 0\n" in said
    (decision,) = json.loads(node.node("decisions", "--json"))
    assert decision["detail"]["actions"] == [f"Start(job={job}, gpus=(0,))"]
    assert [entry["verb"] for entry in json.loads(node.node("audit", "--json"))] == ["submit"]
    assert re.fullmatch(rf"[-\d]+ [:\d]+ \w+: submit job {job}: done\n", node.node("audit"))
    assert node.node("verify").count(": available") == 4
    made = node.node("reserve", "1", "--begin", "+1h", "--for", "1h", "--reason", "demo")
    assert re.fullmatch(r"reservation 1: GPU 3 for \w+, [-\d]+ [:\d]+ to [-\d]+ [:\d]+: demo\n", made)
    assert node.node("reservations") == made
    assert made in node.node("status")
    node.node("unreserve", "1")
    assert node.node("reservations") == ""
    frame = node.process("node", "top")  # into a pipe
    assert (frame.returncode, frame.stderr) == (0, "")
    assert frame.stdout.count("lepton-rl node") == 1


def test_the_daemon_ends_and_the_next_one_finds_its_jobs(node: DaemonNode) -> None:
    os.mkfifo(node.folder / "fifo")
    job = node.submit("--", "sh", "-c", "read line < fifo; exit 5")
    until(lambda: queue(node)[job]["state"] == "running", "the job")
    before = node.status()["pid"]
    node.node("stop")
    assert "no node answers here" in node.refused("node", "queue")
    (node.folder / "fifo").write_text("go\n")
    node.start()
    assert node.status()["pid"] != before
    assert node.command("node", "wait", str(job)).stdout == f"job {job}: failed: ended with exit code 5\n"


def test_sigterm_ends_the_daemon_as_stop_does(node: DaemonNode) -> None:
    pid = node.status()["pid"]
    os.kill(pid, signal.SIGTERM)
    until(lambda: not (node.state / "socket").exists(), "the end of the daemon")
    assert "the daemon ends; jobs go on" in (node.state / "daemon.log").read_text()


def test_a_second_daemon_is_refused(node: DaemonNode) -> None:
    assert node.refused("node", "start").startswith(f"a node runs already in {node.state}; stop it first")
    pid = node.status()["pid"]
    os.kill(pid, signal.SIGSTOP)  # else it makes its socket again at once
    try:
        (node.state / "socket").unlink()
        assert f"a daemon (process {pid}) is using it" in (said := node.refused("node", "start"))
        assert f"`kill {pid}` where it does not answer" in said
        assert f"process {pid}, holds the journal" in node.refused("node", "status")
    finally:
        os.kill(pid, signal.SIGCONT)
    until((node.state / "socket").exists, "the socket")
    assert node.status()["pid"] == pid


def test_a_backup_is_restored_and_nothing_runs_twice(node: DaemonNode) -> None:
    first = node.submit("--", "sh", "-c", "echo first >> witness")
    node.node("wait", str(first))
    node.node("backup", "copy.sqlite3")
    second = node.submit("--", "sh", "-c", "echo second >> witness")
    node.node("wait", str(second))
    assert "is using it" in node.refused("node", "restore", "copy.sqlite3")
    node.node("stop")
    said = node.command("node", "restore", "copy.sqlite3")
    assert said.stdout.splitlines() == [
        "1 job as it was in the copy",
        f"submitted since, and found by their folders: {second}",
    ]
    assert "replaced1" in said.stderr
    assert "there is no such backup" in node.refused("node", "restore", "nowhere")
    node.start()
    node.node("wait", str(second))
    third = node.submit("--", "true")
    assert third == second + 1
    assert (node.folder / "witness").read_text().split() == ["first", "second"]


def test_an_acknowledged_job_outlives_a_killed_daemon(node: DaemonNode) -> None:
    job = {"argv": ["sh", "-c", "echo $LEPTON_JOB_ID >> witness"], "cwd": str(node.folder), "gpus": 0.25}
    asked = [("submit", {**job, "env": {"PATH": os.environ["PATH"]}}) for _ in range(40)]
    with node.client() as client:
        numbers = [answer["job"] for answer in client.call_each(asked)]
    node.kill()
    assert numbers == list(range(1, 41))
    node.start()
    node.node("wait", *map(str, numbers))
    assert sorted(map(int, (node.folder / "witness").read_text().split())) == numbers


def test_hundreds_of_jobs_over_one_connection(node: DaemonNode) -> None:
    asked = [("submit", {"argv": ["true"], "cwd": "/", "begin_time": time.time() + 1e6}) for _ in range(500)]
    with node.client() as client:
        assert [answer["job"] for answer in client.call_each(asked)] == list(range(1, 501))
        assert client.call("status")["jobs"]["waiting"] == 500


# What is refused ----------------------------------------------------------------------------------------------------


def test_without_a_driver(idle: DaemonNode) -> None:
    idle.environment.pop("LD_LIBRARY_PATH")
    said = idle.refused("node", "start")
    assert "libnvidia-ml.so.1" in said
    assert idle.refused("deploy", "fcfs") == said


def test_with_options_in_an_unusual_place(idle: DaemonNode) -> None:
    other = idle.folder / "other"
    assert f"{other / 'socket'}: no node answers" in idle.refused("node", "--state", str(other), "status")
    assert f"{other / 'socket'}: no node answers" in idle.refused(
        "node", "--state", "x", "status", "--state", str(other)
    )
    assert f"{idle.state / 'socket'}: no node answers" in idle.refused("node", "status")
    said = idle.command("node", "--config", "x", "start").stderr.splitlines()[0]
    assert said == "error: --config stands behind the command: lepton-rl node start --config"


def test_with_a_working_directory_that_is_not_there(idle: DaemonNode) -> None:
    assert idle.refused("node", "submit", "--cwd", "nowhere", "--", "true") == "--cwd nowhere: there is no such folder"


def test_with_a_library_that_is_not_there(idle: DaemonNode) -> None:
    idle.config.write_text("devices: {library_path: nowhere/libnvidia-ml.so.1}\n")
    assert "nowhere/libnvidia-ml.so.1" in idle.refused("node", "start", "--config", str(idle.config))


def test_with_a_damaged_journal(idle: DaemonNode) -> None:
    idle.state.mkdir()
    (idle.state / JOURNAL).write_bytes(b"no database" * 1000)
    said = idle.refused("node", "start")
    assert "restore a backup with: lepton-rl node restore FILE" in said
    assert idle.refused("deploy", "fcfs") == said
    assert (idle.state / JOURNAL).read_bytes() == b"no database" * 1000


@pytest.mark.parametrize("what", ["is missing", "is empty"])
def test_with_folders_of_jobs_and_no_journal(what: str, idle: DaemonNode) -> None:
    (idle.state / JOBS / "14" / "1").mkdir(parents=True)
    if what == "is empty":
        (idle.state / JOURNAL).touch()
    said = idle.refused("node", "start")
    assert f"{JOURNAL}: {what}, but there are jobs up to 14 in " in said
    assert "`lepton-rl node restore FILE`, or move that folder away" in said
    assert idle.refused("deploy", "fcfs") == said
    assert (idle.state / JOURNAL).exists() == (what == "is empty")


@pytest.mark.parametrize("leave", [0, 200_000])
def test_with_a_disk_that_is_full(leave: int, small_disk: Path, idle: DaemonNode) -> None:
    idle.state = small_disk / "node"
    fill_disk(small_disk / "ballast", leave)
    assert "MiB left; free 4 and start again" in idle.refused("node", "start", "--state", str(idle.state))


def test_with_a_power_helper_that_is_not_there(idle: DaemonNode) -> None:
    helper = idle.folder / "power.sock"
    idle.config.write_text(f"power: {{mode: live, helper: {helper}}}\n")
    for words in (("deploy", "fcfs"), ("deploy", "fcfs", "--live"), ("node", "start")):
        said = idle.refused(*words, "--config", str(idle.config))
        assert said.startswith(f"no power helper answers at {helper}; start it, as root, with `lepton-rl node power-")
    assert not (idle.state / "socket").exists()


def test_with_the_database_of_another_program(idle: DaemonNode) -> None:
    idle.state.mkdir()
    other = sqlite3.connect(idle.state / JOURNAL)
    other.execute("CREATE TABLE mine (x)")
    other.close()
    assert "is a database, but not a journal of lepton_rl" in idle.refused("node", "start")


def test_with_a_state_folder_that_is_a_file(idle: DaemonNode) -> None:
    idle.state.write_text("mine")
    assert idle.refused("node", "start").endswith("this is no folder; name another one for the node's state")
    assert idle.refused("deploy", "fcfs").endswith("this is no folder; name another one for the node's state")


@pytest.mark.parametrize("words", [("node", "start", "--policy", "fcsf"), ("deploy", "fcsf")])
def test_with_a_policy_that_there_is_not(words: tuple[str, ...], idle: DaemonNode) -> None:
    assert "did you mean 'fcfs'?" in idle.refused(*words)
    assert not idle.state.exists()


def test_with_a_wrong_configuration(idle: DaemonNode) -> None:
    idle.config.write_text("guard:\n  budgets: 3\n")
    said = idle.refused("node", "start", "--config", str(idle.config))
    assert said == f"{idle.config}:2: guard.budgets: unknown key; did you mean 'budget_s'?"
    idle.config.write_text("operators: [nobody-of-that-name]\n")
    assert "there is no user 'nobody-of-that-name'" in idle.refused("node", "start", "--config", str(idle.config))


def bundle(folder: Path, nodes: int = 1, gpus: int = 4, **about: Any) -> Path:
    """Write a bundle of random weights, trained on so many nodes."""
    cluster = ClusterSpec.of_groups((NodeGroup(nodes, gpus, gpu_type("A100-SXM4-80GB")),))
    codec = Codec(window=8)
    draws = np.random.default_rng(1)
    shapes = expected_shapes("mlp", {"logits.weight": np.zeros((1, 16), np.float32)}, codec, cluster)
    weights = {name: draws.normal(0.0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    return save_bundle(folder, LearnedPolicy(codec, "mlp", weights, cluster), about)


@pytest.mark.parametrize("words", [("node", "start", "--policy"), ("deploy",)])
def test_with_a_bundle_that_does_not_fit(words: tuple[str, ...], idle: DaemonNode) -> None:
    place = bundle(idle.folder / "bundle", nodes=2)
    said = idle.refused(*words, str(place))
    assert "this mlp bundle was trained on 2 x 4 A100-SXM4-80GB and cannot read 1 x 4" in said
    assert not (idle.state / "socket").exists()


# One word for it ----------------------------------------------------------------------------------------------------


def test_deploy_says_what_it_would_do_and_does_it_when_told(idle: DaemonNode) -> None:
    dry = idle.process("deploy", "fcfs", "--config", str(idle.config))
    assert (dry.returncode, dry.stderr) == (0, "")
    lines = dry.stdout.splitlines()
    assert lines[0] == "this node has 1 x 4 A100-SXM4-80GB (simulated devices, no hardware)"
    assert lines[-1] == "nothing was started; --live does it"
    assert not idle.state.exists()
    assert idle.process("deploy", "fcfs", "--live").returncode == 0
    os.mkfifo(idle.folder / "fifo")
    job = idle.submit("--", "sh", "-c", "read line < fifo; exit 5")
    until(lambda: queue(idle)[job]["state"] == "running", "the job")
    before = idle.status()["pid"]
    assert f"a daemon runs under fcfs (process {before}) and would be replaced" in idle.process("deploy", "sjf").stdout
    assert (idle.status()["pid"], idle.status()["policy"]) == (before, "fcfs")
    assert idle.process("deploy", "sjf", "--live").returncode == 0
    assert idle.status()["policy"] == "sjf"
    (idle.folder / "fifo").write_text("go\n")
    assert idle.command("node", "wait", str(job)).stdout == f"job {job}: failed: ended with exit code 5\n"


def test_the_next_daemon_goes_on_under_what_was_deployed(idle: DaemonNode) -> None:
    place = bundle(idle.folder / "mine")
    idle.start()  # whose file names fcfs
    assert idle.process("deploy", "mine", "--config", str(idle.config), "--live").returncode == 0
    idle.kill()
    started = idle.command("node", "start", "--config", str(idle.config))
    assert f"{place} decides, as it was deployed here last; --policy names another one" in started.stderr.splitlines()
    assert idle.status()["policy"] == "mine"
    idle.node("stop")
    place.rename(idle.folder / "elsewhere")
    said = idle.refused("node", "start")
    assert said.startswith(
        f"the bundle {place} was deployed here last and is gone: put it back, or name it, or another"
    )
    idle.node("start", "--policy", "sjf")
    assert idle.status()["policy"] == "sjf"
    idle.node("stop")
    idle.config.write_text("policy: saf\n")  # the later word
    started = idle.command("node", "start", "--config", str(idle.config))
    assert "deployed" not in started.stderr
    assert idle.status()["policy"] == "saf"


def test_a_bundle_that_does_not_fit_leaves_the_daemon_that_runs(node: DaemonNode) -> None:
    before = node.status()["pid"]
    assert "cannot read" in node.refused("deploy", str(bundle(node.folder / "bundle", nodes=2)), "--live")
    assert node.status()["pid"] == before


FAILS_AT_START = """
import sys
from lepton_rl.core.policy import Policy

if "--foreground" in sys.argv:
    raise RuntimeError("not in a daemon")

class Moody:
    def decide(self, snapshot):
        return []
"""


def test_the_former_daemon_comes_back_where_the_new_one_does_not_come_up(idle: DaemonNode) -> None:
    (idle.folder / "moody.py").write_text(FAILS_AT_START)
    idle.start("--policy", "sjf", "--shadow", "fcfs")
    os.mkfifo(idle.folder / "fifo")
    job = idle.submit("--", "sh", "-c", "read line < fifo; exit 5")
    until(lambda: queue(idle)[job]["state"] == "running", "the job")
    before = idle.status()
    done = idle.process("deploy", "moody.py:Moody", "--live")
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert "not in a daemon" in error
    assert error.endswith("; the daemon under sjf runs again as before, and jobs go on")
    after = idle.status()
    assert (after["policy"], after["trial"] is None) == ("sjf", False)
    assert after["pid"] != before["pid"]
    assert idle.job(job)["run"] == 1
    (idle.folder / "fifo").write_text("go\n")
    assert idle.command("node", "wait", str(job)).stdout == f"job {job}: failed: ended with exit code 5\n"


def test_one_whose_start_cannot_be_told_is_not_brought_back(tmp_path: Path) -> None:
    assert remember({"pid": os.getpid(), "policy": "fcfs"}) is None
    assert remember({"pid": 2**22 + 1, "policy": "fcfs"}) is None
    said = str(replaced(NodeError("it failed"), None, tmp_path, tmp_path / "socket"))
    assert said == "it failed; no daemon runs now, and jobs go on: start the former one with `lepton-rl node start`"


def test_a_bundle_decides_on_a_node(idle: DaemonNode) -> None:
    place = bundle(idle.folder / "mine")
    dry = idle.process("deploy", str(place)).stdout
    assert "codec order, 8 visible jobs, network mlp" in dry
    assert "the bundle does not say what it saw in its training" in dry
    assert idle.process("deploy", str(place), "--live").returncode == 0
    jobs = [idle.submit("--time", "1m", "--", "true") for _ in range(3)]
    idle.node("wait", *map(str, jobs))
    found = idle.status()
    assert (found["policy"], found["decisions"] > 0) == ("mine", True)
    assert set(found["fallbacks"]) <= {"fallback_timeout"}  # of a machine under load, and nothing else
