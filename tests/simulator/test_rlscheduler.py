"""The published RLScheduler protocol: cases by hand, and every figure printed in its protocol page."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton_rl.errors import ConfigError, TraceError, UnknownPolicy
from lepton_rl.simulator.rlscheduler import (
    RULES,
    SCORES,
    Rule,
    mean_bounded_slowdown,
    run_window,
    start_indices,
)
from tests.reference.simulator import Job, simulate
from tests.reference.traces import swf_rows

SEED_1 = [1981, 2756, 4299, 8850, 3316, 2714, 5228, 7762, 4022, 7085]

Columns = NDArray[np.float64]  # (4, jobs): submit, run, requested, procs


def starts(
    jobs: list[tuple[float, float, float, int]], processors: int, rule: Rule, score: str, backfill: bool
) -> list[float]:
    submit, run, requested, procs = zip(*jobs, strict=True)
    found = run_window(submit, run, requested, procs, processors=processors, rule=rule, score=score, backfill=backfill)
    return [float(start) for start in found]


def test_a_committed_head_is_not_reconsidered() -> None:
    # (submit, run, requested, procs). Job 1 is the head from 1 on; the shorter job 2 comes at 2.
    jobs = [(0.0, 10.0, 10.0, 2), (1.0, 10.0, 10.0, 2), (2.0, 1.0, 1.0, 1)]
    assert starts(jobs, 2, "published", "sjf", False) == [0, 10, 20]
    assert starts(jobs, 2, "repick", "sjf", False) == [0, 11, 10]


def test_a_kept_head_starts_although_another_job_has_overtaken_it() -> None:
    # Waiting times go to the cube. At 9 job 1 has -(8/4)^3 = -8 and job 2 -(1/1)^3 = -1: the head is job 1.
    # At 12 it has -(11/4)^3 = -20.8, job 2 has -(4/1)^3 = -64, but job 1 fits and starts.
    jobs = [(0.0, 12.0, 12.0, 1), (1.0, 4.0, 4.0, 1), (8.0, 1.0, 1.0, 1), (9.0, 50.0, 50.0, 1)]
    assert starts(jobs, 1, "repick", "wfp3", False) == [0, 12, 16, 17]


def test_backfilling_lets_in_what_ends_strictly_before_the_shadow() -> None:
    # Shadow 10 for job 1: job 2 would end at 7, job 3 at 10 exactly.
    jobs = [(0.0, 10.0, 10.0, 2), (1.0, 10.0, 10.0, 4), (2.0, 5.0, 5.0, 1), (2.0, 8.0, 8.0, 1)]
    assert starts(jobs, 4, "published", "fcfs", True) == [0, 10, 2, 20]
    assert starts(jobs, 4, "published", "fcfs", False) == [0, 10, 20, 20]


def test_the_shadow_rests_on_requested_times_and_is_not_refreshed() -> None:
    # Job 0 asks for 20 s: job 2 (12 s) is let in at 2 and still runs when job 0 has left at 10.
    jobs = [(0.0, 10.0, 20.0, 2), (1.0, 10.0, 10.0, 4), (2.0, 12.0, 12.0, 1)]
    assert starts(jobs, 4, "published", "fcfs", True) == [0, 14, 2]


def test_published_aging_works_backwards() -> None:
    jobs = [(0.0, 10.0, 10.0, 1), (1.0, 4.0, 4.0, 1), (2.0, 2.0, 2.0, 1), (3.0, 2.0, 2.0, 1)]
    # Job 1 is committed to when it comes. At 14 the waits are 12 and 11 s, or -3 and -4 as published.
    assert starts(jobs, 1, "published-wait-fixed", "wfp3", False) == [0, 10, 14, 16]
    late = [*jobs[:2], (2.0, 4.0, 4.0, 1), (3.0, 2.0, 2.0, 1)]  # at 14: (3/4)^3 against (4/2)^3
    assert starts(late, 1, "published", "wfp3", False) == [0, 10, 14, 18]
    assert starts(late, 1, "published-wait-fixed", "wfp3", False) == [0, 10, 16, 14]


def test_jobs_arrive_by_row_and_never_before_the_row_above() -> None:
    jobs = [(0.0, 1.0, 1.0, 1), (9.0, 1.0, 1.0, 1), (5.0, 1.0, 1.0, 1)]
    assert starts(jobs, 2, "published", "fcfs", False) == [0, 9, 9]


def test_mean_bounded_slowdown_has_a_floor_of_ten_seconds() -> None:
    # (5 + 5) / 10, (0 + 20) / 20, (60 + 20) / 20
    assert mean_bounded_slowdown([5.0, 0.0, 70.0], [0.0, 0.0, 10.0], [5.0, 20.0, 20.0]) == 2.0


def test_window_starts_come_from_the_seed() -> None:
    assert start_indices(1, 10_000) == SEED_1
    assert start_indices(1, 10_000, iterations=3) == SEED_1[:3]
    assert start_indices(2, 10_000) != SEED_1
    assert all(64 <= start < 435 for start in start_indices(7, 500, window=64))


def test_a_trace_too_short_for_the_windows_is_refused() -> None:
    with pytest.raises(TraceError, match="2050"):
        start_indices(1, 2049)
    assert start_indices(1, 2050, iterations=1) == [1024]
    with pytest.raises(ConfigError, match="seed"):
        start_indices(-1, 10_000)
    with pytest.raises(ConfigError, match="window"):
        start_indices(1, 10_000, window=0)


GOOD = (0.0, 1.0, 1.0, 1)


@pytest.mark.parametrize(
    ("jobs", "named"),
    [
        ([GOOD, (0.0, 1.0, 1.0, 5)], "job 1 .*procs must be a whole number from 1 to 4, not 5"),
        ([GOOD, (0.0, 1.0, 1.0, 0)], "job 1 .*procs"),
        ([(0.0, 0.0, 1.0, 1)], "job 0 .*run"),
        ([(0.0, 1.0, -1.0, 1)], "job 0 .*requested"),
        ([(float("nan"), 1.0, 1.0, 1)], "job 0 .*submit"),
    ],
)
def test_bad_jobs_are_named(jobs: list[tuple[float, float, float, int]], named: str) -> None:
    with pytest.raises(TraceError, match=named):
        starts(jobs, 4, "published", "fcfs", False)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(TraceError, match="at least one job"):
        run_window([], [], [], [], processors=4, rule="published", score="fcfs", backfill=False)
    with pytest.raises(UnknownPolicy, match="did you mean 'wfp3'"):
        starts([GOOD], 4, "published", "wfp", False)
    with pytest.raises(ConfigError, match="did you mean 'published'"):
        starts([GOOD], 4, "publishd", "fcfs", False)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="repick"):
        starts([GOOD], 4, "repick", "fcfs", True)


@settings(max_examples=100, deadline=None)
@given(
    jobs=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20), st.integers(1, 20), st.integers(1, 4)), min_size=1),
    rule=st.sampled_from(RULES),
    score=st.sampled_from(SCORES),
    backfill=st.booleans(),
)
def test_no_processor_is_held_twice(
    jobs: list[tuple[float, float, float, int]], rule: Rule, score: str, backfill: bool
) -> None:
    jobs = sorted(jobs)
    begun = starts(jobs, 4, rule, score, backfill and rule != "repick")
    for (submit, *_), start in zip(jobs, begun, strict=True):
        assert start >= submit
        held = [n for (_, run, _, n), other in zip(jobs, begun, strict=True) if other <= start < other + run]
        assert sum(held) <= 4


# Figures.


@pytest.fixture(scope="module")
def windows() -> list[Columns]:
    rows = swf_rows("hpc_swf/lublin_256.swf.gz")
    table = np.array([(row.submit, row.run, row.requested, row.procs) for row in rows]).T
    assert table.shape == (4, 10_000)
    return [table[:, start : start + 1024] for start in start_indices(1, len(rows))]


def figures(windows: list[Columns], rule: Rule, score: str, backfill: bool) -> list[float]:
    return [
        mean_bounded_slowdown(
            run_window(*window, processors=256, rule=rule, score=score, backfill=backfill),
            window[0],
            window[1],
        )
        for window in windows
    ]


HEADER = ("fcfs", "wfp3", "unicep", "sjf", "f1")
MEANS: list[tuple[Rule, bool, list[float]]] = [
    ("published", False, [7273.77, 19753.53, 22274.74, 277.35, 258.37]),
    ("published", True, [235.82, 133.87, 307.23, 73.31, 75.07]),
    ("published-wait-fixed", False, [7273.77, 337.34, 381.71, 277.35, 258.37]),
    ("repick", False, [7273.77, 129.51, 34.84, 47.16, 34.53]),
]
PER_SEQUENCE: dict[tuple[int, bool], list[float]] = {
    (1981, False): [6862.2636, 17143.1787, 18572.7810, 204.2585, 266.7345],
    (2756, False): [7034.4524, 22244.9583, 25107.6403, 251.4177, 159.0794],
    (4299, False): [9090.8359, 19043.5391, 21974.6567, 214.3197, 156.8168],
    (8850, False): [5405.4992, 20016.2300, 22453.6708, 169.6855, 206.0170],
    (3316, False): [7847.3679, 20395.0845, 25182.5635, 297.4313, 376.3815],
    (1981, True): [163.7064, 105.5428, 166.7984, 69.8702, 66.7545],
    (2756, True): [263.5015, 125.2261, 307.1057, 55.1664, 32.5279],
    (4299, True): [247.5442, 115.6895, 342.4257, 63.9986, 45.2283],
    (8850, True): [128.5666, 117.9377, 176.5501, 34.9624, 51.0836],
    (3316, True): [261.4151, 160.4881, 385.3380, 113.9503, 161.9004],
}


@pytest.mark.data
@pytest.mark.parametrize(("rule", "backfill", "printed"), MEANS)
def test_table_of_means(windows: list[Columns], rule: Rule, backfill: bool, printed: list[float]) -> None:
    means = [round(float(np.mean(figures(windows, rule, score, backfill))), 2) for score in HEADER]
    assert means == printed


@pytest.mark.data
def test_saf_re_picked(windows: list[Columns]) -> None:
    assert round(float(np.mean(figures(windows, "repick", "saf", False))), 2) == 26.95


@pytest.mark.data
@pytest.mark.parametrize(("start", "backfill"), PER_SEQUENCE)
def test_table_per_sequence(windows: list[Columns], start: int, backfill: bool) -> None:
    window = [windows[SEED_1.index(start)]]
    found = [round(figures(window, "published", score, backfill)[0], 4) for score in HEADER]
    assert found == PER_SEQUENCE[start, backfill]


@pytest.mark.data
@pytest.mark.parametrize("score", ["fcfs", "sjf", "smallest", "saf", "f1", "f2", "f3", "f4"])
def test_re_picked_scores_that_stand_still_agree_with_the_normal_rules(windows: list[Columns], score: str) -> None:
    submit, run, requested, procs = windows[0]
    found = run_window(submit, run, requested, procs, processors=256, rule="repick", score=score, backfill=False)
    jobs = [Job(number, *row) for number, row in enumerate(windows[0].T.tolist())]
    expected = simulate(jobs, nodes=1, gpus_per_node=256, order=score, blocking="head")
    assert found.tolist() == expected.start
