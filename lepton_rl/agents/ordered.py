"""Policies that go through the queue in an order of choice and choose the GPUs of each job themselves."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field

from lepton_rl.agents.greedy import starts
from lepton_rl.core import Action, Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import njit
from lepton_rl.simulator import Order
from lepton_rl.simulator.scores import TIMELESS_ORDERS, score

OrderName = Literal[
    "fcfs", "sjf", "ljf", "smallest", "saf", "f1", "f2", "f3", "f4", "wfp3", "unicep", "edf", "llf",
]  # fmt: skip
_NO_SETTINGS = np.zeros(L.SETTING_COLUMNS)


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """A copy of a snapshot's cluster on which jobs are placed to see where they go."""

    jobs: Floats  # (running + waiting, JOB_COLUMNS)
    gpus: Ints32  # (GPUs, GPU_COLUMNS)
    nodes: Ints32  # (nodes, NODE_COLUMNS)
    bits: Words  # (nodes, words)
    totals: Ints64  # (TOTAL_COLUMNS,)
    hw: Hardware

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Trial":
        """Return the copy."""
        return cls(
            snapshot.jobs.copy(), snapshot.gpus.copy(), snapshot.nodes.copy(), snapshot.bits.copy(),
            snapshot.totals.copy(), snapshot.hw,
        )  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class Starts:
    """What a pass starts: rows in order, and their GPUs behind each other."""

    rows: Ints64  # (jobs,)
    held: Ints64  # (GPUs + jobs,): shares of one GPU name it each


class OrderedPolicy(BaseModel, frozen=True, extra="forbid"):
    """Base of the policies that take the waiting jobs in an order and have a rule of their own for their GPUs.

    A subclass places the jobs (`place_in_order`). Ties of the order go to the earlier submission.
    """

    chooses_gpus: ClassVar[bool] = True

    order: OrderName = Field(default="fcfs", description="order of the queue, as the policy of that name")
    blocking: Literal["head", "skip"] = Field(default="skip", description="what happens behind a job that does not fit")

    @property
    def needs_requested_times(self) -> bool:
        """Whether the order means nothing without requested times."""
        return Order[self.order.upper()] not in TIMELESS_ORDERS

    def place_in_order(self, snapshot: Snapshot, trial: Trial, rows: Ints64, out: Starts) -> int:
        """Place the jobs of these rows one after the other, list the placed ones in `out`, return how many."""
        raise NotImplementedError

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Return the starts of this instant."""
        first, total = snapshot.running_count, len(snapshot.jobs)
        if first == total or snapshot.totals[L.HELD] == L.MILLI * len(snapshot.gpus):
            return []
        trial = Trial.of(snapshot)
        keys = np.empty(total - first)
        _write_scores(int(Order[self.order.upper()]), _NO_SETTINGS, trial.jobs, first, snapshot.time, keys)
        rows = first + np.argsort(keys, kind="stable")
        out = Starts(np.empty(total, np.int64), np.empty(len(snapshot.gpus) + total, np.int64))
        count = self.place_in_order(snapshot, trial, rows, out)
        return starts(trial.jobs, out.rows[:count], out.held)


@njit
def _write_scores(order: int, settings: Floats, jobs: Floats, first: int, now: float, keys: Floats) -> None:
    """Write the order's score of the rows from `first` on."""
    for row in range(first, jobs.shape[0]):
        keys[row - first] = score(order, settings, jobs, row, now)
