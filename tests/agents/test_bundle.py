"""Bundles: the same choices as the trained network, from files alone, and clear refusals."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_rl.agents import make_policy, run_policy
from lepton_rl.agents.bundle import RANGE_KEY, LearnedPolicy, load_bundle, save_bundle
from lepton_rl.agents.network import NETWORKS, forward
from lepton_rl.agents.sb3 import ALGORITHMS, AlgorithmName
from lepton_rl.agents.sb3.algorithms import make_algorithm
from lepton_rl.agents.sb3.evaluation import network_weights
from lepton_rl.agents.sb3.vec_env import BatchVecEnv
from lepton_rl.core import ClusterSpec
from lepton_rl.envs import Codec, EnvironmentBatch, Episodes, Objective
from lepton_rl.envs.decision import Decision
from lepton_rl.envs.quantization import OBSERVATION_DTYPES, Quantization, quantization_for
from lepton_rl.errors import BundleError
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace, gpu_cluster

CLUSTER = ClusterSpec(nodes=2, gpus_per_node=4)
CODEC = Codec(window=8)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return gpu_cluster(n_jobs=400, gpus=8, load=1.5, seed=3)


def make_batch(trace: Trace, count: int = 1, jobs: int = 100, codec: Codec = CODEC) -> EnvironmentBatch:
    return EnvironmentBatch(Episodes([trace], jobs), CLUSTER, codec, Objective(), count)


def shaken_model(  # type: ignore[no-untyped-def]
    algorithm: AlgorithmName, network: str, trace: Trace, quantization: Quantization | None = None
):
    """An algorithm whose weights are far from the uniform policy that training starts from."""
    import torch

    small = {"dqn": {"buffer_size": 100}, "a2c": {}}.get(algorithm, {"n_steps": 16, "batch_size": 16})
    env = BatchVecEnv(make_batch(trace, 2), seed=0, quantization=quantization)
    model = make_algorithm(algorithm, env, small, {"network": network}, 0, "cpu", None)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def bundle_of(model, network: str, folder: Path) -> LearnedPolicy:  # type: ignore[no-untyped-def]
    quantization = model.get_env().quantization
    policy = LearnedPolicy(CODEC, network, network_weights(model), CLUSTER, quantization=quantization)
    save_bundle(folder, policy, {"algorithm": "test"})
    return load_bundle(folder)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", OBSERVATION_DTYPES)
def test_a_bundle_chooses_what_sb3_predicts(
    algorithm: AlgorithmName, network: str, dtype: str, trace: Trace, tmp_path: Path
) -> None:
    quantization = quantization_for(dtype, CODEC, CLUSTER)
    model = shaken_model(algorithm, network, trace, quantization)
    policy = bundle_of(model, network, tmp_path)
    batch = make_batch(trace)
    batch.reset(0, (0, 50))
    waits = 0
    while True:
        observation = {name: array.copy() for name, array in batch.observation().items()}
        stored = observation if quantization is None else quantization.encode(observation)
        predicted, _ = model.predict(stored, deterministic=True)
        chosen = policy.choose({name: array[0] for name, array in observation.items()})
        assert chosen == int(predicted[0])
        waits += chosen == CODEC.window
        batch.step(np.asarray(predicted, np.int64))
        if batch.terminated[0]:
            break
    assert waits > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_deployment_and_environment_schedule_alike(network: str, trace: Trace, tmp_path: Path) -> None:
    policy = bundle_of(shaken_model("maskable_ppo", network, trace), network, tmp_path)
    batch = make_batch(trace)
    batch.reset(0, (0, 50))
    while not batch.terminated[0]:
        batch.step(np.array([policy.choose(batch.observation_of(0))], np.int64))
    outcome = run_policy(make_policy(str(tmp_path)), trace.window(50, 100), CLUSTER)
    np.testing.assert_array_equal(outcome.finish, batch.outcome(0).finish)


def test_reordering_the_slots_reorders_the_logits(trace: Trace, tmp_path: Path) -> None:
    policy = bundle_of(shaken_model("maskable_ppo", "deepsets", trace), "deepsets", tmp_path)
    batch = make_batch(trace)
    batch.reset(0, (0, 0))
    while batch.masks[0, :-1].sum() < 3:
        batch.step(np.array([CODEC.window if batch.masks[0, -1] else 0], np.int64))
    observation = batch.observation_of(0)
    visible = int((observation["queue"][:, 1] > 0).sum())
    order = np.concatenate((np.random.default_rng(0).permutation(visible), np.arange(visible, CODEC.window)))
    turned = dict(observation)
    turned["queue"] = np.ascontiguousarray(observation["queue"][order])
    turned["action_mask"] = observation["action_mask"][np.append(order, CODEC.window)]
    logits = forward("deepsets", policy.weights, tuple(CODEC.shapes(CLUSTER)))
    expected = logits(observation)[np.append(order, CODEC.window)]
    np.testing.assert_allclose(logits(turned), expected, rtol=1e-4, atol=1e-5)


def test_an_untrained_network_is_uniform_over_valid_actions(trace: Trace) -> None:
    env = BatchVecEnv(make_batch(trace, 2), seed=0)
    settings = {"n_steps": 16, "batch_size": 16}
    model = make_algorithm("maskable_ppo", env, settings, {"network": "deepsets"}, 0, "cpu", None)
    batch = make_batch(trace)
    batch.reset(0, (0, 0))
    logits = forward("deepsets", network_weights(model), tuple(CODEC.shapes(CLUSTER)))(batch.observation_of(0))
    valid = batch.masks[0]
    np.testing.assert_array_equal(logits[valid], 0.0)
    assert (logits[~valid] < -1e7).all()


def test_a_bundle_runs_without_torch(trace: Trace, tmp_path: Path) -> None:
    bundle_of(shaken_model("maskable_ppo", "deepsets", trace), "deepsets", tmp_path / "bundle")
    code = (
        "import sys\n"
        "from lepton_rl.agents import make_policy, run_policy\n"
        "from lepton_rl.core import ClusterSpec\n"
        "from lepton_rl.workloads import gpu_cluster\n"
        "trace = gpu_cluster(n_jobs=50, gpus=8, load=1.5, seed=3)\n"
        f"run_policy(make_policy({str(tmp_path / 'bundle')!r}), trace, ClusterSpec(nodes=2, gpus_per_node=4))\n"
        "assert 'torch' not in sys.modules and 'stable_baselines3' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_an_mlp_refuses_another_number_of_nodes(trace: Trace, tmp_path: Path) -> None:
    policy = bundle_of(shaken_model("maskable_ppo", "mlp", trace), "mlp", tmp_path)
    with pytest.raises(BundleError, match=r"trained on 2 x 4 GPUs and cannot read 4 x 2 GPUs"):
        run_policy(policy, trace.window(0, 50), ClusterSpec(nodes=4, gpus_per_node=2))


def test_a_damaged_quantization_is_refused(trace: Trace, tmp_path: Path) -> None:
    kind = quantization_for("uint8", CODEC, CLUSTER)
    bundle_of(shaken_model("a2c", "deepsets", trace, kind), "deepsets", tmp_path)
    file = tmp_path / "bundle.json"
    whole = json.loads(file.read_text())
    ranges = whole["quantization"]["ranges"]
    wrong: dict[str, dict[str, Any]] = {
        "its quantization of 'context' is not that": {"ranges": {**ranges, "context": [0, 1]}},
        "its quantization of 'load' is not that": {"ranges": {k: v for k, v in ranges.items() if k != "load"}},
        "its quantization of 'stray' is not that": {"ranges": {**ranges, "stray": [0, 1]}},
        "cannot be stored as 'int4'": {"dtype": "int4"},
        "it lies within 1 to 0": {"ranges": {**ranges, "load": [1, 0]}},
        "damaged": {"ranges": 3},
    }
    for match, change in wrong.items():
        file.write_text(json.dumps({**whole, "quantization": {**whole["quantization"], **change}}))
        with pytest.raises(BundleError, match=match):
            load_bundle(tmp_path)
    not_said: list[Any] = ["uint8", [], {"dtype": "uint8"}]
    for broken in not_said:
        file.write_text(json.dumps({**whole, "quantization": broken}))
        with pytest.raises(BundleError, match="damaged"):
            load_bundle(tmp_path)


def test_a_zipped_bundle_is_the_same_bundle(trace: Trace, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "bundle"
    policy = bundle_of(shaken_model("maskable_ppo", "deepsets", trace), "deepsets", folder)
    zipped = load_bundle(shutil.make_archive(str(tmp_path / "policy"), "zip", folder))
    assert zipped.codec == policy.codec
    assert all(np.array_equal(zipped.weights[name], policy.weights[name]) for name in policy.weights)
    assert load_bundle(tmp_path / "run").codec == policy.codec


def test_damaged_bundles_are_refused(trace: Trace, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    bundle_of(shaken_model("maskable_ppo", "deepsets", trace), "deepsets", folder)
    with pytest.raises(BundleError, match="no policy bundle here"):
        load_bundle(tmp_path / "nothing")
    about = json.loads((folder / "bundle.json").read_text())
    for key, value, message in (
        ("format", 99, "format 99"),
        ("network", "transformer", "unknown network 'transformer'"),
        ("codec", {**about["codec"], "version": 0}, "version 0"),
        ("cluster", {"nodes": 0}, "damaged|at least 1 node"),
    ):
        (folder / "bundle.json").write_text(json.dumps({**about, key: value}))
        with pytest.raises(BundleError, match=message):
            load_bundle(folder)
    (folder / "bundle.json").write_text(json.dumps(about))
    (folder / "weights.npz").write_bytes(b"not an archive")
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(folder)


def test_weights_that_do_not_fit_the_codec_are_refused(trace: Trace, tmp_path: Path) -> None:
    policy = bundle_of(shaken_model("maskable_ppo", "deepsets", trace), "deepsets", tmp_path)
    weights = dict(policy.weights)
    for name, array, message in (
        ("job.weight", weights["job.weight"][:, :3], r"job.weight has shape"),
        ("job_logit.bias", np.array([np.nan], np.float32), r"no finite numbers"),
        ("extra", np.zeros(1, np.float32), r"a stray 'extra'"),
    ):
        save_bundle(tmp_path / "wrong", LearnedPolicy(CODEC, "deepsets", {**weights, name: array}, CLUSTER), {})
        with pytest.raises(BundleError, match=message):
            load_bundle(tmp_path / "wrong")
    lacking = {name: array for name, array in weights.items() if name != "wait_hidden.bias"}
    arrays: dict[str, Any] = lacking
    np.savez(tmp_path / "wrong" / "weights.npz", **arrays)
    with pytest.raises(BundleError, match=r"lack 'wait_hidden\.bias'"):
        load_bundle(tmp_path / "wrong")


def test_a_bundle_replaces_an_older_one_whole_and_nothing_else(trace: Trace, tmp_path: Path) -> None:
    model = shaken_model("maskable_ppo", "deepsets", trace)
    folder = tmp_path / "bundle"
    bundle_of(model, "deepsets", folder)
    policy = LearnedPolicy(CODEC, "deepsets", network_weights(model), CLUSTER)
    before = (folder / "bundle.json").read_bytes()
    with pytest.raises(TypeError):
        save_bundle(folder, policy, {"not for JSON": object()})
    assert (folder / "bundle.json").read_bytes() == before
    save_bundle(folder, policy, {"algorithm": "newer"})
    assert load_bundle(folder).about["algorithm"] == "newer"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"holds notes\.txt"):
        save_bundle(folder, policy, {})


def ranged(policy: LearnedPolicy, **of: list[list[float]] | list[float]) -> LearnedPolicy:
    """Return the policy as one whose training saw these ranges."""
    return replace(policy, about={RANGE_KEY: of})


def test_what_training_never_saw_is_told_with_a_margin(trace: Trace) -> None:
    policy = LearnedPolicy(CODEC, "mlp", network_weights(shaken_model("maskable_ppo", "mlp", trace)), CLUSTER)
    cluster = SimulatedCluster(trace, CLUSTER)
    assert cluster.advance()
    snapshot = cluster.snapshot()
    names = list(CODEC.feature_names)
    assert (policy.knows_ranges, policy.out_of_range(snapshot)) == (False, "")
    rows = Decision.of(CODEC, snapshot).observation["queue"][: len(snapshot.queue)]
    low, high = rows.min(0), rows.max(0)
    seen = ranged(policy, queue=[low.tolist(), high.tolist()])
    assert (seen.knows_ranges, seen.out_of_range(snapshot)) == (True, "")
    gpus = names.index("gpus")
    low[gpus], high[gpus] = rows[:, gpus].max() + 0.2, rows[:, gpus].max() + 0.2
    assert ranged(policy, queue=[low.tolist(), high.tolist()]).out_of_range(snapshot) == ""  # near enough
    low[gpus], high[gpus] = rows[:, gpus].max() + 0.3, rows[:, gpus].max() + 0.3
    said = ranged(policy, queue=[low.tolist(), high.tolist()]).out_of_range(snapshot)
    assert said.startswith(f"learned: queue gpus is {rows[0, gpus]:.3g}, its training saw {low[gpus]:.3g} to ")
    assert "learned: load is 0, its training saw 0.5 to 0.9" in ranged(policy, load=[0.5, 0.9]).out_of_range(snapshot)
    assert ranged(policy, load=[0.5, float("inf")]).out_of_range(snapshot) == ""


def test_ranges_that_are_not_those_of_the_codec_are_refused(trace: Trace) -> None:
    policy = LearnedPolicy(CODEC, "mlp", network_weights(shaken_model("maskable_ppo", "mlp", trace)), CLUSTER)
    for wrong in ([[0.0], [1.0]], [0.0, 1.0], "everything", [[0.0] * 17]):
        with pytest.raises(BundleError, match="observation_range of 'queue' are "):
            replace(policy, about={RANGE_KEY: {"queue": wrong}})
