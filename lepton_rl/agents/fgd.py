"""Fragmentation gradient descent: each job where the cluster's expected fragmentation grows least."""

from collections import Counter

import numpy as np
from pydantic import Field, PrivateAttr

from lepton_rl.agents.node_scores import CPU, NodeScore, ScoredPlacement, ScoreTables, tables_for
from lepton_rl.core import ClusterSpec, Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Bools, Floats, Ints64
from lepton_rl.simulator.fragmentation import COUNT, typical_pods

_Demand = tuple[int, int, int, int]  # thousandths of a core, of each GPU; GPUs on a node; types that will do, as bits


class Fgd(ScoredPlacement, frozen=True, extra="forbid"):
    """Starts each job, in order, where expected fragmentation grows least.

    Fragmentation of a node is the idle GPU that a job drawn from the typical demands could not use, as in Weng et
    al., "Beware of Fragmentation", USENIX ATC 2023, by the same formula as the published evaluation
    (`configs/benchmark/ fgd.yaml`), unrounded. Typical demands (CPU, GPU, type) are the most frequent among the jobs
    seen waiting or running since the run began, until they cover 95 %; a gang that spans nodes counts as one that
    fills a node. GPU memory and RAM bind but do not count as fragmentation. Ties go to the tighter GPU or node. One
    decision costs q x nodes x typical demands, shares q x GPUs x typical demands. Good when shares fragment GPUs; for
    gangs of whole GPUs alone it is close to `best`.
    """

    most: int = Field(default=32, ge=1, le=1000, description="typical demands at most")
    _time: float = PrivateAttr(default=-np.inf)
    _known: Floats = PrivateAttr(default_factory=lambda: np.zeros(0))
    _seen: Counter[_Demand] = PrivateAttr(default_factory=Counter)
    _typical: tuple[Ints64, Bools] | None = PrivateAttr(default=None)

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "fgd"

    @property
    def node_score(self) -> NodeScore:
        """Growth of the node's fragmentation."""
        return NodeScore.FRAGMENTATION

    def tables(self, snapshot: Snapshot) -> ScoreTables:
        """Return the typical demands of the jobs seen until now."""
        self._learn(snapshot)
        assert self._typical is not None
        return tables_for(snapshot.cluster, typical=self._typical[0], allowed=self._typical[1])

    def _learn(self, snapshot: Snapshot) -> None:
        """Count the jobs that were not there at the last decision: one that has gone does not come back."""
        if snapshot.time < self._time:  # another run has begun
            self._known = np.zeros(0)
            self._seen.clear()
        ids = snapshot.jobs[:, L.ID]
        new = snapshot.jobs[~np.isin(ids, self._known)]
        self._time, self._known = snapshot.time, ids
        if len(new) or self._typical is None:
            self._seen.update(_demands(new, snapshot.cluster))
            self._typical = _typical_demands(self._seen, max(len(snapshot.cluster.types), 1), self.most)


def _demands(jobs: Floats, cluster: ClusterSpec) -> list[_Demand]:
    """Return what each job asks of a node."""
    milli = jobs[:, L.GPUS].astype(np.int64)
    gpus = np.clip(milli // L.MILLI, 1, cluster.gpus_per_node)
    cpu, types = np.zeros(len(jobs), np.int64), np.ones(len(jobs), np.int64)
    if cluster.groups:
        types = jobs[:, L.TYPES].astype(np.int64)
        if CPU in cluster.resources:
            cpu = jobs[:, L.ASKS + cluster.resources.index(CPU)].astype(np.int64) * gpus
    columns = (cpu, np.minimum(milli, L.MILLI), gpus, types)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _typical_demands(seen: Counter[_Demand], types: int, most: int) -> tuple[Ints64, Bools]:
    """Return the typical demands as `fragmentation` reads them, and the types that will do for each demand seen."""
    demands = sorted(seen)
    table = np.array(demands, dtype=np.int64).reshape(-1, 4)
    typical = typical_pods(table[:, :3], np.array([seen[demand] for demand in demands], dtype=np.int64))
    frequent = np.sort(np.argsort(-typical[:, COUNT], kind="stable")[:most])
    allowed = (table[:, 3:] >> np.arange(types)) & 1 == 1
    return np.ascontiguousarray(typical[frequent]), allowed
