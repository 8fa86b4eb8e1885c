"""The pages of a run and of a benchmark, as a real browser shows them."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lepton_rl.agents import make_policy
from lepton_rl.core import ClusterSpec
from lepton_rl.experiments.benchmark import benchmark
from lepton_rl.experiments.run_report import write_run_report
from lepton_rl.experiments.simulate import simulate
from tests.browser import Looked, browser, look
from tests.experiments.test_recording import CLUSTERS, TIMING, busy_trace

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def check(seen: Looked, *titles: str) -> None:
    """Assert that the page has these pictures, that all have loaded and are to be seen, and that nothing went wrong."""
    assert seen.errors == []
    assert [title for title, _ in seen.pictures] == list(titles)
    assert all(width > 300 for _, width in seen.pictures)
    assert seen.overflow == 0
    paper = (seen.screen > 0.99).all(axis=2)
    assert 0.3 < paper.mean() < 0.97
    colours = np.rint(seen.screen * 255) @ (1, 256, 65536)
    assert len(np.unique(colours)) > 100  # those of the maps


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
def test_the_page_of_a_run(cluster: ClusterSpec, tmp_path: Path) -> None:
    browser()
    simulation = simulate(busy_trace(cluster), cluster, make_policy("srtf"), timing=TIMING, recorded=True)
    page = write_run_report([simulation], tmp_path / "out")
    check(look(page, tmp_path), "Over time", "GPUs over time", "Who ran where")


def test_the_page_of_a_benchmark(benchmark_file: Callable[..., Path], tmp_path: Path) -> None:
    browser()
    result = benchmark(benchmark_file(("[fcfs, sjf,", "[fcfs, srtf,")), out=tmp_path / "out")
    assert result.report is not None
    titles = re.findall(r'alt="([^"]*)"', result.report.read_text(encoding="utf-8"))
    assert {"Completion time against energy", "One window under two policies", "The same window over time"} < set(
        titles
    )
    assert sum(title.startswith("Its GPUs under") for title in titles) == 2
    check(look(result.report, tmp_path), *titles)


def test_the_page_of_several_runs(tmp_path: Path) -> None:
    browser()
    cluster = CLUSTERS["nodes"]
    policies = [make_policy(name) for name in ("srtf", "fcfs", "saf")]
    trace = busy_trace(cluster)
    simulations = [simulate(trace, cluster, policy, timing=TIMING, recorded=True) for policy in policies]
    page = write_run_report(simulations, tmp_path / "out")
    each = ("GPUs over time", "Who ran where") * 3
    check(look(page, tmp_path), "Over time", "Completion time against energy", *each)
