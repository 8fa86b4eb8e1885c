"""One trace under one policy: the figures, and what became of each job."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lepton_rl.agents import RuleNames, policy_name, rule_names, run_policy
from lepton_rl.core import ClusterSpec, Outcome, Placement, Policy
from lepton_rl.errors import ConfigError
from lepton_rl.experiments.recording import Recording, record
from lepton_rl.experiments.start_delay import held_with_delay, started_after_delay
from lepton_rl.experiments.timelines import node_of_gpu
from lepton_rl.simulator import Timing
from lepton_rl.workloads import Trace
from lepton_rl.workloads.job_table import fit_to_cluster

LEADING_KEYS = (
    "mean_jct", "mean_wait", "p50_jct", "p99_jct", "makespan", "mean_bounded_slowdown", "utilization",
    "preemptions", "throughput", "energy_kwh", "mean_power_w",
)  # fmt: skip
"""The order in which a summary names its metrics; the others follow."""


@dataclass(frozen=True, eq=False)
class Simulation:
    """A finished run.

    Attributes:
        policy: its name.
        rules: blocking and placement in force.
        trace: the jobs that ran.
        dropped: jobs that the cluster could never run.
        outcome: when each job started and finished.
        report: what the policy says of its run, if anything.
        recording: who held which GPUs when, where that was asked for.
    """

    policy: str
    rules: RuleNames
    trace: Trace
    dropped: int
    outcome: Outcome
    report: str = ""
    recording: Recording | None = None

    def summary(self) -> dict[str, Any]:
        """Return the figures as plain values for JSON: times in seconds, units as in `core.metrics`."""
        metrics: dict[str, float | int | None] = {
            name: value if math.isfinite(value) else None for name, value in self.outcome.metrics().items()
        }
        for name in ("preemptions", "migrations", "strikes"):
            if name in metrics:
                metrics[name] = int(metrics[name] or 0)
        rest = [name for name in metrics if name not in LEADING_KEYS]
        return {
            "jobs": len(self.trace),
            "dropped": self.dropped,
            **{name: metrics[name] for name in (*LEADING_KEYS, *rest)},
            "policy": self.policy,
            **asdict(self.rules),
            "trace": self.trace.name,
            "requested": self.trace.requested,
            "cluster": {
                "nodes": self.outcome.cluster.nodes,
                "gpus_per_node": self.outcome.cluster.gpus_per_node,
                "gpus": self.outcome.cluster.gpus,
                "shape": str(self.outcome.cluster),
            },
            "left_out": [
                {"reason": entry.reason, "count": entry.count, "examples": list(entry.examples)}
                for entry in self.trace.dropped
            ],
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the trace or read otherwise than written, hours of the run with prices below 0, and what
        the policy says of itself."""
        notes = notes_of(self.trace, self.outcome)
        return (*notes, self.report) if self.report else notes

    def write_jobs(self, path: Path) -> None:
        """Write one CSV row for each job; times are seconds after the file's first submission.

        Where a job ran last, `nodes` (numbers from 0, joined by |) and `gpu_type`, is empty on several nodes unless the
        run was recorded.
        """
        try:
            with path.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(self._job_lines())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None

    def _job_lines(self) -> Iterator[str]:
        yield "job_id,submit_time,start_time,finish_time,wait,jct,gpus,preemptions,nodes,gpu_type\n"
        outcome = self.outcome
        columns = zip(
            self.trace.job_id.tolist(), outcome.submit.tolist(), outcome.first_start.tolist(),
            outcome.finish.tolist(), outcome.wait.tolist(), outcome.jct.tolist(), outcome.gpus.tolist(),
            outcome.preemptions.tolist(), self._places(), strict=True,
        )  # fmt: skip
        for job, submit, start, finish, wait, jct, gpus, preemptions, (nodes, kind) in columns:
            yield f"{job},{submit!r},{start!r},{finish!r},{wait!r},{jct!r},{gpus:g},{preemptions},{nodes},{kind}\n"

    def _places(self) -> list[tuple[str, str]]:
        """Return the nodes on which each job ran last, and their types of GPU, joined by |; empty is unknown."""
        cluster = self.outcome.cluster
        kinds = [group.gpu.name for group in cluster.groups for _ in range(group.nodes)] or [""] * cluster.nodes
        if self.recording is None:
            place = ("0", kinds[0]) if cluster.nodes == 1 else ("", "")
            return [place] * len(self.trace)
        last = np.zeros(len(self.trace), np.int64)
        last[self.recording.job] = np.arange(len(self.recording.job))  # stays are in order of their begin
        node_of = node_of_gpu(cluster)
        nodes = [np.unique(node_of[self.recording.gpus_of(stay)]).tolist() for stay in last.tolist()]
        return [("|".join(map(str, on)), "|".join(dict.fromkeys(kinds[node] for node in on))) for on in nodes]


def notes_of(trace: Trace, outcome: Outcome) -> tuple[str, ...]:
    """Return what was left out of a trace or read otherwise than written, and hours of the run with prices below 0."""
    prices = outcome.cluster.tariffs.electricity
    report = None if prices is None else prices.until(float(outcome.finish.max())).negative_report()
    return (*trace.losses, report) if report else trace.losses


def simulate(
    trace: Trace,
    cluster: ClusterSpec,
    policy: Policy,
    *,
    strict: bool = False,
    placement: Placement = Placement.FIRST,
    timing: Timing | None = None,
    recorded: bool = False,
    start_delay: float = 0.0,
) -> Simulation:
    """Run `trace` on `cluster` under `policy`.

    Jobs that the cluster could never run are left out and counted; with `strict` they are an error.

    Args:
        trace: the workload.
        cluster: the machine.
        policy: who decides.
        strict: refuse a trace with a job that is too large.
        placement: chooses the GPUs where the policy does not.
        timing: what preemption costs.
        recorded: remember who held which GPUs when; slower, with the same schedule.
        start_delay: seconds from a decision to the start of its job, which holds its GPUs meanwhile.
    """
    fitting = fit_to_cluster(trace, cluster, strict)
    held = held_with_delay(fitting, start_delay)
    recording = record(policy, held, cluster, timing, placement) if recorded else None
    outcome = recording.outcome if recording else run_policy(policy, held, cluster, timing, placement)
    outcome = started_after_delay(outcome, fitting, start_delay)
    if recording is not None:
        recording = replace(recording, outcome=outcome)
    rules = rule_names(policy, placement)
    report = str(getattr(policy, "report", ""))
    dropped = len(trace) - len(fitting)
    return Simulation(policy_name(policy), rules, fitting, dropped, outcome, report, recording)
