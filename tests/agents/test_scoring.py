"""The score that people are told is the one by which the policy decides."""

from pathlib import Path

import numpy as np
import pytest

from lepton_rl.agents.bundle import LearnedPolicy
from lepton_rl.agents.network import expected_shapes
from lepton_rl.agents.registry import make_policy, policies
from lepton_rl.agents.scoring import scores_of
from lepton_rl.core.actions import Start
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.envs.codec import Codec
from lepton_rl.simulator.cluster import SimulatedCluster
from lepton_rl.workloads import Trace

PLANS = {"genetic", "greedy", "gavel_max_min", "gavel_max_throughput"}


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """Six jobs wait for one free node, none of them like another."""
    generator = np.random.default_rng(5)
    columns = {
        "submit_time": np.zeros(6),
        "run_time": generator.uniform(10, 1000, 6),
        "requested_time": generator.uniform(10, 1000, 6),
        "gpus": np.ones(6),
        "compute_intensity": generator.uniform(1, 5, 6),
        "deadline": generator.uniform(2000, 3000, 6),
    }
    cluster = SimulatedCluster(Trace.from_columns(columns, requested="given"), ClusterSpec(nodes=1, gpus_per_node=1))
    assert cluster.advance()
    return cluster.snapshot()


@pytest.mark.parametrize("name", [info.name for info in policies() if info.name not in PLANS])
def test_who_scores_lowest_starts_first(name: str, snapshot: Snapshot) -> None:
    policy = make_policy(name)
    found = scores_of(policy, snapshot)
    assert found is not None
    assert found.values.shape == (6,)
    assert found.meaning
    started = [action.job for action in policy.decide(snapshot) if isinstance(action, Start)]
    assert started == [snapshot.queue.id[np.argsort(found.values, kind="stable")[0]]]


@pytest.mark.parametrize("name", ["genetic", "greedy"])
def test_a_plan_has_no_score_for_each(name: str, snapshot: Snapshot) -> None:
    assert scores_of(make_policy(name), snapshot) is None


def test_a_network_starts_first_what_it_finds_likeliest(tmp_path: Path) -> None:
    cluster = ClusterSpec(nodes=1, gpus_per_node=4)
    codec = Codec(window=4)
    generator = np.random.default_rng(7)
    shapes = expected_shapes("mlp", {"logits.weight": np.zeros((1, 16), np.float32)}, codec, cluster)
    weights = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    policy = LearnedPolicy(codec, "mlp", weights, cluster)
    columns = {"submit_time": np.zeros(6), "run_time": np.arange(1.0, 7.0) * 50.0, "gpus": np.full(6, 4.0)}
    simulated = SimulatedCluster(Trace.from_columns(columns), cluster)
    assert simulated.advance()
    found = scores_of(policy, simulated.snapshot())
    assert found is not None
    assert np.isfinite(found.values).tolist() == [True] * 4 + [False] * 2
    assert 0.0 <= (1.0 - found.values[:4]).sum() <= 1.0 + 1e-6
    started = [action.job for action in policy.decide(simulated.snapshot()) if isinstance(action, Start)]
    likeliest = simulated.snapshot().queue.id[int(found.values.argmin())]
    assert started in ([likeliest], [])  # it may also find waiting likelier than any
