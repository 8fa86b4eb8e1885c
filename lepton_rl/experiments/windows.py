"""The windows of jobs on which policies are compared: cut from a trace, or generated one by one."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lepton_rl.agents import run_policy
from lepton_rl.agents.optimum import optimum
from lepton_rl.core import ClusterSpec, Outcome
from lepton_rl.errors import ConfigError
from lepton_rl.errors import counted as count
from lepton_rl.experiments.benchmark_config import OPTIMUM, BenchmarkWorkload, OptimumConfig
from lepton_rl.experiments.config import seed_for
from lepton_rl.experiments.policy_config import PolicyConfig
from lepton_rl.experiments.runner import Measurement, Task
from lepton_rl.experiments.statistics import block_length
from lepton_rl.simulator import Timing
from lepton_rl.workloads import Dropped, Trace
from lepton_rl.workloads.job_table import fit_to_cluster

# On a run's whole length; the others are of the counted jobs alone.
CLUSTER_METRICS = (
    "makespan", "utilization", "fragmentation", "throughput", "energy_kwh", "mean_power_w", "electricity_usd",
    "carbon_kg", "rent_usd", "mean_rho", "max_rho",
)  # fmt: skip
HIGHER_IS_BETTER = ("utilization", "throughput", "fairness", "deadlines_met")

JCT_GRID = np.geomspace(1.0, 1e9, 361)
"""Edges, in seconds, of the classes in which completion times are counted: 40 to a factor of ten."""


@dataclass(frozen=True, eq=False)
class Windows:
    """One workload's windows for each seed.

    Attributes:
        workload: its name.
        cluster: what they run on.
        traces: by seed, in order; the same objects for every seed where the windows do not depend on it.
        counted: rows of each window whose jobs count.
        block: windows to resample together; None where they overlap.
        dropped: what was left out of the trace, in reading it or as too large.
        too_large: jobs of the trace that are larger than the cluster.
        notes: what readers of the results should know.
    """

    workload: str
    cluster: ClusterSpec
    traces: dict[int, tuple[Trace, ...]]
    counted: slice
    block: int | None
    dropped: tuple[Dropped, ...]
    too_large: int
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class WindowBench:
    """What a worker needs: the policies' settings, the windows, and which optimum to find where it is asked for."""

    policies: Mapping[str, PolicyConfig]
    windows: Mapping[str, Windows]
    timing: Timing
    optimum: OptimumConfig | None = None

    def measure(self, task: Task) -> Measurement:
        """Run one policy, made anew, on one window; or find the window's optimum."""
        windows = self.windows[task.workload]
        trace = windows.traces[task.seed][task.window]
        begun = time.process_time()
        if self.optimum is not None and task.contender.label == OPTIMUM:
            outcome = optimum(trace, windows.cluster, self.optimum.objective, self.optimum.limit_s).outcome
        else:
            policy = self.policies[task.contender.label].build(seed=task.seed)
            begun = time.process_time()
            outcome = run_policy(policy, trace, windows.cluster, self.timing)
        seconds = time.process_time() - begun
        jct = outcome.jct[windows.counted]
        counts, _ = np.histogram(np.clip(jct, JCT_GRID[0], JCT_GRID[-1]), JCT_GRID)
        return Measurement(task, counted_metrics(outcome, windows.counted), counts.tolist(), round(seconds, 6))


def make_windows(config: BenchmarkWorkload, seeds: Sequence[int], strict: bool = False) -> Windows:
    """Cut or generate the windows of a workload; with `strict`, a job larger than the cluster is an error.

    Raises:
        ConfigError: the workload has fewer jobs than the windows need.
        TraceError: the file cannot be used.
    """
    settings = config.windows
    counted = slice(settings.warmup, settings.warmup + settings.jobs)
    if settings.kind == "independent":
        made = {seed: _generated(config, seed) for seed in seeds}
        first = made[seeds[0]][0]
        return Windows(config.label, config.cluster.build(first), made, counted, 1, (), 0, first.notes)
    trace = config.build(seeds[0])
    cluster = config.cluster.build(trace)
    fitting = fit_to_cluster(trace, cluster, strict)
    too_large = len(trace) - len(fitting)
    if settings.kind == "disjoint":
        same = _disjoint(fitting, config)
        traces = dict.fromkeys(seeds, same)
        block = block_length(len(same))
        return Windows(config.label, cluster, traces, counted, block, fitting.dropped, too_large, fitting.notes)
    drawn = {seed: _overlapping(fitting, config, seed) for seed in seeds}
    notes = (*fitting.notes, "the windows overlap: means only, an interval would be too narrow")
    return Windows(config.label, cluster, drawn, counted, None, fitting.dropped, too_large, notes)


def counted_metrics(outcome: Outcome, counted: slice) -> dict[str, float]:
    """Return the metrics of the counted jobs; those of the cluster are of the whole run."""
    whole = outcome.metrics()
    part = replace(
        outcome,
        deadline=None if outcome.deadline is None else outcome.deadline[counted],
        **{
            name: getattr(outcome, name)[counted]
            for name in ("submit", "run", "gpus", "first_start", "finish", "preemptions", "groups")
        },
        migrations=None if outcome.migrations is None else outcome.migrations[counted],
        disturbed=None if outcome.disturbed is None else outcome.disturbed.of(counted),
        busy_gpu_seconds=0.0,  # the whole run's would be more than the part has time for
    )
    metrics = part.metrics() | {name: whole[name] for name in CLUSTER_METRICS if name in whole}
    return metrics | {"p50_bounded_slowdown": float(np.percentile(part.bounded_slowdown(), 50))}


def _disjoint(trace: Trace, config: BenchmarkWorkload) -> tuple[Trace, ...]:
    """Return windows spread evenly, no job counted twice (warm-up jobs may be another window's counted)."""
    settings = config.windows
    room = len(trace) - settings.warmup - settings.cooldown
    possible = max(room, 0) // settings.jobs
    if possible < settings.count:
        raise ConfigError(
            f"{config.label}: {count(len(trace), 'job')} hold {count(possible, 'disjoint window')} of "
            f"{count(settings.jobs, 'job')} "
            f"with warm-up {settings.warmup}, not {settings.count}; lower windows.count or windows.jobs"
        )
    stride = room // settings.count
    return _as_submitted(trace.windows(settings.span, range(0, stride * settings.count, stride)), config)


def _overlapping(trace: Trace, config: BenchmarkWorkload, seed: int) -> tuple[Trace, ...]:
    settings = config.windows
    last = len(trace) - settings.span
    if last < 0:
        raise ConfigError(
            f"{config.label}: a window of {count(settings.span, 'job')} does not fit in {len(trace)}; "
            "lower windows.jobs"
        )
    generator = np.random.default_rng(seed_for(seed, "evaluation"))
    starts = generator.integers(0, last + 1, settings.count)
    return _as_submitted(trace.windows(settings.span, starts.tolist()), config)


def _generated(config: BenchmarkWorkload, seed: int) -> tuple[Trace, ...]:
    settings = config.windows
    root = seed if config.seed is None else config.seed
    traces = [
        config.generate(settings.span, seed_for(root, "evaluation", seed, index)) for index in range(settings.count)
    ]
    cluster = config.cluster.build(traces[0])
    largest = max(float(trace.gpus.max()) for trace in traces)
    if largest > cluster.gpus:
        raise ConfigError(
            f"{config.label}: jobs of {largest:g} GPUs are generated for a cluster of {cluster.gpus}; lower gpus"
        )
    for trace in traces:  # a window keeps its number of jobs: what cannot run is no job of it
        fit_to_cluster(trace, cluster, strict=True)
    return _as_submitted(traces, config)


def _as_submitted(traces: Sequence[Trace], config: BenchmarkWorkload) -> tuple[Trace, ...]:
    """Return the windows with the submit times that the benchmark wants."""
    if not config.windows.together:
        return tuple(traces)
    return tuple(replace(trace, submit_time=np.full(len(trace), trace.submit_time[0])) for trace in traces)
