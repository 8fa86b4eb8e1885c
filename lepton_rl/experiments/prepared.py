"""A benchmark that is checked and about to run: nothing is written before it stands."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lepton_rl.experiments.benchmark_config import BenchmarkConfig, FgdConfig, ProtocolConfig
from lepton_rl.experiments.runner import Bench, Measurement, Task
from lepton_rl.experiments.summary import WorkloadSummary
from lepton_rl.experiments.tables import Block, block


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a benchmark found.

    Attributes:
        rows: for programs, unrounded.
        details: what the rows do not say, for each workload.
        blocks: for readers.
        summaries: for the page with pictures; empty where the benchmark is not one of jobs.
    """

    rows: list[dict[str, Any]]
    details: list[dict[str, Any]]
    blocks: tuple[Block, ...]
    summaries: tuple[WorkloadSummary, ...] = ()

    @classmethod
    def of(cls, summaries: Iterable[WorkloadSummary]) -> "Outcome":
        """Return the outcome of a benchmark of jobs."""
        summaries = tuple(summaries)
        rows = [row for summary in summaries for row in summary.rows()]
        details = [summary.details() for summary in summaries]
        return cls(rows, details, tuple(map(block, summaries)), summaries)


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a benchmark measures.

    Attributes:
        config: the experiment.
        bench: what the worker processes hold.
        tasks: all measurements, in the order in which they start.
        outcome: of the finished measurements, in any order.
        sources: traces, bundles and policy files that are read; None for none.
        notes: what the user should know, one line each.
    """

    config: BenchmarkConfig | ProtocolConfig | FgdConfig
    bench: Bench
    tasks: Sequence[Task]
    outcome: Callable[[Sequence[Measurement]], Outcome]
    sources: Sequence[str | None]
    notes: Sequence[str]
