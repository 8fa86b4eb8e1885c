"""The page of one run: whole in one file, and small for runs of any size."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lepton_rl.agents import make_policy
from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import Tariffs
from lepton_rl.core.hardware import HourlySeries
from lepton_rl.experiments.drawing import line_style
from lepton_rl.experiments.recording import record
from lepton_rl.experiments.run_plots import Run, heat_figure, lines_figure
from lepton_rl.experiments.run_report import write_run_report
from lepton_rl.experiments.simulate import simulate
from lepton_rl.workloads import Trace, gpu_cluster
from tests.experiments.test_recording import MIXED, TIMING, busy_trace

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def page_of(trace: Trace, cluster: ClusterSpec, folder: Path) -> str:
    simulation = simulate(trace, cluster, make_policy("srtf"), timing=TIMING, recorded=True)
    return write_run_report([simulation], folder).read_text(encoding="utf-8")


def test_the_page_is_one_file_that_fetches_nothing(tmp_path: Path) -> None:
    page = page_of(replace(busy_trace(MIXED), name="<b>a & b"), MIXED, tmp_path / "new" / "folder")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["report.html"]
    sources = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)|@import (\S*)', page)
    assert len(sources) == 3
    assert all(source[0].startswith("data:image/") for source in sources)
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;a &amp; b under srtf" in page


def test_a_large_run_makes_a_small_page(tmp_path: Path) -> None:
    page = page_of(gpu_cluster(4000, 4096, 2.0, seed=1), ClusterSpec(512, 8), tmp_path)
    assert len(page) < 1_500_000
    assert "Who ran where" not in page  # not each of so many GPUs has a row


def test_a_long_schedule_is_drawn_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    page = page_of(gpu_cluster(2500, 8, 1.0, seed=1), ClusterSpec.pool(8), tmp_path)
    assert "Up to the 2,000th of" in page


def test_more_stays_than_can_be_read_may_begin_together(tmp_path: Path) -> None:
    columns = {"submit_time": [0.0] * 2500, "run_time": [10.0] * 2500, "gpus": [0.002] * 2500}
    assert "Up to the 2,000th of 2,500 starts" in page_of(Trace.from_columns(columns), ClusterSpec.pool(8), tmp_path)


def test_one_straggler_does_not_fill_the_schedule(tmp_path: Path) -> None:
    columns = {"submit_time": [0.0] * 50, "run_time": [10.0] * 49 + [100_000.0], "gpus": [1.0] * 50}
    assert "Up to when 97% of the stays are over" in page_of(Trace.from_columns(columns), ClusterSpec.pool(8), tmp_path)


def panels(cluster: ClusterSpec) -> list[str]:
    recording = record(make_policy("fcfs"), gpu_cluster(20, 8, 1.0, seed=1), cluster)
    return [
        axes.get_title("left")
        for axes in lines_figure([Run("fcfs", recording, line_style(0))]).axes
        if axes.get_visible()
    ]


def test_only_what_the_cluster_has_is_drawn() -> None:
    always = ["queue length, jobs", "power of all GPUs, kW", "energy since the start, kWh"]
    nodes = "fragmentation: free on partly used nodes, % of all GPUs"
    assert panels(ClusterSpec.pool(8)) == always
    assert panels(ClusterSpec(2, 4)) == [*always, nodes]
    priced = replace(MIXED, tariffs=Tariffs(electricity=HourlySeries.of([50.0] * 10_000)))
    assert panels(priced) == [*always, "electricity cost since the start, USD", nodes]


def test_temperature_is_drawn_where_the_types_are_known() -> None:
    for cluster, titles in ((ClusterSpec(2, 4), 2), (MIXED, 3)):
        recording = record(make_policy("fcfs"), gpu_cluster(20, 8, 1.0, seed=1), cluster)
        drawn = [axes.get_title("left") for axes in heat_figure(recording).axes if axes.get_title("left")]
        assert drawn == ["utilisation", "power", "temperature"][:titles]


def test_runs_side_by_side_keep_their_colours() -> None:
    trace = gpu_cluster(60, 8, 2.0, seed=1)
    runs = [
        Run(name, record(make_policy(name), trace, ClusterSpec(2, 4)), line_style(index))
        for index, name in enumerate(("fcfs", "srtf"))
    ]
    figure = lines_figure(runs)
    for axes in figure.axes:
        assert [line.get_color() for line in axes.lines] == [run.style["color"] for run in runs]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fcfs", "srtf"]
