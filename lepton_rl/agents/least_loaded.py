"""Least-loaded spread: each job on the node of which the smallest part is held."""

from lepton_rl.agents.node_scores import NodeScore, ScoredPlacement


class LeastLoaded(ScoredPlacement, frozen=True, extra="forbid"):
    """Starts each job, in order, on the least loaded node that has room; load balance in its plainest form.

    Load is the part of the node's GPUs that jobs hold, so that nodes of different size compare (placement `worst`
    counts free GPUs, and takes a gang apart). A gang stays on one node where one holds it, else the nodes that offer
    most give all they have; ties go to the less loaded, then the lowest index. A share takes the freest GPU of its
    node. As `LeastAllocated` of Kubernetes. One decision costs q x nodes, shares q x GPUs. Good when jobs on one node
    slow each other or heat it; large gangs then find no node with room.
    """

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "least_loaded"

    @property
    def node_score(self) -> NodeScore:
        """Part of the node that is held."""
        return NodeScore.LEAST_LOADED
