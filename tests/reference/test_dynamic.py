"""The reference for what changes during a run (R7) against cases worked out by hand."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.reference.detailed import DetailedCluster, Group
from tests.reference.dynamic import (
    DynamicCluster,
    DynamicJob,
    Dynamics,
    DynamicSimulation,
    DynamicType,
    outside,
    simulate_dynamic,
)
from tests.reference.simulator import PREEMPTIVE_SCORES, SCORES, Blocking, Placement, simulate_on

# A limit of L watts leaves (L - 100) / (300 - 100) of the speed. With an inlet of 20 degrees an idle GPU is at
# 20 + 0.2 * 100 = 40, a busy one would come to 80, and 200 W hold 60.
PLAIN = DynamicType(
    name="plain",
    memory_gib=80.0,
    idle_w=100.0,
    max_w=300.0,
    speed={"general": 1.0, "vision": 1.0},
    natural_max_w=300.0,
    floor_w=100.0,
    exponent=1.0,
    lowest_held_w=100.0,
    min_limit_w=110.0,
    max_limit_w=300.0,
    throttle_c=60.0,
    resistance=0.2,
    time_constant_s=100.0,
)
SLOW = replace(PLAIN, name="slow", speed={"general": 0.5, "vision": 0.5})
INLET_C = 20.0

Decide = Callable[[DynamicSimulation], None]


def job(number: int, submit: float, run: float, gpus: float = 1.0, **wishes: Any) -> DynamicJob:
    return DynamicJob(**({"id": number, "submit": submit, "run": run, "requested": run, "gpus": gpus} | wishes))


def nodes_of(gpus: int, nodes: int = 1, kind: DynamicType = PLAIN) -> DetailedCluster:
    return DetailedCluster([Group(nodes, gpus, kind)], "first")


def at(time: float, act: Decide) -> Decide:
    """Act once, at the decision of that time."""
    return lambda simulation: act(simulation) if simulation.now == time else None


# Dependencies.


def test_a_chain_of_three() -> None:
    # Job 1 waits for job 0, job 2 for job 1 and then for its own submission.
    jobs = [job(0, 0, 10), job(1, 0, 5, after=(0,)), job(2, 20, 1, after=(1,))]
    result = simulate_dynamic(nodes_of(4), jobs, "fcfs", "head", Dynamics())
    assert result.start == [0, 10, 20]
    assert result.finish == [10, 15, 21]


def test_an_array_joined_by_a_last_job() -> None:
    # Three jobs on two GPUs: 0 to 4, 0 to 6, 4 to 12. The last one comes after all, and after one that is not there.
    jobs = [job(7, 0, 4), job(8, 0, 6), job(9, 0, 8), job(1, 0, 2, 2.0, after=(7, 8, 9, 5))]
    result = simulate_dynamic(nodes_of(2), jobs, "fcfs", "head", Dynamics())
    assert result.start == [0, 0, 4, 12]
    assert result.finish == [4, 6, 12, 14]


def test_a_job_that_waited_for_others_keeps_its_place() -> None:
    # One GPU. Job 1, of time 1, joins the queue at 10, and goes before job 2, of time 2. At 1 there is a decision.
    times = []
    jobs = [job(0, 0, 10), job(1, 1, 5, after=(0,)), job(2, 2, 5)]
    result = simulate_dynamic(
        nodes_of(1), jobs, "fcfs", "head", Dynamics(), decide=lambda simulation: times.append(simulation.now)
    )
    assert result.start == [0, 10, 15]
    assert times == [0, 1, 2, 10, 15, 20]


@pytest.mark.parametrize("jobs", [[job(0, 0, 1, after=(0,))], [job(0, 0, 1, after=(1,)), job(1, 0, 1, after=(0,))]])
def test_circles_are_refused(jobs: list[DynamicJob]) -> None:
    with pytest.raises(ValueError, match="depend on themselves"):
        simulate_dynamic(nodes_of(1), jobs, "fcfs", "head", Dynamics())


# Sharing.


def test_two_halves_with_interference() -> None:
    # Both are slowed by 1 + 0.5 * 0.5 * 0.5 = 1.125. Job 1 ends at 45 * 1.125 = 50.625; job 0 has 90 - 45 left then
    # and ends 45 s later. Until then 300 W are drawn, afterwards, half loaded, 200 W.
    result = simulate_dynamic(
        nodes_of(1), [job(0, 0, 90, 0.5), job(1, 0, 45, 0.5)], "fcfs", "head", Dynamics(interference=0.5)
    )
    assert result.finish == pytest.approx([95.625, 50.625])
    assert result.energy_joules == pytest.approx(50.625 * 300 + 45 * 200)


def test_three_shares_with_interference() -> None:
    # Job 0 beside 0.25 + 0.25: 1 + 0.5 * 0.5 * 0.5 = 1.125; the others beside 0.75: 1 + 0.5 * 0.25 * 0.75 = 1.09375.
    cluster = DynamicCluster(nodes_of(1), Dynamics(interference=0.5))
    jobs = [job(0, 0, 9, 0.5), job(1, 0, 9, 0.25), job(2, 0, 9, 0.25)]
    for one in jobs:
        cluster.take(one, [0])
    assert [cluster.rate(one, [0]) for one in jobs] == [1 / 1.125, 1 / 1.09375, 1 / 1.09375]


def test_a_table_of_pairs() -> None:
    # The vision job runs at 1 / 1.5: 20 s take 30. The other runs at 1 / 2: 15 of its 40 s are done by then.
    pairs = {("vision", "general"): 1.5, ("general", "vision"): 2.0}
    jobs = [job(0, 0, 20, 0.5, job_class="vision"), job(1, 0, 40, 0.5)]
    result = simulate_dynamic(nodes_of(1), jobs, "fcfs", "head", Dynamics(interference=9.0, pairs=pairs))
    assert result.finish == pytest.approx([30, 55])
    cluster = DynamicCluster(nodes_of(1), Dynamics(pairs=pairs | {("general", "general"): 1.25}))
    for one in (replace(jobs[0], gpus=0.25), jobs[1], job(2, 0, 1, 0.25)):
        cluster.take(one, [0])
    assert [cluster.rate(one, [0]) for one in cluster.jobs_on[0]] == [
        1 / (1 + 0.5 + 0.5),
        1 / (1 + 1.0 + 0.25),
        1 / (1 + 1.0 + 0.25),
    ]


def test_neighbours_are_slowed_after_the_decision() -> None:
    # c = 4: two halves are slowed by 1 + 4 / 4 = 2. At 1 job 1 (2 s, until 5) joins job 0 on GPU 0. In that decision
    # job 0 is still predicted to end at 10: job 2 (2 GPUs) is foreseen for then, job 3 (10 s, until 11) waits. At 2,
    # when job 4 comes, job 0 has 8.5 s left at half its speed and is predicted to end at 19: job 3 starts. From 5 on
    # job 0 is alone again, with 10 - 1 - 2 = 7 s left: it ends at 12, as job 3 does.
    jobs = [job(0, 0, 10, 0.5), job(1, 1, 2, 0.5), job(2, 1, 5, 2.0), job(3, 1, 10), job(4, 2, 10)]
    result = simulate_dynamic(nodes_of(2), jobs, "fcfs", "easy", Dynamics(interference=4.0))
    assert result.start == [0, 1, 12, 2, 17]
    assert result.finish == [12, 5, 17, 12, 27]


def test_who_is_left_runs_faster_before_the_decision() -> None:
    # Two halves, each at half its speed: job 1 ends at 4, and job 0, with 8 s left, is predicted to end at 12 and not
    # at 20. Job 2 (2 GPUs) is foreseen for then; job 3 (10 s, until 14) waits.
    jobs = [job(0, 0, 10, 0.5), job(1, 0, 2, 0.5), job(2, 1, 5, 2.0), job(3, 4, 10)]
    result = simulate_dynamic(nodes_of(2), jobs, "fcfs", "easy", Dynamics(interference=4.0))
    assert result.start == [0, 0, 12, 17]


# Power limits.


def test_a_limit_that_halves_the_speed() -> None:
    # 200 W leave (200 - 100) / 200 of the speed. Job 0 has 80 of 100 s left at 20, when job 1 comes: it ends at 180.
    # Then the limit is taken back, and job 1 takes its 10 s.
    def decide(simulation: DynamicSimulation) -> None:
        if simulation.now in (20, 180):
            simulation.set_limit(0, 200.0 if simulation.now == 20 else None)

    result = simulate_dynamic(nodes_of(1), [job(0, 0, 100), job(1, 20, 10)], "fcfs", "head", Dynamics(), decide=decide)
    assert result.finish == [180, 190]
    assert result.energy_joules == 20 * 300 + 160 * 200 + 10 * 300


def test_a_limit_holds_for_what_comes_and_a_gang_runs_as_its_slowest_gpu() -> None:
    # GPU 0 is limited to 200 W before anything starts; the gang of GPUs 0 and 1 takes twice as long.
    result = simulate_dynamic(
        nodes_of(2), [job(0, 0, 10, 2.0)], "fcfs", "head", Dynamics(), decide=lambda s: s.set_limit(0, 200.0)
    )
    assert result.finish == [20]
    assert result.energy_joules == 20 * (200 + 300)


def test_power_curve() -> None:
    # x = (250 - 100) / 200 = 0.75 keeps 1 - 0.25 ** 2 = 0.9375, x = 0.5 keeps 0.75.
    curved = replace(PLAIN, exponent=2.0, lowest_held_w=180.0)
    cluster = DynamicCluster(nodes_of(1, kind=curved), Dynamics())
    cluster.set_limit(0, 250.0)
    assert (cluster.part_kept(0), cluster.natural_w(0, 1.0), cluster.natural_w(0, 0.5)) == (0.9375, 250, 175)
    cluster.set_limit(0, 150.0)  # it draws 180 W all the same; x = 0.25 keeps 1 - 0.75 ** 2
    assert (cluster.part_kept(0), cluster.natural_w(0, 1.0)) == (0.4375, 180)
    with pytest.raises(ValueError, match="range"):
        cluster.set_limit(0, 109.0)

    # A group at 200 W: figures of its type are those under that limit. 300 W make it 1 / 0.75 as fast.
    limited = replace(curved, own_limit_w=200.0, max_w=200.0, speed={"general": 0.75, "vision": 0.75})
    cluster = DynamicCluster(nodes_of(1, kind=limited), Dynamics())
    assert (cluster.part_kept(0), cluster.natural_w(0, 1.0)) == (1, 200)
    cluster.set_limit(0, 300.0)
    assert (cluster.part_kept(0), cluster.natural_w(0, 1.0)) == (1.33333333, 300)
    cluster.set_limit(0, 250.00004)  # whole milliwatts
    assert cluster.limit_w == [250.0]
    assert cluster.part_kept(0) == 1.25


# Heat.

LN2 = math.log(2.0)
HOT = Dynamics(inlet_c=INLET_C)


def test_throttling() -> None:
    # From 40 towards 80: 60 is reached when the way left has halved, at 100 ln 2 = 69.3. From then on 200 W, and
    # (200 - 100) / (300 - 100) = half the speed: the other 100 - 69.3 s take 61.4 s.
    result = simulate_dynamic(nodes_of(2), [job(0, 0, 100)], "fcfs", "head", HOT)
    end = 200 - 100 * LN2
    assert result.finish == pytest.approx([end])
    assert result.energy_joules == pytest.approx(100 * LN2 * 300 + (end - 100 * LN2) * 200 + end * 100)
    assert result.temperature_c == pytest.approx([60, 40])


def test_cooling_between_two_jobs() -> None:
    # Job 0 leaves the GPU at 60. It cools towards 40: 50 after 100 ln 2. Then 80 - 50 = 30 shrink to 20 in 100 ln 1.5.
    again = 200.0
    jobs = [job(0, 0, 100), job(1, again, 50)]
    result = simulate_dynamic(nodes_of(1), jobs, "fcfs", "head", HOT)
    assert again - result.finish[0] == pytest.approx(100 * LN2)
    assert result.finish[1] == pytest.approx(again + 100 - 100 * math.log(1.5))


def test_throttling_ends_when_the_load_falls() -> None:
    # Two halves draw 300 W together and throttle at 100 ln 2. Job 0 (80 s) ends at 160 - 100 ln 2 = 90.7; job 1 has 20
    # of its 100 s left then, draws 200 W, which is no more than what holds 60 degrees, and runs freely.
    result = simulate_dynamic(nodes_of(1), [job(0, 0, 80, 0.5), job(1, 0, 100, 0.5)], "fcfs", "head", HOT)
    assert result.finish == pytest.approx([160 - 100 * LN2, 180 - 100 * LN2])
    assert result.temperature_c == pytest.approx([60])


def test_throttling_is_on_top_of_a_limit() -> None:
    # 250 W keep 0.75 of the speed and lead to 70 degrees: 30 on the way shrink to 10 in 100 ln 3 = 109.9. Then 200 of
    # 250 W keep (200 - 100) / (250 - 100) = 2/3 of that: 0.5. 120 s need 82.4 + 75.2 s.
    result = simulate_dynamic(
        nodes_of(1), [job(0, 0, 120)], "fcfs", "head", HOT, decide=lambda s: s.set_limit(0, 250.0)
    )
    ln3 = math.log(3.0)
    assert result.finish == pytest.approx([100 * ln3 + (120 - 75 * ln3) * 2])
    # 200 W lead to 60 degrees and never get there.
    cool = simulate_dynamic(nodes_of(1), [job(0, 0, 120)], "fcfs", "head", HOT, decide=lambda s: s.set_limit(0, 200.0))
    assert cool.finish == [240]


def test_throttling_is_no_decision_point_and_moves_predicted_ends() -> None:
    # Job 0 throttles at 69.3 and is then predicted to end at 130.7. At 90 job 1 (2 GPUs) is foreseen for that time,
    # so that job 2 (40 s, until 130) goes first.
    times = []
    jobs = [job(0, 0, 100), job(1, 90, 10, 2.0), job(2, 90, 40)]
    result = simulate_dynamic(
        nodes_of(2), jobs, "fcfs", "easy", HOT, decide=lambda simulation: times.append(simulation.now)
    )
    assert result.start == pytest.approx([0, 200 - 100 * LN2, 90])
    assert times[:3] == [0, 90, 130]


def test_a_gpu_that_is_down_cools_to_the_inlet() -> None:
    # From 40 towards 20 for 100 ln 2 s: 30, then towards 40 for as long: 35. GPU 0 is kept from throttling.
    down = Dynamics(inlet_c=INLET_C, failures=[(0.0, [1], True), (100 * LN2, [1], False)])
    result = simulate_dynamic(
        nodes_of(2), [job(0, 0, 100 * LN2)], "fcfs", "head", down, decide=lambda s: s.set_limit(0, 200.0)
    )
    assert result.finish == pytest.approx([200 * LN2])
    assert result.temperature_c[1] == pytest.approx(35)
    assert result.energy_joules == pytest.approx(200 * LN2 * 200 + 100 * LN2 * 100)


def test_a_gpu_that_is_too_hot_to_serve() -> None:
    # 100 W, which buy no speed, hold 40 degrees: where the card throttles there, an idle GPU is as hot.
    with pytest.raises(ValueError, match="nothing is left to happen"):
        simulate_dynamic(nodes_of(1, kind=replace(PLAIN, throttle_c=40.0)), [job(0, 0, 5)], "fcfs", "head", HOT)


# Failures.


def test_a_job_struck_without_checkpoints() -> None:
    # 30 s are lost; from 40 on the job needs 100 s and 5 to restart.
    failures = [(30.0, [0], True), (40.0, [0], False)]
    result = simulate_dynamic(
        nodes_of(1), [job(0, 0, 100)], "fcfs", "head", Dynamics(failures=failures, restart_cost=5.0)
    )
    assert (result.start, result.finish, result.strikes, result.lost) == ([0], [145], [1], [30])
    assert result.preemptions == [0]
    assert result.energy_joules == (30 + 105) * 300


def test_a_job_struck_with_checkpoints() -> None:
    # Rate 20 / (20 + 5) = 0.8. By 30 it has served 24 s and keeps 20; 100 - 20 + 5 = 85 s are left at 40: 106.25 s.
    failures = [(30.0, [0], True), (40.0, [0], False)]
    checkpoints = Dynamics(failures=failures, checkpoint_interval=20.0, checkpoint_cost=5.0, restart_cost=5.0)
    attained = []
    result = simulate_dynamic(
        nodes_of(1), [job(0, 0, 100)], "fcfs", "head", checkpoints,
        decide=lambda simulation: attained.append(simulation.of[0].attained),
    )  # fmt: skip
    assert result.finish == pytest.approx([146.25])
    assert result.lost == pytest.approx([4])
    assert attained[:3] == [0, 20, 20]


def test_checkpoints_count_the_present_run_across_changes_of_rate() -> None:
    # Halved at 10 (arrival of job 1), struck at 40: 10 + 15 = 25 s served, 20 kept. From 40 on, on GPU 1 at full
    # speed, struck again at 59: 19 served, 10 kept; 30 of 60 s are left, and two restarts of 1 s: 92.
    failures = [(40.0, [0], True), (59.0, [1], True), (60.0, [1], False)]
    result = simulate_dynamic(
        nodes_of(2), [job(0, 0, 60), job(1, 10, 1)], "fcfs", "head",
        Dynamics(failures=failures, checkpoint_interval=10.0, restart_cost=1.0),
        decide=at(10, lambda simulation: simulation.set_limit(0, 200.0)),
    )  # fmt: skip
    assert (result.finish, result.strikes, result.lost) == ([92, 11], [2, 0], [14, 0])
    assert result.allocation == [[1], [1]]


def test_a_node_failing() -> None:
    # Two nodes of two GPUs. The first fails from 10 to 15: job 0 loses GPUs 0 and 1 and leaves GPU 2, too, where job 2
    # starts at once. Job 1 on GPU 3 goes on. Job 0 finds three GPUs at 22, when job 1 ends on GPU 3.
    jobs = [job(0, 0, 20, 3.0), job(1, 0, 22), job(2, 5, 30)]
    failures = [(10.0, [0, 1], True), (15.0, [0, 1], False)]
    result = simulate_dynamic(nodes_of(2, nodes=2), jobs, "fcfs", "skip", Dynamics(failures=failures))
    assert result.start == [0, 0, 10]
    assert result.finish == [42, 22, 40]
    assert result.strikes == [1, 0, 0]
    assert result.allocation == [[0, 1, 3], [3], [2]]
    # To 10 all work; to 15 GPUs 2 and 3 do; to 22 too, and two idle; to 40 all; to 42 all but one.
    assert result.energy_joules == 10 * 1200 + 5 * 600 + 7 * 800 + 18 * 1200 + 2 * 1000


def test_overlapping_failures() -> None:
    # GPU 0 is down from 5 to 10 and its node from 8 to 20: it is up again at 20, when job 0, first in order, takes both
    # GPUs. Job 1 runs on GPU 1 from 6 to 8 and starts anew at 30.
    failures = [(5.0, [0], True), (8.0, [0, 1], True), (10.0, [0], False), (20.0, [0, 1], False)]
    jobs = [job(0, 0, 10, 2.0), job(1, 6, 4)]
    result = simulate_dynamic(nodes_of(2), jobs, "fcfs", "skip", Dynamics(failures=failures))
    assert (result.finish, result.strikes, result.lost) == ([30, 34], [1, 1], [5, 2])


def test_a_job_that_ends_as_its_gpu_fails_has_finished() -> None:
    failures = [(10.0, [0], True), (10.0, [0], False)]
    result = simulate_dynamic(nodes_of(1), [job(0, 0, 10), job(1, 0, 5)], "fcfs", "head", Dynamics(failures=failures))
    assert (result.finish, result.strikes) == ([10, 15], [0, 0])


@pytest.mark.parametrize("blocking", ["easy", "conservative"])
def test_nothing_delays_a_job_for_which_too_few_gpus_are_up(blocking: Blocking) -> None:
    # GPU 1 is down until 100. Job 0 needs both; job 1, of 500 s, starts, and job 2 only after it.
    failures = [(0.0, [1], True), (100.0, [1], False)]
    jobs = [job(0, 0, 10, 2.0), job(1, 1, 500), job(2, 2, 5)]
    result = simulate_dynamic(nodes_of(2), jobs, "fcfs", blocking, Dynamics(failures=failures))
    # At 100 job 0 is foreseen for 501, and job 2 (until 105) goes before it.
    assert result.start == [501, 1, 100]


def test_repairs_are_waited_for_and_without_one_jobs_cannot_end() -> None:
    down = (5.0, [0], True)
    waiting = simulate_dynamic(
        nodes_of(1), [job(0, 6, 1)], "fcfs", "head", Dynamics(failures=[down, (50.0, [0], False)])
    )
    assert waiting.start == [50]
    with pytest.raises(ValueError, match="nothing is left to happen"):
        simulate_dynamic(nodes_of(1), [job(0, 6, 1)], "fcfs", "head", Dynamics(failures=[down]))


# Reservations.


@pytest.mark.parametrize(
    ("blocking", "starts"),
    [
        # One GPU, reserved from 10 to 20. Job 0 (15 s) has to wait for 20; job 1 (8 s, from 1 to 9) need not.
        ("head", [20, 35]),
        ("skip", [20, 1]),
        ("easy", [20, 1]),  # shadow 20, the end of the reservation
        ("conservative", [20, 1]),  # the profile is 0 from 10 to 20
    ],
)
def test_a_reservation_lets_a_short_job_go_first(blocking: Blocking, starts: list[float]) -> None:
    reserved = Dynamics(reservations=[(10.0, 20.0, [0])])
    result = simulate_dynamic(nodes_of(1), [job(0, 0, 15), job(1, 1, 8)], "fcfs", blocking, reserved)
    assert result.start == starts


@pytest.mark.parametrize(
    ("begin", "run", "start"),
    [
        (12.0, 8.0, 2.0),  # 10 s are left
        (12.0, 10.0, 2.0),
        (12.0, 10.5, 20.0),
        (12.5, 10.25, 20.0),  # whole seconds
        (2.0, 1.0, 20.0),  # it holds already
        (1.0, 1.0, 20.0),
    ],
)
def test_whole_seconds_are_left(begin: float, run: float, start: float) -> None:
    reserved = Dynamics(reservations=[(begin, 20.0, [0])])
    assert simulate_dynamic(nodes_of(1), [job(0, 2, run)], "fcfs", "head", reserved).start == [start]


def test_planned_time_counts_the_slowest_type_and_checkpoints() -> None:
    # Job 0 (4 s) would take 5 s on the first node and is planned for 4 / (0.5 * 0.8) = 10 s, for it may run on the
    # slow one: not before 9. Job 1 may not, and is planned for 5 s.
    cluster = DetailedCluster([Group(1, 1, PLAIN), Group(1, 1, SLOW)], "first")
    reserved = Dynamics(checkpoint_interval=4.0, checkpoint_cost=1.0, reservations=[(9.0, 20.0, [0, 1])])
    jobs = [job(0, 0, 4), job(1, 0, 4, types=("plain",))]
    assert simulate_dynamic(cluster, jobs, "fcfs", "skip", reserved).start == [20, 0]


def test_easy_holds_back_what_would_delay_the_head_at_the_end_of_a_reservation() -> None:
    # Two nodes of one GPU, the second reserved from 5 to 20. Job 0 needs both for 10 s: shadow 20. Job 1 would hold the
    # first until 21; job 2 until 20.
    jobs = [job(0, 0, 10, 2.0), job(1, 1, 20), job(2, 1, 19)]
    reserved = Dynamics(reservations=[(5.0, 20.0, [1])])
    assert simulate_dynamic(nodes_of(1, nodes=2), jobs, "fcfs", "easy", reserved).start == [20, 30, 1]


def test_easy_asks_whether_the_head_could_start_then() -> None:
    # Job 0 holds both GPUs until 6. Job 1 (5 s) could not start at 6, since the second node is reserved from 10 to 20:
    # the shadow is 20, and job 2, at 6, may run until 20. At 6 the node has 4 s left for job 3.
    jobs = [job(0, 0, 6, 2.0), job(1, 1, 5, 2.0), job(2, 2, 14), job(3, 3, 4)]
    reserved = Dynamics(reservations=[(10.0, 20.0, [1])])
    result = simulate_dynamic(nodes_of(1, nodes=2), jobs, "fcfs", "easy", reserved)
    assert result.start == [0, 20, 6, 6]
    assert result.allocation == [[0, 1], [0, 1], [0], [1]]


def test_easy_refuses_a_job_and_not_a_shorter_one_that_goes_elsewhere() -> None:
    # Node 0 is of another type, reserved from 50; 1 and 2 are plain. Job 0 holds node 1 until 5. Job 1 needs
    # both plain ones: shadow 5. Job 2 (100 s) could go to node 2 only and would delay it; job 3 (20 s) goes to node 0.
    cluster = DetailedCluster([Group(1, 1, replace(PLAIN, name="other")), Group(2, 1, PLAIN)], "first")
    jobs = [job(0, 0, 5, types=("plain",)), job(1, 1, 5, 2.0, types=("plain",)), job(2, 1, 100), job(3, 1, 20)]
    result = simulate_dynamic(cluster, jobs, "fcfs", "easy", Dynamics(reservations=[(50.0, 60.0, [0])]))
    assert (result.start, result.allocation) == ([0, 5, 10, 1], [[1], [1, 2], [1], [0]])


def test_a_job_without_a_requested_time_avoids_reserved_nodes() -> None:
    # The first node is reserved from 100 on: job 0 goes to the second, job 1 waits for that.
    jobs = [job(0, 0, 5, requested=math.inf), job(1, 0, 5, requested=math.inf)]
    reserved = Dynamics(reservations=[(100.0, 101.0, [0])])
    result = simulate_dynamic(nodes_of(1, nodes=2), jobs, "fcfs", "skip", reserved)
    assert (result.start, result.allocation) == ([0, 5], [[1], [1]])


def test_a_job_that_outruns_its_time_is_not_stopped() -> None:
    # It asks for 5 s and runs 30, through the reservation from 10 to 20.
    jobs = [job(0, 0, 30, requested=5.0), job(1, 0, 1)]
    reserved = Dynamics(reservations=[(10.0, 20.0, [0])])
    assert simulate_dynamic(nodes_of(1), jobs, "fcfs", "head", reserved).finish == [30, 31]


def test_a_job_without_time_left_waits_for_the_end_of_a_reservation() -> None:
    # It asked for 2 s, has run 10 and keeps them when it is struck. What is left, -8 s, is less than nothing; the node
    # is reserved from that moment on all the same, or from half a second later, with 0 whole seconds left.
    struck = [(10.0, [0], True), (10.0, [0], False)]
    for begin, finish in ((10.0, 40), (10.5, 30)):
        dynamics = Dynamics(failures=struck, checkpoint_interval=5.0, reservations=[(begin, 20.0, [0])])
        result = simulate_dynamic(nodes_of(1), [job(0, 0, 30, requested=2.0)], "fcfs", "head", dynamics)
        assert (result.finish, result.strikes) == ([finish], [1])


def test_conservative_takes_a_held_gpu_of_a_reserved_node_out_once() -> None:
    # Job 0, planned for 10 s, is slowed to half its speed and holds the first node until 20; that node is reserved from
    # 10 to 20. Of two GPUs, one is left at 12.
    reserved = Dynamics(reservations=[(10.0, 20.0, [0])])
    result = simulate_dynamic(
        nodes_of(1, nodes=2), [job(0, 0, 10), job(1, 12, 5)], "fcfs", "conservative", reserved,
        decide=lambda simulation: simulation.set_limit(0, 200.0),
    )  # fmt: skip
    assert (result.start, result.finish) == ([0, 12], [20, 17])


def test_conservative_takes_a_node_that_is_reserved_twice_out_once() -> None:
    # The first node is out from 10 to 25; at 16 the second is left.
    reserved = Dynamics(reservations=[(10.0, 20.0, [0]), (15.0, 25.0, [0])])
    result = simulate_dynamic(nodes_of(1, nodes=2), [job(0, 16, 5)], "fcfs", "conservative", reserved)
    assert (result.start, result.allocation) == ([16], [[1]])


def test_conservative_plans_around_a_reservation() -> None:
    # Two nodes of one GPU, the second reserved from 10 to 20. Job 0 needs both for 12 s: planned at 20. Job 1 (21 s)
    # would end at 22 on the first: planned at 32. Job 2 (19 s) ends at 20 there and starts at 1.
    jobs = [job(0, 0, 12, 2.0), job(1, 1, 21), job(2, 1, 19)]
    reserved = Dynamics(reservations=[(10.0, 20.0, [1])])
    assert simulate_dynamic(nodes_of(1, nodes=2), jobs, "fcfs", "conservative", reserved).start == [20, 32, 1]


def test_preemptive_orders_count_what_is_up_and_not_reserved() -> None:
    # Two nodes of one GPU, the second reserved from 5 to 20: one GPU counts at 5, when job 1, of 10 s, preempts job 0.
    # Without the reservation both would run.
    jobs = [job(0, 0, 100), job(1, 5, 10)]
    reserved = Dynamics(reservations=[(5.0, 20.0, [1])])
    result = simulate_dynamic(nodes_of(1, nodes=2), jobs, "srtf", "skip", reserved)
    assert (result.start, result.finish, result.preemptions) == ([0, 5], [110, 15], [1, 0])
    # The same while the second node is down.
    down = Dynamics(failures=[(5.0, [1], True), (20.0, [1], False)])
    assert simulate_dynamic(nodes_of(1, nodes=2), jobs, "srtf", "skip", down).finish == [110, 15]
    # A job that outran its time into the reservation counts, and so does its GPU: two GPUs hold two jobs.
    jobs = [job(0, 0, 50, types=("slow",)), job(1, 0, 50, requested=4.0, types=("plain",)), job(2, 6, 60)]
    cluster = DetailedCluster([Group(1, 1, SLOW), Group(1, 1, PLAIN)], "first", PLAIN)
    result = simulate_dynamic(cluster, jobs, "srtf", "skip", reserved)
    assert (result.start, result.preemptions) == ([0, 0, 50], [0, 0, 0])


def test_outside() -> None:
    assert outside((0, 10), [(2, 4), (3, 6), (9, 20)]) == [(0, 2), (6, 9)]
    assert outside((0, math.inf), [(-5, 1)]) == [(1, math.inf)]
    assert outside((3, 4), [(0, 9)]) == []


# Migration and preemption by a policy.


def test_migration_off_a_slow_gpu() -> None:
    # Job 1 runs on the slow GPU while job 0 holds the other one. At 20 it has served 10 s and moves: 100 - 10 + 6 = 96
    # s are left at full speed.
    cluster = DetailedCluster([Group(1, 1, SLOW), Group(1, 1, PLAIN)], "first", PLAIN)
    jobs = [job(0, 0, 20, types=("plain",)), job(1, 0, 100)]
    result = simulate_dynamic(
        cluster, jobs, "fcfs", "head", Dynamics(migration_cost=6.0), decide=at(20, lambda s: s.migrate(1, [1]))
    )
    assert (result.finish, result.migrations, result.preemptions) == ([20, 116], [0, 1], [0, 0])
    assert (result.start, result.allocation) == ([0, 0], [[1], [1]])
    assert result.energy_joules == 20 * 600 + 96 * 400


def test_migration_may_use_the_jobs_own_gpus_and_the_placement() -> None:
    # Job 0 leaves GPU 0 at 5. Job 1, on GPUs 1 and 2, comes to GPUs 0 and 1.
    jobs = [job(0, 0, 5), job(1, 0, 10, 2.0)]
    result = simulate_dynamic(nodes_of(3), jobs, "fcfs", "head", Dynamics(), decide=at(5, lambda s: s.migrate(1)))
    assert (result.finish, result.allocation[1]) == ([5, 10], [0, 1])


def test_migration_starts_the_quantum_and_the_count_of_checkpoints_anew() -> None:
    # Checkpoints each 10 s. Moved at 8, struck at 20: 12 s are served since, 10 kept; 40 - 8 - 10 = 22 s are left.
    def decide(simulation: DynamicSimulation) -> None:
        if simulation.now == 8:
            simulation.migrate(0, [1])
        if simulation.now == 9:
            with pytest.raises(ValueError, match="quantum"):
                simulation.migrate(0)

    jobs = [job(0, 0, 40), job(1, 8, 2), job(2, 9, 2)]
    result = simulate_dynamic(
        nodes_of(3), jobs, "fcfs", "head", Dynamics(failures=[(20.0, [1], True)], checkpoint_interval=10.0),
        quantum=5.0, decide=decide,
    )  # fmt: skip
    assert (result.finish[0], result.lost[0], result.allocation[0]) == (42, 2, [0])


def test_migration_respects_reservations() -> None:
    # At 5 job 0 has 10 s left: too long for the node that is reserved from 12 on.
    jobs = [job(0, 0, 15), job(1, 5, 1)]
    reserved = Dynamics(reservations=[(12.0, 20.0, [1])])
    with pytest.raises(ValueError, match="cannot be moved there"):
        simulate_dynamic(
            nodes_of(1, nodes=2), jobs, "fcfs", "head", reserved, decide=at(5, lambda s: s.migrate(0, [1]))
        )


def test_preemption_by_a_policy() -> None:
    # Job 0 is stopped at 10, is first in order, and starts again with 90 + 3 s left.
    jobs = [job(0, 0, 100), job(1, 10, 1)]
    result = simulate_dynamic(
        nodes_of(1), jobs, "fcfs", "head", Dynamics(), preemption_cost=3.0, decide=at(10, lambda s: s.preempt(0))
    )
    assert (result.finish, result.preemptions) == ([103, 104], [1, 0])


# Random cases.


def random_jobs(rng: random.Random, gpus: int, after: bool) -> list[DynamicJob]:
    jobs, now = [], 0.0
    for number in range(rng.randint(1, 14)):
        now += rng.choice([0.0, 0.0, 1.0, 3.5])
        run = rng.choice([1.0, 2.0, 5.0, 20.0, 60.0])
        size = rng.choice([0.25, 0.5, 1.0, 2.0, float(rng.randint(1, gpus))])
        before = tuple(rng.sample(range(number), min(number, 2))) if after and rng.random() < 0.3 else ()
        requested = run if rng.random() < 0.5 else rng.choice([1.0, 8.0, 30.0])
        jobs.append(job(number, now, run, min(size, gpus), requested=requested, after=before))
    return jobs


def combinations() -> Sequence[tuple[str, Blocking]]:
    blockings: tuple[Blocking, ...] = ("head", "skip", "easy", "conservative")
    return [(order, blocking) for order in SCORES for blocking in blockings] + [
        (order, blocking) for order in PREEMPTIVE_SCORES for blocking in blockings[:2]
    ]


@pytest.mark.parametrize(("order", "blocking"), combinations())
def test_where_nothing_changes_the_rules_before_hold(order: str, blocking: Blocking) -> None:
    placements: tuple[Placement, ...] = ("first", "best", "worst", "consolidated")
    for seed in range(12):
        rng = random.Random(seed)
        cluster = DetailedCluster([Group(2, 2, PLAIN), Group(1, 3, SLOW)], placements[seed % 4])
        jobs = random_jobs(rng, 7, after=False)
        plain = simulate_on(cluster, jobs, order, blocking, 1.0, 2.0)
        dynamic = simulate_dynamic(cluster, jobs, order, blocking, Dynamics(), 1.0, 2.0)
        assert dynamic.start == plain.start
        assert dynamic.finish == plain.finish
        assert dynamic.preemptions == plain.preemptions
        assert dynamic.allocation == plain.allocation
        assert dynamic.energy_joules == pytest.approx(plain.energy_joules)


@pytest.mark.parametrize(("order", "blocking"), [pair for pair in combinations() if pair[0] in ("fcfs", "f1", "srtf")])
def test_everything_at_once(order: str, blocking: Blocking) -> None:
    for seed in range(15):
        rng = random.Random(seed)
        failures: list[tuple[float, Sequence[int], bool]] = []
        for gpus in ([0], [0, 1], [3], [4, 5, 6]):
            begin, long = rng.uniform(0, 40), rng.uniform(0, 30)
            failures += [(begin, gpus, True), (begin + long, gpus, False)]
        reservations = [(begin, begin + 10.0, [rng.randrange(3)]) for begin in (5.0, 12.0, 40.0)]
        dynamics = Dynamics(0.5, None, INLET_C, failures, 4.0, 0.5, 1.0, reservations, 2.0)
        jobs = random_jobs(rng, 7, after=True)

        def decide(simulation: DynamicSimulation, rng: random.Random = rng) -> None:
            simulation.set_limit(rng.randrange(7), rng.choice([None, 150.0, 250.0]))

        cluster = DetailedCluster([Group(2, 2, PLAIN), Group(1, 3, SLOW)], "best")
        result = simulate_dynamic(cluster, jobs, order, blocking, dynamics, 1.0, 2.0, decide)
        for one, start, finish in zip(jobs, result.start, result.finish, strict=True):
            assert start >= max([one.submit, *(result.finish[other] for other in one.after)])
            assert finish - start >= one.run
        span = max(result.finish) - jobs[0].submit
        assert 0 < result.energy_joules <= 7 * 300 * span
        assert all(INLET_C <= degrees <= 60 + 1e-9 for degrees in result.temperature_c)
