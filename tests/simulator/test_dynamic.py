"""Clusters that change during a run: the compiled simulator, on each of its faces, against the plain-Python reference."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import Outcome, Placement, Snapshot, Start
from lepton_rl.errors import IllegalAction
from lepton_rl.simulator import SimulatedCluster, decide, run_trace
from tests.reference import simulator as reference
from tests.reference.dynamic import DynamicResult
from tests.simulator.cases import BLOCKINGS, ORDERS, PLACEMENTS, PREEMPTIVE, rule_of, same_schedule
from tests.simulator.dynamic_cases import PARTS, Attempt, DynamicCase, Record, dynamic_cases

every_blocking = pytest.mark.parametrize("blocking", BLOCKINGS)
every_placement = pytest.mark.parametrize("placement", PLACEMENTS)


def assert_same_snapshot(left: Snapshot, right: Snapshot) -> None:
    for name in ("jobs", "gpus", "nodes", "bits"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)


def assert_matches(found: Outcome, expected: DynamicResult, note: str, exact: bool) -> None:
    """Hold a run to the reference; times to the bit where nothing rounds."""
    assert found.disturbed is not None
    assert found.preemptions.tolist() == expected.preemptions, note
    assert found.disturbed.strikes.tolist() == expected.strikes, note
    assert found.disturbed.migrations.tolist() == expected.migrations, note
    times = [
        (found.first_start.tolist(), expected.start),
        (found.finish.tolist(), expected.finish),
        (found.disturbed.lost_seconds.tolist(), expected.lost),
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
@settings(max_examples=40)
@given(case=dynamic_cases(), order=st.sampled_from(list(ORDERS)))
def test_every_order(
    case: DynamicCase, order: str, blocking: reference.Blocking, placement: reference.Placement
) -> None:
    assert_agree(case, order, blocking, placement)


@pytest.mark.parametrize("order", PREEMPTIVE)
@pytest.mark.parametrize("blocking", ["head", "skip"])
@every_placement
@settings(max_examples=40)
@given(case=dynamic_cases())
def test_every_preemptive_order(
    case: DynamicCase, order: str, blocking: reference.Blocking, placement: reference.Placement
) -> None:
    assert_agree(case, order, blocking, placement)
