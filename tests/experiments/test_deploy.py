"""What is said of a policy before it decides on a node."""

from pathlib import Path

import pytest

from lepton_rl.agents import make_policy
from lepton_rl.devices.device import DeviceIdentity
from lepton_rl.experiments.deploy import check_policy, node_setup, preempts
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
