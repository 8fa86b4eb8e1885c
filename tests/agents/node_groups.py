"""Small clusters of different groups, and what a policy does at the first instant on them."""

from collections.abc import Sequence
from typing import Any

from lepton_rl.core import Action, ClusterSpec, Policy, Snapshot, Start
from lepton_rl.simulator import SimulatedCluster
from tests.agents.cases import plain_trace
from tests.reference.detailed import DetailedJob
from tests.simulator.detailed_cases import detailed_trace


def job(number: int, gpus: float, seconds: float = 100.0, **wishes: Any) -> DetailedJob:
    """A job submitted at 0 that asks for exactly the seconds of service that it takes."""
    return DetailedJob(number, 0.0, seconds, seconds, gpus, **wishes)


def first_decision(
    policy: Policy, cluster: ClusterSpec, jobs: Sequence[DetailedJob], running: Sequence[Start] = ()
) -> list[Action]:
    """Return what the policy does at 0 where these jobs wait, but for those that have just been started."""
    return list(policy.decide(_at_zero(SimulatedCluster(detailed_trace(jobs), cluster), running)))


def plain_decision(
    policy: Policy, cluster: ClusterSpec, gpus: Sequence[float], running: Sequence[Start] = (), **columns: Any
) -> list[Action]:
    """Return the same on a cluster of equal nodes; the jobs take 100 s each, unless `run_time` is given."""
    columns = {"run_time": [100.0] * len(gpus), **columns}
    return list(policy.decide(_at_zero(SimulatedCluster(plain_trace(gpus=list(gpus), **columns), cluster), running)))


def _at_zero(cluster: SimulatedCluster, running: Sequence[Start]) -> Snapshot:
    assert cluster.advance()
    for start in running:
        cluster.apply(start)
    return cluster.snapshot()
