"""Environments whose actions choose more than a job, on a small cluster of three types of GPU where none is given."""

from dataclasses import replace
from functools import cache
from typing import Any

from lepton_rl.core.cluster import ClusterSpec, NodeGroup
from lepton_rl.core.hardware import gpu_type
from lepton_rl.envs.codec import Codec
from lepton_rl.envs.scheduling import SchedulingEnv
from lepton_rl.envs.vector import SchedulingVectorEnv


@cache
def mixed_cluster() -> ClusterSpec:
    """Return 2 nodes of 8 A100, 2 of 4 V100 and 2 of 2 T4."""
    return ClusterSpec.of_groups(
        (
            NodeGroup(2, 8, gpu_type("A100-SXM4-80GB")),
            NodeGroup(2, 4, gpu_type("V100-SXM2-32GB")),
            NodeGroup(2, 2, gpu_type("T4")),
        )
    )


def _arguments(actions: str, codec: Codec | None, cluster: ClusterSpec | None) -> dict[str, Any]:
    return {"codec": replace(codec or Codec(), actions=actions), "cluster": cluster or mixed_cluster()}


def placement_env(codec: Codec | None = None, cluster: ClusterSpec | None = None, **settings: Any) -> SchedulingEnv:
    """Return `lepton_rl/SchedulingPlacement-v0`: an action chooses a job and the group of nodes that it goes to."""
    return SchedulingEnv(**_arguments("placement", codec, cluster), **settings)


def placement_vector_env(
    num_envs: int = 64, codec: Codec | None = None, cluster: ClusterSpec | None = None, **settings: Any
) -> SchedulingVectorEnv:
    """Return the vector form of `lepton_rl/SchedulingPlacement-v0`."""
    return SchedulingVectorEnv(num_envs, **_arguments("placement", codec, cluster), **settings)


def preemptive_env(codec: Codec | None = None, cluster: ClusterSpec | None = None, **settings: Any) -> SchedulingEnv:
    """Return `lepton_rl/SchedulingPreemptive-v0`: an action starts a job in a group, or preempts or moves one."""
    return SchedulingEnv(**_arguments("preemptive", codec, cluster), **settings)


def preemptive_vector_env(
    num_envs: int = 64, codec: Codec | None = None, cluster: ClusterSpec | None = None, **settings: Any
) -> SchedulingVectorEnv:
    """Return the vector form of `lepton_rl/SchedulingPreemptive-v0`."""
    return SchedulingVectorEnv(num_envs, **_arguments("preemptive", codec, cluster), **settings)


def power_env(codec: Codec | None = None, cluster: ClusterSpec | None = None, **settings: Any) -> SchedulingEnv:
    """Return `lepton_rl/SchedulingPower-v0`: an action chooses a job and the power limit of its GPUs."""
    return SchedulingEnv(**_arguments("power", codec, cluster), **settings)


def power_vector_env(
    num_envs: int = 64, codec: Codec | None = None, cluster: ClusterSpec | None = None, **settings: Any
) -> SchedulingVectorEnv:
    """Return the vector form of `lepton_rl/SchedulingPower-v0`."""
    return SchedulingVectorEnv(num_envs, **_arguments("power", codec, cluster), **settings)
