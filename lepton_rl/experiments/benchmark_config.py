"""What an experiment file for a benchmark says."""

from typing import Literal, Self, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from lepton_rl.experiments.config import MOST_JOBS, ClusterConfig, RunName, Section, WorkloadConfig
from lepton_rl.experiments.loader import Clash
from lepton_rl.experiments.policy_config import PolicyConfig
from lepton_rl.simulator import Timing
from lepton_rl.simulator.rlscheduler import SCORES
from lepton_rl.simulator.rules import MOST_PREEMPTION_COST

ENOUGH_WINDOWS = 50
"""Fewer windows do not rank policies."""


class WindowsConfig(Section):
    """The parts of a workload that every policy runs, one by one."""

    kind: Literal["disjoint", "independent", "overlapping"] = Field(
        description="disjoint: counted jobs one after the other through a trace; independent: each generated "
        "anew; overlapping: random starts in a trace, means without intervals"
    )
    count: int = Field(ENOUGH_WINDOWS, ge=1, le=100_000, description="windows for each seed")
    jobs: int = Field(default=1024, ge=1, le=MOST_JOBS, description="counted jobs in each")
    warmup: int = Field(default=0, ge=0, le=MOST_JOBS, description="jobs before them, which the policy runs too")
    cooldown: int = Field(
        default=0, ge=0, le=MOST_JOBS, description="jobs after them, so that the counted ones do not see the end"
    )

    @property
    def span(self) -> int:
        """Jobs of a window in all."""
        return self.warmup + self.jobs + self.cooldown


class BenchmarkWorkload(WorkloadConfig):
    """A workload, the cluster that it runs on, and the windows of it."""

    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    windows: WindowsConfig

    @model_validator(mode="after")
    def _windows_from_source(self) -> Self:
        if self.windows.kind == "independent" and not self.is_generated:
            raise ValueError("independent windows need a generator; a file has disjoint or overlapping ones")
        return self


_Named = TypeVar("_Named", PolicyConfig, BenchmarkWorkload)


class BenchmarkConfig(Section):
    """Policies x workloads x seeds, every policy on the same windows."""

    name: RunName = Field(description="of the run folder")
    description: str = Field(default="", description="one sentence for the report")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="of windows, requested times and policies")
    workloads: tuple[BenchmarkWorkload, ...] = Field(min_length=1)
    policies: tuple[PolicyConfig, ...] = Field(min_length=1)
    preemption_cost: float = Field(
        default=0.0, ge=0, le=MOST_PREEMPTION_COST, description="seconds that a preemption adds"
    )
    quantum: float = Field(default=0.0, ge=0, description="seconds before a run may be preempted")
    processes: int | None = Field(
        default=None, ge=1, le=1024, description="as many as there are processors if left out"
    )

    @field_validator("seeds")
    @classmethod
    def _different_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 0 or len(set(value)) < len(value):
            raise ValueError(f"must be different whole numbers of 0 or more, not {list(value)}")
        return value

    @field_validator("policies", "workloads")
    @classmethod
    def _different_names(cls, value: tuple[_Named, ...], info: ValidationInfo) -> tuple[_Named, ...]:
        names = [entry.label for entry in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            key = "label" if info.field_name == "policies" else "name"
            raise Clash(
                f"two {info.field_name} are called {twice!r}; give one of them another {key}",
                [index for index, name in enumerate(names) if name == twice],
            )
        return value

    @property
    def timing(self) -> Timing:
        """What a preemption costs."""
        return Timing(self.preemption_cost, self.quantum)


class ProtocolConfig(Section):
    """RLScheduler's published evaluation (`simulator.rlscheduler`), on any SWF trace."""

    name: RunName = Field(description="of the run folder")
    protocol: Literal["rlscheduler"] = Field(description="the published rules, kept apart from the normal ones")
    description: str = Field(default="", description="one sentence for the report")
    workload: WorkloadConfig
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    seed: int = Field(default=1, ge=0, description="of the window starts, as the published program draws them")
    window: int = Field(default=1024, ge=1, le=MOST_JOBS, description="jobs of a window")
    iterations: int = Field(default=10, ge=1, le=10_000, description="windows")
    policies: tuple[str, ...] = Field(
        default=("fcfs", "wfp3", "unicep", "sjf", "f1"), description="under the published rules"
    )
    repick_policies: tuple[str, ...] = Field(
        default=("fcfs", "wfp3", "unicep", "sjf", "f1", "saf", "smallest"),
        description="with the head chosen anew at each event",
    )
    processes: int | None = Field(
        default=None, ge=1, le=1024, description="as many as there are processors if left out"
    )

    @field_validator("policies", "repick_policies")
    @classmethod
    def _known_scores(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = next((name for name in value if name not in SCORES), None)
        if unknown is not None:
            raise ValueError(f"the published program has no policy {unknown!r}; it has {', '.join(SCORES)}")
        return tuple(dict.fromkeys(value))
