"""What a GPU computes is measured by real processes before it takes work; GPUs are simulated, figures made up."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lepton_rl.core.actions import Start
from lepton_rl.errors import ConfigError, NodeError
from lepton_rl.experiments.deploy import node_setup, read_node_config
from lepton_rl.node.cluster import NodeRules
from lepton_rl.node.environment import MARK
from lepton_rl.node.jobs import JobState
from lepton_rl.node.journal import Journal
from lepton_rl.node.lifecycle import GpuState
from lepton_rl.node.processes import Process
from lepton_rl.node.throughput import READY_COMMAND, Measurement, ThroughputRules, end_left
from tests.fake_nvml import FakeNvml
from tests.node.conftest import until
from tests.node.daemons import DaemonNode
from tests.node.live import PATIENT, LiveNode

Opened = Callable[..., LiveNode]


def rules(script: str, least: float = 10.0, limit_s: float = 60.0) -> ThroughputRules:
    """Return rules by which a shell script tells the figure."""
    return ThroughputRules(least, ("sh", "-c", script), limit_s)


@pytest.fixture
def opened(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> Iterator[Opened]:
    """What opens one node after the other on the same folder."""
    nodes: list[LiveNode] = []

    def open_node(script: str, least: float = 10.0, limit_s: float = 60.0) -> LiveNode:
        throughput = rules(script, least, limit_s)
        nodes.append(LiveNode(tmp_path, four_gpus, fake_library, NodeRules(throughput=throughput)))
        return nodes[-1]

    yield open_node
    for node in nodes:
        if not node.closed:
            node.kill_all()
            node.close()


def settled(node: LiveNode) -> list[tuple[GpuState, str]]:
    """Wait until no GPU is to be measured; return the states and why."""
    node.until(
        lambda: all(node.state(gpu) is not GpuState.RELEASING and not node.measuring(gpu) for gpu in node.gpus),
        "all measurements",
    )
    return [(node.state(gpu), node.reason(gpu)) for gpu in node.gpus]


def test_each_gpu_is_measured_alone_before_it_takes_work(opened: Opened, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = f"echo begin $CUDA_VISIBLE_DEVICES >> {seen}; sleep 0.1; echo end >> {seen}; echo loading; echo 12.5"
    node = opened(script)
    job = node.submit("true")
    assert node.state(0) is GpuState.UNVERIFIED
    assert settled(node) == [(GpuState.AVAILABLE, "")] * 4
    lines = [line for gpu in node.gpus for line in (f"begin {node.fake.uuid(gpu)}", "end")]
    assert seen.read_text().splitlines() == lines
    assert node.job(job).state is JobState.WAITING


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo 9.5", "it computes 9.5 TFLOP/s, at least 10 are asked for"),
        ("echo 50; echo no CUDA >&2; exit 3", "its throughput run failed with exit code 3: no CUDA"),
        ("kill -9 $$", "its throughput run failed with signal 9"),
        ("echo fast", "its throughput run printed 'fast', which is no number of TFLOP/s"),
        ("echo nan", "its throughput run printed 'nan', which is no number of TFLOP/s"),
        ("true", "its throughput run printed '', which is no number of TFLOP/s"),
        ("printf 'a\\033[2Jb'", "its throughput run printed 'a\ufffd[2Jb', which is no number of TFLOP/s"),
    ],
)
def test_a_gpu_that_fails_stays_unverified_and_says_why(script: str, sentence: str, opened: Opened) -> None:
    node = opened(f"case $CUDA_VISIBLE_DEVICES in *1) {script} ;; *) echo 11 ;; esac")
    assert settled(node) == [
        (GpuState.UNVERIFIED, sentence) if gpu == 1 else (GpuState.AVAILABLE, "") for gpu in range(4)
    ]


def finished(found: ThroughputRules) -> str:
    """Run one measurement to its end; return what speaks against the GPU."""
    measurement = Measurement(found, "GPU-a", "node-of-a-test", time.monotonic)
    until(measurement.poll, "its end")
    assert measurement.against is not None
    return measurement.against


def test_a_command_that_cannot_be_run() -> None:
    said = finished(ThroughputRules(1.0, ("/nowhere/measure",)))
    assert said == "its throughput run '/nowhere/measure' could not be started: No such file or directory"


def test_one_that_takes_too_long_is_killed_with_all_it_has_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; setsid sh -c 'echo $$ >> {pids}; exec sleep 1000' & echo $$ >> {pids}; exec sleep 1000"
    measurement = Measurement(rules(script, limit_s=0.5), "GPU-a", "node-of-a-test", time.monotonic)
    until(lambda: pids.exists() and len(pids.read_text().split()) == 2, "both")
    processes = [Process.of(int(pid)) for pid in pids.read_text().split()]
    until(measurement.poll, "its end")
    assert measurement.against == "its throughput run took longer than 0.5 s"
    until(lambda: not any(process is not None and process.alive() for process in processes), "the end of both")


def test_one_that_writes_without_end_holds_nobody_up() -> None:
    assert finished(rules("yes | head -c 3000000; echo; echo 20")) == ""
    assert finished(rules("exec yes", limit_s=0.5)) == "its throughput run took longer than 0.5 s"


# Never beside work ----------------------------------------------------------------------------------------------


def test_it_waits_until_a_stranger_has_gone(opened: Opened, four_gpus: FakeNvml, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        four_gpus.add_process(2, stranger.pid, 1 << 30)
        node = opened(f"echo $CUDA_VISIBLE_DEVICES >> {tmp_path / 'seen'}; echo 11")
        waits = f"its throughput is measured when it is free: process {stranger.pid} of another job is still on it"
        assert settled(node)[2] == (GpuState.UNVERIFIED, waits)
        assert (tmp_path / "seen").read_text().split() == [node.fake.uuid(gpu) for gpu in (0, 1, 3)]
        stranger.kill()
    node.until(lambda: node.state(2) is GpuState.AVAILABLE, "its measurement")
    assert (tmp_path / "seen").read_text().split()[-1] == node.fake.uuid(2)


def test_it_waits_until_a_job_has_ended_and_verify_leaves_the_gpu_of_a_job_alone(
    opened: Opened, tmp_path: Path
) -> None:
    node = opened(f"echo $CUDA_VISIBLE_DEVICES >> {tmp_path / 'seen'}; echo 11")
    settled(node)
    (tmp_path / "seen").unlink()
    job = node.submit(PATIENT)
    node.cluster.apply(Start(job, (3,)))
    node.running(job)
    node.cluster.verify(throughput=True)
    node.cluster.drain(node.fake.uuid(3), "dust")
    node.cluster.resume(node.fake.uuid(3))
    found = settled(node)
    assert found[3] == (GpuState.UNVERIFIED, "its throughput is measured when the job on it has ended")
    assert (tmp_path / "seen").read_text().split() == [node.fake.uuid(gpu) for gpu in (0, 1, 2)]
    node.cluster.cancel(job, "enough")
    node.until(lambda: node.state(3) is GpuState.AVAILABLE, "its measurement")
    assert (tmp_path / "seen").read_text().split()[-1] == node.fake.uuid(3)


def test_its_own_process_makes_no_gpu_foreign_and_jobs_run_meanwhile(
    opened: Opened, four_gpus: FakeNvml, tmp_path: Path
) -> None:
    node = opened(f"echo $$ > {tmp_path / 'pid'}; until [ -e {tmp_path / 'go'} ]; do sleep 0.02; done; echo 11")
    node.until((tmp_path / "pid").exists, "the first measurement")
    (tmp_path / "go").touch()
    settled(node)
    (tmp_path / "go").unlink()
    (tmp_path / "pid").unlink()
    node.cluster.drain(node.fake.uuid(3), "dust")
    node.cluster.resume(node.fake.uuid(3))
    node.until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()), "a measurement")
    four_gpus.add_process(3, int((tmp_path / "pid").read_text()), 1 << 30)
    job = node.submit("echo ready")
    node.cluster.apply(Start(job, (0,)))
    node.wait_for(job, JobState.DONE)
    assert (node.state(3), node.reason(3)) == (GpuState.UNVERIFIED, "its throughput is being measured")
    seen = set()

    def is_available() -> bool:
        seen.add(node.state(3))
        return node.state(3) is GpuState.AVAILABLE

    (tmp_path / "go").touch()
    node.until(is_available, "the end")
    assert GpuState.FOREIGN not in seen


# Verify, and the next daemon ------------------------------------------------------------------------------------------


def test_verify_measures_anew_where_that_is_asked_for_alone(opened: Opened, tmp_path: Path) -> None:
    figure, seen = tmp_path / "figure", tmp_path / "seen"
    figure.write_text("5\n")
    node = opened(f"echo x >> {seen}; cat {figure}")
    assert {state for state, _ in settled(node)} == {GpuState.UNVERIFIED}
    figure.write_text("15\n")
    node.cluster.verify()
    assert {state for state, _ in settled(node)} == {GpuState.UNVERIFIED}
    assert len(seen.read_text().split()) == 4
    node.cluster.verify(throughput=True)
    assert {state for state, _ in settled(node)} == {GpuState.AVAILABLE}
    assert len(seen.read_text().split()) == 8


def test_verify_measures_a_gpu_that_was_just_let_go_of(opened: Opened, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    node = opened(f"echo x >> {seen}; echo 11")
    node.until(lambda: node.state(0) is GpuState.RELEASING, "the end of the first measurement")
    node.cluster.verify(throughput=True)
    settled(node)
    assert len(seen.read_text().split()) == 5


def test_a_gpu_that_comes_back_is_measured_anew(opened: Opened, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    node = opened(f"echo $CUDA_VISIBLE_DEVICES >> {seen}; echo 11")
    settled(node)
    node.fake.lose(2)
    node.until(lambda: node.state(2) is GpuState.LOST, "the loss")
    node.fake.set(2, lost=0)
    node.until(lambda: node.state(2) is GpuState.AVAILABLE, "its measurement")
    assert seen.read_text().split() == [node.fake.uuid(gpu) for gpu in (0, 1, 2, 3, 2)]


def test_the_next_daemon_measures_those_alone_that_were_not_accepted(opened: Opened, tmp_path: Path) -> None:
    figures = "case $CUDA_VISIBLE_DEVICES in *1) echo 5;; *) echo 15;; esac"
    script = f"echo $CUDA_VISIBLE_DEVICES >> {tmp_path / 'seen'}; {figures}"
    begin = time.time()
    first = opened(script)
    settled(first)
    assert [first.cluster.gpus.measured[first.fake.uuid(gpu)].tflops for gpu in first.gpus] == [15.0, 5.0, 15.0, 15.0]
    first.close()
    (tmp_path / "seen").unlink()
    second = opened(script)
    settled(second)
    assert (tmp_path / "seen").read_text().split() == [second.fake.uuid(1)]
    assert second.cluster.gpus.measured.keys() == {second.fake.uuid(gpu) for gpu in second.gpus}
    times = [second.cluster.gpus.measured[second.fake.uuid(gpu)].measured_time for gpu in (0, 2, 3, 1)]
    assert begin <= times[0] <= times[1] <= times[2] <= times[3] <= time.time()


def test_a_daemon_that_ends_leaves_no_measurement_behind(opened: Opened, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    node = opened(f"echo $$ > {pid}; exec sleep 1000")
    node.until(lambda: pid.exists() and bool(pid.read_text()), "a measurement")
    process = Process.of(int(pid.read_text()))
    assert process is not None
    node.close()
    assert not process.alive()


def test_what_a_killed_daemon_has_left_is_ended_by_the_next(opened: Opened) -> None:
    node = opened("echo 11")
    settled(node)
    node.close()
    marked = {**os.environ, MARK: f"{node_id_of(node)}:0:0"}
    with subprocess.Popen(["sleep", "1000"], env=marked) as left, subprocess.Popen(["sleep", "1000"]) as stranger:
        opened("echo 11")
        assert left.wait(30) == -signal.SIGKILL
        assert stranger.poll() is None
        stranger.kill()
    assert end_left("another-node") == 0


def node_id_of(node: LiveNode) -> str:
    """Return the name of a node that has ended."""
    with Journal(node.folder / "journal.sqlite3", read_only=True) as journal:
        return journal.node_id


# As an operator has it ------------------------------------------------------------------------------------------------


def test_an_operator_asks_for_it_by_the_command_line(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> None:
    figure = tmp_path / "figure"
    figure.write_text("echo 5\n")
    config = f"policy: fcfs\nacceptance: {{throughput: {{least_tflops: 10, command: [sh, {figure}]}}}}\n"
    with DaemonNode(tmp_path, four_gpus, fake_library, config) as node:
        node.start()
        said = node.node("verify", "--throughput").splitlines()
        why = "unverified: it computes 5 TFLOP/s, at least 10 are asked for"
        assert said == [f"{four_gpus.uuid(gpu)}: {why}; {computed(node, gpu)}" for gpu in range(4)]
        figure.write_text("echo 11\n")
        said = node.node("verify", "--throughput").splitlines()
        states = r"(available|releasing: its memory was not read since its job ended)"
        for gpu, line in enumerate(said):
            assert re.fullmatch(rf"{four_gpus.uuid(gpu)}: {states}; {computed(node, gpu)}", line), line
        until(lambda: {gpu["state"] for gpu in node.status()["gpus"]} == {"available"}, "GPUs")
        assert computed(node, 0).startswith("it computed 11 TFLOP/s on a simulated device, measured 20")
        assert f"GPU 0  {computed(node, 0).removeprefix('it ')}\n" in node.node("status")
        job = node.submit("--", "true")
        assert node.node("wait", str(job)) == f"job {job}: done\n"


def computed(node: DaemonNode, gpu: int) -> str:
    """Return how a GPU's figure must be told."""
    found = node.status()["gpus"][gpu]["throughput"]
    assert found["simulated"] is True
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["measured_time"]))
    return f"it computed {found['tflops']:g} TFLOP/s on a simulated device, measured {when}"


def test_without_a_figure_in_the_configuration(idle: DaemonNode) -> None:
    idle.start()
    said = idle.refused("node", "verify", "--throughput")
    assert said.startswith("the node's configuration asks for no throughput: name the least figure there")
    assert idle.node("verify").count(": available") == 4
    assert "TFLOP" not in idle.node("status")
    assert {gpu["throughput"] for gpu in idle.status()["gpus"]} == {None}


@pytest.fixture
def idle(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> Iterator[DaemonNode]:
    """A node without a daemon."""
    with DaemonNode(tmp_path, four_gpus, fake_library) as node:
        yield node


def test_what_the_configuration_says(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("acceptance: {throughput: {least_tflops: 100}}\n")
    setup = node_setup(read_node_config(file), state_dir=tmp_path)
    assert setup.rules.throughput == ThroughputRules(100.0, READY_COMMAND, 120.0)
    assert node_setup(read_node_config(None), state_dir=tmp_path).rules.throughput is None
    for text, sentence in (
        ("{}", "acceptance.throughput.least_tflops: is missing"),
        ("{least_tflops: 1, command: []}", "acceptance.throughput.command: must have at least 1 entry"),
        ("{least_tflops: 1, command: measure}", "acceptance.throughput.command: must be a list"),
        ("{least_tflop: 1}", "did you mean 'least_tflops'"),
    ):
        file.write_text(f"acceptance: {{throughput: {text}}}\n")
        with pytest.raises(ConfigError, match=sentence):
            read_node_config(file)


def test_a_node_without_rules_refuses(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> None:
    with LiveNode(tmp_path, four_gpus, fake_library) as node, pytest.raises(NodeError, match="asks for no throughput"):
        node.ready().cluster.verify(throughput=True)
