"""What a cluster is: its shape, and the protocol that the simulator and a real node share."""

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action
from lepton_rl.core.hardware.gpu_type import GpuType
from lepton_rl.core.hardware.locality import Locality
from lepton_rl.core.physics import power_w
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import ConfigError, counted

NO_SLOWDOWN = Locality()
MAX_TYPES = 50
"""The types that a job may run on are the bits of a float64's whole number."""
MAX_OFFER = 2_000_000
"""Of one thing on one node: its thousandths are an int32."""


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """Equal nodes of one cluster.

    Attributes:
        nodes: how many.
        gpus_per_node: GPUs of each.
        gpu: their type.
        offers: what each node has beside its GPUs: `cpu_cores`, `ram_gib`, or accelerators under any other name. What
            a group does not name is not counted on its nodes.
        racks: racks that the group's nodes stand in, as evenly as they can; groups share no rack.
    """

    nodes: int
    gpus_per_node: int
    gpu: GpuType
    offers: tuple[tuple[str, float], ...] = ()
    racks: int = 1

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.gpus_per_node < 1:
            raise ConfigError(
                f"a group needs at least 1 node and 1 GPU per node, not {self.nodes} x {self.gpus_per_node}"
            )
        if not 1 <= self.racks <= self.nodes:
            raise ConfigError(f"{counted(self.nodes, 'node')} can stand in 1 to {self.nodes} racks, not {self.racks}")
        for name, amount in self.offers:
            if not 0 <= amount <= MAX_OFFER:
                raise ConfigError(f"a node offers 0 to {MAX_OFFER:,} {name}, not {amount:,}")

    @property
    def gpus(self) -> int:
        """Number of GPUs."""
        return self.nodes * self.gpus_per_node

    def __str__(self) -> str:
        return f"{self.nodes} x {self.gpus_per_node} {self.gpu.name}"


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Nodes of identical GPUs, or `groups` of them. One node holding every GPU is a pool without placement constraints.

    Power of a GPU is `idle_power_w + (max_power_w - idle_power_w) * load`; the defaults are an A100 80 GB SXM's
    (NVIDIA A100 datasheet: 80 GB, 400 W; idle draw near 50 W as nvidia-smi reports it).

    Make a cluster of several groups with `of_groups`; the plain figures then are: nodes in all, the most GPUs of a
    node, the most memory of a GPU, and the power of the mean GPU. `reference` is the GPU type that run times are for.
    """

    nodes: int = 1
    gpus_per_node: int = 8
    gpu_memory_gib: float = 80.0
    idle_power_w: float = 50.0
    max_power_w: float = 400.0
    groups: tuple[NodeGroup, ...] = ()
    reference: GpuType | None = None
    locality: Locality = NO_SLOWDOWN

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
    def of_groups(
        cls, groups: tuple[NodeGroup, ...], reference: GpuType | None = None, locality: Locality | None = None
    ) -> "ClusterSpec":
        """Return a cluster of these groups.

        Args:
            groups: in the order in which their nodes are numbered.
            reference: GPU type that run and requested times are for; the first group's if None.
            locality: what spreading a gang over nodes and racks costs; nothing if None.

        Raises:
            ConfigError: there is no group, two types have one name, or there are more types than the tables hold.
        """
        if not groups:
            raise ConfigError("a cluster needs at least one group of nodes")
        types: dict[str, GpuType] = {}
        for group in groups:
            if types.setdefault(group.gpu.name, group.gpu) != group.gpu:
                raise ConfigError(
                    f"two groups have GPUs called {group.gpu.name!r} with different figures; rename one of the types"
                )
        if len(types) > MAX_TYPES:
            raise ConfigError(f"a cluster has at most {MAX_TYPES} types of GPU, not {len(types)}")
        gpus = sum(group.gpus for group in groups)
        return cls(
            nodes=sum(group.nodes for group in groups),
            gpus_per_node=max(group.gpus_per_node for group in groups),
            gpu_memory_gib=max(group.gpu.memory_gib for group in groups),
            idle_power_w=sum(group.gpus * group.gpu.idle_power_w for group in groups) / gpus,
            max_power_w=sum(group.gpus * group.gpu.max_power_w for group in groups) / gpus,
            groups=groups,
            reference=reference or groups[0].gpu,
            locality=locality or NO_SLOWDOWN,
        )

    @classmethod
    def pool(cls, gpus: int) -> "ClusterSpec":
        """Return one pool of `gpus` identical GPUs."""
        return cls(nodes=1, gpus_per_node=gpus)

    @property
    def gpus(self) -> int:
        """Number of GPUs."""
        if self.groups:
            return sum(group.gpus for group in self.groups)
        return self.nodes * self.gpus_per_node

    @property
    def types(self) -> tuple[GpuType, ...]:
        """Types of GPU, each once, in the order of the groups; none on a cluster of identical GPUs."""
        return tuple({group.gpu.name: group.gpu for group in self.groups}.values())

    @property
    def resources(self) -> tuple[str, ...]:
        """Names of what nodes offer beside GPUs, in order of their first mention."""
        return tuple(dict.fromkeys(name for group in self.groups for name, _ in group.offers))

    @property
    def first_gpus(self) -> tuple[int, ...]:
        """First GPU of each node."""
        if not self.groups:
            return tuple(range(0, self.gpus, self.gpus_per_node))
        counts = [group.gpus_per_node for group in self.groups for _ in range(group.nodes)]
        return (0, *accumulate(counts[:-1]))

    def gpu_draw_w(self, load: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the draw of each GPU under its load (0 to 1), `idle + (max - idle) x load` of its type, watts.

        Both of shape (GPUs,).
        """
        if not self.groups:
            return power_w(load, self.max_power_w, self.idle_power_w)
        watts = [(group.gpu.idle_power_w, group.gpu.max_power_w) for group in self.groups]
        idle, most = np.repeat(np.array(watts), [group.gpus for group in self.groups], axis=0).T
        draw: NDArray[np.float64] = idle + (most - idle) * load
        return draw

    @property
    def gpu_memory_mib(self) -> int:
        """MiB of one GPU, rounded up as jobs' figures are: a job that asks for a whole GPU's memory fits."""
        return math.ceil(self.gpu_memory_gib * L.MIB_PER_GIB)

    def __str__(self) -> str:
        if self.groups:
            return " + ".join(str(group) for group in self.groups)
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
