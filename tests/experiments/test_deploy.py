"""What is said of a policy before it decides on a node."""

from pathlib import Path

import pytest

from lepton_rl.agents import make_policy
from lepton_rl.devices.device import DeviceIdentity
from lepton_rl.errors import ConfigError, NodeError
from lepton_rl.experiments.deploy import check_http, check_policy, describe, node_setup, preempts, read_node_config
from lepton_rl.experiments.node_config import NodeConfig
from lepton_rl.node.hardware import describe_hardware

NODE = describe_hardware([DeviceIdentity(0, "GPU-a", "NVIDIA A100-SXM4-80GB", memory_total_bytes=80 << 30)])


@pytest.mark.parametrize(
    ("name", "stops"),
    [("srtf", True), ("las", True), ("dlas", True), ("gittins", True), ("saf", False), ("drf", False)],
)
def test_a_policy_that_preempts_is_known_by_its_order(name: str, stops: bool) -> None:
    policy = make_policy(name)
    assert preempts(policy) is stops
    said = check_policy(policy, NODE)
    assert said[0] == f"{name} is a heuristic: it runs on any node"
    assert said[1:] == stops * [
        f"{name} stops running jobs for others: a decision that would stop a job not submitted with --restartable is "
        "refused as a whole, and the fallback decides"
    ]


def test_a_policy_that_takes_turns_preempts() -> None:
    assert preempts(make_policy({"name": "gavel_max_min", "preempt": True}))
    assert not preempts(make_policy("gavel_max_min"))


def test_the_policy_on_trial_is_checked_like_the_acting_one(tmp_path: Path) -> None:
    setup = node_setup(NodeConfig(), "saf", tmp_path, trial="srtf", canary_share=0.1)
    said = setup.check(NODE)
    assert said[:2] == ["saf is a heuristic: it runs on any node", "srtf is a heuristic: it runs on any node"]
    assert said[2].startswith("srtf stops running jobs for others")


def test_it_is_said_that_gpus_are_measured(tmp_path: Path) -> None:
    for text, said in (
        ("{least_tflops: 200}", "(matrix products in torch) and takes no work below 200 TFLOP/s"),
        ("{least_tflops: 0.5, command: [/opt/tflops, -n]}", "(/opt/tflops) and takes no work below 0.5 TFLOP/s"),
    ):
        (tmp_path / "node.yaml").write_text(f"acceptance: {{throughput: {text}}}\n")
        config = read_node_config(tmp_path / "node.yaml")
        lines = describe(NODE.cluster, node_setup(config, "saf", tmp_path), config)
        assert f"a GPU that is taken in is measured {said}" in lines
    lines = describe(NODE.cluster, node_setup(NodeConfig(), "saf", tmp_path), NodeConfig())
    assert not any("measured" in line for line in lines)


def test_an_address_that_the_daemon_would_refuse_is_refused_before(tmp_path: Path) -> None:
    setup = node_setup(NodeConfig(), "saf", tmp_path, http="0.0.0.0:8265")
    with pytest.raises(NodeError, match=r"0\.0\.0\.0 can be reached from other machines"):
        check_http(setup.http, tmp_path)
    check_http(node_setup(NodeConfig(), "saf", tmp_path, http="127.0.0.1:8265").http, tmp_path)
    check_http(None, tmp_path)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("{RLIMIT_NOFILES: [1, 2]}", "there is no limit 'RLIMIT_NOFILES' on this system; did you mean 'RLIMIT_NOFILE'"),
        ("{RLIMIT_NOFILE: [5, 2]}", r"soft no more than hard and -1 for none, not \[5, 2\]"),
        ("{RLIMIT_NOFILE: [-1, 2]}", r"not \[-1, 2\]"),
        ("{RLIMIT_NOFILE: [-2, -1]}", r"not \[-2, -1\]"),
    ],
)
def test_limits_that_no_job_could_be_given_are_refused(tmp_path: Path, limits: str, said: str) -> None:
    file = tmp_path / "node.yaml"
    file.write_text(f"jobs: {{rlimits: {limits}}}\n")
    with pytest.raises(ConfigError, match=f"node.yaml:1: jobs.rlimits: .*{said}"):
        read_node_config(file)
    file.write_text("jobs: {rlimits: {RLIMIT_NOFILE: [64, -1], RLIMIT_CORE: [0, 0], RLIMIT_AS: [-1, -1]}}\n")
    assert read_node_config(file).jobs.rlimits["RLIMIT_NOFILE"] == (64, -1)
