"""What a cluster's file says of what changes while jobs run: locality, interference, failures, reservations."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import (
    Locality,
    SpreadCurve,
)
from lepton_rl.core.hardware.dynamics import (
    MOST_SECONDS,
    Fault,
    Faults,
    Interference,
    Lifetimes,
    Reservation,
)
from lepton_rl.core.hardware.interference import slowdowns_by_class
from lepton_rl.core.hardware.speed import known_job_class
from lepton_rl.errors import ConfigError
from lepton_rl.experiments.loader import InputPath, Section, build_at, or_value_error
from lepton_rl.workloads import resolve_data_path
from lepton_rl.workloads.pairs import read_pair_table

Seconds = Annotated[float, Field(ge=0, le=1e9)]


class CurveConfig(Section):
    """Slowdown against a count: linear between the points, constant after the last."""

    counts: tuple[int, ...] = Field(description="rising, from 1")
    slowdowns: tuple[float, ...] = Field(description="as many; the first is 1, none is below it")

    @model_validator(mode="after")
    def _is_curve(self) -> Self:
        or_value_error(self.build)
        return self

    def build(self) -> SpreadCurve:
        """Return the curve."""
        return SpreadCurve(self.counts, self.slowdowns)


class LocalityConfig(Section):
    """What spreading a gang costs."""

    nodes: CurveConfig | None = Field(default=None, description="by the nodes that it spans; nothing if left out")
    racks: CurveConfig | None = Field(default=None, description="by the racks that it spans; nothing if left out")

    def build(self) -> Locality:
        """Return the two curves."""
        curves = [SpreadCurve() if curve is None else curve.build() for curve in (self.nodes, self.racks)]
        return Locality(*curves)


class InterferenceConfig(Section):
    """What shares of one GPU do to each other."""

    coefficient: float = Field(default=0.0, ge=0, le=1e3, description="c of the slowdown 1 + c u v of a share")
    pairs: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="slowdown of one class of job beside another: {vision: {language: 1.3}}"
    )
    table: InputPath | None = Field(default=None, description="or a file of measured pairs, as docs/hardware.md shows")
    classes: dict[str, str] = Field(
        default_factory=dict,
        description="class of job by how names in the table begin: {ResNet: vision, LSTM: language}",
    )

    def build(self) -> Interference:
        """Return the rule; the table is read."""
        if self.table is not None:
            measured = build_at(("table",), read_pair_table, resolve_data_path(self.table, Path()))
            return Interference(pairs=build_at(("classes",), slowdowns_by_class, measured, self.classes))
        pairs = [(name, other, value) for name, row in self.pairs.items() for other, value in row.items()]
        return Interference(self.coefficient, tuple(pairs))

    @model_validator(mode="after")
    def _is_rule(self) -> Self:
        ways = (self.coefficient > 0, bool(self.pairs), self.table is not None)
        if sum(ways) > 1:
            raise ValueError("interference is a coefficient, pairs or a table, not several of them")
        if (self.table is None) != (not self.classes):
            raise ValueError("a table and classes belong together: classes says which class a name in the table is")
        for name in self.classes.values():
            or_value_error(partial(known_job_class, name))
        if self.table is None:
            or_value_error(self.build)
        return self


class LifetimesConfig(Section):
    """How long GPUs or nodes are up and down."""

    mtbf_hours: float = Field(gt=0, le=1e9, description="mean time up")
    repair_hours: float = Field(gt=0, le=1e6, description="mean time down")
    shape: float = Field(default=1.0, ge=0.1, le=20, description="Weibull shape of the time up; 1 is exponential")

    def build(self) -> Lifetimes:
        """Return the distributions."""
        return Lifetimes(self.mtbf_hours, self.repair_hours, self.shape)


class OutageConfig(Section):
    """One failure at a known time."""

    down_s: Seconds = Field(description="from this second of the workload")
    up_s: Seconds = Field(description="to before this one")
    gpus: tuple[int, int] | None = Field(default=None, description="first and last GPU that go down")
    node: int | None = Field(default=None, ge=0, description="or the node")

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.gpus is None) == (self.node is None):
            raise ValueError("an outage names either gpus: [first, last] or a node")
        if not self.down_s < self.up_s:
            raise ValueError(f"an outage ends after it begins, not at {self.up_s:g} s after {self.down_s:g} s")
        if self.gpus is not None and not 0 <= self.gpus[0] <= self.gpus[1]:
            raise ValueError(f"gpus are [first, last], from 0 on, not {list(self.gpus)}")
        return self

    def build(self, groups: Sequence[NodeGroup]) -> tuple[Fault, Fault]:
        """Return the failure and the repair."""
        total = sum(group.gpus for group in groups)
        if self.gpus is not None:
            first, count = self.gpus[0], self.gpus[1] - self.gpus[0] + 1
            if self.gpus[1] >= total:
                raise ConfigError(f"there is no GPU {self.gpus[1]}; the cluster has GPUs 0 to {total - 1}")
        else:
            sizes = [group.gpus_per_node for group in groups for _ in range(group.nodes)]
            node = self.node or 0
            if node >= len(sizes):
                raise ConfigError(f"there is no node {node}; the cluster has nodes 0 to {len(sizes) - 1}")
            first, count = sum(sizes[:node]), sizes[node]
        return Fault(self.down_s, first, count, True), Fault(self.up_s, first, count, False)


class FaultsConfig(Section):
    """Failures and repairs, and what a struck job keeps."""

    gpu: LifetimesConfig | None = Field(default=None, description="of single GPUs")
    node: LifetimesConfig | None = Field(default=None, description="of nodes")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of what is drawn")
    until_hours: float = Field(default=8760, ge=0, le=1e6, description="hour of the workload from which nothing fails")
    outages: tuple[OutageConfig, ...] = Field(default=(), description="failures at known times")
    checkpoint_interval_s: Seconds = Field(default=0.0, description="service between checkpoints, s; 0 for none")
    checkpoint_cost_s: Seconds = Field(default=0.0, description="what a checkpoint takes, s")
    restart_cost_s: Seconds = Field(default=0.0, description="what a struck job owes when it starts again, s")

    def build(self, groups: Sequence[NodeGroup]) -> Faults:
        """Return the failures."""
        outages = [build_at(("outages", i), outage.build, groups) for i, outage in enumerate(self.outages)]
        return Faults(
            gpu=self.gpu.build() if self.gpu else None,
            node=self.node.build() if self.node else None,
            seed=self.seed,
            until_hours=self.until_hours,
            schedule=tuple(event for outage in outages for event in outage),
            checkpoint_interval_s=self.checkpoint_interval_s,
            checkpoint_cost_s=self.checkpoint_cost_s,
            restart_cost_s=self.restart_cost_s,
        )


class ReservationConfig(Section):
    """Nodes that are kept free of jobs for a time."""

    begin_s: int = Field(ge=0, le=MOST_SECONDS, description="from this second of the workload")
    end_s: int = Field(ge=0, le=MOST_SECONDS, description="to before this one")
    nodes: tuple[Annotated[int, Field(ge=0)], ...] = Field(description="numbers of nodes, from 0")

    def build(self) -> Reservation:
        """Return the reservation."""
        return Reservation(self.begin_s, self.end_s, tuple(sorted(set(self.nodes))))

    @model_validator(mode="after")
    def _is_reservation(self) -> Self:
        or_value_error(self.build)
        return self
