"""A working directory for commands."""

from pathlib import Path

import pytest

from lepton_rl.workloads import gpu_cluster, write_csv

POLICIES = """\
import sys
from lepton_rl.core import Start

print("imported")


class Exits:
    def decide(self, snapshot):
        sys.exit()


class ExitsAtOnce:
    def __init__(self):
        sys.exit(0)

    def decide(self, snapshot):
        return []


class Talks:
    def decide(self, snapshot):
        print("deciding")
        return [Start(job) for job in list(snapshot.queue)[:1] if snapshot.free_gpus == 8]
"""
BENCHMARK = """\
name: small
workloads:
  - generator: gpu_cluster
    gpus: 8
    cluster: {gpus: 8}
    windows: {kind: independent, count: 4, jobs: 20}
policies: [fcfs, "mine.py:Talks"]
processes: 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a trace, policies of one's own and a benchmark in it."""
    monkeypatch.chdir(tmp_path)
    write_csv(gpu_cluster(60, 8, 1.1, seed=1), tmp_path / "jobs.csv")
    (tmp_path / "mine.py").write_text(POLICIES)
    (tmp_path / "small.yaml").write_text(BENCHMARK)
    return tmp_path
