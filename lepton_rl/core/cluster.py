"""What a cluster is: its shape, and the protocol that the simulator and a real node share."""

import math
from dataclasses import dataclass
from typing import Protocol

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Nodes of identical GPUs. One node holding every GPU is a pool without placement constraints.

    Power of a GPU is `idle_power_w + (max_power_w - idle_power_w) * load`; the defaults are an A100 80 GB SXM's
    (NVIDIA A100 datasheet: 80 GB, 400 W; idle draw near 50 W as nvidia-smi reports it).
    """

    nodes: int = 1
    gpus_per_node: int = 8
    gpu_memory_gib: float = 80.0
    idle_power_w: float = 50.0
    max_power_w: float = 400.0

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.gpus_per_node < 1:
            raise ConfigError(
                f"a cluster needs at least 1 node and 1 GPU per node, not {self.nodes} x {self.gpus_per_node}"
            )
        if not self.gpu_memory_gib > 0:
            raise ConfigError(f"gpu_memory_gib must be above 0, not {self.gpu_memory_gib}")
        if not 0 <= self.idle_power_w <= self.max_power_w:
            raise ConfigError(f"power must satisfy 0 <= idle ({self.idle_power_w} W) <= max ({self.max_power_w} W)")

    @classmethod
    def pool(cls, gpus: int) -> "ClusterSpec":
        """Return one pool of `gpus` identical GPUs."""
        return cls(nodes=1, gpus_per_node=gpus)

    @property
    def gpus(self) -> int:
        """Number of GPUs."""
        return self.nodes * self.gpus_per_node

    @property
    def gpu_memory_mib(self) -> int:
        """MiB of one GPU, rounded up as jobs' figures are: a job that asks for a whole GPU's memory fits."""
        return math.ceil(self.gpu_memory_gib * L.MIB_PER_GIB)

    def __str__(self) -> str:
        size = f"{self.gpus_per_node} GPU{'s' if self.gpus_per_node != 1 else ''}"
        return size if self.nodes == 1 else f"{self.nodes} x {size}"


class Cluster(Protocol):
    """Anything that runs jobs on GPUs and asks a policy what to do: the simulator, a node."""

    def advance(self) -> bool:
        """Move to the next decision point, or return False when no job is waiting or running."""

    def snapshot(self) -> Snapshot:
        """Return what a scheduler can know now."""

    def apply(self, action: Action) -> None:
        """Carry the action out.

        Raises:
            IllegalAction: the cluster cannot do it now; nothing has changed.
        """
