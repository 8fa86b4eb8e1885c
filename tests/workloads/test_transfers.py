"""Transfers of data before, beside and ahead of computing, by hand."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_rl.errors import ConfigError, TraceError
from lepton_rl.workloads import Trace, staged_seconds, with_transfers


def two(**more: Any) -> Trace:
    columns = {"submit_time": [0, 10], "run_time": [100, 40], "requested_time": [120, 60], "gpus": [1, 1]}
    return Trace.from_columns(columns | more, name="two")


def test_stages_overlap_but_for_the_first_and_last_piece() -> None:
    assert staged_seconds(40, 100, 1) == 140
    # pieces of 10 s and 25 s: 10 + 3 x 25 + 25
    assert staged_seconds(40, 100, 4) == 110
    # the transfer is the slower one: 25 + 3 x 25 + 10
    assert staged_seconds(100, 40, 4) == 110
    assert staged_seconds([40, 0], [100, 7], 4).tolist() == [110, 7]
    with pytest.raises(ConfigError, match="chunks is 0; it must be 1 or more"):
        staged_seconds(1, 1, 0)


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6), st.integers(1, 50))
def test_overlap_is_between_nothing_and_all_that_there_can_be(transfer: float, compute: float, chunks: int) -> None:
    seconds = staged_seconds(transfer, compute, chunks)
    assert max(transfer, compute) * (1 - 1e-12) <= seconds <= (transfer + compute) * (1 + 1e-12)
    assert staged_seconds(transfer, compute, 2 * chunks) <= seconds * (1 + 1e-12)


def test_transfers_before_and_beside_the_computing() -> None:
    before = with_transfers(two(), [40, 0])
    assert before.run_time.tolist() == [140, 40]
    assert before.requested_time.tolist() == [160, 60]
    assert before.notes[-1] == "transfers: 20 s a job on average is part of the run times"
    beside = with_transfers(two(), 40, "chunks:4")
    assert beside.run_time.tolist() == [110, 50]  # 10 + 3 x 25 + 25; 10 + 3 x 10 + 10
    assert beside.requested_time.tolist() == [130, 70]  # 10 + 3 x 30 + 30; 10 + 3 x 15 + 15
    assert beside.notes[-1].endswith("in 4 pieces, each computed while the next one comes")
    assert with_transfers(two(), 0.0, "chunks:3").run_time.tolist() == [100, 40]
    assert np.isnan(with_transfers(two().with_requested("absent"), 40).requested_time).all()


def test_gpus_that_wait_for_a_transfer_are_busy_a_smaller_part_of_the_run() -> None:
    trace = with_transfers(two(gpu_utilization=[0.7, np.nan]), 40)
    assert trace.gpu_utilization[0] == 0.7 * 100 / 140
    assert np.isnan(trace.gpu_utilization[1])


def test_prefetch_moves_the_submission_and_keeps_dependencies() -> None:
    trace = with_transfers(two(after=["", "1"], deadline=[500, 200]), [40, 5], "prefetch")
    assert trace.job_id.tolist() == [2, 1]  # data is there at 15 and 40 s
    assert trace.submit_time.tolist() == [15, 40]
    assert trace.run_time.tolist() == [40, 100]
    assert trace.after.tolist() == [[1, 0]]
    assert (trace.submit_time + trace.deadline).tolist() == [210, 500]  # where they were
    assert "JCT count from its end" in trace.notes[-1]
    assert with_transfers(two(), 3.0, "prefetch").submit_time.tolist() == [3, 13]


@pytest.mark.parametrize(
    ("seconds", "overlap", "message"),
    [
        (1, "chunks", "no overlap of transfers is called 'chunks'; did you mean 'chunks:N'?; known: none, chunks:N"),
        (1, "chunks:0", "no overlap of transfers is called 'chunks:0'"),
        (1, "pretech", "no overlap of transfers is called 'pretech'; did you mean 'prefetch'?"),
        (-1, "none", "two: the transfer of job 1 is -1 s; it must be 0 to 1e+12"),
        ([0, np.nan], "none", "two: the transfer of job 2 is nan s"),
        ([1, 2, 3], "none", "two: transfers of shape (3,); give one number, or one for each job"),
        (1e12, "none", "two: job 1: column 'run_time': 1e+12 is above 1e+12"),
        (99, "prefetch", "two: job 2 has to finish 90 s after its submission, but its transfer takes 99 s"),
    ],
)
def test_transfers_that_cannot_be(seconds: Any, overlap: str, message: str) -> None:
    with pytest.raises((ConfigError, TraceError), match=re.escape(message)):
        with_transfers(two(deadline=[np.nan, 90]), seconds, overlap)
