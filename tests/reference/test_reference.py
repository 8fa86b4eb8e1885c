"""The reference simulator against cases worked out by hand and against published figures."""

import math
import statistics
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.simulator import (
    PREEMPTIVE_SCORES,
    SCORES,
    Blocking,
    Cluster,
    Job,
    Placement,
    Result,
    simulate,
)
from tests.reference.traces import philly_jobs, swf_rows


def job(number: int, submit: float, run: float, gpus: float, requested: float | None = None) -> Job:
    return Job(number, submit, run, run if requested is None else requested, gpus)


def on_gpus(
    gpus: int,
    jobs: Sequence[Job],
    order: str | Callable[[Job, float], float],
    blocking: Blocking,
    preemption_cost: float = 0.0,
    quantum: float = 0.0,
) -> Result:
    """Run the jobs on one node; GPUs draw 50 W when idle and 400 W under load."""
    return simulate(
        jobs,
        nodes=1,
        gpus_per_node=gpus,
        order=order,
        blocking=blocking,
        preemption_cost=preemption_cost,
        quantum=quantum,
        idle_w=50.0,
        max_w=400.0,
    )


# Blocking rules: one long job holds a GPU, a wide one has to wait for it, two small ones come behind.

SMALL_ONES_BEHIND = [job(0, 0, 10, 1), job(1, 1, 4, 2), job(2, 2, 9, 1), job(3, 3, 1, 1)]


@pytest.mark.parametrize(
    ("blocking", "finish"),
    [
        ("head", [10, 14, 23, 15]),  # 2 and 3 wait behind 1
        ("skip", [10, 15, 11, 11]),  # 2 starts at 2 and delays 1 to 11
        ("easy", [10, 14, 23, 4]),  # shadow 10: 2 would end at 11, 3 ends in time
        ("conservative", [10, 14, 23, 4]),
    ],
)
def test_blocking_rules(blocking: Blocking, finish: list[float]) -> None:
    assert on_gpus(2, SMALL_ONES_BEHIND, "fcfs", blocking).finish == finish


def test_easy_uses_gpus_that_the_head_leaves_over() -> None:
    jobs = [job(0, 0, 10, 2), job(1, 1, 5, 2), job(2, 2, 20, 1), job(3, 3, 1, 1)]
    assert on_gpus(3, jobs, "fcfs", "easy").finish == [10, 15, 22, 16]


def test_conservative_protects_every_reservation_and_easy_only_the_first() -> None:
    jobs = [job(0, 0, 10, 2), job(1, 1, 4, 2), job(2, 2, 5, 3), job(3, 3, 20, 1)]
    assert on_gpus(3, jobs, "fcfs", "easy").finish == [10, 14, 28, 23]
    assert on_gpus(3, jobs, "fcfs", "conservative").finish == [10, 14, 19, 39]


def test_easy_believes_requested_times() -> None:
    # Job 0 asks for 20 s and runs 10, so job 2 is let in at 2 and holds job 1 up until 11.
    jobs = [job(0, 0, 10, 1, requested=20), *SMALL_ONES_BEHIND[1:]]
    assert on_gpus(2, jobs, "fcfs", "easy").finish == [10, 15, 11, 11]


def test_a_job_that_outran_its_request_is_predicted_to_end_now() -> None:
    # At 7 the shadow is 7, and job 2 could not end by then.
    jobs = [job(0, 0, 10, 1, requested=5), job(1, 1, 4, 2), job(2, 7, 2, 1)]
    assert on_gpus(2, jobs, "fcfs", "easy").finish == [10, 14, 16]


# Orders.


@pytest.mark.parametrize(
    ("order", "finish"),
    [
        ("fcfs", [5, 9, 10]),
        ("sjf", [5, 10, 6]),
        ("ljf", [5, 9, 10]),
        ("wfp3", [5, 10, 6]),  # at 5: -(4/4)^3 * 2 against -(3/1)^3 * 2
        ("unicep", [5, 10, 6]),  # at 5: -4/4 against -3/1
        (lambda job, now: -job.id, [5, 10, 6]),
    ],
)
def test_order(order: str | Callable[[Job, float], float], finish: list[float]) -> None:
    jobs = [job(0, 0, 5, 2), job(1, 1, 4, 2), job(2, 2, 1, 2)]
    assert on_gpus(2, jobs, order, "head").finish == finish


def test_smallest_and_saf_differ_where_the_narrow_job_is_long() -> None:
    jobs = [job(0, 0, 5, 2), job(1, 1, 2, 2), job(2, 2, 8, 1)]
    assert on_gpus(2, jobs, "smallest", "head").finish == [5, 15, 13]
    assert on_gpus(2, jobs, "saf", "head").finish == [5, 7, 15]


def test_heap_priority_weighs_compute_time_sensitivity_and_memory() -> None:
    jobs = [
        Job(0, 0, 5, 5, 1),
        Job(1, 1, 1, 1, 1),  # 0.5 + 0.3
        Job(2, 1, 1, 1, 1, compute=3),  # 1.5 + 0.3
        Job(3, 1, 1, 1, 1, time_sensitivity=9),  # 0.5 + 2.7
        Job(4, 1, 1, 1, 1, memory_gib=40),  # 0.5 + 0.3 + 8
    ]
    assert on_gpus(1, jobs, "heap_priority", "head").finish == [5, 9, 8, 7, 6]


def test_ties_go_by_submit_time_and_then_by_the_order_given() -> None:
    jobs = [job(0, 2, 3, 1), job(1, 0, 5, 1), job(2, 2, 3, 1), job(3, 1, 3, 1)]
    assert on_gpus(1, jobs, "sjf", "head").finish == [11, 5, 14, 8]


def test_all_events_of_an_instant_come_before_its_one_pass() -> None:
    # At 5 job 0 ends and the short job arrives; both are known when the GPU is given away.
    jobs = [job(0, 0, 5, 1), job(1, 1, 4, 1), job(2, 5, 1, 1)]
    assert on_gpus(1, jobs, "sjf", "head").finish == [5, 10, 6]


# Preemptive orders.


def test_srtf_keeps_progress() -> None:
    # 0 runs 0-2; 1 runs 2-5 and 2 runs 3-7; 0 has 8 s left and runs them from 7.
    jobs = [job(0, 0, 10, 2), job(1, 2, 3, 1), job(2, 3, 4, 1)]
    result = on_gpus(2, jobs, "srtf", "head")
    assert result.start == [0, 2, 3]
    assert result.finish == [15, 5, 7]
    assert result.preemptions == [1, 0, 0]
    assert result.energy_joules == 50 * 2 * 15 + 350 * (2 * 10 + 3 + 4)


def test_preemption_costs_seconds_of_the_gpus() -> None:
    jobs = [job(0, 0, 10, 2), job(1, 2, 3, 1), job(2, 3, 4, 1)]
    result = on_gpus(2, jobs, "srtf", "head", preemption_cost=2)
    assert result.finish == [17, 5, 7]
    assert result.energy_joules == 50 * 2 * 17 + 350 * (2 * 12 + 3 + 4)


def test_the_cost_of_preemption_counts_as_remaining_time() -> None:
    # Preempted at 2 with 4 s left, job 0 has 6 with the cost; job 2 (5 s) therefore goes first at 5.
    jobs = [job(0, 0, 6, 1), job(1, 2, 3, 1), job(2, 4, 5, 1)]
    assert on_gpus(1, jobs, "srtf", "head").finish == [9, 5, 14]
    assert on_gpus(1, jobs, "srtf", "head", preemption_cost=2).finish == [16, 5, 10]


def test_srtf_head_stops_where_skip_goes_on() -> None:
    jobs = [job(0, 0, 4, 1), job(1, 1, 5, 2), job(2, 1, 6, 1)]
    assert on_gpus(2, jobs, "srtf", "head").finish == [4, 9, 15]
    assert on_gpus(2, jobs, "srtf", "skip").finish == [4, 12, 7]


def test_las_prefers_the_job_that_has_had_least() -> None:
    result = on_gpus(2, [job(0, 0, 5, 2), job(1, 2, 1, 2)], "las", "head")
    assert result.finish == [6, 3]
    assert result.preemptions == [1, 0]


def test_a_run_segment_younger_than_the_quantum_is_left_alone() -> None:
    # At 2 job 0 is young; at 6 it is not, and the shortest goes first.
    jobs = [job(0, 0, 10, 2), job(1, 2, 3, 2), job(2, 6, 1, 2)]
    assert on_gpus(2, jobs, "srtf", "head", quantum=5).finish == [14, 10, 7]
    assert on_gpus(2, jobs, "srtf", "head", quantum=0).finish == [14, 5, 7]


def test_srtf_treats_a_job_that_outran_its_request_as_shortest() -> None:
    jobs = [job(0, 0, 10, 1, requested=1), job(1, 3, 1, 1, requested=2)]
    assert on_gpus(1, jobs, "srtf", "head").finish == [10, 11]


# Placement: three nodes of four GPUs; node 0 has GPU 3 free, node 1 all of 4-7, node 2 has 10 and 11.


def three_nodes(placement: Placement) -> Cluster:
    cluster = Cluster(3, 4, 80.0, placement)
    for taken in ([0, 1, 2], [8, 9]):
        cluster.take(job(0, 0, 1, len(taken)), taken)
    return cluster


@pytest.mark.parametrize(
    ("size", "first", "best", "worst", "consolidated"),
    [
        (1, [3], [3], [4], [3]),
        (2, [3, 4], [10, 11], [4, 5], [10, 11]),
        (3, [3, 4, 5], [4, 5, 6], [4, 5, 6], [4, 5, 6]),
        (5, [3, 4, 5, 6, 7], [3, 4, 5, 6, 7], [3, 4, 5, 6, 10], [3, 4, 5, 6, 7]),
        (6, [3, 4, 5, 6, 7, 10], [4, 5, 6, 7, 10, 11], [3, 4, 5, 6, 7, 10], [4, 5, 6, 7, 10, 11]),
        (7, [3, 4, 5, 6, 7, 10, 11], [3, 4, 5, 6, 7, 10, 11], [3, 4, 5, 6, 7, 10, 11], None),
        (8, None, None, None, None),
    ],
)
def test_placement_of_gangs(
    size: int,
    first: list[int] | None,
    best: list[int] | None,
    worst: list[int] | None,
    consolidated: list[int] | None,
) -> None:
    gang = job(1, 0, 1, size)
    assert three_nodes("first").find(gang) == first
    assert three_nodes("best").find(gang) == best
    assert three_nodes("worst").find(gang) == worst
    assert three_nodes("consolidated").find(gang) == consolidated


def shared_gpus(placement: Placement) -> Cluster:
    """Four GPUs with 0.3, 1, 0.6 and 0.6 free; the job on GPU 2 holds 70 of its 80 GiB."""
    cluster = Cluster(1, 4, 80.0, placement)
    cluster.take(job(0, 0, 1, 0.7), [0])
    cluster.take(Job(1, 0, 1, 1, 0.4, memory_gib=70.0), [2])
    cluster.take(job(2, 0, 1, 0.4), [3])
    return cluster


@pytest.mark.parametrize(
    ("share", "memory_gib", "first", "best", "worst"),
    [
        (0.2, None, 0, 0, 1),
        (0.5, None, 1, 3, 1),  # 40 GiB are not free on GPU 2
        (0.5, 5.0, 1, 2, 1),
        (0.3, 20.0, 0, 0, 1),
        (0.3, 30.0, 1, 3, 1),
        (1, None, 1, 1, 1),
    ],
)
def test_placement_of_shares(share: float, memory_gib: float | None, first: int, best: int, worst: int) -> None:
    wanted = Job(3, 0, 1, 1, share, memory_gib=memory_gib)
    assert shared_gpus("first").find(wanted) == [first]
    assert shared_gpus("best").find(wanted) == [best]
    assert shared_gpus("consolidated").find(wanted) == [best]
    assert shared_gpus("worst").find(wanted) == [worst]


def test_shares_run_together_and_draw_by_load() -> None:
    jobs = [job(0, 0, 10, 0.5), job(1, 1, 4, 0.5), job(2, 2, 2, 0.5), job(3, 3, 5, 1)]
    result = on_gpus(1, jobs, "fcfs", "head")
    assert result.finish == [10, 5, 7, 15]
    assert result.allocation == [[0], [0], [0], [0]]
    assert result.energy_joules == pytest.approx(50 * 15 + 350 * (5 + 2 + 1 + 5), rel=1e-12)


def test_three_thirds_fill_a_gpu() -> None:
    jobs = [job(number, 0, 5, share) for number, share in enumerate([0.1, 0.2, 0.7])]
    assert on_gpus(1, jobs, "fcfs", "head").finish == [5, 5, 5]


@pytest.mark.parametrize(
    ("placement", "blocking", "finish", "gpus"),
    [
        ("first", "head", [10, 12, 5, 6], [4, 5]),
        ("best", "head", [10, 12, 5, 6], [2, 5]),
        ("consolidated", "head", [10, 12, 14, 11], [0, 1]),
        ("consolidated", "skip", [10, 12, 14, 4], [0, 1]),
    ],
)
def test_a_consolidated_gang_waits_for_a_node(
    placement: Placement, blocking: Blocking, finish: list[float], gpus: list[int]
) -> None:
    # Two nodes of three GPUs, each with a pair on it: two GPUs are free, on one node only from 10.
    jobs = [job(0, 0, 10, 2), job(1, 0, 12, 2), job(2, 1, 4, 2), job(3, 3, 1, 1)]
    result = simulate(jobs, nodes=2, gpus_per_node=3, order="fcfs", blocking=blocking, placement=placement)
    assert result.finish == finish
    assert result.allocation[2] == gpus


@pytest.mark.parametrize("unfit", [job(0, 0, 1, 3), Job(0, 0, 1, 1, 1, memory_gib=81.0)])
def test_a_job_that_never_fits_is_refused_at_once(unfit: Job) -> None:
    with pytest.raises(ValueError, match="job 0"):
        on_gpus(2, [unfit], "fcfs", "head")


@pytest.mark.parametrize("blocking", ["easy", "conservative"])
def test_preemption_and_backfilling_do_not_combine(blocking: Blocking) -> None:
    with pytest.raises(ValueError, match="srtf"):
        on_gpus(2, [job(0, 0, 1, 1)], "srtf", blocking)


# Properties. That no GPU is held twice is asserted inside Cluster.take.


@st.composite
def job_lists(draw: st.DrawFn) -> list[Job]:
    sizes = st.sampled_from([0.25, 0.5, 1.0, 1.0, 2.0, 3.0, 6.0])
    whole_seconds = st.integers(1, 12)
    return [
        Job(number, draw(st.integers(0, 20)), draw(whole_seconds), draw(whole_seconds), draw(sizes))
        for number in range(draw(st.integers(1, 12)))
    ]


@settings(max_examples=150, deadline=None)
@given(
    jobs=job_lists(),
    order=st.sampled_from([*SCORES, *PREEMPTIVE_SCORES]),
    blocking=st.sampled_from(["head", "skip", "easy", "conservative"]),
    placement=st.sampled_from(["first", "best", "worst", "consolidated"]),
    cost=st.sampled_from([0.0, 3.0]),
    quantum=st.sampled_from([0.0, 4.0]),
)
def test_all_jobs_finish_and_work_is_conserved(
    jobs: list[Job], order: str, blocking: Blocking, placement: Placement, cost: float, quantum: float
) -> None:
    if order in PREEMPTIVE_SCORES and blocking not in ("head", "skip"):
        blocking = "skip"
    result = simulate(
        jobs,
        nodes=2,
        gpus_per_node=3,
        order=order,
        blocking=blocking,
        placement=placement,
        preemption_cost=cost,
        quantum=quantum,
        idle_w=0.0,
        max_w=1.0,
    )
    held = 0.0
    for one, start, finish, preempted in zip(jobs, result.start, result.finish, result.preemptions, strict=True):
        assert start >= one.submit
        assert finish >= start + one.run + preempted * cost
        held += one.gpus * (one.run + preempted * cost)
    assert math.isclose(result.energy_joules, held, rel_tol=1e-9)


# Published figures.


@pytest.mark.data
@pytest.mark.parametrize(
    ("blocking", "mean_jct", "mean_wait", "p99_jct"),
    [
        ("head", 213_047.7820, 179_649.7578, 1_125_387.70),
        ("skip", 88_986.8272, 55_588.8030, 1_042_581.15),
        ("easy", 164_546.2794, 131_148.2552, 1_106_722.24),
    ],
)
def test_philly_pool_to_the_printed_digits(
    blocking: Blocking, mean_jct: float, mean_wait: float, p99_jct: float
) -> None:
    jobs = philly_jobs(5000)
    result = on_gpus(512, jobs, "fcfs", blocking)
    jct = [finish - one.submit for finish, one in zip(result.finish, jobs, strict=True)]
    wait = [time - one.run for time, one in zip(jct, jobs, strict=True)]
    assert round(statistics.fmean(jct), 4) == mean_jct
    assert round(statistics.fmean(wait), 4) == mean_wait
    assert round(statistics.quantiles(jct, n=100, method="inclusive")[98], 2) == p99_jct
    assert max(result.finish) - jobs[0].submit == 5_944_538


@pytest.mark.data
@pytest.mark.parametrize("order", ["fcfs", "sjf", "srtf", "las", "unicep"])
def test_the_first_philly_jobs_never_queue(order: str) -> None:
    jobs = philly_jobs(1000)
    result = on_gpus(512, jobs, order, "head")
    jct = statistics.fmean(finish - one.submit for finish, one in zip(result.finish, jobs, strict=True))
    assert round(jct, 2) == 103_997.61


@pytest.mark.data
@pytest.mark.parametrize(
    ("order", "bounded_slowdown"), [("fcfs", 7273.77), ("sjf", 47.16), ("f1", 34.53), ("saf", 26.95)]
)
def test_lublin_row_re_picked(order: str, bounded_slowdown: float) -> None:
    rows = swf_rows("hpc_swf/lublin_256.swf.gz")
    means = []
    for start in (1981, 2756, 4299, 8850, 3316, 2714, 5228, 7762, 4022, 7085):
        jobs = [Job(row.id, row.submit, row.run, row.requested, row.procs) for row in rows[start:][:1024]]
        result = on_gpus(256, jobs, order, "head")
        means.append(
            statistics.fmean(
                max(1.0, (finish - one.submit) / max(one.run, 10.0))
                for finish, one in zip(result.finish, jobs, strict=True)
            )
        )
    assert round(statistics.fmean(means), 2) == bounded_slowdown
