"""What a cluster is: its shape, and the protocol that the simulator and a real node share."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action
from lepton_rl.core.hardware.dynamics import (
    NO_DYNAMICS,
    Dynamics,
    Fault,
    Faults,
    Interference,
    Lifetimes,
    Reservation,
)
from lepton_rl.core.hardware.gpu_type import IN_GROUP, GpuType, unknown_gpu_type
from lepton_rl.core.hardware.locality import Locality, SpreadCurve
from lepton_rl.core.hardware.power_limit import PowerCurve
from lepton_rl.core.hardware.tariffs import HourlySeries
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
        power_limit_w: power limit of each GPU, watts; None is the card's own.
        rent_usd_per_hour: of one GPU; None is the type's own, if it is known.
    """

    nodes: int
    gpus_per_node: int
    gpu: GpuType
    offers: tuple[tuple[str, float], ...] = ()
    racks: int = 1
    power_limit_w: float | None = None
    rent_usd_per_hour: float | None = None

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
        if self.power_limit_w is not None:
            self.gpu.checked_power_limit_w(self.power_limit_w)
        if self.rent_usd_per_hour is not None and not 0 <= self.rent_usd_per_hour < math.inf:
            raise ConfigError(f"a rental price must be 0 or more, not {self.rent_usd_per_hour} USD per hour")

    @property
    def gpus(self) -> int:
        """Number of GPUs."""
        return self.nodes * self.gpus_per_node

    def __str__(self) -> str:
        return f"{self.nodes} x {self.gpus_per_node} {self.limited_gpu.name}"

    @property
    def limited_gpu(self) -> GpuType:
        """The type as it runs here: with what the power limit leaves of speed and draw."""
        return self.gpu if self.power_limit_w is None else self.gpu.under_limit(self.power_limit_w)

    @property
    def limit_w(self) -> float:
        """Power limit of each GPU, watts: where none is set, the least that does not bind."""
        if self.power_limit_w is not None:
            return self.power_limit_w
        return max(self.gpu.max_power_w, self.gpu.min_power_limit_w)

    @property
    def rent(self) -> float | None:
        """USD per hour of one GPU."""
        return self.gpu.price_usd_per_hour if self.rent_usd_per_hour is None else self.rent_usd_per_hour


@dataclass(frozen=True, slots=True)
class Tariffs:
    """What energy costs and causes, hour by hour from the workload's time 0.

    Attributes:
        electricity: USD/MWh.
        carbon: gCO2eq/kWh.
    """

    electricity: HourlySeries | None = None
    carbon: HourlySeries | None = None


NO_TARIFFS = Tariffs()


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
    tariffs: Tariffs = NO_TARIFFS
    dynamics: Dynamics = NO_DYNAMICS
    names_types: bool = True  # False where identical GPUs are one group: no job can ask for their type

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.gpus_per_node < 1:
            raise ConfigError(
                f"a cluster needs at least 1 node and 1 GPU per node, not {self.nodes} x {self.gpus_per_node}"
            )
        if self.dynamics != NO_DYNAMICS and not self.groups:
            raise ConfigError("what changes on a cluster of identical GPUs is given by ClusterSpec.with_dynamics")
        if not self.gpu_memory_gib > 0:
            raise ConfigError(f"gpu_memory_gib must be above 0, not {self.gpu_memory_gib}")
        if not 0 <= self.idle_power_w <= self.max_power_w:
            raise ConfigError(f"power must satisfy 0 <= idle ({self.idle_power_w} W) <= max ({self.max_power_w} W)")

    @classmethod
    def of_groups(
        cls,
        groups: tuple[NodeGroup, ...],
        reference: GpuType | None = None,
        locality: Locality | None = None,
        tariffs: Tariffs | None = None,
        dynamics: Dynamics = NO_DYNAMICS,
    ) -> "ClusterSpec":
        """Return a cluster of these groups.

        Args:
            groups: in the order in which their nodes are numbered.
            reference: GPU type that run and requested times are for; the first group's if None.
            locality: what spreading a gang over nodes and racks costs; nothing if None.
            tariffs: price and carbon of electricity; unknown if None.
            dynamics: what may change while jobs run.

        Raises:
            ConfigError: there is no group, two types have one name, there are more types than the tables hold, a
                reservation names a node that is not there, or the cooling air is too hot for a type.
        """
        if not groups:
            raise ConfigError("a cluster needs at least one group of nodes")
        types: dict[str, GpuType] = {}
        for group in groups:
            kind = group.limited_gpu
            if types.setdefault(kind.name, kind) != kind:
                raise ConfigError(
                    f"two groups have GPUs called {kind.name!r} with different figures; rename one of the types"
                )
        if len(types) > MAX_TYPES:
            raise ConfigError(f"a cluster has at most {MAX_TYPES} types of GPU, not {len(types)}")
        gpus = sum(group.gpus for group in groups)
        _check_dynamics(dynamics, groups)
        return cls(
            nodes=sum(group.nodes for group in groups),
            gpus_per_node=max(group.gpus_per_node for group in groups),
            gpu_memory_gib=max(group.gpu.memory_gib for group in groups),
            idle_power_w=sum(group.gpus * group.limited_gpu.idle_power_w for group in groups) / gpus,
            max_power_w=sum(group.gpus * group.limited_gpu.max_power_w for group in groups) / gpus,
            groups=groups,
            reference=reference or groups[0].gpu,
            locality=locality or NO_SLOWDOWN,
            tariffs=tariffs or NO_TARIFFS,
            dynamics=dynamics,
        )

    def in_groups(self) -> "ClusterSpec":
        """Return the same cluster as groups: identical GPUs as one group of a type of their own."""
        if self.groups:
            return self
        most = max(self.max_power_w, 1e-6)
        kind = unknown_gpu_type("GPU", self.gpu_memory_gib, min(self.idle_power_w, most), most)
        group = NodeGroup(self.nodes, self.gpus_per_node, kind)
        return replace(ClusterSpec.of_groups((group,), tariffs=self.tariffs), names_types=False)

    def with_groups_apart(self) -> "ClusterSpec":
        """Return the cluster with a type of GPU for each group, in their order: equal cards get a name by group.

        Raises:
            ConfigError: there are more groups than the tables hold types.
        """
        names = [group.limited_gpu.name for group in self.groups]
        if len(set(names)) == len(names):
            return self
        if len(names) > MAX_TYPES:
            raise ConfigError(f"at most {MAX_TYPES} groups of nodes can be told apart, not {len(names)}")
        groups = [
            group if names.count(name) == 1
            else replace(group, gpu=replace(group.gpu, name=f"{group.gpu.name}{IN_GROUP}{number}"))
            for number, (group, name) in enumerate(zip(self.groups, names, strict=True), 1)
        ]  # fmt: skip
        return replace(self, groups=tuple(groups))

    def with_dynamics(self, dynamics: Dynamics) -> "ClusterSpec":
        """Return the cluster, in groups, with this that may change while jobs run.

        Raises:
            ConfigError: a reservation names a node that is not there, heat is to be counted of GPUs without a type, or
                the cooling air is too hot for one.
        """
        if dynamics.inlet_temperature_c is not None and not self.groups:
            raise ConfigError("heat can be counted only where GPUs are of a type: give the cluster as groups")
        grouped = self.in_groups()
        _check_dynamics(dynamics, grouped.groups)
        return replace(grouped, dynamics=dynamics)

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
        """Types of GPU, each once for each power limit, in the order of the groups; none where GPUs are identical."""
        return tuple({group.limited_gpu.name: group.limited_gpu for group in self.groups}.values())

    @property
    def rent_usd_per_hour(self) -> float | None:
        """Rent of all GPUs; None where that of a group is not known."""
        rents = [(group.gpus, group.rent) for group in self.groups]
        known = [count * price for count, price in rents if price is not None]
        return sum(known) if rents and len(known) == len(rents) else None

    @property
    def resources(self) -> tuple[str, ...]:
        """Names of what nodes offer beside GPUs, in order of their first mention."""
        return tuple(dict.fromkeys(name for group in self.groups for name, _ in group.offers))

    def group_of(self, gpu: int) -> NodeGroup:
        """Return the group of a GPU of a cluster of groups."""
        behind = 0
        for group in self.groups:
            behind += group.gpus
            if gpu < behind:
                return group
        raise ConfigError(f"there is no GPU {gpu}; the cluster has {self.gpus}")

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
        watts = [(group.limited_gpu.idle_power_w, group.limited_gpu.max_power_w) for group in self.groups]
        idle, most = np.repeat(np.array(watts), [group.gpus for group in self.groups], axis=0).T
        draw: NDArray[np.float64] = idle + (most - idle) * load
        return draw

    @property
    def gpu_memory_mib(self) -> int:
        """MiB of one GPU, rounded up as jobs' figures are: a job that asks for a whole GPU's memory fits."""
        return math.ceil(self.gpu_memory_gib * L.MIB_PER_GIB)

    def __str__(self) -> str:
        if self.groups and self.names_types:
            return " + ".join(str(group) for group in self.groups)
        size = f"{self.gpus_per_node} GPU{'s' if self.gpus_per_node != 1 else ''}"
        return size if self.nodes == 1 else f"{self.nodes} x {size}"


def _check_dynamics(dynamics: Dynamics, groups: tuple[NodeGroup, ...]) -> None:
    """Refuse what these groups cannot have."""
    nodes = sum(group.nodes for group in groups)
    for reservation in dynamics.reservations:
        for node in reservation.nodes:
            if not 0 <= node < nodes:
                raise ConfigError(f"a reservation names node {node}; the cluster has nodes 0 to {nodes - 1}")
    inlet = dynamics.inlet_temperature_c
    if inlet is None:
        return
    for group in groups:
        gpu = group.gpu
        needed = max(gpu.power_curve.floor_w, gpu.idle_power_w)
        hottest = gpu.throttle_temperature_c - gpu.thermal_resistance_c_per_w * needed
        if not -50 <= inlet < hottest:
            raise ConfigError(
                f"{gpu.name} runs in cooling air of -50 to {hottest:.0f} degrees Celsius, not {inlet:g}: at its "
                f"throttle temperature of {gpu.throttle_temperature_c:g} it must still draw more than {needed:.0f} W"
            )


def describe_cluster(cluster: ClusterSpec) -> dict[str, Any]:
    """Return a cluster as plain data, for a bundle; tariffs, which no bundle reads, are left out."""
    plain = asdict(replace(cluster, tariffs=NO_TARIFFS))
    names = ("nodes", "gpus_per_node", "gpu_memory_gib", "idle_power_w", "max_power_w")
    if not cluster.groups:
        return {name: plain[name] for name in names}
    described = {name: plain[name] for name in ("groups", "reference", "locality")}
    if cluster.dynamics != NO_DYNAMICS:
        described["dynamics"] = plain["dynamics"]
    if not cluster.names_types:
        described["names_types"] = False
    return described


def cluster_from_description(data: Mapping[str, Any]) -> ClusterSpec:
    """Return the cluster that `describe_cluster` described."""
    if "groups" not in data:
        return ClusterSpec(**data)
    groups = tuple(
        NodeGroup(
            **{
                **group,
                "gpu": _gpu_type(group["gpu"]),
                "offers": tuple((str(name), float(amount)) for name, amount in group["offers"]),
            }
        )
        for group in data["groups"]
    )
    curves = (
        SpreadCurve(tuple(data["locality"][key]["counts"]), tuple(data["locality"][key]["slowdowns"]))
        for key in ("nodes", "racks")
    )
    dynamics = _dynamics(data["dynamics"]) if "dynamics" in data else NO_DYNAMICS
    built = ClusterSpec.of_groups(groups, _gpu_type(data["reference"]), Locality(*curves), dynamics=dynamics)
    return replace(built, names_types=data.get("names_types", True))


def _dynamics(data: Mapping[str, Any]) -> Dynamics:
    faults = dict(data["faults"])
    for unit in ("gpu", "node"):
        faults[unit] = Lifetimes(**faults[unit]) if faults[unit] else None
    faults["schedule"] = tuple(Fault(**fault) for fault in faults["schedule"])
    sharing = data["interference"]
    return Dynamics(
        interference=Interference(sharing["coefficient"], tuple((a, b, t) for a, b, t in sharing["pairs"])),
        inlet_temperature_c=data["inlet_temperature_c"],
        faults=Faults(**faults),
        reservations=tuple(Reservation(r["begin_s"], r["end_s"], tuple(r["nodes"])) for r in data["reservations"]),
    )


def _gpu_type(data: Mapping[str, Any]) -> GpuType:
    return GpuType(**{**data, "power_curve": PowerCurve(**data["power_curve"])})


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
