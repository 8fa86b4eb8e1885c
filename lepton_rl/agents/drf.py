"""Dominant resource fairness: whoever holds the smallest weighted share of the GPUs starts a job next."""

import heapq
from collections import defaultdict
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

from lepton_rl.agents.scored import ScoredPolicy, groups_of
from lepton_rl.core import Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats
from lepton_rl.errors import ConfigError

GROUP_COLUMNS = {"queue": L.QUEUE, "user": L.USER, "project": L.PROJECT}


class Drf(ScoredPolicy, frozen=True, extra="forbid"):
    """Starts, again and again, the first waiting job of the queue, user or project with the smallest GPU share now.

    Dominant resource fairness (Ghodsi et al., NSDI 2011, algorithm 1) where GPUs are the resource: a group's share
    is the GPUs that its running jobs hold, divided by its weight; equal shares go to the earlier submission.
    Jobs whose group is unknown are one group. With blocking `head` it is that algorithm; behind a job that does
    not fit, the other rules keep the order of shares that it would have led to. One decision costs q log groups.
    Good when groups that share a cluster must each get their part, whatever the others submit.
    """

    by: Literal["queue", "user", "project"] = Field(default="user", description="who shares the cluster")
    weights: str = Field(
        default="", description="pairs CODE=WEIGHT, as in '0=2, 3=0.5': groups by their code in the trace; others 1"
    )

    def model_post_init(self, context: object) -> None:
        """Read the weights once, where the settings are given."""
        _ = self._weight_of

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "drf"

    @cached_property
    def _weight_of(self) -> dict[int, float]:
        found: dict[int, float] = {}
        for pair in filter(None, (part.strip() for part in self.weights.split(","))):
            code, _, weight = pair.partition("=")
            try:
                found[int(code)] = float(weight)
            except ValueError:
                raise ConfigError(f"drf: weights: {pair!r} is not CODE=WEIGHT, as in 3=0.5") from None
            if not 0.0 < found[int(code)] < np.inf:
                raise ConfigError(f"drf: weights: {pair!r}: a weight must be above 0")
        return found

    def scores(self, snapshot: Snapshot) -> Floats:
        """Return the place of each waiting job in the order of progressive filling."""
        jobs, running = snapshot.jobs, snapshot.running_count
        groups = groups_of(jobs, GROUP_COLUMNS[self.by])
        held: dict[int, float] = defaultdict(float)
        for group, gpus in zip(groups[:running].tolist(), jobs[:running, L.GPUS].tolist(), strict=True):
            held[group] += gpus
        waiting: dict[int, list[int]] = defaultdict(list)
        for row in range(len(jobs) - 1, running - 1, -1):  # rows stand by submission: the first is popped first
            waiting[int(groups[row])].append(row)
        heap = [(held[group] / self._weight_of.get(group, 1.0), rows[-1], group) for group, rows in waiting.items()]
        heapq.heapify(heap)
        scores = np.zeros(len(jobs))
        for place in range(len(jobs) - running):
            _, row, group = heapq.heappop(heap)
            scores[row] = place
            waiting[group].pop()
            held[group] += jobs[row, L.GPUS]
            if waiting[group]:
                heapq.heappush(heap, (held[group] / self._weight_of.get(group, 1.0), waiting[group][-1], group))
        return scores
