"""What an experiment file for a benchmark says."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from lepton_rl.agents.optimum import MOST_JOBS as MOST_SOLVED
from lepton_rl.agents.optimum import Objective
from lepton_rl.experiments.config import MOST_JOBS, ClusterConfig, RunName, Section, WorkloadConfig
from lepton_rl.experiments.loader import Clash, InputPath
from lepton_rl.experiments.policy_config import PolicyConfig
from lepton_rl.experiments.timing_config import TimingSection
from lepton_rl.simulator.packing import PackingPolicy, PackingRules, ShareGpu, Ties
from lepton_rl.simulator.rlscheduler import SCORES

ENOUGH_WINDOWS = 50
"""Fewer windows do not rank policies."""
OPTIMUM = "optimum"
"""What tables call the yardstick."""


def _different_seeds(value: tuple[int, ...]) -> tuple[int, ...]:
    if min(value, default=0) < 0 or len(set(value)) < len(value):
        raise ValueError(f"must be different whole numbers of 0 or more, not {list(value)}")
    return value


Seeds = Annotated[tuple[int, ...], AfterValidator(_different_seeds)]


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
    together: bool = Field(default=False, description="all jobs of a window are submitted with its first")

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


class OptimumConfig(Section):
    """The exact optimum of each window as a yardstick (`agents.optimum`)."""

    objective: Objective = Field(default="mean_jct", description="metric of which the optimum is found")
    limit_s: float = Field(
        default=300.0, gt=0, le=1e7, description="seconds after which a window without a proof is an error"
    )


_Named = TypeVar("_Named", PolicyConfig, BenchmarkWorkload)


class BenchmarkConfig(TimingSection):
    """Policies x workloads x seeds, every policy on the same windows."""

    name: RunName = Field(description="of the run folder")
    description: str = Field(default="", description="one sentence for the report")
    seeds: Seeds = Field(default=(0,), min_length=1, description="of windows, requested times, deadlines and policies")
    workloads: tuple[BenchmarkWorkload, ...] = Field(min_length=1)
    policies: tuple[PolicyConfig, ...] = Field(min_length=1)
    optimum: OptimumConfig | None = Field(
        default=None, description=f"each policy's gap to the optimum of windows of {MOST_SOLVED} jobs or fewer"
    )
    processes: int | None = Field(
        default=None, ge=1, le=1024, description="as many as there are processors if left out"
    )

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

    @model_validator(mode="after")
    def _small_enough(self) -> Self:
        if self.optimum is None:
            return self
        for workload in self.workloads:
            windows = workload.windows
            if windows.span > MOST_SOLVED or windows.span != windows.jobs:
                raise ValueError(
                    f"the optimum is for windows of {MOST_SOLVED} jobs or fewer without warmup and cooldown; "
                    f"{workload.label} has {windows.span}"
                    + (f", {windows.jobs} of them counted" if windows.span != windows.jobs else "")
                )
        if any(policy.label == OPTIMUM for policy in self.policies):
            raise ValueError(f"a policy is called {OPTIMUM!r} beside the optimum; give it another label")
        return self


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


class PodListConfig(Section):
    """A list of pods and the nodes that they are packed onto."""

    pods: InputPath = Field(description="pod list, plain or gzip; data:REST is in the data folder")
    nodes: InputPath = Field(description="node list, plain or gzip")


class FgdConfig(Section):
    """FGD's published evaluation (`simulator.packing`), on any pod list of that form."""

    name: RunName = Field(description="of the run folder")
    protocol: Literal["fgd"] = Field(description="the published rules, kept apart from the normal ones")
    description: str = Field(default="", description="one sentence for the tables")
    workload: PodListConfig
    seeds: Seeds = Field(
        default=tuple(range(42, 52)), min_length=1, description="of the pods' order and copies, the nodes and the draws"
    )
    policies: tuple[PackingPolicy, ...] = Field(default=("random", "best-fit", "fgd"), min_length=1)
    ties: Ties = Field(
        default="order", description="which of equal nodes wins: the first in an order drawn once, or drawn anew"
    )
    share_gpu: ShareGpu = Field(
        default="own", description="GPU for a part of one under random and best-fit: their own choice, or another"
    )
    memory: bool = Field(default=False, description="whether a pod goes only where its memory is free")
    processes: int | None = Field(
        default=None, ge=1, le=1024, description="as many as there are processors if left out"
    )

    @field_validator("policies")
    @classmethod
    def _each_once(cls, value: tuple[PackingPolicy, ...]) -> tuple[PackingPolicy, ...]:
        return tuple(dict.fromkeys(value))

    @property
    def rules(self) -> PackingRules:
        """What the paper leaves open."""
        return PackingRules(self.ties, self.share_gpu, self.memory)


PROTOCOLS: Final[Mapping[str, type[ProtocolConfig] | type[FgdConfig]]] = {
    "rlscheduler": ProtocolConfig,
    "fgd": FgdConfig,
}
"""Published evaluations by the name that a file asks for."""
