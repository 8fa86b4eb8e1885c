"""Finish-time fairness: next is the job that fares worst against an equal share of the cluster."""

import numpy as np

from lepton_rl.agents.scored import ScoredPolicy
from lepton_rl.core import Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats


class FinishTimeFairness(ScoredPolicy, frozen=True, extra="forbid"):
    """Highest rho first: the completion time to expect when starting now, over that on an equal share.

    `rho = (now - submit + predicted time) / (requested time x max(1, n N / P))`, N the jobs in the system now
    (Mahajan et al., Themis, NSDI 2020, without its auctions and leases: nothing is preempted). One decision costs
    q log q. Good when no user may fare worse than alone on a part of the cluster, and requested times are good.
    """

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "finish_time_fairness"

    @property
    def needs_requested_times(self) -> bool:
        """True: rho is made of them."""
        return True

    def scores(self, snapshot: Snapshot) -> Floats:
        """Return -rho."""
        jobs = snapshot.jobs
        crowd = jobs[:, L.GPUS] / L.MILLI * len(jobs) / len(snapshot.gpus)
        alone = jobs[:, L.REQUESTED] * np.maximum(1.0, crowd)
        scores: Floats = -(snapshot.time - jobs[:, L.SUBMIT] + jobs[:, L.PREDICTED]) / alone
        return scores
