"""The parts that experiment files share: workloads and clusters."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from pydantic import AfterValidator, Field, field_validator, model_validator

from lepton_rl.errors import ConfigError, TraceError, nearest
from lepton_rl.experiments.cluster_config import MOST_GPUS, ClusterConfig
from lepton_rl.experiments.loader import InputPath, Section, load, or_value_error, resolved_yaml
from lepton_rl.workloads import (
    FORMATS,
    LUBLIN_256,
    LUBLIN_256_LOAD,
    GpuClusterParameters,
    LublinParameters,
    Trace,
    gpu_cluster,
    lublin,
    read_trace,
    resolve_data_path,
)
from lepton_rl.workloads.columns import MAX_SECONDS
from lepton_rl.workloads.deadlines import GAVEL_FACTORS, MultipleOf, check_factors
from lepton_rl.workloads.requested import check_mode

Seed = int | np.random.SeedSequence
Purpose = Literal["training", "validation", "evaluation", "windows", "learner"]
__all__ = [
    "ClusterConfig",
    "Purpose",
    "RunName",
    "Section",
    "Seed",
    "WorkloadConfig",
    "load",
    "resolved_yaml",
    "seed_for",
]

MOST_JOBS = 100_000_000
_GENERATOR_KEYS = ("gpus", "jobs", "load", "parameters", "seed")
_PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def _as_run_name(value: str) -> str:
    if not re.fullmatch(r"\w[\w.-]{0,99}", value):
        raise ValueError(
            f"must be 1 to 100 letters, digits, '.', '_' and '-', and not begin with '.' or '-', not {value!r}"
        )
    return value


RunName = Annotated[str, AfterValidator(_as_run_name)]
"""Name of an experiment, which is also the name of its run folder."""


def seed_for(root: int, purpose: Purpose, *indices: int) -> np.random.SeedSequence:
    """Return the seed for one purpose: no two purposes or indices share their random numbers.

    The first three are generated workloads, "windows" draws the held-out windows, "learner" is all that SB3 draws.
    """
    return np.random.SeedSequence(root, spawn_key=(_PURPOSES.index(purpose), *indices))


class DeadlinesConfig(Section):
    """Deadlines that are drawn (`workloads.deadlines`), in place of those that a file has."""

    factors: tuple[float, float] = Field(
        default=GAVEL_FACTORS, description="seconds from submission to deadline over `of`, uniform between these"
    )
    of: MultipleOf = Field(default="run_time", description="what the factors multiply")
    least_slack: float = Field(
        default=0.0, ge=0, le=MAX_SECONDS, description="seconds that a deadline leaves at least beyond `of`"
    )
    share: float = Field(default=1.0, gt=0, le=1, description="part of the jobs that have a deadline")

    @field_validator("factors")
    @classmethod
    def _factors_in_bounds(cls, value: tuple[float, float]) -> tuple[float, float]:
        or_value_error(lambda: check_factors(value))
        return value


class WorkloadConfig(Section):
    """Jobs from a file or from a generator."""

    name: str | None = Field(default=None, description="for tables; the file's or the generator's name if left out")
    path: InputPath | None = Field(
        default=None, description="trace file, plain or gzip; data:REST is in the data folder"
    )
    format: str | None = Field(default=None, description="format of the file; seen from the content if left out")
    skip: int = Field(default=0, ge=0, le=10**12, description="this many first jobs of the file are left out")
    limit: int | None = Field(default=None, ge=1, description="jobs that are read, counted after `skip`")
    part: tuple[float, float] = Field(default=(0.0, 1.0), description="part of the jobs that is used, e.g. [0.7, 1.0]")
    generator: Literal["lublin", "lublin_256", "gpu_cluster"] | None = Field(
        default=None, description="synthetic jobs instead of a file"
    )
    gpus: int | None = Field(
        default=None, ge=1, le=MOST_GPUS, description="GPUs (processors) of the machine that jobs are generated for"
    )
    jobs: int = Field(default=10_000, ge=1, le=MOST_JOBS, description="jobs that are generated")
    load: float | None = Field(
        default=None,
        ge=1e-6,
        le=1000,
        description="offered load of the generated jobs; 0.9 for gpu_cluster, else the model's own",
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="the generator's other parameters")
    seed: int | None = Field(default=None, ge=0, description="of the generator; the experiment's if left out")
    requested: str = Field(default="given", description="requested times: given, exact, noisy:SIGMA, tsafrir or absent")
    deadlines: DeadlinesConfig | None = Field(
        default=None, description="deadlines to draw, e.g. {factors: [1.2, 10]}; as in the file if left out"
    )
    scale_load: float = Field(default=1.0, ge=1e-6, le=1e6, description="arrival gaps are divided by this")

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str | None) -> str | None:
        if value is not None and value not in FORMATS:
            raise ValueError(
                f"no trace format is called {value!r}{nearest(value, FORMATS)}; known: {', '.join(FORMATS)}"
            )
        return value

    @field_validator("part")
    @classmethod
    def _ordered_part(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 <= value[0] < value[1] <= 1.0:
            raise ValueError(f"must be two numbers with 0 <= first < second <= 1, not {list(value)}")
        return value

    @field_validator("requested")
    @classmethod
    def _known_mode(cls, value: str) -> str:
        or_value_error(lambda: check_mode(value))
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.generator is None):
            raise ValueError("a workload needs either a path or a generator, and not both")
        if self.generator is None:
            wrong = [key for key in _GENERATOR_KEYS if getattr(self, key) != _default(type(self), key)]
            if wrong:
                raise ValueError(f"{', '.join(wrong)}: only a generator has that; a file has limit and scale_load")
        elif self.generator == "lublin_256" and (self.gpus not in (None, 256) or self.parameters):
            raise ValueError("lublin_256 has 256 processors and its own parameters; use generator: lublin for others")
        elif self.generator != "lublin_256" and self.gpus is None:
            raise ValueError(f"generator {self.generator} needs gpus: the size of the machine")
        else:
            or_value_error(lambda: self._generator_parameters)
        return self

    @property
    def label(self) -> str:
        """Name in tables."""
        if self.name is not None:
            return self.name
        if self.path is not None:
            stem = self.path.rsplit("/", 1)[-1].rsplit(":", 1)[-1].removesuffix(".gz")
            return Path(stem).stem or stem
        return "lublin_256" if self.generator == "lublin_256" else f"{self.generator}_{self.gpus}"

    @property
    def is_generated(self) -> bool:
        """Whether any number of independent traces can be drawn."""
        return self.generator is not None

    def build(self, seed: Seed = 0) -> Trace:
        """Return the trace: read or generated, then cut, its load scaled, its requested times set.

        `seed` serves a generator without a seed of its own, random requested times and deadlines.

        Raises:
            TraceError: the file cannot be used, or nothing is left of it.
        """
        if self.generator is not None:
            return self.generate(self.jobs, self.seed if self.seed is not None else seed)
        assert self.path is not None
        trace = read_trace(resolve_data_path(self.path, Path()), self.format)
        if self.skip >= len(trace):
            raise TraceError(f"{self.label}: skip: {self.skip} leaves no job of {len(trace)}")
        if self.skip or self.limit is not None:
            trace = trace[self.skip : None if self.limit is None else self.skip + self.limit]
        # rounded first: 0.7 * 10 is 7.000...1 elsewhere
        first, last = (int(round(fraction * len(trace), 9)) for fraction in self.part)
        if (first, last) != (0, len(trace)):
            if first == last:
                raise TraceError(f"{self.label}: part {list(self.part)} holds no job of {len(trace)}")
            trace = trace[first:last]
        return self._finished(trace, seed)

    def generate(self, jobs: int, seed: Seed) -> Trace:
        """Return `jobs` generated jobs; independent traces have seeds from `seed_for`."""
        if self.generator is None:
            raise ConfigError(f"{self.label} is a file: independent traces need a generator")
        made = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        # a child of its own: random requested times do not repeat the generator's numbers
        drawn = np.random.SeedSequence(made.entropy, spawn_key=(*made.spawn_key, 0))
        parameters = self._generator_parameters
        if isinstance(parameters, GpuClusterParameters):
            assert self.gpus is not None
            trace = gpu_cluster(jobs, self.gpus, self.load or 0.9, drawn, parameters)
        else:
            load = self.load or (LUBLIN_256_LOAD if self.generator == "lublin_256" else None)
            trace = lublin(jobs, parameters.processors, drawn, load, parameters)
        return self._finished(trace, made)

    def _finished(self, trace: Trace, seed: Seed) -> Trace:
        if self.scale_load != 1.0:
            trace = trace.scale_load(self.scale_load)
        made = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        requested, deadlines = (
            np.random.default_rng(np.random.SeedSequence(made.entropy, spawn_key=(*made.spawn_key, child)))
            for child in (1, 2)
        )
        trace = trace.with_requested(self.requested, rng=requested)
        asked = self.deadlines
        if asked is None:
            return trace
        return trace.with_deadlines(
            asked.factors, of=asked.of, least_slack=asked.least_slack, share=asked.share, rng=deadlines
        )

    @property
    def _generator_parameters(self) -> LublinParameters | GpuClusterParameters:
        if self.generator == "lublin_256":
            return LUBLIN_256
        base = (
            GpuClusterParameters() if self.generator == "gpu_cluster" else LublinParameters.for_machine(self.gpus or 1)
        )
        known = [field.name for field in dataclasses.fields(base) if field.name != "processors"]
        values: dict[str, Any] = {}
        for key, value in self.parameters.items():
            if key not in known:
                raise ConfigError(f"parameters: {key}: unknown{nearest(key, known)}; known: {', '.join(known)}")
            like = getattr(base, key)
            values[key] = _like(key, value, like)
        return dataclasses.replace(base, **values)


def _default(model: type[Section], key: str) -> object:
    return model.model_fields[key].get_default(call_default_factory=True)


def _like(key: str, value: Any, example: Any) -> Any:
    """Return a generator's parameter with the type of its default."""
    if isinstance(example, tuple):
        if not isinstance(value, list | tuple) or not value:
            raise ConfigError(f"parameters: {key}: must be a list of numbers, not {value!r}")
        return tuple(_like(key, entry, example[0]) for entry in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"parameters: {key}: must be a number, not {value!r}")
    if isinstance(example, int) and value != int(value):
        raise ConfigError(f"parameters: {key}: must be a whole number, not {value!r}")
    return type(example)(value)
