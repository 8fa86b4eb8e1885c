"""Advice: on workloads made so that the right answer is known, and on others where it must not be given."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from lepton_rl.agents import make_policy
from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import NodeGroup, Tariffs
from lepton_rl.core.hardware import GpuType, HourlySeries, Locality, SpreadCurve, gpu_type, make_gpu_type
from lepton_rl.core.hardware.dynamics import Dynamics, Interference
from lepton_rl.errors import ConfigError, TraceError
from lepton_rl.experiments.advice import Advice, Assumptions, Change, Report, advise, default_policy, is_worth
from lepton_rl.experiments.advice.gpu_use import gpus_needed
from lepton_rl.experiments.advice.setup import cut_windows
from lepton_rl.experiments.statistics import Estimate
from lepton_rl.workloads import Trace

DAY = 86_400.0
A100, T4 = gpu_type("A100-SXM4-80GB"), gpu_type("T4")


def repeated(rounds: int, every: float, jobs: list[dict[str, Any]]) -> Trace:
    """Return the jobs of a round, again and again; their submit times count from the round's begin."""
    columns = {name: [job[name] for _ in range(rounds) for job in jobs] for name in jobs[0]}
    starts = np.repeat(np.arange(rounds) * every, len(jobs))
    return Trace.from_columns(columns | {"submit_time": starts + np.array(columns["submit_time"])})


def job(submit_time: float, run_time: float, gpus: float = 1, **more: Any) -> dict[str, Any]:
    """A job that asks for exactly the time that it takes."""
    return {"submit_time": submit_time, "run_time": run_time, "requested_time": run_time, "gpus": gpus, **more}


def groups(*parts: tuple[int, int, GpuType], **more: Any) -> ClusterSpec:
    """Return a cluster of (nodes, GPUs of each, type)."""
    return ClusterSpec.of_groups(tuple(NodeGroup(*part) for part in parts), **more)


def of_kind(report: Report, kind: str) -> list[Advice]:
    """Return what was simulated of a kind, the best first."""
    return [advice for advice in report.advice if advice.kind == kind]


def why_not(report: Report, what: str) -> str:
    """Return why something was left out."""
    return next(entry.why for entry in report.left_out if entry.what == what)


def test_short_jobs_behind_long_ones_want_another_policy() -> None:
    """One GPU; two jobs of 100 s, then eight of 1 s: first come, first served lets these wait for both."""
    jobs = [job(0, 100), job(0, 100), *(job(1, 1) for _ in range(8))]
    report = advise(repeated(60, 300, jobs), ClusterSpec.pool(1))
    best = of_kind(report, "policy")[0]
    assert report.present == "fcfs, blocking easy, placement first"
    assert best.worth
    assert best.beaten_by is None
    # by hand: 100, 200, 200 ... 207 against 100, 208, 100 ... 107
    change = best.changes["mean_jct"]
    assert change.before == pytest.approx((100 + 200 + sum(range(200, 208))) / 10)
    assert change.after == pytest.approx((100 + 208 + sum(range(100, 108))) / 10)
    assert change.relative.mean == pytest.approx(change.after / change.before - 1)
    assert "sjf" in {advice.title.split(",")[0] for advice in of_kind(report, "policy") if advice.worth}
    assert all(advice.beaten_by == best.title for advice in of_kind(report, "policy")[1:] if advice.worth)


def test_equal_jobs_want_none() -> None:
    report = advise(repeated(300, 100, [job(0, 60), job(0, 60)]), ClusterSpec.pool(1))
    assert of_kind(report, "policy")
    assert not any(advice.worth for advice in of_kind(report, "policy"))


def test_policies_that_preempt_are_tried_where_that_may_be_done_and_pay_for_it() -> None:
    jobs = [job(0, 1000), *(job(10, 10) for _ in range(5))]
    trace = repeated(100, 2000, jobs)
    without = advise(trace, ClusterSpec.pool(1))
    assert not of_kind(without, "policy that preempts")
    assert "--preemption-cost" in why_not(without, "policies that preempt")
    free, dear = (
        of_kind(advise(trace, ClusterSpec.pool(1), assumed=Assumptions(preemption_cost=cost)), "policy that preempts")
        for cost in (0.0, 900.0)
    )
    assert free[0].worth
    assert "at 0 s each time" in free[0].sentence
    assert free[0].changes["mean_jct"].after < dear[0].changes["mean_jct"].after


def test_a_trace_without_requested_times_is_told_what_is_assumed() -> None:
    columns = {"submit_time": np.arange(600) * 10.0, "run_time": np.tile([50.0, 1.0, 1.0], 200), "gpus": np.ones(600)}
    trace = Trace.from_columns(columns)
    assert default_policy(trace) == make_policy("fcfs", blocking="skip")
    assert default_policy(trace.with_requested("exact")) == make_policy("fcfs", blocking="easy")
    report = advise(trace, ClusterSpec.pool(2))
    assert of_kind(report, "policy with requested times")[0].title.endswith("exact times")
    assert "this trace has none" in of_kind(report, "policy with requested times")[0].sentence
    absent = advise(trace.with_requested("absent"), ClusterSpec.pool(2))
    assert not of_kind(absent, "policy with requested times")
    assert why_not(absent, "policies that read requested times")


def test_gangs_that_are_slow_over_two_nodes_want_packing() -> None:
    """Two nodes of 4: behind a job of 2 the first nodes split a gang of 4, which then runs three times as long."""
    jobs = [job(0, 100, 2), job(1, 100, 4)]
    locality = Locality(SpreadCurve((1, 2), (1.0, 3.0)))
    report = advise(repeated(300, 400, jobs), groups((2, 4, A100), locality=locality))
    best = of_kind(report, "placement")[0]
    assert best.worth
    assert best.title in ("placement best", "placement consolidated")
    assert "Of 300 gangs among the first 300 jobs 150 now run on more nodes than they need." in best.sentence
    assert best.changes["mean_jct"].before == pytest.approx((100 + 300) / 2)
    assert best.changes["mean_jct"].after == pytest.approx(100)


def test_where_spreading_costs_nothing_packing_is_no_advice() -> None:
    report = advise(repeated(300, 400, [job(0, 100, 2), job(1, 100, 4)]), ClusterSpec(2, 4))
    assert of_kind(report, "placement")
    assert not any(advice.worth for advice in of_kind(report, "placement"))
    assert "Spreading costs nothing in this cluster's file." in of_kind(report, "placement")[0].sentence
    pool = advise(repeated(300, 400, [job(0, 100, 2)]), ClusterSpec.pool(4))
    assert "alike" in why_not(pool, "another placement")


def test_shares_are_packed_by_a_policy_of_their_own() -> None:
    report = advise(repeated(100, 100, [job(0, 60, 0.5), job(0, 60, 2)]), ClusterSpec(2, 2))
    assert "gpu_packing, blocking skip" in {advice.title for advice in of_kind(report, "placement")}


def test_a_busy_card_with_time_to_spare_wants_a_power_limit() -> None:
    report = advise(repeated(300, 1000, [job(0, 900)]), groups((1, 1, A100)))
    found = of_kind(report, "power limit of A100-SXM4-80GB")
    assert found[0].worth
    changes = found[0].changes
    limited = A100.under_limit(float(found[0].title.split(" at ")[1].removesuffix(" W")))
    assert changes["mean_jct"].after == pytest.approx(
        changes["mean_jct"].before / limited.speed["general"] * A100.speed["general"], rel=0.2
    )
    assert changes["energy_kwh"].relative.mean < -0.02


def test_a_limit_that_costs_more_time_than_it_saves_is_not_worth_it() -> None:
    """A card whose speed falls as its draw does: the queue grows, and energy per job stays."""
    curve = replace(A100.power_curve, exponent=1.0, floor_w=90.0)
    linear = replace(A100, name="linear", power_curve=curve)
    report = advise(repeated(300, 1000, [job(0, 900)]), groups((1, 1, linear)))
    assert of_kind(report, "power limit of linear")
    assert not any(advice.worth for advice in of_kind(report, "power limit of linear"))
    lowest = ClusterSpec.of_groups((NodeGroup(1, 1, A100, power_limit_w=A100.min_power_limit_w),))
    assert "none below" in why_not(advise(repeated(9, 1000, [job(0, 900)]), lowest), "power limits of A100-SXM4-80GB")
    assert "no types" in why_not(advise(repeated(9, 1000, [job(0, 900)]), ClusterSpec.pool(1)), "power limits")


def test_memory_figures_that_force_jobs_to_the_one_large_card() -> None:
    jobs = [job(0, 100, gpu_memory_gib=20.0) for _ in range(4)]
    small = replace(A100, name="small", memory_gib=16.0)
    report = advise(repeated(256, 500, jobs), groups((1, 1, A100), (1, 3, small)))
    best = of_kind(report, "over-asked memory")[0]
    assert best.worth
    assert best.changes["mean_jct"].before == pytest.approx((100 + 200 + 300 + 400) / 4)
    assert best.changes["mean_jct"].after == pytest.approx(100)
    assert "1,024 of 1,024 (100% of the GPU-hours)" in best.sentence


@pytest.mark.parametrize("more", [{}, {"gpu_memory_gib": 10.0}, {"gpu_memory_gib": 20.0, "gpu_type": "A100"}])
def test_memory_that_forces_nothing_is_no_advice(more: dict[str, Any]) -> None:
    report = advise(repeated(80, 500, [job(0, 100, **more)]), groups((1, 1, A100), (1, 3, T4)))
    assert not of_kind(report, "over-asked memory")
    assert "no job's memory figure" in why_not(report, "over-asked memory")


def test_gpus_that_are_held_and_not_used() -> None:
    """One GPU, four jobs at once, each busy a fifth of its time: at 80 % of a GPU four of them fit, a quarter each."""
    jobs = [job(0, 100, gpu_memory_gib=10.0, gpu_utilization=0.2) for _ in range(4)]
    report = advise(repeated(100, 500, jobs), groups((1, 1, A100)))
    (only,) = of_kind(report, "over-asked GPUs")
    assert only.worth
    assert only.title == "one-GPU jobs as shares"
    assert only.changes["mean_jct"].before == pytest.approx((100 + 200 + 300 + 400) / 4)
    assert only.changes["mean_jct"].after == pytest.approx(100)
    assert "400 of 400 jobs (100% of the GPU-hours) kept theirs busy 20% of the time" in only.sentence
    assert "100 in place of 400 in all" in only.sentence
    assert "A bound" in only.sentence
    assert "Sharing a GPU costs nothing" in only.sentence
    assert set(only.changes) == {"mean_jct", "p99_wait", "rent_usd", "gpus"} & set(report.now)  # energy is not known


def test_shares_slow_each_other_as_the_cluster_says() -> None:
    """Two jobs of half a GPU take 1 + c u v = 1 + 4 / 4 times as long: what they no longer wait, they run longer."""
    jobs = [job(0, 100, gpu_memory_gib=10.0, gpu_utilization=0.4) for _ in range(2)]
    costly = groups((1, 1, A100), dynamics=Dynamics(Interference(4.0)))
    (only,) = of_kind(advise(repeated(100, 500, jobs), costly), "over-asked GPUs")
    assert only.changes["mean_jct"].before == pytest.approx((100 + 200) / 2)
    assert only.changes["mean_jct"].after == pytest.approx(200)
    assert not only.worth
    assert "costs nothing" not in only.sentence


def test_gangs_shrink_to_equal_parts_and_take_their_memory_with_them() -> None:
    """Of 12 GPUs busy 45 %: 12 x 0.45 / 0.8 = 6.75, of which no part of 12 is nearer above than 12 itself."""
    columns: dict[str, Any] = {
        "submit_time": np.zeros(7),
        "run_time": np.full(7, 60.0),
        "gpus": [8, 12, 12, 8, 8, 1, 1],
        "gpu_utilization": [0.3, 0.45, 0.4, 0.1, np.nan, 0.5, 0.7],
        "gpu_memory_gib": [10, 10, 10, 40, 10, np.nan, 10],
        "cpu_cores_per_gpu": [2.0, 0, 0, 0, 0, 0, 0],
    }
    trace = Trace.from_columns(columns)
    # 3.0 of 8 is 4; 6.0 of 12 is 6; 1.0 of 8, but 8 x 40 GiB take 4 cards of 80; unknown ones stay; 0.875 is no share
    assert gpus_needed(trace, ClusterSpec(4, 8)).tolist() == [4, 12, 6, 4, 8, 1, 1]
    narrow = ClusterSpec.of_groups((NodeGroup(2, 8, A100, (("cpu_cores", 24.0),)),))
    assert gpus_needed(trace, narrow)[0] == 4  # 4 cores for each
    crowded = ClusterSpec.of_groups((NodeGroup(2, 8, A100, (("cpu_cores", 3.0),)), NodeGroup(1, 8, T4)))
    assert gpus_needed(trace, crowded)[0] == 8  # no node has 4 cores for one GPU, so that it stays as it is


def test_shares_and_gangs_are_tried_alone_and_together() -> None:
    jobs = [
        job(0, 100, 4, gpu_memory_gib=10.0, gpu_utilization=0.2),
        job(0, 100, gpu_memory_gib=1.0, gpu_utilization=0),
    ]
    found = of_kind(advise(repeated(100, 500, jobs), ClusterSpec.pool(4)), "over-asked GPUs")
    assert {advice.title for advice in found} == {"one-GPU jobs as shares", "smaller gangs", "shares and smaller gangs"}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, "column gpu_utilization"),
        ({"gpu_utilization": 0.1}, "no job of known gpu_utilization has a memory figure"),
        ({"gpu_utilization": 0.9, "gpu_memory_gib": 1.0}, "would fit on fewer, each 80% busy"),
    ],
)
def test_of_gpus_whose_use_is_not_known_nothing_is_said(more: dict[str, Any], why: str) -> None:
    report = advise(repeated(80, 500, [job(0, 100, 2, **more)]), ClusterSpec.pool(4))
    assert not of_kind(report, "over-asked GPUs")
    assert why in why_not(report, "over-asked GPUs")


def over_asked(factor: float) -> Trace:
    """Two GPUs: a job on one, a pair behind it, and a short job that would end in time to be backfilled."""
    jobs = [job(0, 100, 1), job(1, 50, 2), job(2, 60, 1)]
    jobs[2]["requested_time"] *= factor
    return repeated(300, 400, jobs)


def test_requested_times_that_keep_jobs_from_being_backfilled() -> None:
    report = advise(over_asked(20.0), ClusterSpec.pool(2))
    best = of_kind(report, "requested times")[0]
    assert best.worth
    assert best.changes["mean_jct"].before == pytest.approx((100 + 149 + 208) / 3)
    assert best.changes["mean_jct"].after == pytest.approx((100 + 149 + 60) / 3)
    assert "above twice the run time for 33% of the jobs" in best.sentence


def test_requested_times_that_are_right_or_not_read_are_no_advice() -> None:
    right = advise(over_asked(1.0), ClusterSpec.pool(2))
    assert not any(advice.worth for advice in of_kind(right, "requested times"))
    unread = advise(over_asked(20.0), ClusterSpec.pool(2), lambda: make_policy("fcfs", blocking="skip"))
    assert "fcfs reads none" in why_not(unread, "over-estimated requested times")


def test_a_group_that_no_job_can_use_may_go() -> None:
    jobs = [job(0, 100, gpu_memory_gib=20.0), job(0, 100, gpu_memory_gib=20.0)]
    report = advise(repeated(200, 300, jobs), groups((2, 1, A100), (4, 1, T4)))
    best = of_kind(report, "fewer T4 (group 2)")[0]
    assert best.worth
    assert best.changes["gpus"].relative.mean == pytest.approx(-1 / 6)
    assert best.changes["mean_jct"].relative.mean == 0
    assert not of_kind(report, "fewer A100-SXM4-80GB (group 1)")[0].worth


def test_a_queue_wants_more_of_the_gpus_that_it_waits_for() -> None:
    """One A100 for jobs that only it can hold, at load 0.99: the second one ends the queue."""
    report = advise(_queueing(), groups((1, 1, A100), (4, 1, T4), reference=A100))
    more = of_kind(report, "more A100-SXM4-80GB (group 1)")[0]
    assert more.worth
    assert "100% of the GPU-hours waited are of jobs that may run on no other GPUs" in more.sentence
    assert not of_kind(report, "more T4 (group 2)")[0].worth


def _queueing() -> Trace:
    return repeated(300, 404, [job(0, 100, gpu_memory_gib=20.0) for _ in range(4)])


def test_jobs_that_never_wait_want_no_more_gpus() -> None:
    report = advise(repeated(300, 200, [job(0, 100)]), ClusterSpec(4, 1))
    assert not of_kind(report, "more nodes")[0].worth
    assert of_kind(report, "fewer nodes")[0].worth
    one = advise(repeated(9, 200, [job(0, 100)]), ClusterSpec.pool(1))
    assert why_not(one, "fewer GPUs") == "nothing would be left"


def test_what_too_few_gpus_cannot_run_is_left_out() -> None:
    report = advise(repeated(9, 200, [job(0, 100, 4)]), ClusterSpec.pool(4))
    assert "9 of 9 jobs ask for more than 3 GPUs" in why_not(report, "fewer GPUs: 1 GPU fewer")


def cheap_nights(cheap: float, dear: float = 100.0) -> HourlySeries:
    """Cheap from noon to midnight, for 200 days."""
    return HourlySeries.of(np.tile([dear] * 12 + [cheap] * 12, 200), "prices")


def night_jobs(**more: Any) -> Trace:
    """At each midnight two jobs of an hour, of which the second can wait."""
    return repeated(150, DAY, [job(0, 3600, time_sensitivity=1.0, **more), job(0, 3600, time_sensitivity=0.1, **more)])


def awake(series: HourlySeries | None) -> ClusterSpec:
    """Two GPUs that draw nothing when idle, so that only jobs cost."""
    figures = {"memory_gib": 80, "max_power_w": 400, "idle_power_w": 0}
    rates = {"fp32_tflops": 19.5, "fp16_tflops": 312, "memory_bandwidth_gb_s": 2039}
    return groups((1, 2, make_gpu_type("own", figures | rates)), tariffs=Tariffs(electricity=series))


def test_jobs_that_can_wait_go_to_the_cheap_hours() -> None:
    report = advise(night_jobs(), awake(cheap_nights(1.0)))
    best = of_kind(report, "hours of low electricity")[0]
    assert best.worth
    # by hand: half of the energy at 1 instead of 100, but for the first job of a window
    assert best.changes["electricity_usd"].relative.mean == pytest.approx(-0.99 / 2, abs=0.01)
    assert best.changes["mean_jct"].relative.mean == pytest.approx(0, abs=1e-9)
    assert "the best hours of the day are 12, 13, 14" in best.sentence
    assert "12.0 h in the mean" in best.sentence
    short = advise(night_jobs(), awake(cheap_nights(1.0)), assumed=Assumptions(defer_hours=11))
    assert not of_kind(short, "hours of low electricity")[0].worth


def test_deadlines_say_how_long_jobs_can_wait() -> None:
    strict, patient = (
        of_kind(advise(night_jobs(deadline=hours * 3600.0), awake(cheap_nights(1.0))), "hours of low electricity")[0]
        for hours in (20.0, 26.0)
    )
    assert not strict.worth  # half of the slack of 19 h ends before noon
    assert patient.worth


@pytest.mark.parametrize(("series", "why"), [(None, "no series"), (cheap_nights(5.0, 5.0), "every hour has the same")])
def test_without_cheaper_hours_nothing_is_deferred(series: HourlySeries | None, why: str) -> None:
    report = advise(night_jobs(), awake(series))
    assert why in why_not(report, "hours of low electricity")


def test_windows_follow_each_other_to_the_end_of_the_trace_or_from_a_job_on() -> None:
    trace = repeated(10_000, 10, [job(0, 5)])
    windows, where = cut_windows(trace, 2000, None, 8)
    assert where == "jobs 8,001 to 10,000 in 8 windows of 250"
    assert [window.job_id[0] for window in windows[:2]] == [8001, 8251]
    windows, where = cut_windows(trace, 600, 101, 8)
    assert where == "jobs 101 to 700 in 2 windows of 300"
    assert cut_windows(trace, 40_000, None, 8)[1] == "jobs 1 to 10,000 in 8 windows of 1,250"
    assert cut_windows(trace, 600, 101, 1)[1] == "jobs 101 to 700"
    assert cut_windows(trace[:40], 10_000, None, 8)[1] == "jobs 1 to 40"
    with pytest.raises(TraceError, match="no job 10,001"):
        cut_windows(trace, 10, 10_001, 8)


def estimates(**parts: tuple[float, float, float, int]) -> dict[str, Change]:
    return {
        name: Change(1.0, 1.0 + mean, Estimate(mean, low, high, 8), falls)
        for name, (mean, low, high, falls) in parts.items()
    }


@pytest.mark.parametrize(
    ("goal", "price", "worth"),
    [
        ((-0.3, -0.4, -0.2, 8), 0.0, True),
        ((-0.3, -0.4, -0.2, 8), 0.15, True),
        ((-0.3, -0.4, -0.2, 8), 0.16, False),  # more than half of the gain
        ((-0.3, -0.7, 0.1, 8), 0.0, False),  # may be chance
        ((-0.3, -0.4, -0.2, 5), 0.0, False),  # few windows make the mean
        ((-0.01, -0.012, -0.008, 8), 0.0, False),  # too little
    ],
)
def test_what_is_worth_it(goal: tuple[float, float, float, int], price: float, worth: bool) -> None:
    assert is_worth(estimates(mean_jct=goal, energy_kwh=(price, price, price, 0)), "mean_jct") is worth


def test_one_long_run_tells_the_mean_jct_by_its_parts() -> None:
    """Eight GPUs, one job of which nobody waits, but in the third quarter all wait for the first."""
    trace = repeated(400, 100, [job(0, 60)])
    run_time = np.where(np.arange(400) // 100 == 2, 140.0, 60.0)
    trace = replace(trace, run_time=run_time, requested_time=run_time)
    one = advise(trace, ClusterSpec.pool(1), assumed=Assumptions(windows=1))
    assert one.one_run_jct == pytest.approx(one.now["mean_jct"].mean())
    assert len(one.now["mean_jct"]) == 8
    assert len(one.now["energy_kwh"]) == 1
    more = of_kind(one, "more GPUs")[0]
    assert more.changes["mean_jct"].after == pytest.approx(run_time.mean())
    assert more.changes["mean_jct"].relative.low is not None
    assert more.changes["energy_kwh"].relative.low is None
    # by hand: of the third 100, number i waits 40 i; of those behind it, number i 4,000 - 40 i
    assert more.changes["mean_jct"].before == pytest.approx(
        (80 + sum(range(0, 4000, 40)) * 2 / 400 + 4000 / 400), rel=0.01
    )


def test_windows_are_as_many_as_show_the_queue_of_one_run() -> None:
    """At a load of 1.1 the queue of 2,000 jobs grows four times as long as that of 500."""
    growing = repeated(2000, 100, [job(0, 110)])
    report = advise(growing, ClusterSpec.pool(1), assumed=Assumptions(windows=4))
    assert report.now["mean_jct"].mean() == pytest.approx(110 + 10 * 499 / 2)
    assert report.one_run_jct == pytest.approx(110 + 10 * 1999 / 2)
    assert advise(growing, ClusterSpec.pool(1)).simulated == "jobs 1 to 2,000"
    steady = advise(repeated(2000, 100, [job(0, 90)]), ClusterSpec.pool(1))
    assert steady.simulated == "jobs 1 to 2,000 in 8 windows of 250"


def test_what_has_no_interval_must_gain_more() -> None:
    same = estimates(mean_jct=(0.0, 0.0, 0.0, 0))
    for part, worth in ((-0.04, False), (-0.06, True)):
        once = {"energy_kwh": Change(1.0, 1.0 + part, Estimate(part, None, None, 1), 1)}
        assert is_worth(same | once, "energy_kwh") is worth
    fewer = {"gpus": Change(40.0, 39.0, Estimate(-0.025, None, None, 1), 1)}
    assert is_worth(same | fewer, "gpus")
    of_few_jobs = {"mean_jct": Change(1.0, 1.0, Estimate(0.0, None, None, 1), 0)}
    assert not is_worth(of_few_jobs | fewer, "gpus")


def test_reasons_speak_for_the_change_or_say_that_they_do_not() -> None:
    busy = groups((1, 1, A100), (4, 1, T4), reference=A100)
    report = advise(_queueing(), busy)
    fewer, more = (of_kind(report, f"{which} T4 (group 2)")[0].sentence for which in ("fewer", "more"))
    assert "Take away 1 node of the 4 x 1 T4: jobs ask for 0.199 times" in fewer
    assert "100% of the GPU-hours waited are of jobs that may run on other GPUs" in fewer
    assert "Add 1 node of the 4 x 1 T4: 0% of the" in more
    assert "on others, though jobs ask for 0.199 times" in more
    growing = advise(repeated(300, 100, [job(0, 110, 2)]), ClusterSpec.pool(3), assumed=Assumptions(windows=1))
    assert "Take away 1 GPU of 3: jobs ask for 0.736 times" in of_kind(growing, "fewer GPUs")[0].sentence
    growing = advise(repeated(300, 100, [job(0, 250)]), ClusterSpec.pool(2), assumed=Assumptions(windows=1))
    assert "Take away 1 GPU of 2, though jobs ask for 1.25 times" in of_kind(growing, "fewer GPUs")[0].sentence
    assert "Add 1 GPU of 2: jobs ask for 1.25 times" in of_kind(growing, "more GPUs")[0].sentence


def test_what_cannot_be_known_is_not_tried() -> None:
    trace = repeated(120, 200, [job(0, 100)])
    own = replace(A100, name="own", price_usd_per_hour=None)
    unknown = advise(trace, groups((1, 1, own), (1, 1, T4)))
    assert "the rent of some GPUs is not known" in why_not(unknown, "cheapest")
    assert "cheapest" not in {advice.title for advice in unknown.advice}
    with pytest.raises(ConfigError, match=r"^--windows: 120 jobs can be cut into 1 window of 250 or more, not 50$"):
        advise(trace, ClusterSpec.pool(1), assumed=Assumptions(windows=50))


def test_power_counts_until_the_later_end() -> None:
    """A GPU that is done earlier idles on: of 900 s of work in 1,000, five nodes in place of four save nothing."""
    trace = repeated(20, 1000, [job(0, 900)])
    report = advise(trace, ClusterSpec(4, 1, idle_power_w=50.0, max_power_w=50.0))
    energy = of_kind(report, "more nodes")[0].changes["energy_kwh"]
    assert energy.relative.mean == pytest.approx(0.25)


@pytest.mark.parametrize("make", [partial(make_policy, "sjf", blocking="easy"), partial(make_policy, "greedy")])
def test_any_policy_may_be_the_present_one(make: Callable[[], Any]) -> None:
    trace = repeated(30, 300, [job(0, 100), job(0, 30), job(1, 5)])
    report = advise(trace, ClusterSpec(2, 1), make)
    assert of_kind(report, "policy")
    assert report.to_dict() == advise(trace, ClusterSpec(2, 1), make).to_dict()
