"""A policy on a whole trace: compiled where it is a rule, event by event where it is Python."""

from collections.abc import Sequence

import numpy as np

from lepton_rl.agents.compiled import CompiledPolicy, policy_name, rule_names
from lepton_rl.agents.user_file import FAILURES, where
from lepton_rl.core import Action, Cluster, ClusterSpec, Outcome, Placement, Policy, Snapshot, schedule
from lepton_rl.errors import ConfigError, IllegalAction, LeptonError, TraceError
from lepton_rl.simulator import SimulatedCluster, Timing, run_trace
from lepton_rl.workloads import Trace


def run_policy(
    policy: Policy,
    trace: Trace,
    cluster: ClusterSpec,
    timing: Timing | None = None,
    placement: Placement = Placement.FIRST,
) -> Outcome:
    """Run `trace` on `cluster` under `policy` and return when each job started and finished.

    `placement` chooses the GPUs where the policy does not.

    Raises:
        TraceError: a job can never run on this cluster, or the policy needs requested times that are absent.
        IllegalAction: the policy asked for something impossible.
        ConfigError: the policy failed.
    """
    check_requested_times(policy, trace)
    if isinstance(policy, CompiledPolicy):
        return run_trace(trace, cluster, policy.rule(placement), timing)
    simulated = NamingCluster(trace, cluster, placement, timing)
    run_on(simulated, policy)
    return simulated.outcome()


def run_on(cluster: Cluster, policy: Policy) -> None:
    """Let `policy` decide on `cluster` until nothing is left.

    Raises:
        IllegalAction: the policy asked for something impossible.
        ConfigError: the policy failed.
    """
    try:
        schedule(_Checked(policy), cluster)
    except IllegalAction as error:
        raise IllegalAction(f"{policy_name(policy)}, at {cluster.snapshot().time:g} s: {error}") from error


def check_requested_times(policy: Policy, trace: Trace, setting: str = "--requested") -> None:
    """Refuse a trace without requested times for a policy that needs them.

    Policies say so by an attribute `needs_requested_times`; a user's policy without it may run on anything.
    `setting` is what the user would set to something else.

    Raises:
        TraceError: names both.
    """
    if trace.requested == "absent" and getattr(policy, "needs_requested_times", False):
        blocking = rule_names(policy).blocking
        backfilling = f" with blocking {blocking}" if blocking in ("easy", "conservative") else ""
        raise TraceError(
            f"{policy_name(policy)}{backfilling} needs requested times and {trace.name} has none; set {setting} to "
            "exact or noisy:SIGMA, or use one that needs none: fcfs, smallest, edf, las, dlas, gittins, drf, "
            "heap_priority or random without backfilling, predicted, gavel_max_min, gavel_max_throughput, or greedy"
        )


class NamingCluster(SimulatedCluster):
    """A cluster whose refusals also name the job as its trace does: files mostly count from 1, snapshots from 0."""

    def apply(self, action: Action) -> None:
        try:
            super().apply(action)
        except IllegalAction as error:
            job = getattr(action, "job", None)
            if not isinstance(job, int | np.integer):
                raise
            if 0 <= job < len(self.trace):
                named = f"job {job} of the snapshot is job_id {self.trace.job_id[job]} of {self.trace.name}"
            else:
                named = f"snapshots number the jobs of {self.trace.name} from 0 to {len(self.trace) - 1}"
            raise IllegalAction(f"{error} ({named})") from None


class _Checked:
    """A policy whose failures are sentences."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        try:
            actions = self.policy.decide(snapshot)
        except LeptonError:
            raise
        except FAILURES as error:
            raise ConfigError(f"{policy_name(self.policy)} failed at {snapshot.time:g} s: {where(error)}") from error
        if not isinstance(actions, Sequence):
            raise IllegalAction(f"decide must return a list of actions, not {type(actions).__name__}")
        return actions
