"""What an experiment file, or a file of its own, says of a cluster."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import NodeGroup, Tariffs
from lepton_rl.core.hardware import (
    GpuType,
    HourlySeries,
    Locality,
    default_locality,
    gpu_type,
    interference_coefficient,
    make_gpu_type,
)
from lepton_rl.core.hardware.dynamics import (
    Dynamics,
    Faults,
    Interference,
)
from lepton_rl.errors import ConfigError, LeptonError, shown
from lepton_rl.experiments.dynamics_config import FaultsConfig, InterferenceConfig, LocalityConfig, ReservationConfig
from lepton_rl.experiments.loader import InputPath, Section, build_at, or_value_error
from lepton_rl.workloads import Trace, resolve_data_path
from lepton_rl.workloads.tariffs import INTENSITIES, PRICES, read_carbon_intensity, read_electricity_prices

MOST_GPUS = 1_000_000
HOURS_OF_FLAT_TARIFF = 24 * 366 * 20
ONLY_OF_GROUPS = (
    "gpu_types", "reference", "locality", "electricity", "carbon", "first_hour", "interference",
    "inlet_temperature_c", "faults", "reservations",
)  # fmt: skip
NO_ACCELERATORS = ("cpu_cores", "ram_gib", "gpu", "gpus", "gpu_memory_gib")
"""Names of what nodes and GPUs have anyway."""
Price = Annotated[float, Field(ge=PRICES[0], le=PRICES[1])]
Intensity = Annotated[float, Field(ge=INTENSITIES[0], le=INTENSITIES[1])]


class GroupConfig(Section):
    """Equal nodes of a cluster."""

    nodes: int = Field(ge=1, le=MOST_GPUS, description="how many")
    gpus_per_node: int = Field(ge=1, le=MOST_GPUS, description="GPUs of each")
    gpu: str = Field(description="type of GPU: one of `lepton-rl gpus`, or of the file's gpu_types")
    cpu_cores: float | None = Field(
        default=None, ge=0, le=1e6, description="CPU cores of each; not counted if left out"
    )
    ram_gib: float | None = Field(default=None, ge=0, le=2e6, description="RAM of each, GiB; not counted if left out")
    accelerators: dict[str, float] = Field(default_factory=dict, description="others of each, by name: {fpga: 2}")
    racks: int = Field(default=1, ge=1, le=MOST_GPUS, description="racks that the nodes stand in")
    power_limit_w: float | None = Field(default=None, gt=0, le=1e6, description="power limit of each GPU, W")
    rent_usd_per_hour: float | None = Field(
        default=None, ge=0, le=1e6, description="rent of one GPU; the type's own, where it is known, if left out"
    )

    @field_validator("accelerators")
    @classmethod
    def _counts(cls, value: dict[str, float]) -> dict[str, float]:
        for name, count in value.items():
            if name in NO_ACCELERATORS or not name.isidentifier():
                raise ValueError(f"{name!r} is no name of an accelerator; use letters, digits and _, as in fpga")
            if not 0 <= count <= 1e6:
                raise ValueError(f"a node has 0 to 1,000,000 of {name}, not {count:g}")
        return value

    @model_validator(mode="after")
    def _racks_hold_nodes(self) -> Self:
        if self.racks > self.nodes:
            raise ValueError(f"{self.nodes} nodes can stand in 1 to {self.nodes} racks, not {self.racks}")
        return self

    @property
    def offers(self) -> tuple[tuple[str, float], ...]:
        """What each node has beside its GPUs."""
        named = {"cpu_cores": self.cpu_cores, "ram_gib": self.ram_gib, **self.accelerators}
        return tuple((name, amount) for name, amount in named.items() if amount is not None)

    def build(self, own: Mapping[str, GpuType]) -> NodeGroup:
        """Return the group; `own` are the file's types of GPU."""
        kind = _named(self.gpu, own)
        limit, rent = self.power_limit_w, self.rent_usd_per_hour
        return NodeGroup(self.nodes, self.gpus_per_node, kind, self.offers, self.racks, limit, rent)


class ClusterConfig(Section):
    """One pool of identical GPUs (`gpus`), `nodes` of them (with `gpus_per_node`), or `groups` of nodes that differ."""

    gpus: int | None = Field(default=None, ge=1, le=MOST_GPUS, description="GPUs of one pool without nodes")
    nodes: int | None = Field(default=None, ge=1, le=MOST_GPUS, description="nodes")
    gpus_per_node: int | None = Field(default=None, ge=1, le=MOST_GPUS, description="GPUs on each node")
    gpu_memory_gib: float = Field(
        default=ClusterSpec().gpu_memory_gib, gt=0, le=1e6, description="memory of a GPU, GiB"
    )
    idle_power_w: float = Field(default=ClusterSpec().idle_power_w, ge=0, le=1e6, description="power of an idle GPU, W")
    max_power_w: float = Field(default=ClusterSpec().max_power_w, ge=0, le=1e6, description="power of a busy GPU, W")
    groups: tuple[GroupConfig, ...] = Field(default=(), description="nodes that differ, group by group")
    gpu_types: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="figures of GPU types of your own, by their name"
    )
    reference: str | None = Field(
        default=None, description="type of GPU that run times are for; the first group's if left out"
    )
    locality: Literal["none", "measured"] | LocalityConfig = Field(
        default="none", description="what spreading a gang over nodes and racks costs: none, measured, or curves"
    )

    electricity: InputPath | Price | None = Field(
        default=None, description="hourly prices (a file, as docs/hardware.md shows), or one price, USD/MWh"
    )
    carbon: InputPath | Intensity | None = Field(
        default=None, description="hourly carbon intensities (a file), or one intensity, gCO2eq/kWh"
    )
    first_hour: int = Field(
        default=0, ge=0, le=10_000_000, description="hour of these files at which the workload's time 0 lies"
    )

    interference: InterferenceConfig | Literal["measured"] | None = Field(
        default=None, description="slowdown of jobs that share a GPU: measured, or a rule; none if left out"
    )
    inlet_temperature_c: float | None = Field(
        default=None, ge=-50, le=100, description="temperature of the cooling air; heat is not counted if left out"
    )
    faults: FaultsConfig | None = Field(default=None, description="failures and repairs; none if left out")
    reservations: tuple[ReservationConfig, ...] = Field(default=(), description="nodes kept free for a time")

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if self.groups:
            return self._checked_groups()
        for key in ONLY_OF_GROUPS:
            if getattr(self, key) != type(self).model_fields[key].get_default(call_default_factory=True):
                raise ValueError(f"{key}: only a cluster of groups has that")
        if self.gpus is not None and (self.nodes is not None or self.gpus_per_node is not None):
            raise ValueError("give either gpus (one pool) or nodes and gpus_per_node, not both")
        if (self.nodes is None) != (self.gpus_per_node is None):
            raise ValueError("nodes and gpus_per_node belong together")
        if self.idle_power_w > self.max_power_w:
            raise ValueError(
                f"idle_power_w ({self.idle_power_w:g}) must not be above max_power_w ({self.max_power_w:g})"
            )
        if (self.nodes or 1) * (self.gpus_per_node or 1) > MOST_GPUS:
            raise ValueError(f"a cluster has at most {MOST_GPUS:,} GPUs")
        return self

    @property
    def is_size_alone(self) -> bool:
        """Whether only a number of GPUs, or of nodes and GPUs, is named."""
        return self.model_fields_set <= {"gpus", "nodes", "gpus_per_node"}

    def _checked_groups(self) -> Self:
        plain = ("gpus", "nodes", "gpus_per_node", "gpu_memory_gib", "idle_power_w", "max_power_w")
        given = [key for key in plain if key in self.model_fields_set and getattr(self, key) is not None]
        if any(getattr(self, key) != type(self).model_fields[key].default for key in given):
            raise ValueError(f"{', '.join(given)}: a cluster of groups has that from its groups")
        if sum(group.nodes * group.gpus_per_node for group in self.groups) > MOST_GPUS:
            raise ValueError(f"a cluster has at most {MOST_GPUS:,} GPUs")
        or_value_error(lambda: self._of_groups(Tariffs()))  # files are read when they are needed
        return self

    def build(self, trace: Trace | None = None) -> ClusterSpec:
        """Return the cluster; without a size it is one pool of the trace header's MaxNodes, else MaxProcs.

        Raises:
            ConfigError: neither says how large the cluster is.
        """
        if self.groups:
            return self._of_groups(self._tariffs())
        if self.nodes is not None and self.gpus_per_node is not None:
            shape = (self.nodes, self.gpus_per_node)
        else:
            machine = trace.machine if trace is not None else None
            size = self.gpus or (machine and machine.gpus)
            if not size:
                of = f"; {trace.name} {why_no_size(trace)}" if trace is not None else ""
                raise ConfigError(f"the cluster has no size: give gpus, or nodes and gpus_per_node{of}")
            if size > MOST_GPUS:
                raise ConfigError(
                    f"{trace.name if trace else 'the trace'}: its header names more GPUs than the {MOST_GPUS:,} that a "
                    "cluster may have; name the cluster's size yourself"
                )
            shape = (1, size)
        return ClusterSpec(*shape, self.gpu_memory_gib, self.idle_power_w, self.max_power_w)

    def _of_groups(self, tariffs: Tariffs) -> ClusterSpec:
        own = {
            name: build_at(("gpu_types", name), make_gpu_type, name, figures)
            for name, figures in self.gpu_types.items()
        }
        groups = tuple(build_at(("groups", i), group.build, own) for i, group in enumerate(self.groups))
        reference = build_at(("reference",), _named, self.reference, own) if self.reference else None
        if isinstance(self.locality, LocalityConfig):
            locality = self.locality.build()
        else:
            locality = default_locality() if self.locality == "measured" else Locality()
        return ClusterSpec.of_groups(groups, reference, locality, tariffs, self._dynamics(groups))

    def _dynamics(self, groups: Sequence[NodeGroup]) -> Dynamics:
        if self.interference == "measured":
            interference = Interference(interference_coefficient())
        else:
            rule = self.interference
            interference = build_at(("interference",), rule.build) if rule else Interference()
        faults = build_at(("faults",), self.faults.build, groups) if self.faults else Faults()
        inlet = self.inlet_temperature_c
        reservations = tuple(reservation.build() for reservation in self.reservations)
        # What the cluster cannot have is refused part by part, each at its place in the file.
        still = ClusterSpec.of_groups(tuple(groups))
        build_at(("inlet_temperature_c",), still.with_dynamics, Dynamics(inlet_temperature_c=inlet))
        for i, reservation in enumerate(reservations):
            build_at(("reservations", i), still.with_dynamics, Dynamics(reservations=(reservation,)))
        if faults.is_on:  # draws them
            build_at(("faults",), faults.events, still.first_gpus, still.gpus)
        return Dynamics(interference, inlet, faults, reservations)

    def _tariffs(self) -> Tariffs:
        return Tariffs(
            electricity=self._series(self.electricity, read_electricity_prices, "electricity"),
            carbon=self._series(self.carbon, read_carbon_intensity, "carbon"),
        )

    def _series(
        self, given: str | float | None, read: Callable[[Path], HourlySeries], name: str
    ) -> HourlySeries | None:
        if given is None:
            return None
        if isinstance(given, str):
            try:
                series = read(resolve_data_path(given, Path()))
            except LeptonError as error:
                raise ConfigError(f"{name}: {error}") from None
            if self.first_hour >= len(series.values):
                raise ConfigError(
                    f"first_hour: {series.name} has hours 0 to {len(series.values) - 1}, not {self.first_hour}"
                )
            part = f" from hour {self.first_hour} on (first_hour)" if self.first_hour else ""
            return HourlySeries.of(series.values[self.first_hour :], f"{series.name}{part}")
        return HourlySeries.of(np.full(HOURS_OF_FLAT_TARIFF, given), name)


def _named(name: str, own: Mapping[str, GpuType]) -> GpuType:
    return own[name] if name in own else gpu_type(name)


def why_no_size(trace: Trace) -> str:
    """Return, as the end of a sentence that begins with the file, why its header says no size of a cluster."""
    fields = trace.machine.fields if trace.machine else {}
    written = [f"{key}: {fields[key]}" for key in ("MaxNodes", "MaxProcs") if key in fields]
    if written:
        return f"has a header with {' and '.join(map(shown, written))}, which is no number above 0"
    return "has no header that names one (MaxNodes or MaxProcs)"
