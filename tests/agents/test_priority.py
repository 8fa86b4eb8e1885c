"""Score policies: hand-worked orders, and the same schedule compiled and decision by decision."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lepton_rl.agents import (
    SCORES,
    CompiledPolicy,
    HeapPriority,
    Power,
    Priority,
    Random,
    Reserve,
    ReserveSlowdown,
    heap_order,
    run_policy,
    weighted_priority,
)
from lepton_rl.agents.compiled import RulePolicy
from lepton_rl.core import ClusterSpec, Placement, Policy, Preempt, Snapshot, Start, schedule
from lepton_rl.core import layout as L
from lepton_rl.errors import ConfigError
from lepton_rl.simulator import SimulatedCluster, Timing
from lepton_rl.workloads import Trace
from tests.agents.cases import CLUSTERS, PLACEMENTS, PYTHON_POLICIES, plain_trace, rule_policies, traces

HYPOTHESIS = settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.too_slow])
TIMINGS = st.sampled_from([Timing(), Timing(preemption_cost=7.0, quantum=30.0), Timing(timer=50.0)])


def finish_by_decisions(
    policy: Policy, trace: Trace, cluster: ClusterSpec, timing: Timing, placement: Placement
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    simulated = SimulatedCluster(trace, cluster, placement, timing)
    schedule(policy, simulated)
    return simulated.outcome().finish


@HYPOTHESIS
@given(rule_policies(), traces(), CLUSTERS, TIMINGS, PLACEMENTS)
def test_compiled_and_by_decisions_alike(
    policy: RulePolicy, trace: Trace, cluster: ClusterSpec, timing: Timing, placement: Placement
) -> None:
    compiled = run_policy(policy, trace, cluster, timing, placement)
    assert compiled.finish.tolist() == finish_by_decisions(policy, trace, cluster, timing, placement).tolist()


class Recorder:
    """Compares `snapshot.after(action)` with the cluster after `apply(action)`, then takes the decision."""

    def __init__(self, policy: Policy, cluster: SimulatedCluster) -> None:
        self.policy, self.cluster = policy, cluster

    def decide(self, snapshot: Snapshot) -> list[Start | Preempt]:
        for action in self.policy.decide(snapshot):
            snapshot = snapshot.after(action)
            self.cluster.apply(action)
            now = self.cluster.snapshot()
            ids = now.jobs[:, L.ID]
            assert snapshot.jobs[:, L.ID].tolist() == ids.tolist()
            assert snapshot.running_count == now.running_count
            for column in (L.FIRST_GPU, L.ATTAINED, L.PREDICTED, L.START):
                np.testing.assert_array_equal(snapshot.jobs[:, column], now.jobs[:, column])
            assert [snapshot.gpus_of(job) for job in snapshot.running] == [now.gpus_of(j) for j in now.running]
            np.testing.assert_array_equal(snapshot.gpu_load, now.gpu_load)
            np.testing.assert_array_equal(snapshot.gpu_memory_free_gib, now.gpu_memory_free_gib)
        return []


@HYPOTHESIS
@given(st.one_of(rule_policies(), PYTHON_POLICIES), traces(most=8), CLUSTERS, TIMINGS)
def test_after_foretells_apply(policy: Policy, trace: Trace, cluster: ClusterSpec, timing: Timing) -> None:
    simulated = SimulatedCluster(trace, cluster, timing=timing)
    schedule(Recorder(policy, simulated), simulated)
    assert np.isfinite(simulated.outcome().finish).all()


def test_every_score_is_a_compiled_policy() -> None:
    for name in SCORES:
        policy = Priority(score=name)
        assert isinstance(policy, CompiledPolicy)
        assert policy.name == name


def test_reserve_waits_for_room() -> None:
    # 4 GPUs. Job 0 is as long as t1: half of the cluster must stay free beside its 2 GPUs, and does. Job 1
    # (2 GPUs, as long) finds 2 free and wants 4: it waits. Job 2 is short and wants no room: it starts.
    trace = plain_trace(
        submit_time=[0.0, 1.0, 2.0], run_time=[1000.0, 1000.0, 10.0], gpus=[2.0, 2.0, 1.0]
    ).with_requested("exact")
    outcome = run_policy(Reserve(rho=0.5, t0=10.0, t1=1000.0), trace, ClusterSpec.pool(4))
    assert outcome.first_start.tolist() == [0.0, 1000.0, 2.0]
    without_margin = run_policy(Power(a=0.75, b=1.5, blocking="skip"), trace, ClusterSpec.pool(4))
    assert without_margin.first_start.tolist() == [0.0, 1.0, 1000.0]


def test_reserve_starts_jobs_as_large_as_the_cluster() -> None:
    trace = plain_trace(run_time=[1e6], gpus=[4.0]).with_requested("exact")
    for policy in (Reserve(), ReserveSlowdown()):
        assert run_policy(policy, trace, ClusterSpec.pool(4)).finish.tolist() == [1e6]


def test_weights_divided_by_scales() -> None:
    policy = HeapPriority(compute_scale=100.0, time_scale=5.0, memory_scale=80.0)
    assert policy.weights == pytest.approx((0.005, 0.06, 0.0025))


def test_scales_let_urgency_count() -> None:
    # P of the raw units: 50.3 and 47.1; with C / 100, T / 6: 0.55 and 0.77.
    trace = plain_trace(
        run_time=[10.0, 10.0], gpus=[1.0, 1.0], compute_intensity=[100.0, 90.6], time_sensitivity=[1.0, 6.0]
    )
    raw = run_policy(HeapPriority(), trace, ClusterSpec.pool(1))
    assert raw.finish.tolist() == [10.0, 20.0]
    scaled = run_policy(HeapPriority(compute_scale=100.0, time_scale=6.0), trace, ClusterSpec.pool(1))
    assert scaled.finish.tolist() == [20.0, 10.0]


@given(st.lists(st.floats(0, 100), max_size=20))
def test_heap_order_is_a_stable_sort(priorities: list[float]) -> None:
    assert heap_order(priorities) == sorted(range(len(priorities)), key=lambda i: -priorities[i])


def test_weighted_priority_of_one_task() -> None:
    assert weighted_priority(100, 5, 100) == pytest.approx(71.5)


def test_same_seed_same_random_order() -> None:
    trace = plain_trace(run_time=[10.0] * 20, gpus=[1.0] * 20)
    one, again, other = (
        run_policy(Random(seed=seed), trace, ClusterSpec.pool(1)).finish.tolist() for seed in (1, 1, 2)
    )
    assert one == again != other


@pytest.mark.parametrize("blocking", ["easy", "conservative"])
@pytest.mark.parametrize("score", ["srtf", "las"])
def test_preemptive_orders_do_not_backfill(score: str, blocking: str) -> None:
    with pytest.raises(ConfigError, match=f"{score} is preemptive and cannot be combined with {blocking}"):
        Priority.model_validate({"score": score, "blocking": blocking})


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"t0 \(100 s\) must be below t1 \(10 s\)"):
        Reserve(t0=100.0, t1=10.0)
    with pytest.raises(ValidationError):
        HeapPriority(compute_scale=0.0)
    with pytest.raises(ValidationError):
        Priority(score="sjf").blocking = "skip"  # type: ignore[misc]
