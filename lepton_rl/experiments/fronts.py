"""Mean completion time against energy: whole runs under several policies, or the plans for one instant."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lepton_rl.agents import Genetic, check_requested_times, run_policy
from lepton_rl.agents.plan_front import non_dominated
from lepton_rl.core import ClusterSpec, Policy, Snapshot
from lepton_rl.core.units import JOULES_PER_KWH
from lepton_rl.errors import ConfigError, counted
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A run, or a plan.

    Attributes:
        label: the policy with its settings, or the plan's number.
        mean_jct: seconds.
        added_kwh: energy above the draw of idle GPUs.
        on_front: whether no other is as good in both and better in one.
        details: further figures by name.
    """

    label: str
    mean_jct: float
    added_kwh: float
    on_front: bool
    details: dict[str, float | str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        plain = asdict(self)
        details: dict[str, Any] = plain.pop("details")
        return plain | details


def front_of_runs(trace: Trace, cluster: ClusterSpec, policies: Sequence[tuple[str, Policy]]) -> list[FrontPoint]:
    """Return a point for each labelled policy on the whole trace, shortest mean JCT first.

    Energy is counted above idle draw: the GPUs of a cluster that is there anyway draw that too, and over the makespan
    of a trace it says more about its last job than about the policy. `energy_kwh` has it.

    Raises:
        TraceError: a job can never run on this cluster, or a policy needs requested times that are absent.
    """
    for _, policy in policies:
        check_requested_times(policy, trace)
    found = []
    for label, policy in policies:
        outcome = run_policy(policy, trace, cluster)
        metrics = outcome.metrics()
        idle = cluster.idle_power_w * cluster.gpus * outcome.makespan / JOULES_PER_KWH
        details = {name: metrics[name] for name in ("mean_bounded_slowdown", "energy_kwh", "makespan")}
        found.append((label, metrics["mean_jct"], metrics["energy_kwh"] - idle, details))
    return _points(found)


def front_of_plans(trace: Trace, cluster: ClusterSpec, policy: Genetic, job: int) -> list[FrontPoint]:
    """Return the plans on the front when the trace's job of this number (from 1) is submitted, under this policy.

    Raises:
        ConfigError: there is no such job, or no job waits then.
    """
    check_requested_times(policy, trace)
    if not 1 <= job <= len(trace):
        raise ConfigError(f"{trace.name} has {counted(len(trace), 'job')}, none of number {job}")
    snapshot = _snapshot_at(trace, cluster, policy, float(trace.submit_time[job - 1]))
    if snapshot.running_count == len(snapshot.jobs):
        raise ConfigError(f"no job waits when job {job} of {trace.name} is submitted: there is nothing to plan")
    found = []
    for number, plan in enumerate(policy.plan_front(snapshot), 1):
        due = [gpus for gpus, start in zip(plan.gpus, plan.start_times, strict=True) if start == snapshot.time]
        details = {"jobs": len(plan.jobs), "start_now": len(due), "gpus": ", ".join(sorted(set(plan.gpus)))}
        found.append((f"plan {number}", plan.mean_jct, plan.energy_kwh, details))
    return _points(found)


def _snapshot_at(trace: Trace, cluster: ClusterSpec, policy: Policy, time: float) -> Snapshot:
    simulated = SimulatedCluster(trace, cluster)
    while simulated.advance():
        snapshot = simulated.snapshot()
        if snapshot.time >= time:
            return snapshot
        for action in policy.decide(snapshot):
            simulated.apply(action)
    raise AssertionError("a submission is a decision point")


def _points(found: Sequence[tuple[str, float, float, dict[str, Any]]]) -> list[FrontPoint]:
    costs = np.array([(jct, energy) for _, jct, energy, _ in found])
    front = set(non_dominated(costs).tolist())
    order = np.lexsort((costs[:, 1], costs[:, 0])).tolist()
    return [FrontPoint(found[row][0], found[row][1], found[row][2], row in front, found[row][3]) for row in order]
