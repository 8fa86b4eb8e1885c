"""Migration from overloaded to underloaded and to faster GPUs."""

import numpy as np
import pytest

from lepton_rl.agents import make_policy, run_policy
from lepton_rl.agents.load_balancing import LoadBalancing
from lepton_rl.core import ClusterSpec, Migrate
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware.dynamics import Dynamics, Interference, Reservation
from lepton_rl.errors import ConfigError
from lepton_rl.simulator import SimulatedCluster, Timing
from lepton_rl.workloads import Trace
from tests.agents.cases import plain_trace
from tests.simulator.detailed_cases import FAST, PLAIN, SLOW

SHARED = ClusterSpec.of_groups((NodeGroup(1, 2, PLAIN),), dynamics=Dynamics(Interference(2.0)))
MIXED = ClusterSpec.of_groups((NodeGroup(1, 1, FAST), NodeGroup(1, 1, SLOW)), reference=PLAIN)


def two_halves(third: float = 10.0) -> Trace:
    """A whole GPU for `third` seconds, and two halves of the other one for 1,000 s."""
    return plain_trace(submit_time=[0, 0, 0], run_time=[third, 1000, 1000], gpus=[1.0, 0.5, 0.5])


def test_a_share_leaves_its_neighbour_when_a_gpu_falls_idle() -> None:
    # Together each half takes 1 + 2 x 0.5 x 0.5 = 1.5 times as long. At 10 s the other GPU is free: 6.67 s are done,
    # 993.33 s are left of each. Staying takes 1,490 s more, a move of one leaves both at full speed.
    policy = LoadBalancing(placement="best")
    outcome = run_policy(policy, two_halves(), SHARED, Timing(migration_cost=5.0))
    assert outcome.finish == pytest.approx([10.0, 10.0 + 1000 - 10 / 1.5 + 5.0, 10.0 + 1000 - 10 / 1.5])
    assert outcome.migrations is not None
    assert outcome.migrations.tolist() == [0, 1, 0]
    (move,) = policy.moves
    assert (move.time, move.job, move.source, move.target) == (10.0, 1, (1,), (0,))
    assert move.gain_s == pytest.approx(2 * (1000 - 10 / 1.5) * 0.5 - 5.0)
    assert policy.report == "load_balancing: 1 migration, which saved 988 s of running time as predicted"


def test_jobs_move_to_faster_gpus_that_fall_idle() -> None:
    trace = plain_trace(submit_time=[0, 0], run_time=[100, 1000], gpus=[1.0, 1.0])
    policy = LoadBalancing()
    outcome = run_policy(policy, trace, MIXED, Timing(migration_cost=20.0))
    # 100 s of service on the GPU of speed 2 end at 50 s; 25 s are done then on that of speed 0.5.
    assert outcome.finish.tolist() == [50.0, 50.0 + (1000 - 25 + 20) / 2]
    assert [move.target for move in policy.moves] == [(0,)]


@pytest.mark.parametrize(
    ("settings", "cost"),
    [({"least_gain": 10_000.0}, 0.0), ({"most_moves": 0}, 0.0), ({"spare_free": True}, 0.0), ({"threshold": 0.6}, 0.0)],
)
def test_no_move_that_is_not_wanted(settings: dict[str, float], cost: float) -> None:
    policy = LoadBalancing.model_validate({"placement": "best", **settings})
    outcome = run_policy(policy, two_halves(), SHARED, Timing(migration_cost=cost))
    assert outcome.migrations is not None
    assert outcome.migrations.sum() == 0
    assert policy.report.startswith("load_balancing: 0 migrations")


def test_a_move_must_pay_for_itself() -> None:
    outcome = run_policy(LoadBalancing(placement="best"), two_halves(), SHARED, Timing(migration_cost=950.0))
    assert outcome.migrations is not None
    assert outcome.migrations.sum() == 0


def test_nothing_is_gained_on_identical_gpus() -> None:
    trace = plain_trace(submit_time=[0, 0, 0], run_time=[10, 1000, 1000], gpus=[1.0, 0.5, 0.5])
    balanced = run_policy(LoadBalancing(), trace, ClusterSpec(1, 2))
    assert balanced.migrations is not None
    assert balanced.migrations.sum() == 0


def test_the_quantum_holds_for_moves() -> None:
    cluster = SimulatedCluster(two_halves(), SHARED, timing=Timing(quantum=50.0))
    policy = LoadBalancing(placement="best")
    moved = []
    while cluster.advance():
        for action in policy.decide(cluster.snapshot()):
            cluster.apply(action)  # refuses a run that is too young
            moved += [action] if isinstance(action, Migrate) else []
    assert moved == []


def test_random_workloads_end_and_no_gain_is_below_what_is_asked() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        trace = plain_trace(
            submit_time=np.sort(rng.uniform(0, 2000, 60)),
            run_time=rng.uniform(50, 2000, 60),
            gpus=rng.choice([0.25, 0.5, 1.0, 2.0], 60),
        )
        groups = (NodeGroup(1, 2, FAST), NodeGroup(2, 2, SLOW))
        cluster = ClusterSpec.of_groups(groups, dynamics=Dynamics(Interference(0.5)))
        policy = LoadBalancing(least_gain=30.0)
        outcome = run_policy(policy, trace, cluster, Timing(migration_cost=10.0))
        assert np.isfinite(outcome.finish).all()
        assert all(move.gain_s > 30.0 for move in policy.moves)
        assert outcome.migrations is not None
        assert outcome.migrations.sum() == len(policy.moves)


def test_no_move_into_a_reservation() -> None:
    reserved = MIXED.with_dynamics(Dynamics(reservations=(Reservation(200, 900, (0,)),)))
    trace = plain_trace(submit_time=[0, 0], run_time=[100, 1000], gpus=[1.0, 1.0])
    policy = LoadBalancing()
    run_policy(policy, trace, reserved, Timing(migration_cost=20.0))
    # At 50 s the fast GPU is free for 150 s, but the job is planned for 1,990 s at its slowest: it moves afterwards.
    assert [move.time for move in policy.moves] == [900.0]


def test_an_order_that_preempts_is_refused() -> None:
    with pytest.raises(ConfigError, match="load_balancing: order: 'srtf' is not one of"):
        make_policy("load_balancing", order="srtf")
