"""RLScheduler's published evaluation as an experiment: both tables of the protocol, on any SWF trace."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from lepton_rl.errors import TraceError, counted
from lepton_rl.experiments.benchmark_config import ProtocolConfig
from lepton_rl.experiments.prepared import Outcome, Prepared
from lepton_rl.experiments.runner import Contender, Measurement, Task
from lepton_rl.experiments.summary import summarize
from lepton_rl.simulator.rlscheduler import Rule, mean_bounded_slowdown, run_window, start_indices
from lepton_rl.workloads import Trace
from lepton_rl.workloads.columns import COLUMNS
from lepton_rl.workloads.dependencies import selected

BLOCKING = {"commit": False, "commit-backfill": True, "head": False}
"""The published blocking rules, and whether they backfill."""
_PUBLISHED = ("published", "published-wait-fixed")


@dataclass(frozen=True, eq=False)
class ProtocolBench:
    """What a worker needs: the windows and the size of the machine."""

    windows: tuple[Trace, ...]
    processors: int

    def measure(self, task: Task) -> Measurement:
        """Run one window under one of the published rules."""
        window = self.windows[task.window]
        rule: Rule = next(rule for rule in get_args(Rule) if rule == task.contender.rule)
        begun = time.process_time()
        start = run_window(
            window.submit_time, window.run_time, window.requested_time, window.gpus,
            processors=self.processors, rule=rule, score=task.contender.policy,
            backfill=BLOCKING[task.contender.blocking or "head"],
        )  # fmt: skip
        jct = start + window.run_time - window.submit_time
        metrics = {
            "mean_bounded_slowdown": mean_bounded_slowdown(start, window.submit_time, window.run_time),
            "mean_jct": float(np.mean(jct)),
        }
        return Measurement(task, metrics, [], round(time.process_time() - begun, 6))


def prepare_protocol(config: ProtocolConfig, strict: bool = False) -> Prepared:
    """Return what the protocol measures; with `strict`, a job larger than the machine is an error.

    Raises:
        TraceError: the trace is too short for the windows, has no requested times, or cannot be used.
        ConfigError: neither the file nor its header says how large the machine is.
    """
    trace = config.workload.build(config.seed)
    if trace.requested == "absent":
        raise TraceError(
            "the protocol's policies need requested times; set workload.requested to given, exact or noisy:SIGMA"
        )
    cluster = config.cluster.build(trace)
    fitting = trace.fit_to(cluster.gpus, strict)
    dropped = tuple(map(str, fitting.dropped))
    try:
        starts = start_indices(config.seed, len(fitting), config.window, config.iterations)
    except TraceError as error:
        most = (len(fitting) - 2) // 2
        hint = f"; window={most} would do" if most >= 1 else ""
        raise TraceError(f"{config.workload.label}: {error}{hint}") from None
    in_file_order = _by_job_number(fitting)
    windows = tuple(in_file_order.windows(config.window, starts))
    name = config.workload.label
    contenders = [
        Contender(policy, policy, rule, blocking, None)
        for rule in _PUBLISHED
        for blocking in ("commit", "commit-backfill")
        for policy in config.policies
    ]
    contenders += [Contender(policy, policy, "repick", "head", None) for policy in config.repick_policies]
    tasks = [Task(contender, name, config.seed, index) for contender in contenders for index in range(len(starts))]
    notes = (*dropped, "the published windows overlap and are few: means only, and no ranking of policies")

    def outcome(measurements: Sequence[Measurement]) -> Outcome:
        summary = summarize(
            measurements, name, cluster=f"{cluster.gpus} processors", notes=notes, block=None,
            windows=f"{counted(len(starts), 'window')} of {counted(config.window, 'job')}, seed {config.seed}",
            dropped=len(trace) - len(fitting), left_out=fitting.dropped,
        )  # fmt: skip
        return Outcome.of([summary])

    said = tuple(f"{name}: {note}" for note in dropped)
    return Prepared(config, ProtocolBench(windows, cluster.gpus), tasks, outcome, (config.workload.path,), said)


def _by_job_number(trace: Trace) -> Trace:
    """Return the jobs by number, as the published program orders them, with the file's own submit stamps."""
    order = np.argsort(trace.job_id, kind="stable")
    stamps = (trace.submit_time + trace.origin)[order]
    after = selected(trace.after, order, len(trace))
    parts = {name: getattr(trace, name)[order] for name in COLUMNS if name != "submit_time"}
    return replace(trace, submit_time=stamps, origin=0.0, after=after, **parts)
