"""Policies whose order is computed in Python at each decision: scores here, one compiled pass for all the rest."""

from dataclasses import replace

import numpy as np
from pydantic import BaseModel, Field

from lepton_rl.agents.compiled import BlockingName, PlacementName, placement_of
from lepton_rl.core import Action, Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats
from lepton_rl.simulator import Blocking, Order, Rule, decide


class ScoredPolicy(BaseModel, frozen=True, extra="forbid"):
    """Base of the policies that score the jobs of a snapshot, lowest first, ties by submission."""

    blocking: BlockingName = Field(default="head", description="what happens behind a job that does not fit")
    placement: PlacementName | None = Field(
        default=None, description="which GPUs a job gets; none: as the cluster is set"
    )

    @property
    def order(self) -> Order:
        """GIVEN, or GIVEN_PREEMPTIVE where running jobs are ordered too."""
        return Order.GIVEN

    @property
    def needs_requested_times(self) -> bool:
        """Whether the policy means nothing without requested times."""
        return self.blocking in ("easy", "conservative")

    def scores(self, snapshot: Snapshot) -> Floats:
        """Return the score of each row of `snapshot.jobs`, shape (running + waiting,)."""
        raise NotImplementedError

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Return what one pass in the order of the scores does now."""
        jobs = snapshot.jobs.copy()
        jobs[:, L.SCORE] = self.scores(snapshot)
        placement = placement_of(self.placement, snapshot.placement)
        return decide(replace(snapshot, jobs=jobs), Rule(self.order, Blocking[self.blocking.upper()], placement))


def groups_of(jobs: Floats, column: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return each row's group as a whole number (column QUEUE, USER or PROJECT); -1, unknown, is one group."""
    return jobs[:, column].astype(np.int64)
