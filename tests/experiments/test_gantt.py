"""Gantt charts: jobs where they ran, and a mark where they were preempted."""

import numpy as np
import pytest

from lepton_rl.agents import make_policy
from lepton_rl.core import ClusterSpec, Outcome
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults, Reservation
from lepton_rl.experiments.cluster_config import ClusterConfig
from lepton_rl.experiments.gantt import Closed, Schedule, closed_times, gantt_figure, raster
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
    assert closed_times(cluster) == [Closed(2, 1, 5.0, 9.0, True), Closed(2, 2, 10, 30, False)]
    assert closed_times(ClusterSpec(2, 2)) == []
    schedule = Schedule("hatched", recording_of(cluster, (0, 0.0, 10.0, (0,))))
    axes = gantt_figure([schedule], 0.0, 20.0, "now").axes[0]
    boxes = [list(path.get_extents().extents) for drawn in axes.collections for path in drawn.get_paths()]
    assert boxes == [[10, 2, 20, 4], [5, 2, 9, 3]]
    assert len(gantt_figure([schedule], 0.0, 4.0, "now").axes[0].collections) == 0


def test_preemptions_behind_the_end_of_the_chart_are_counted_too() -> None:
    pytest.importorskip("matplotlib")
    trace = Trace.from_columns(
        {"submit_time": [0.0, 10.0, 30.0], "run_time": [90.0, 5.0, 5.0], "gpus": [1.0, 1.0, 1.0]}
    )
    recording = record(make_policy("srtf"), trace, ClusterSpec.pool(1))
    for end, says in ((20.0, "▏ 1 of 2 preemptions"), (100.0, "▏ 2 preemptions")):
        axes = gantt_figure([Schedule("srtf", recording)], 0.0, end, "now").axes[0]
        assert axes.get_title("right") == says
