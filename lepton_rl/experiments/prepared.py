"""A benchmark that is checked and about to run: nothing is written before it stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lepton_rl.experiments.benchmark_config import BenchmarkConfig, ProtocolConfig
from lepton_rl.experiments.runner import Bench, Measurement, Task
from lepton_rl.experiments.summary import WorkloadSummary


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a benchmark measures.

    Attributes:
        config: the experiment.
        bench: what the worker processes hold.
        tasks: all measurements, in the order in which they start.
        summaries: from the finished measurements, in any order, to the tables.
        sources: traces, bundles and policy files that are read; None for none.
        notes: what the user should know, one line each.
    """

    config: BenchmarkConfig | ProtocolConfig
    bench: Bench
    tasks: Sequence[Task]
    summaries: Callable[[Sequence[Measurement]], tuple[WorkloadSummary, ...]]
    sources: Sequence[str | None]
    notes: Sequence[str]
