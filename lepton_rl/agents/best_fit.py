"""Best fit: each job on the node that has the least left once the job is there."""

from lepton_rl.agents.node_scores import NodeScore, ScoredPlacement


class BestFit(ScoredPlacement, frozen=True, extra="forbid"):
    """Starts each job, in order, on the node that has the least left of all its resources once the job is there.

    What is left is the sum, over GPUs (shares of them too) and every other resource that the cluster counts (CPU, RAM,
    accelerators), of the part that stays free of the most that a node of the cluster has; a resource that a node does
    not count is wholly free there. It is the baseline BestFit of Weng et al. (FGD), USENIX ATC 2023, which counts GPUs
    and CPU alike. `configs/benchmark/fgd.yaml` runs it by the published rules (`simulator.packing`), which round the
    score to whole per cent of 8 GPUs and 128 cores and leave ties to an order of the nodes drawn once; here nothing is
    rounded, ties go to the tighter GPU, or the node with fewer free GPUs, then to the lowest index, and a gang that no
    node holds spans several. One decision costs q x nodes x resources, shares q x GPUs x resources. Good when CPU or
    RAM binds and large jobs need whole nodes left free; where only GPUs count and nodes are alike, gangs go where
    placement `best` puts them.
    """

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "best_fit"

    @property
    def node_score(self) -> NodeScore:
        """What the node has left."""
        return NodeScore.BEST_FIT
