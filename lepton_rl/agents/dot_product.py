"""Dot product: each job where what it asks for, times what is free there, is least."""

from lepton_rl.agents.node_scores import NodeScore, ScoredPlacement


class DotProduct(ScoredPlacement, frozen=True, extra="forbid"):
    """Starts each job, in order, where the dot product of demand and free resources is smallest.

    The vectors are, for a gang, wholly free GPUs of the node; for a share, compute and memory of the GPU; and what
    else the job asks for (CPU, RAM, accelerators); each in parts of the most that a node of the cluster has, of a GPU
    that GPU's memory. The smallest product packs: it is the baseline DotProd of Weng et al. (FGD), USENIX ATC 2023,
    whose program turns the alignment of Grandl et al. (Tetris), SIGCOMM 2014, around. Ties go to the tighter GPU or
    node. One decision costs q x nodes, shares q x GPUs, times resources. Good when CPU or memory run out before GPUs
    do.
    """

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "dotprod"

    @property
    def node_score(self) -> NodeScore:
        """Demand times what is free."""
        return NodeScore.DOT_PRODUCT
