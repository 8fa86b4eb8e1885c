"""What the tests of experiments share."""

from collections.abc import Callable
from pathlib import Path

import pytest

BENCHMARK = """\
name: small
workloads:
  - generator: gpu_cluster
    gpus: 8
    load: 1.2
    cluster: {nodes: 2, gpus_per_node: 4}
    windows: {kind: independent, count: 6, jobs: 20, warmup: 5}
policies: [fcfs, sjf, {name: sjf, blocking: easy}, random]
processes: 1
"""


@pytest.fixture
def benchmark_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small benchmark, with parts of it replaced."""

    def write(*replacements: tuple[str, str]) -> Path:
        text = BENCHMARK
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return path

    return write
