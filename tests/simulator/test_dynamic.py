"""Clusters that change during a run: the compiled simulator, on each of its faces, against the plain reference."""

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import Action, ClusterSpec, Migrate, Outcome, Placement, Preempt, SetPowerLimit, Snapshot, Start
from lepton_rl.core import layout as L
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import gpu_type
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults, Interference, Reservation
from lepton_rl.core.metrics import Disturbed
from lepton_rl.errors import ConfigError, IllegalAction
from lepton_rl.simulator import Blocking, Rule, SimulatedCluster, Timing, decide, run_trace
from lepton_rl.workloads import Trace
from tests.reference import simulator as reference
from tests.reference.dynamic import DynamicJob, DynamicResult
from tests.simulator.cases import BLOCKINGS, ORDERS, PLACEMENTS, PREEMPTIVE, Case, cases, rule_of, same_schedule
from tests.simulator.dynamic_cases import (
    PARTS,
    PLAIN,
    Attempt,
    DynamicCase,
    Record,
    dynamic_cases,
    dynamic_trace,
    without_requested_times,
)

every_blocking = pytest.mark.parametrize("blocking", BLOCKINGS)
every_placement = pytest.mark.parametrize("placement", PLACEMENTS)


def settled(snapshot: Snapshot) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The jobs with what their present rates have given by now counted as attained."""
    jobs = snapshot.jobs.copy()
    if snapshot.hw is None:  # service is time, and no rate changes
        return jobs
    running = slice(0, snapshot.running_count)
    given = (snapshot.service - jobs[:, L.ATTAINED])[running]
    jobs[running, L.ATTAINED] += given
    jobs[running, L.PREDICTED] -= given
    jobs[running, L.SINCE] = snapshot.time
    return jobs


def assert_same_snapshot(left: Snapshot, right: Snapshot) -> None:
    """They are the same; where a rate has changed and changed back at this instant, one may have counted until now."""
    np.testing.assert_allclose(settled(left), settled(right), rtol=1e-12, err_msg="jobs")
    for name in ("gpus", "nodes", "bits"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)


def assert_matches(found: Outcome, expected: DynamicResult, note: str, exact: bool) -> None:
    """Hold a run to the reference; times to the bit where nothing rounds."""
    still = np.zeros(len(found.finish), np.int64)
    disturbed = found.disturbed or Disturbed(still, still.astype(np.float64))
    assert found.preemptions.tolist() == expected.preemptions, note
    assert disturbed.strikes.tolist() == expected.strikes, note
    assert (still if found.migrations is None else found.migrations).tolist() == expected.migrations, note
    times = [
        (found.first_start.tolist(), expected.start),
        (found.finish.tolist(), expected.finish),
        (disturbed.lost_seconds.tolist(), expected.lost),
    ]
    for ours, theirs in times:
        assert ours == (theirs if exact else pytest.approx(theirs, rel=1e-6, abs=1e-5)), note
    assert math.isclose(found.energy_joules, expected.energy_joules, rel_tol=1e-9 if exact else 1e-5), note


def attempt(cluster: SimulatedCluster, tried: Attempt, foreseen: bool) -> None:
    """Apply what was tried, or see it refused and nothing changed."""
    before = cluster.snapshot()
    if tried.possible:
        cluster.apply(tried.action)
        if foreseen:
            assert_same_snapshot(before.after(tried.action), cluster.snapshot())
        return
    for refuse in (cluster.apply, before.after):
        with pytest.raises(IllegalAction):
            refuse(tried.action)
        assert_same_snapshot(cluster.snapshot(), before)


def loop(
    case: DynamicCase,
    order: str,
    blocking: reference.Blocking,
    placement: reference.Placement,
    record: Record,
) -> tuple[Outcome, list[list[int]]]:
    """Run the rule as decisions on snapshots, with what was tried before each; return the GPUs last held, too."""
    rule = rule_of(order, blocking, placement)
    heat = case.cluster.dynamics.inlet_temperature_c is not None
    cluster = SimulatedCluster(case.trace, case.cluster, Placement[placement.upper()], case.timing)
    held: dict[int, list[int]] = {}
    decision = 0
    while cluster.advance():
        assert cluster.time == pytest.approx(record.times[decision], rel=1e-6 if heat else 1e-9)
        if heat:
            found = cluster.snapshot().gpu_temperature_c.tolist()
            assert found == pytest.approx(record.temperatures[decision], rel=1e-5)
        for tried in record.attempts:
            if tried.decision == decision:
                attempt(cluster, tried, foreseen=not heat)
        snapshot = cluster.snapshot()
        for number in snapshot.running:
            held[number] = sorted(cluster.gpus_of(number))
        actions = decide(snapshot, rule)
        for action in actions:
            snapshot = snapshot.after(action)
            cluster.apply(action)
            if isinstance(action, Start):
                assert action.gpus is not None
                held[action.job] = sorted(action.gpus)
        if actions and not heat:
            assert_same_snapshot(snapshot, cluster.snapshot())
        decision += 1
    assert decision == len(record.times)
    return cluster.outcome(), [held[number] for number in range(len(case.jobs))]


def assert_agree(
    case: DynamicCase,
    order: str,
    blocking: reference.Blocking,
    placement: reference.Placement,
    exact: bool = True,
) -> None:
    """The whole-trace run and the loop of decisions against the reference."""
    expected, record = case.expected(order, blocking, placement)
    found, allocation = loop(case, order, blocking, placement, record)
    assert_matches(found, expected, order, exact)
    assert allocation == expected.allocation, order
    if not case.tries:
        whole = run_trace(case.trace, case.cluster, rule_of(order, blocking, placement), case.timing)
        assert_matches(whole, expected, order, exact)
        assert same_schedule(whole, found), order
        assert whole.energy_joules == found.energy_joules, order


@every_blocking
@every_placement
@settings(max_examples=15)
@given(case=dynamic_cases(), order=st.sampled_from(list(ORDERS)))
def test_every_order(
    case: DynamicCase, order: str, blocking: reference.Blocking, placement: reference.Placement
) -> None:
    assert_agree(case, order, blocking, placement)


@pytest.mark.parametrize("order", PREEMPTIVE)
@pytest.mark.parametrize("blocking", ["head", "skip"])
@every_placement
@settings(max_examples=15)
@given(case=dynamic_cases())
def test_every_preemptive_order(
    case: DynamicCase, order: str, blocking: reference.Blocking, placement: reference.Placement
) -> None:
    assert_agree(case, order, blocking, placement)


@pytest.mark.parametrize("parts", [("heat",), (*PARTS, "heat")])
@settings(max_examples=60)
@given(
    case=st.data(),
    rule=st.one_of(
        st.tuples(st.sampled_from(list(ORDERS)), st.sampled_from(BLOCKINGS)),
        st.tuples(st.sampled_from(list(PREEMPTIVE)), st.sampled_from(["head", "skip"])),
    ),
    placement=st.sampled_from(PLACEMENTS),
)
def test_heat(
    case: st.DataObject, parts: tuple[str, ...], rule: tuple[str, reference.Blocking], placement: reference.Placement
) -> None:
    assert_agree(case.draw(dynamic_cases(parts, exact=False)), *rule, placement, exact=False)


@settings(max_examples=60)
@given(
    case=dynamic_cases(PARTS),
    order=st.sampled_from(["fcfs", "smallest", "las"]),
    blocking=st.sampled_from(["head", "skip"]),
)
def test_jobs_without_requested_times(case: DynamicCase, order: str, blocking: reference.Blocking) -> None:
    assert_agree(without_requested_times(case), order, blocking, "first")


# Changes that change nothing.


@settings(max_examples=60)
@given(
    case=cases(),
    rule=st.one_of(
        st.tuples(st.sampled_from(list(ORDERS)), st.sampled_from(BLOCKINGS)),
        st.tuples(st.sampled_from(list(PREEMPTIVE)), st.sampled_from(["head", "skip"])),
    ),
    placement=st.sampled_from(PLACEMENTS),
    cost=st.sampled_from([0.0, 0.1, 3.7]),
)
def test_groups_on_which_nothing_happens_are_the_plain_cluster(
    case: Case, rule: tuple[str, reference.Blocking], placement: reference.Placement, cost: float
) -> None:
    idle = Dynamics(
        interference=Interference(pairs=(("speech", "speech", 2.0),)),  # no job is of that class
        inlet_temperature_c=20.0,  # the GPUs never get hot
        faults=Faults(schedule=(Fault(1e7, 0, 1, True), Fault(1e8, 0, 1, False)), restart_cost_s=9.0),
        reservations=(Reservation(10**8, 10**9, (0,)),),
    )
    groups = case.cluster.in_groups()
    assert groups.with_dynamics(Dynamics()) == groups == case.cluster.with_dynamics(Dynamics())
    timing = Timing(cost, 0.3)
    plain = run_trace(case.trace, case.cluster, rule_of(*rule, placement), timing)
    for cluster in (groups, groups.with_dynamics(idle)):
        found = run_trace(case.trace, cluster, rule_of(*rule, placement), timing)
        assert same_schedule(found, plain)
        assert math.isclose(found.energy_joules, plain.energy_joules, rel_tol=1e-12)


# What is refused.


def jobs_on(cluster: ClusterSpec, *sizes: float, **timing: float) -> SimulatedCluster:
    """A cluster at time 0 with these jobs of 100 s waiting."""
    jobs = [DynamicJob(number, 0.0, 100.0, 100.0, size) for number, size in enumerate(sizes)]
    simulated = SimulatedCluster(dynamic_trace(jobs), cluster, timing=Timing(**timing))
    assert simulated.advance()
    return simulated


def assert_refused(cluster: SimulatedCluster, action: Action, sentence: str) -> None:
    """By the cluster and by its snapshot, in one sentence, with everything as it was."""
    before = cluster.snapshot()
    for refuse in (cluster.apply, before.after):
        with pytest.raises(IllegalAction, match=re.escape(sentence)) as caught:
            refuse(action)
        assert len(str(caught.value).splitlines()) == 1
        assert_same_snapshot(cluster.snapshot(), before)
        np.testing.assert_array_equal(cluster.snapshot().totals, before.totals)


# Nodes of two GPUs: 0 and 1; 2 and 3, of which 3 is down until 50; 4 and 5, reserved from 10 to 20.
CHANGING = ClusterSpec.of_groups(
    (NodeGroup(3, 2, PLAIN),),
    dynamics=Dynamics(
        Interference(4.0),
        faults=Faults(schedule=(Fault(0.0, 3, 1, True), Fault(50.0, 3, 1, False))),
        reservations=(Reservation(10, 20, (2,)),),
    ),
)


@pytest.mark.parametrize(
    ("job", "gpus", "sentence"),
    [
        (0, (2,), "job 0 needs 1 of GPU 2, 0 is free"),
        (0, (3,), "job 0: GPU 3 is down"),
        (0, (4,), "job 0 is planned to run 100 s; node 2 is reserved in 10 s"),
        (0, (0, 1), "job 0 needs 1 different GPUs, the action names (0, 1)"),
        (0, (6,), "job 0: there is no GPU 6; the cluster has GPUs 0 to 5"),
        (0, (-1,), "job 0: there is no GPU -1; the cluster has GPUs 0 to 5"),
        (2, (0,), "job 2 needs 0.5 of GPU 0, 0 is free"),
        (2, (3,), "job 2: GPU 3 is down"),
        (3, (1,), "job 3 is waiting, not running"),
    ],
)
def test_migrations_that_cannot_be(job: int, gpus: tuple[int, ...], sentence: str) -> None:
    # Job 0 is on GPU 0, job 1 on 2; job 2, half a GPU, is on 1.
    simulated = jobs_on(CHANGING, 1.0, 1.0, 0.5, 1.0)
    for number, gpu in enumerate((0, 2, 1)):
        simulated.apply(Start(number, (gpu,)))
    assert_refused(simulated, Migrate(job, gpus), sentence)
    simulated.apply(Migrate(2, (1,)))  # its own GPU will do


def test_a_migration_within_the_quantum() -> None:
    simulated = jobs_on(CHANGING, 1.0, quantum=5.0)
    simulated.apply(Start(0, (0,)))
    assert_refused(simulated, Migrate(0, (1,)), "job 0 has run 0 s of its 5 s quantum and cannot be migrated yet")


def test_a_node_that_is_reserved_now() -> None:
    simulated = jobs_on(CHANGING, 1.0, 1.0)
    simulated.apply(Start(0, (0,)))
    assert simulated.advance()  # the reservation begins
    assert simulated.time == 10.0
    assert_refused(simulated, Start(1, (4,)), "job 1 is planned to run 100 s; node 2 is reserved now")
    assert_refused(simulated, Migrate(0, (4,)), "job 0 is planned to run 90 s; node 2 is reserved now")


@pytest.mark.parametrize(
    ("gpu", "watts", "sentence"),
    [
        (0, 63.0, "a power limit of 63 W is outside the range of GPU 0 (plain): 64 to 288 W"),
        (0, 289.0, "a power limit of 289 W is outside the range of GPU 0 (plain): 64 to 288 W"),
        (0, math.nan, "a power limit is a number of watts, or None for the group's own, not nan"),
        (0, "a", "a power limit is a number of watts, or None for the group's own, not 'a'"),
        (6, 100.0, "there is no GPU 6; the cluster has GPUs 0 to 5"),
        (-1, 100.0, "there is no GPU -1; the cluster has GPUs 0 to 5"),
        (6, None, "there is no GPU 6; the cluster has GPUs 0 to 5"),
    ],
)
def test_power_limits_that_cannot_be(gpu: int, watts: Any, sentence: str) -> None:
    simulated = jobs_on(CHANGING, 1.0)
    simulated.apply(Start(0, (0,)))
    assert_refused(simulated, SetPowerLimit(gpu, watts), sentence)


def test_identical_gpus_have_no_adjustable_power_limit() -> None:
    dynamics = Dynamics(reservations=(Reservation(5, 9, (0,)),))
    simulated = jobs_on(ClusterSpec(2, 2).with_dynamics(dynamics), 1.0)
    sentence = "this cluster's GPUs have no adjustable power limit; give it as groups of known types"
    assert_refused(simulated, SetPowerLimit(0, 100.0), sentence)


def test_a_plain_cluster_has_no_power_limits() -> None:
    simulated = jobs_on(ClusterSpec(2, 2), 1.0)
    sentence = "GPU 0 is of no type whose power limits are known; give the cluster as groups"
    assert_refused(simulated, SetPowerLimit(0, 100.0), sentence)


def test_a_job_that_waits_for_others_cannot_start() -> None:
    jobs = [DynamicJob(0, 0.0, 100.0, 100.0, 1.0), DynamicJob(1, 0.0, 100.0, 100.0, 1.0, after=(0,))]
    simulated = SimulatedCluster(dynamic_trace(jobs), ClusterSpec(1, 2))
    simulated.advance()
    simulated.apply(Start(0))
    before = simulated.snapshot()
    assert list(before.queue) == []
    with pytest.raises(IllegalAction, match=r"^job 1 waits for jobs that it comes after to finish$"):
        simulated.apply(Start(1))
    with pytest.raises(IllegalAction, match=r"^job 1 is neither waiting nor running$"):
        before.after(Start(1))
    assert_same_snapshot(simulated.snapshot(), before)
    assert simulated.advance()
    simulated.apply(Start(1))
    assert simulated.time == 100.0


def test_any_number_of_rates_may_change_at_one_instant() -> None:
    # More jobs than can run at once are started, slowed and preempted, one after the other.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, PLAIN),))
    simulated = jobs_on(cluster, *[1.0] * 40)
    for number in range(40):
        simulated.apply(Start(number))
        simulated.apply(SetPowerLimit(0, (96.0, 160.0)[number % 2]))
        assert simulated._state.counts[L.CHANGES] <= simulated._state.run_job.shape[1]  # no room for more
        simulated.apply(Preempt(number))
    simulated.apply(SetPowerLimit(0))
    simulated.apply(Start(0))
    while simulated.advance():
        waiting = simulated.snapshot().queue
        if len(waiting):
            simulated.apply(Start(int(waiting.id[0])))
    assert simulated.outcome().finish.tolist() == [100.0 * (number + 1) for number in range(40)]


def test_actions_at_one_instant_leave_temperatures_to_the_bit() -> None:
    # Faces that act once and faces that act job by job must see GPUs throttle at the same time.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 3, PLAIN),), dynamics=Dynamics(inlet_temperature_c=0.0))
    jobs = [DynamicJob(number, 0.7 * number, 0.9, 0.9, 1.0) for number in range(9)]
    simulated = SimulatedCluster(dynamic_trace(jobs), cluster)
    while simulated.advance():
        before = simulated.snapshot().gpu_temperature_c
        for number in simulated.snapshot().queue:
            if simulated.snapshot().free_gpus:
                simulated.apply(Start(number))
        for watts in (96.0, 150.0, 288.0, None):
            for gpu in range(3):
                simulated.apply(SetPowerLimit(gpu, watts))
        assert simulated.snapshot().gpu_temperature_c.tolist() == before.tolist()


def test_a_limit_that_is_taken_back_leaves_no_trace() -> None:
    trace = Trace.from_columns({"submit_time": [0.0], "run_time": [100.0], "gpus": [1.0]})
    cluster = SimulatedCluster(trace, ClusterSpec.of_groups((NodeGroup(1, 1, gpu_type("A100")),)))
    assert cluster.advance()
    for action in (SetPowerLimit(0, 200.0), Start(0, (0,)), SetPowerLimit(0)):
        cluster.apply(action)
    while cluster.advance():
        pass
    assert cluster.outcome().finish.tolist() == [100.0]


def test_what_is_never_repaired_is_refused() -> None:
    dynamics = Dynamics(faults=Faults(schedule=(Fault(5.0, 0, 1, True),)))
    trace = Trace.from_columns({"submit_time": [0.0], "run_time": [100.0], "gpus": [1.0]})
    with pytest.raises(ConfigError, match=r"^GPU 0 is never repaired: schedule its repair too$"):
        run_trace(trace, ClusterSpec(1, 2).with_dynamics(dynamics), Rule())


def test_jobs_that_outran_their_times_before_a_failure_leave_the_profile_alone() -> None:
    # 2 GPUs are down from 50 to 60 s. Jobs 0 and 1 asked for 10 s, have run 50 by then and keep them: both go on at 60,
    # and job 2, which needs a GPU for 30 s from 55 on, follows at 110.
    faults = Faults(schedule=(Fault(50.0, 0, 2, True), Fault(60.0, 0, 2, False)), checkpoint_interval_s=1.0)
    jobs = [DynamicJob(number, 0.0, 100.0, 10.0, 1.0) for number in range(2)]
    jobs.append(DynamicJob(2, 55.0, 30.0, 30.0, 1.0))
    cluster = ClusterSpec(1, 2).with_dynamics(Dynamics(faults=faults))
    outcome = run_trace(dynamic_trace(jobs), cluster, Rule(blocking=Blocking.CONSERVATIVE))
    assert outcome.finish.tolist() == [110.0, 110.0, 140.0]
