"""Attained service: two queues by service received, and the Gittins index; neither needs requested times."""

from bisect import insort
from typing import Literal

import numpy as np
from pydantic import Field, PrivateAttr

from lepton_rl.agents.compiled import RulePolicy
from lepton_rl.agents.history import FinishedJobs
from lepton_rl.agents.scored import ScoredPolicy
from lepton_rl.core import Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats
from lepton_rl.simulator import Order

PreemptiveBlocking = Literal["head", "skip"]


class DiscretisedLas(RulePolicy, frozen=True, extra="forbid"):
    """Two queues: jobs that have had less than `threshold` GPU-seconds go before all others; preempts.

    Discretised two-dimensional LAS of Tiresias (Gu et al., NSDI 2019) with two queues and no promotion. Within a
    queue jobs go by submission, so that jobs of like service do not preempt each other in turn, which plain
    `las` makes them do. A job is moved down at the first decision point (arrival, completion or timer) after it
    has reached the threshold. One decision costs (q + k) log (q + k). Good when preemption is cheap and run
    times are unknown and heavy-tailed.
    """

    blocking: PreemptiveBlocking = Field(default="head", description="what happens behind a job that does not fit")
    threshold: float = Field(
        default=3600.0, gt=0, allow_inf_nan=False, description="GPU-seconds of service that end a job's first queue"
    )

    @property
    def order(self) -> Order:
        """Score formula of the queue."""
        return Order.DLAS

    @property
    def weights(self) -> tuple[float, ...]:
        """The threshold."""
        return (self.threshold,)


class Gittins(ScoredPolicy, frozen=True, extra="forbid"):
    """Highest Gittins index first, from the service of jobs that have finished so far; preempts.

    The index of a job with attained service a, in GPU-seconds, is the largest over d of P(S - a <= d | S > a) /
    E[min(S - a, d) | S > a]: the best rate of completions for service that it may be given next (Gittins, J. Royal
    Statistical Society B 1979; Gu et al. (Tiresias), NSDI 2019). S is distributed as in the history of this run.
    A job beyond all history, and every job while there is none, goes after those with an index, least attained
    service first. One decision costs (q + k) x history. Good when preemption is cheap, run times are unknown and
    the future is like the past.
    """

    blocking: PreemptiveBlocking = Field(default="head", description="what happens behind a job that does not fit")
    history: int = Field(default=1000, ge=1, le=100_000, description="finished jobs that are remembered, latest first")
    _finished: FinishedJobs = PrivateAttr(default_factory=FinishedJobs)
    _latest: list[float] = PrivateAttr(default_factory=list)  # in the order in which they finished
    _service: list[float] = PrivateAttr(default_factory=list)  # the same, ascending

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "gittins"

    @property
    def order(self) -> Order:
        """Running jobs are ordered too."""
        return Order.GIVEN_PREEMPTIVE

    def scores(self, snapshot: Snapshot) -> Floats:
        """Return 1 / index; beyond history, attained service above all of those."""
        self._learn(snapshot)
        jobs = snapshot.jobs
        attained = snapshot.service * jobs[:, L.GPUS] / L.MILLI
        seen, where = np.unique(attained, return_inverse=True)
        index = gittins_index(np.array(self._service), seen)[where]
        scores = np.where(index > 0.0, 1.0 / np.maximum(index, 1e-300), 0.0)
        highest = float(scores.max(initial=0.0))
        ranked: Floats = np.where(index > 0.0, scores, highest + 1.0 + attained)
        return ranked

    def _learn(self, snapshot: Snapshot) -> None:
        if self._finished.is_new_run(snapshot):
            self._finished.forget()
            self._latest.clear()
            self._service.clear()
        for job, served in self._finished.watch(snapshot):
            service = served * float(job[L.GPUS]) / L.MILLI
            self._latest.append(service)
            insort(self._service, service)
            if len(self._latest) > self.history:
                self._service.remove(self._latest.pop(0))


def gittins_index(service: Floats, attained: Floats) -> Floats:
    """Return the Gittins index of jobs with this attained service, 0 where no job of the history had more.

    Args:
        service: of finished jobs, ascending.
        attained: in the same unit.
    """
    index = np.zeros(len(attained))
    for place, level in enumerate(attained.tolist()):
        left = service[np.searchsorted(service, level, side="right") :] - level
        if len(left):
            done = np.arange(1, len(left) + 1)
            # Only at ends of services can the ratio be largest.
            spent = np.cumsum(left) + (len(left) - done) * left
            index[place] = float((done / spent).max())
    return index
