"""Bundles on clusters of groups, with every kind of action, and with preferences."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_rl.agents import make_policy, run_policy
from lepton_rl.agents.bundle import LearnedPolicy, load_bundle, save_bundle
from lepton_rl.agents.network import NETWORKS
from lepton_rl.agents.sb3.algorithms import make_algorithm
from lepton_rl.agents.sb3.evaluation import network_weights
from lepton_rl.agents.sb3.vec_env import BatchVecEnv
from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import gpu_type
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults
from lepton_rl.envs import Codec, EnvironmentBatch, Episodes, Objective
from lepton_rl.errors import BundleError, ConfigError
from lepton_rl.workloads import Trace, gpu_cluster

GROUPS = ClusterSpec.of_groups(
    (NodeGroup(2, 2, gpu_type("V100-SXM2-32GB")), NodeGroup(1, 4, gpu_type("A100-SXM4-80GB")))
)
FAULTS = Faults(schedule=(Fault(1000.0, 0, 3, True), Fault(90_000.0, 0, 3, False)))
CLUSTER = GROUPS.with_dynamics(Dynamics(inlet_temperature_c=42.0, faults=FAULTS))
MIX = Objective(1.0, 2.0)
CODECS = {
    "order": Codec(8),
    "placement": Codec(8, actions="placement"),
    "power": Codec(8, actions="power", power_levels=(1.0, 0.7)),
    "preferences": Codec(8, preferences=2),
    "preemptive": Codec(8, actions="preemptive", running=5),
}


@pytest.fixture(scope="module")
def trace() -> Trace:
    return gpu_cluster(n_jobs=300, gpus=8, load=1.5, seed=3)


def bundle_and_model(network: str, codec: Codec, trace: Trace, folder: Path):  # type: ignore[no-untyped-def]
    """A bundle on disc and the model that it was made from, far from the uniform policy."""
    import torch

    env = BatchVecEnv(EnvironmentBatch(Episodes([trace], 60), CLUSTER, codec, MIX, 2), seed=0)
    model = make_algorithm("maskable_ppo", env, {"n_steps": 16, "batch_size": 16}, {"network": network}, 0, "cpu", None)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    save_bundle(folder, LearnedPolicy(codec, network, network_weights(model), CLUSTER), {"algorithm": "test"})
    return load_bundle(folder), model


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", CODECS)
def test_it_chooses_what_sb3_predicts_and_schedules_alike(
    network: str, kind: str, trace: Trace, tmp_path: Path
) -> None:
    codec = CODECS[kind]
    policy, model = bundle_and_model(network, codec, trace, tmp_path)
    assert policy.codec == codec
    assert policy.cluster == CLUSTER
    batch = EnvironmentBatch(Episodes([trace], 60), CLUSTER, codec, MIX)
    parts = np.array([0.25, 0.75], np.float32) if codec.preferences else None
    batch.reset(0, (0, 50), parts)
    rng = np.random.default_rng(0)
    taken: set[int] = set()
    while not batch.terminated[0]:
        observation = {name: array.copy() for name, array in batch.observation().items()}
        predicted, _ = model.predict(observation, deterministic=True)
        choice = policy.choose({name: array[0] for name, array in observation.items()})
        assert choice == int(predicted[0])
        action = rng.choice(np.flatnonzero(batch.masks[0]))
        taken.add(int(action) % codec.choices(CLUSTER))
        batch.step(np.array([action], np.int64))
    assert len(taken) == codec.choices(CLUSTER)
    batch.reset(0, (0, 50), parts)
    while True:
        batch.step(np.array([policy.choose(batch.observation_of(0))], np.int64))
        if batch.terminated[0]:
            break
    asked = make_policy(str(tmp_path)) if parts is None else make_policy(str(tmp_path), preferences=[1, 3])
    outcome = run_policy(asked, trace.window(50, 60), CLUSTER)
    np.testing.assert_array_equal(outcome.finish, batch.outcome(0).finish)
    assert outcome.energy_joules == pytest.approx(batch.outcome(0).energy_joules, rel=1e-12)


def test_preferences_are_heard_and_checked(trace: Trace, tmp_path: Path) -> None:
    bundle_and_model("deepsets", CODECS["preferences"], trace, tmp_path / "asked")
    finishes = [
        run_policy(load_bundle(tmp_path / "asked", preferences=parts), trace.window(0, 60), CLUSTER).finish.tolist()
        for parts in (None, [1, 1], [1, 0])
    ]
    assert finishes[0] == finishes[1]
    assert finishes[0] != finishes[2]
    with pytest.raises(ConfigError, match="preferences must be 2 numbers of 0 or more"):
        make_policy(str(tmp_path / "asked"), preferences=[1, 2, 3])
    with pytest.raises(ConfigError, match="preferences: must be a list of numbers, not 'much'"):
        make_policy(str(tmp_path / "asked"), preferences="much")
    bundle_and_model("deepsets", CODECS["order"], trace, tmp_path / "deaf")
    with pytest.raises(BundleError, match="preferences: this network was trained without any"):
        make_policy(str(tmp_path / "deaf"), preferences=[1, 2])


def test_a_cluster_on_which_the_actions_mean_something_else_is_refused(trace: Trace, tmp_path: Path) -> None:
    plain = ClusterSpec(3, 4)
    for kind in ("placement", "power", "preemptive"):
        policy, _ = bundle_and_model("deepsets", CODECS[kind], trace, tmp_path / kind)
        with pytest.raises(BundleError, match="are about groups of nodes or power limits, and 3 x 4 GPUs has neither"):
            policy.check_cluster(plain)
    others = ClusterSpec.of_groups(GROUPS.groups[::-1])
    with pytest.raises(
        BundleError,
        match=r"its actions choose among groups of V100.*, A100.*, in this order, and this cluster's are of A100",
    ):
        load_bundle(tmp_path / "placement").check_cluster(others)
    load_bundle(tmp_path / "power").check_cluster(others)


def test_one_group_leaves_nothing_to_choose_among(trace: Trace, tmp_path: Path) -> None:
    from lepton_rl.agents.network import expected_shapes

    one, other = (ClusterSpec.of_groups((NodeGroup(2, 4, gpu_type(name)),)) for name in ("V100-SXM2-32GB", "T4"))
    codec = CODECS["preemptive"]
    shapes = expected_shapes("deepsets", {"job.bias": np.zeros(2, np.float32)}, codec, one)
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    policy = LearnedPolicy(codec, "deepsets", weights, one)
    policy.check_cluster(other)
    with pytest.raises(
        BundleError, match=r"among groups of V100.*, in this order, and this cluster's are of V100.*, A"
    ):
        policy.check_cluster(GROUPS)


def test_both_networks_begin_with_stops_that_are_seldom_tried(trace: Trace) -> None:
    import torch

    codec = CODECS["preemptive"]
    for network in NETWORKS:
        env = BatchVecEnv(EnvironmentBatch(Episodes([trace], 60), CLUSTER, codec, MIX, 2), seed=0)
        settings = {"n_steps": 16, "batch_size": 16}
        model = make_algorithm("maskable_ppo", env, settings, {"network": network}, 0, "cpu", None)
        observation = {name: torch.as_tensor(array) for name, array in env.reset().items()}
        network_of_it: Any = model.policy.network
        logits = network_of_it({name: tensor.float() for name, tensor in observation.items()})[0]
        starts = 8 * codec.choices(CLUSTER)
        assert (logits[:, starts:-1] < -2.5).all()
        assert (logits[:, :starts] == 0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_where_gpus_are_of_no_type_nothing_is_warm_or_down(network: str, trace: Trace, tmp_path: Path) -> None:
    """A network that reads temperature and health runs on a plain cluster as on the same one in groups."""
    policy, _ = bundle_and_model(network, CODECS["order"], trace, tmp_path)
    plain = ClusterSpec(3, 4)
    outcomes = [run_policy(replace(policy), trace.window(0, 80), cluster) for cluster in (plain, plain.in_groups())]
    assert outcomes[0].finish.tolist() == outcomes[1].finish.tolist()
