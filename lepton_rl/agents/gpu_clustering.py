"""GPU clustering: jobs of like demand share nodes."""

from lepton_rl.agents.node_scores import NodeScore, ScoredPlacement


class GpuClustering(ScoredPlacement, frozen=True, extra="forbid"):
    """Starts each job, in order, among jobs of like demand.

    Demands are alike when both are shares, or gangs of the same size rounded up to a power of two. Nodes where only
    such jobs run come first, then those where others run too, then idle ones, then the rest; in each the node with
    the least GPU left, and on it the tightest GPU. The baseline GpuClustering of Weng et al. (FGD), USENIX ATC 2023,
    after Xiao et al. (Gandiva), OSDI 2018. One decision costs q x nodes, shares q x GPUs. Good when gang sizes are
    powers of two: what ends then leaves room of the size that the next needs.
    """

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "gpu_clustering"

    @property
    def node_score(self) -> NodeScore:
        """What runs on the node, and how full it is."""
        return NodeScore.CLUSTERING
