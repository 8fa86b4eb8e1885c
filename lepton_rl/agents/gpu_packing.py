"""GPU packing: first GPUs in use, then free GPUs of nodes in use, then idle nodes."""

from lepton_rl.agents.node_scores import NodeScore, ScoredPlacement


class GpuPacking(ScoredPlacement, frozen=True, extra="forbid"):
    """Starts each job, in order, on the GPUs that leave the most whole GPUs and whole nodes for others.

    A share goes to a GPU in use, the tightest, before a free GPU of a node in use, before an idle node; a gang to a
    node in use, with the fewest free GPUs, before an idle one. The baseline GpuPacking of Weng et al. (FGD), USENIX
    ATC 2023. One decision costs q x nodes, shares q x GPUs. Good when shares and gangs of a whole node come mixed; it
    differs from placement `best` where that would open an idle node that is smaller.
    """

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "gpu_packing"

    @property
    def node_score(self) -> NodeScore:
        """Whether GPU and node are in use."""
        return NodeScore.PACKING
