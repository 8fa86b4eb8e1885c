"""Shares of a GPU under MPS: a control daemon stands in by its name and its pipes alone."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_rl.node.environment import RunSettings
from lepton_rl.node.mps import CONTROL, mps_runs
from lepton_rl.node.runs import Runs
from lepton_rl.node.starter import OwnStarter
from tests.node.conftest import Node, drain, shell, until

PRINT = "env | grep -E '^(CUDA_MPS|LEPTON_GPUS)' | sort"


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Path]:
    """The folder of pipes of a process that the kernel calls as it does the control daemon."""
    folder, program = tmp_path / "pipes", tmp_path / f"{CONTROL}-control"
    folder.mkdir()
    os.mkfifo(folder / "control")
    sleep = shutil.which("sleep")
    assert sleep is not None
    program.symlink_to(sleep)
    with subprocess.Popen([program, "1000"]) as control:
        until(lambda: mps_runs(folder), "the control daemon's name")
        yield folder
        control.kill()


def printed(node: Node, pipes: Path | None, **asked: object) -> list[str]:
    node.runs.close()
    settings = RunSettings(mps_pipe_directory=pipes)
    node.runs = Runs(node.folder, node.journal, starter=OwnStarter(node.journal.node_id, settings=settings))
    job = node.journal.submit(shell(PRINT, **asked), 0.0)
    node.runs.launch(job, ["GPU-a"])
    drain(node.runs)
    return (node.runs.folder(job, 1) / "stdout").read_text().split()


def test_a_share_gets_its_part_of_threads_and_memory(node: Node, pipes: Path) -> None:
    assert printed(node, pipes, gpu_milli=250, gpu_memory_mib=4096) == [
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=4096M",
        f"CUDA_MPS_PIPE_DIRECTORY={pipes}",
        "LEPTON_GPUS=0.25",
    ]
    assert printed(node, pipes, gpu_milli=125) == [
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=12.5",
        f"CUDA_MPS_PIPE_DIRECTORY={pipes}",
        "LEPTON_GPUS=0.125",
    ]


def test_whole_gpus_and_nodes_without_mps_have_none_of_it(node: Node, pipes: Path, tmp_path: Path) -> None:
    assert printed(node, pipes, gpu_milli=1000) == ["LEPTON_GPUS=1"]
    assert printed(node, None, gpu_milli=500) == ["LEPTON_GPUS=0.5"]
    assert printed(node, tmp_path / "elsewhere", gpu_milli=500) == ["LEPTON_GPUS=0.5"]


def test_pipes_that_a_control_daemon_left_behind_mean_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "control")
    living = [path.read_text() for path in Path("/proc").glob("[0-9]*/comm") if path.exists()]
    if any(name.startswith(CONTROL) for name in living):
        pytest.skip("MPS runs on this machine")
    assert not mps_runs(tmp_path)
