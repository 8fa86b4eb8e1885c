"""Input that nobody plans for: enormous numbers, streams, terminals of another encoding, nobody who reads."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lepton_rl.cli import main
from lepton_rl.cli.options import MOST_SECONDS
from lepton_rl.simulator.rules import MOST_PREEMPTION_COST
from lepton_rl.workloads import gpu_cluster, write_csv
from tests.experiments.conftest import BENCHMARK

CAPTURE = pytest.CaptureFixture[str]
MANY = "9" * 5000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a trace and some odd files."""
    monkeypatch.chdir(tmp_path)
    write_csv(gpu_cluster(60, 8, 1.1, seed=1), tmp_path / "jobs.csv")
    (tmp_path / "header.swf").write_text(f"; MaxNodes: {MANY}\n1 0 -1 10 1 -1 -1 1 10 -1 1 1 1 -1 1 -1 -1 -1\n")
    (tmp_path / "large.swf").write_text("; MaxNodes: 5000000\n1 0 -1 10 1 -1 -1 1 10 -1 1 1 1 -1 1 -1 -1 -1\n")
    (tmp_path / "nodes.yaml").write_text(f"groups: [{{nodes: {MANY}, gpus_per_node: 8, gpu: A100}}]\n")
    (tmp_path / "small.yaml").write_text(BENCHMARK.replace("processes: 1", "processes: 2"))
    (tmp_path / "semicolons.csv").write_text("submit_time;run_time;gpus\n1;2;3\n")
    (tmp_path / "file.txt").touch()
    (tmp_path / "comments.csv").write_text("# submit_time,run_time,gpus\n\n# all of it is a comment\n")
    (tmp_path / "table.yaml").write_text(
        "groups:\n  - {nodes: 1, gpus_per_node: 4, gpu: A100}\ninterference:\n  classes: {a: vision}\n  table: no.csv\n"
    )
    os.mkfifo(tmp_path / "pipe.csv")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("simulate --trace header.swf --policy fcfs", "header: its header names more GPUs than the 1,000,000"),
        ("simulate --trace large.swf --policy fcfs", "large: its header names more GPUs than the 1,000,000"),
        ("cluster describe nodes.yaml", "nodes.yaml:1: a number of 5,000 digits is too large to compute with"),
        (f"benchmark small.yaml seed={MANY}", "a number of 5,000 digits is too large to compute with"),
        (f"traces describe jobs.csv --gpus {MANY}", "is no number of GPUs from 1 to 1,000,000; write e.g. 256,512"),
        ("traces describe jobs.csv --gpus 8,1000001", "'1000001' is no number of GPUs from 1 to 1,000,000"),
        ("traces describe jobs.csv --gpus ,", "',' is no number of GPUs"),
        ("traces describe pipe.csv", "pipe.csv: is a stream, and this is read twice; write it to a file"),
        ("simulate --trace semicolons.csv --policy fcfs --gpus 8 --format csv", "columns are separated by commas"),
        ("benchmark small.yaml policies.+={name:\tsaf,label:\t''}", "a label must not be empty"),
        ("simulate --trace jobs.csv --gpus 8 --policy=", "'--policy': a policy is needed, not an empty text"),
        ("simulate --trace= --gpus 8 --policy fcfs", "'--trace': a file is needed, not an empty text"),
        ("advise --trace jobs.csv --gpus 8 --policy=", "'--policy': a policy is needed, not an empty text"),
        ("advise --trace= --gpus 8", "'--trace': a file is needed, not an empty text"),
        ("pareto --trace jobs.csv --gpus 8 --policy=", "'--policy': a policy is needed, not an empty text"),
        ("cluster describe table.yaml", "table.yaml:5: interference.table: "),
        ("traces describe comments.csv", "comments.csv: the file holds only comments; expected a header line: submit_"),
        ("traces describe file.txt --format csv", "file.txt: the file is empty; expected a header line: submit_time,"),
        ("traces describe jobs.csv --plot a.xyz", "a.xyz: no picture format is called 'xyz'; use .png, .svg or .pdf"),
        (
            "simulate --trace jobs.csv --gpus 8 --policy srtf --preemption-cost inf",
            "'--preemption-cost': 'inf' is no number of seconds from 0 to 1,000,000,000; write e.g. 60",
        ),
        (
            "simulate --trace jobs.csv --gpus 8 --policy srtf --quantum nan",
            "'--quantum': 'nan' is no number of seconds",
        ),
        ("advise --trace jobs.csv --gpus 8 --preemption-cost=-1", "'--preemption-cost': '-1' is no number of"),
        ("configs copy benchmark/quickstart.yaml file.txt", "file.txt: is a file; name a folder"),
    ],
)
def test_one_sentence(folder: Path, capsys: CAPTURE, line: str, says: str) -> None:
    assert main([word.replace("\t", " ") for word in line.split(" ")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in " ".join(err.split())
    assert len(err.splitlines()) <= 3


def test_seconds_are_as_many_as_the_simulator_takes() -> None:
    assert MOST_SECONDS == MOST_PREEMPTION_COST


def _run(*words: str, **more: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([sys.executable, "-m", "lepton_rl.cli", *words], check=False, **more)  # type: ignore[call-overload,no-any-return]


def test_a_terminal_of_another_encoding_loses_no_work(folder: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    told = _run("benchmark", "small.yaml", "--out", "run", env=environment, capture_output=True)
    assert told.returncode == 0, told.stderr.decode()
    assert b"won?lost?tied" in told.stdout
    assert b"\nreport: " in told.stdout


def test_where_nobody_takes_the_output_it_goes_nowhere(folder: Path) -> None:
    line = f"exec {sys.executable} -m lepton_rl.cli simulate --trace jobs.csv --policy fcfs --gpus 8 --json >&-"
    told = subprocess.run(["sh", "-c", line], check=False, stderr=subprocess.PIPE)
    assert told.returncode == 0, told.stderr
    assert b"Traceback" not in told.stderr


def test_an_interrupt_while_workers_come_up_is_one_line(folder: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "lepton_rl.cli",
        "benchmark",
        "small.yaml",
        "--out",
        "run",
        "workloads.0.windows.count=900",
    ]
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while len(children.read_text().split()) < 2:  # the tracker of resources is one
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("interrupted")
