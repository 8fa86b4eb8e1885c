"""Run times predicted from the jobs of the same user, queue and size that have finished before."""

from bisect import insort
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field, PrivateAttr

from lepton_rl.agents.compiled import BlockingName, PlacementName, placement_of
from lepton_rl.agents.history import FinishedJobs
from lepton_rl.core import Action, Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats
from lepton_rl.simulator import Blocking, Order, Rule, decide

LEVELS = ((L.USER, L.QUEUE, L.GPUS), (L.USER, L.GPUS), (L.USER,), (L.QUEUE, L.GPUS), (L.GPUS,), ())
"""Columns that a job must share with those it is predicted from: the first level with enough of them serves."""
NO_HISTORY_S = 3600.0  # the same for all jobs: the order is then that of submission

_Key = tuple[int, ...]


class Predicted(BaseModel, frozen=True, extra="forbid"):
    """Shortest (or smallest area) first by predicted run times, learned while it runs.

    A prediction is the median run time of the finished jobs of the same user, queue and number of GPUs; with
    fewer than `enough` of them, of the same user and GPUs, the same user, the same queue and GPUs, the same GPUs,
    or of all jobs (as Tsafrir et al., IEEE TPDS 2007, predict from a user's last jobs; a median is not moved by
    one job that hung). Only what finished before the decision counts. One decision costs q log q. Good when users
    repeat themselves and ask for no times, or for bad ones. While nodes are reserved or will be, a waiting job is
    planned with its requested time where that is longer: reservations are kept by it.
    """

    score: Literal["sjf", "saf"] = Field(default="sjf", description="order, on predicted times")
    blocking: BlockingName = Field(default="head", description="what happens behind a job that does not fit")
    placement: PlacementName | None = Field(
        default=None, description="which GPUs a job gets; none: as the cluster is set"
    )
    enough: int = Field(default=3, ge=1, le=10_000, description="finished jobs from which a level predicts")
    _finished: FinishedJobs = PrivateAttr(default_factory=FinishedJobs)
    _times: dict[_Key, list[float]] = PrivateAttr(default_factory=dict)

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "predicted"

    @property
    def needs_requested_times(self) -> bool:
        """False: they are predicted."""
        return False

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Return what one pass does that takes predictions for requested times."""
        self._learn(snapshot)
        jobs = snapshot.jobs.copy()
        jobs[:, L.REQUESTED] = self.predictions(jobs)
        jobs[:, L.PREDICTED] = np.maximum(jobs[:, L.REQUESTED] - jobs[:, L.ATTAINED], 1.0)
        if _is_reserved(snapshot):
            # The cluster keeps reservations by requested times; without one a job stays off their nodes.
            first = snapshot.running_count
            asked = np.nan_to_num(snapshot.jobs[first:, L.PREDICTED], nan=np.inf)
            jobs[first:, L.PREDICTED] = np.maximum(jobs[first:, L.PREDICTED], asked)
        placement = placement_of(self.placement, snapshot.placement)
        rule = Rule(Order[self.score.upper()], Blocking[self.blocking.upper()], placement)
        return decide(replace(snapshot, jobs=jobs), rule)

    def predictions(self, jobs: Floats) -> Floats:
        """Return the predicted run time of each row of a job table (layout.JOB_COLUMNS), seconds."""
        return np.array([self._prediction(job) for job in jobs.tolist()])

    def _prediction(self, job: list[float]) -> float:
        for level in range(len(LEVELS)):
            times = self._times.get(_key(job, level))
            if times is not None and len(times) >= self.enough:
                return 0.5 * (times[(len(times) - 1) // 2] + times[len(times) // 2])
        return NO_HISTORY_S

    def _learn(self, snapshot: Snapshot) -> None:
        if self._finished.is_new_run(snapshot):
            self._finished.forget()
            self._times.clear()
        for row, served in self._finished.watch(snapshot):
            job = row.tolist()
            for level in range(len(LEVELS)):
                insort(self._times.setdefault(_key(job, level), []), served)


def _is_reserved(snapshot: Snapshot) -> bool:
    """Whether a node is reserved now or will be."""
    return snapshot.hw is not None and bool((snapshot.nodes[:, L.LASTS] != L.UNCOUNTED).any())


def _key(job: list[float], level: int) -> _Key:
    return (level, *(int(job[column]) for column in LEVELS[level]))
