"""The loop that joins a policy to a cluster."""

from lepton_rl.core.cluster import Cluster
from lepton_rl.core.policy import Policy


def schedule(policy: Policy, cluster: Cluster) -> None:
    """Let `policy` decide at every decision point until the cluster has nothing left to do."""
    while cluster.advance():
        for action in policy.decide(cluster.snapshot()):
            cluster.apply(action)
