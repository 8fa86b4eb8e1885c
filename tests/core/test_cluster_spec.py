"""The shape of a cluster, and what is refused."""

import pytest

from lepton_rl.core import ClusterSpec
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
