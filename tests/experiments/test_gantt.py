"""Which job held which GPU when."""

import sys
from itertools import pairwise

import numpy as np
import pytest

from lepton_rl.agents import make_policy
from lepton_rl.core import Action, ClusterSpec, Snapshot
from lepton_rl.errors import ConfigError
from lepton_rl.experiments.gantt import Segment, raster, record
from lepton_rl.experiments.plots import Schedule, gantt_figure
from lepton_rl.simulator import Timing
from lepton_rl.workloads import Trace, gpu_cluster


def test_every_run_is_recorded_with_its_gpus() -> None:
    trace = Trace.from_columns({"submit_time": [0.0, 0.0, 1.0], "run_time": [4.0, 2.0, 3.0], "gpus": [1.0, 1.0, 2.0]})
    outcome, segments = record(make_policy("fcfs"), trace, ClusterSpec.pool(2), Timing())
    assert sorted(segments, key=lambda segment: segment.job) == [
        Segment(0, 0.0, 4.0, (0,)),
        Segment(1, 0.0, 2.0, (1,)),
        Segment(2, 4.0, 7.0, (0, 1)),
    ]
    assert outcome.finish.tolist() == [4.0, 2.0, 7.0]


def test_a_preempted_job_has_two_runs_and_no_gpu_is_held_twice() -> None:
    trace = gpu_cluster(60, 4, 1.5, seed=2)
    outcome, segments = record(make_policy("srtf"), trace, ClusterSpec(2, 2), Timing())
    assert len(segments) == 60 + outcome.preemptions.sum()
    assert outcome.preemptions.sum() > 0
    for gpu in range(4):
        held = sorted((segment.start, segment.end) for segment in segments if gpu in segment.gpus)
        assert all(before[1] <= after[0] for before, after in pairwise(held))


def test_a_policy_that_fails_when_it_is_replayed_is_a_sentence() -> None:
    class Leaves:
        def decide(self, snapshot: Snapshot) -> list[Action]:
            sys.exit()

    with pytest.raises(ConfigError, match=r"^Leaves failed at 0 s: SystemExit$"):
        record(Leaves(), gpu_cluster(5, 4, 1.5, seed=2), ClusterSpec(2, 2), Timing())


def test_the_picture_shows_jobs_where_they_ran() -> None:
    segments = [Segment(5, 0.0, 10.0, (0,)), Segment(7, 5.0, 20.0, (1, 2)), Segment(8, 12.0, 12.001, (0,))]
    picture = raster(segments, 3, 0.0, 20.0, columns=20)
    assert picture.shape == (3, 20)
    assert set(picture[0, :10]) == {5}
    assert picture[0, 12] == 8
    assert np.array_equal(picture[1], picture[2])
    assert set(picture[1, :5]) == {-1}
    assert raster(segments, 3, 0.0, 20.0, columns=20, most_rows=2).shape == (2, 20)


def test_a_line_stands_above_the_first_gpu_of_each_node() -> None:
    pytest.importorskip("matplotlib")
    schedule = Schedule("nodes of 2, 3 and 1 GPUs", [Segment(0, 0.0, 10.0, (0,))])
    axes = gantt_figure([schedule], 6, (0, 2, 5), 0.0, 20.0).axes[0]
    assert [np.asarray(line.get_ydata()).tolist() for line in axes.lines] == [[2, 2], [5, 5]]
