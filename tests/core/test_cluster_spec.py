"""The shape of a cluster, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import gpu_type
from lepton_rl.core.hardware.dynamics import Dynamics, Reservation
from lepton_rl.errors import ConfigError


def test_a_pool_is_one_node() -> None:
    pool = ClusterSpec.pool(512)
    assert (pool.nodes, pool.gpus_per_node, pool.gpus) == (1, 512, 512)
    assert str(pool) == "512 GPUs"
    assert str(ClusterSpec(64, 8)) == "64 x 8 GPUs"
    assert ClusterSpec(64, 8).gpus == 512


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"nodes": 0}, "at least 1 node and 1 GPU per node, not 0 x 8"),
        ({"gpus_per_node": -1}, "not 1 x -1"),
        ({"gpu_memory_gib": 0.0}, "gpu_memory_gib must be above 0, not 0.0"),
        ({"gpu_memory_gib": float("nan")}, "gpu_memory_gib must be above 0"),
        ({"idle_power_w": 500.0}, r"0 <= idle \(500.0 W\) <= max \(400.0 W\)"),
        ({"idle_power_w": -1.0}, "0 <= idle"),
    ],
)
def test_impossible_clusters_are_refused(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ClusterSpec(**settings)  # type: ignore[arg-type]


def test_two_types_of_one_name_are_refused() -> None:
    mine, theirs = gpu_type("T4"), replace(gpu_type("T4"), memory_gib=15.0)
    with pytest.raises(ConfigError, match="two groups have GPUs called 'T4' with different figures"):
        ClusterSpec.of_groups((NodeGroup(1, 1, mine), NodeGroup(1, 1, theirs)))
    assert len(ClusterSpec.of_groups((NodeGroup(1, 1, mine), NodeGroup(2, 1, mine))).types) == 1


@pytest.mark.parametrize(("amount", "written"), [(-1.0, "-1.0"), (float("nan"), "nan"), (3e6, "3,000,000.0")])
def test_a_node_offers_what_can_be_counted(amount: float, written: str) -> None:
    with pytest.raises(ConfigError, match=f"a node offers 0 to 2,000,000 ram_mib, not {written}"):
        NodeGroup(1, 1, gpu_type("T4"), (("ram_mib", amount),))


def test_each_gpu_draws_what_its_type_does() -> None:
    cluster = ClusterSpec.of_groups((NodeGroup(2, 1, gpu_type("T4")), NodeGroup(1, 2, gpu_type("H100-SXM5"))))
    # T4: 10.8 W idle, 70 W at most; H100 SXM5: 72 W and 700 W.
    assert cluster.gpu_draw_w(np.array([0.0, 1.0, 0.5, 1.0])) == pytest.approx([10.8, 70.0, 386.0, 700.0])
    assert ClusterSpec.pool(2).gpu_draw_w(np.array([0.0, 0.5])) == pytest.approx([50.0, 225.0])


def test_identical_gpus_are_called_alike_whether_or_not_something_changes() -> None:
    dynamics = Dynamics(reservations=(Reservation(5, 9, (0,)),))
    for plain, name in ((ClusterSpec(1, 8), "8 GPUs"), (ClusterSpec(2, 1), "2 x 1 GPU")):
        assert str(plain) == str(plain.with_dynamics(dynamics)) == name
