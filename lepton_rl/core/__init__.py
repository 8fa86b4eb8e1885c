"""The words of lepton_rl: jobs, clusters, snapshots, actions, policies, metrics."""

from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.core.cluster import Cluster, ClusterSpec
from lepton_rl.core.metrics import Outcome
from lepton_rl.core.placement import Placement
from lepton_rl.core.policy import Policy
from lepton_rl.core.scheduler import schedule
from lepton_rl.core.slowdown import bounded_slowdown
from lepton_rl.core.snapshot import JobView, Snapshot

__all__ = [
    "Action",
    "Cluster",
    "ClusterSpec",
    "JobView",
    "Migrate",
    "Outcome",
    "Placement",
    "Policy",
    "Preempt",
    "SetPowerLimit",
    "Snapshot",
    "Start",
    "bounded_slowdown",
    "schedule",
]
