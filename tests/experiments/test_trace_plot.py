"""The picture of a trace."""

import numpy as np
import pytest

from lepton_rl.workloads import Trace

pytest.importorskip("matplotlib")

from lepton_rl.experiments.trace_plot import trace_figure


def test_four_parts_tell_arrivals_sizes_times_and_gaps() -> None:
    trace = Trace.from_columns({"submit_time": [0.0, 30.0, 90.0], "run_time": [10.0, 20.0, 40.0], "gpus": [1, 1, 4]})
    arrivals, sizes, run_times, gaps = trace_figure(trace).axes
    assert [axes.get_title() for axes in (arrivals, sizes, run_times, gaps)] == [
        "Arrivals", "Sizes", "Run times", "Gaps between arrivals",
    ]  # fmt: skip
    jobs, seconds = (np.array(line.get_xydata()).tolist() for line in sizes.get_lines())
    assert jobs == [[1, 2 / 3], [4, 1]]
    assert seconds == [[1, 30 / 190], [4, 1]]
    assert np.array(run_times.get_lines()[0].get_xydata()).tolist() == [[10, 1 / 3], [20, 2 / 3], [40, 1]]
    assert np.array(gaps.get_lines()[0].get_xydata()).tolist() == [[30, 0.5], [60, 1]]


def test_one_job_has_a_picture_without_gaps() -> None:
    figure = trace_figure(Trace.from_columns({"submit_time": [0.0], "run_time": [10.0], "gpus": [1]}))
    assert len(figure.axes[3].get_lines()) == 3  # the marks of a minute, an hour and a day
