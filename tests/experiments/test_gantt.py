"""Gantt charts: jobs where they ran, and a mark where they were preempted."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lepton_rl.agents import make_policy
from lepton_rl.core import ClusterSpec, Outcome
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import gpu_type
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults, Reservation
from lepton_rl.experiments.cluster_config import ClusterConfig
from lepton_rl.experiments.drawing import time_unit
from lepton_rl.experiments.gantt import Schedule, gantt_figure, raster
from lepton_rl.experiments.hatches import Span, down_spans, reserved_spans, throttled_spans
from lepton_rl.experiments.recording import Recording, record
from lepton_rl.workloads import Trace


def recording_of(cluster: ClusterSpec, *stays: tuple[int, float, float, tuple[int, ...]]) -> Recording:
    """Return a recording of (job, begin, end, GPUs)."""
    jobs = 1 + max(stay[0] for stay in stays)
    finish = np.array([max((stay[2] for stay in stays if stay[0] == job), default=0.0) for job in range(jobs)])
    zeros, ones = np.zeros(jobs), np.ones(jobs)
    counts = np.zeros(jobs, np.int64)
    outcome = Outcome(cluster, zeros, ones, ones, zeros, finish, counts, counts.astype(np.int32), 0.0, 0.0)
    job, begin, end, gpus = zip(*stays, strict=True)
    first = np.cumsum([0, *map(len, gpus)])
    held = np.array([gpu for each in gpus for gpu in each], np.int64)
    return Recording(outcome, np.array(job, np.int64), np.array(begin), np.array(end), held, first.astype(np.int64))


def legend_of(chart: Any) -> list[str]:
    """Return what the legends of a figure name."""
    return [text.get_text() for legend in chart.legends for text in legend.get_texts()]


def test_the_picture_shows_jobs_where_they_ran() -> None:
    recording = recording_of(ClusterSpec.pool(3), (5, 0.0, 10.0, (0,)), (7, 5.0, 20.0, (1, 2)), (8, 12.0, 12.001, (0,)))
    picture = raster(recording, 0.0, 20.0, columns=20)
    assert picture.shape == (3, 20)
    assert set(picture[0, :10]) == {5}
    assert picture[0, 12] == 8
    assert np.array_equal(picture[1], picture[2])
    assert set(picture[1, :5]) == {-1}
    assert raster(recording, 0.0, 20.0, columns=20, most_rows=2).shape == (2, 20)


def test_a_line_stands_above_the_first_gpu_of_each_node() -> None:
    pytest.importorskip("matplotlib")
    groups = [{"nodes": 1, "gpus_per_node": count, "gpu": "T4"} for count in (2, 3, 1)]
    cluster = ClusterConfig.model_validate({"groups": groups}).build()
    schedule = Schedule("nodes of 2, 3 and 1 GPUs", recording_of(cluster, (0, 0.0, 10.0, (0,))))
    axes = gantt_figure([schedule], 0.0, 20.0, "now").axes[0]
    assert [np.asarray(line.get_ydata()).tolist() for line in axes.lines] == [[2, 2], [5, 5]]


def test_each_stay_of_a_preempted_job_is_drawn_named_and_its_preemption_marked() -> None:
    pytest.importorskip("matplotlib")
    trace = Trace.from_columns(
        {"job_id": [11, 12], "submit_time": [0.0, 10.0], "run_time": [40.0, 20.0], "gpus": [2.0, 1.0]}
    )
    recording = record(make_policy("srtf"), trace, ClusterSpec.pool(2))
    picture = raster(recording, 0.0, 60.0, columns=60)
    assert picture[0].tolist() == [0] * 10 + [1] * 20 + [0] * 30
    assert picture[1].tolist() == [0] * 10 + [-1] * 20 + [0] * 30
    axes = gantt_figure([Schedule("srtf", recording, trace.job_id)], 0.0, 60.0, "now").axes[0]
    (marks,) = axes.collections
    assert [np.asarray(path.vertices).tolist() for path in marks.get_paths()] == [
        [[10, 0], [10, 1]],
        [[10, 1], [10, 2]],
    ]
    assert axes.get_title("right") == "▏ 1 preemption"
    assert [text.get_text() for text in axes.texts] == ["11", "12", "11"]


def test_what_is_down_and_what_is_reserved_is_hatched() -> None:
    pytest.importorskip("matplotlib")
    faults = Faults(schedule=(Fault(5.0, 2, 1, True), Fault(9.0, 2, 1, False)))
    dynamics = Dynamics(faults=faults, reservations=(Reservation(10, 30, (1,)),))
    cluster = ClusterSpec(2, 2).with_dynamics(dynamics)
    assert down_spans(cluster) == [Span(2, 1, 5.0, 9.0)]
    assert reserved_spans(cluster) == [Span(2, 2, 10, 30)]
    assert down_spans(ClusterSpec(2, 2)) == reserved_spans(ClusterSpec(2, 2)) == []
    schedule = Schedule("hatched", recording_of(cluster, (0, 0.0, 10.0, (0,))))
    chart = gantt_figure([schedule], 0.0, 20.0, "now")
    axes = chart.axes[0]
    assert legend_of(chart) == ["reserved", "down"]
    boxes = [list(path.get_extents().extents) for drawn in axes.collections for path in drawn.get_paths()]
    assert boxes == [[10, 2, 20, 4], [5, 2, 9, 3]]
    before = gantt_figure([schedule], 0.0, 4.0, "now")
    assert len(before.axes[0].collections) == 0
    assert legend_of(before) == []


def heated(inlet: float | None) -> Recording:
    """Three GPUs of 400 W at most and 0.25 degrees a watt: in air of 10 degrees they hold their 85 at 300 W.

    A pair runs on the first two from 0 s on, and ends while a job of a third of the draw on the last never gets hot.
    """
    kind = replace(
        gpu_type("A100"), idle_power_w=100.0, max_power_w=400.0, throttle_temperature_c=85.0,
        thermal_resistance_c_per_w=0.25, thermal_time_constant_s=100.0,
    )  # fmt: skip
    cluster = ClusterSpec.of_groups((NodeGroup(1, 3, kind),), dynamics=Dynamics(inlet_temperature_c=inlet))
    jobs = {"submit_time": [0.0, 0.0], "run_time": [400.0, 300.0], "gpus": [2.0, 0.3]}
    return record(make_policy("fcfs"), Trace.from_columns(jobs), cluster)


def test_gpus_that_throttle_are_hatched_from_when_they_are_hot() -> None:
    """From 35 degrees towards 110 with 100 s: 85 are reached after 100 ln(75 / 25) seconds, and held to the end."""
    pytest.importorskip("matplotlib")
    recording = heated(10.0)
    (span,) = throttled_spans(recording)
    assert (span.first_gpu, span.gpus) == (0, 2)
    assert span.begin == pytest.approx(100 * np.log(3))
    assert span.end == recording.outcome.finish[0] > 400.0
    chart = gantt_figure([Schedule("hot", recording)], 0.0, span.end, "now")
    assert legend_of(chart) == ["throttled by heat"]
    (hatch,) = chart.axes[0].collections
    unit, _ = time_unit(span.end)
    (path,) = hatch.get_paths()
    assert list(path.get_extents().extents) == pytest.approx([span.begin / unit, 0, span.end / unit, 2])
    assert legend_of(gantt_figure([Schedule("hot", recording)], 0.0, 100.0, "now")) == []  # not hot yet


def test_without_heat_nothing_throttles() -> None:
    pytest.importorskip("matplotlib")
    assert throttled_spans(heated(None)) == []
    assert throttled_spans(recording_of(ClusterSpec.pool(1), (0, 0.0, 10.0, (0,)))) == []
    assert legend_of(gantt_figure([Schedule("cold", heated(-20.0))], 0.0, 100.0, "now")) == []


def test_preemptions_behind_the_end_of_the_chart_are_counted_too() -> None:
    pytest.importorskip("matplotlib")
    trace = Trace.from_columns(
        {"submit_time": [0.0, 10.0, 30.0], "run_time": [90.0, 5.0, 5.0], "gpus": [1.0, 1.0, 1.0]}
    )
    recording = record(make_policy("srtf"), trace, ClusterSpec.pool(1))
    for end, says in ((20.0, "▏ 1 of 2 preemptions"), (100.0, "▏ 2 preemptions")):
        axes = gantt_figure([Schedule("srtf", recording)], 0.0, end, "now").axes[0]
        assert axes.get_title("right") == says


def test_a_failure_that_is_repaired_in_parts_is_shown_until_each_repair() -> None:
    schedule = (Fault(5.0, 0, 4, True), Fault(8.0, 0, 1, False), Fault(9.0, 1, 3, False))
    cluster = ClusterSpec(1, 4).with_dynamics(Dynamics(faults=Faults(schedule=schedule)))
    assert down_spans(cluster) == [Span(0, 1, 5.0, 8.0), Span(1, 3, 5.0, 9.0)]
