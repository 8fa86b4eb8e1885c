"""What one decision may ask of a node, beside what its snapshot tells: plain facts, that any thread may read.

The guard, a policy on trial and the node hold actions against the same checks.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Self

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import IllegalAction
from lepton_rl.node.actions import plain
from lepton_rl.node.reservations import Ahead


class TooOften(IllegalAction):
    """A policy disturbs running jobs more often than it may."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is allowed at one decision.

    Attributes:
        restartable: jobs that may be preempted and moved; None for all.
        ahead: reservations that no job may run into.
        unsaid: jobs whose users have not said how long they take.
        disturbances: preemptions, moves and changes of power limits that may be made now; None for any number.
        seconds: that the decision may take; None for any time.
        begun: when it began, by `time.monotonic`.
    """

    restartable: frozenset[int] | None = None
    ahead: Ahead = field(default_factory=Ahead)
    unsaid: frozenset[int] = frozenset()
    disturbances: int | None = None
    seconds: float | None = None
    begun: float = 0.0

    def left(self) -> float:
        """Return the seconds that are left for the decision; infinity for any time."""
        return math.inf if self.seconds is None else self.seconds - (time.monotonic() - self.begun)

    def may_stop(self, job: int) -> bool:
        """Return whether a job may be preempted and moved."""
        return self.restartable is None or job in self.restartable

    def check(self, action: Action, after: Snapshot, who: str) -> None:
        """Refuse an action that is possible, and not allowed.

        Args:
            action: of a policy.
            after: what it makes of the snapshot.
            who: wants it, by name.

        Raises:
            IllegalAction: the job may not be stopped, or would run into a reservation.
        """
        if isinstance(action, Preempt | Migrate) and not self.may_stop(action.job):
            raise IllegalAction(f"{who} wants to stop job {action.job}, which is not declared restartable")
        if isinstance(action, Start | Migrate) and self.ahead.next:
            row = int(np.flatnonzero(after.jobs[:, L.ID] == action.job)[0])
            asked_s, said = float(after.jobs[row, L.REQUESTED]), action.job not in self.unsaid
            taken = self.ahead.run_into(asked_s, said=said)
            for gpu in after.gpus_of(action.job):
                if gpu in taken:
                    raise IllegalAction(f"job {action.job}: {taken[gpu]}")

    def less(self, actions: Sequence[Action]) -> Self:
        """Return what is allowed once these have been done."""
        return (
            self if self.disturbances is None else replace(self, disturbances=self.disturbances - disturbing(actions))
        )


def wanted(policy: Policy, snapshot: Snapshot) -> list[object]:
    """Return what a policy decides, whatever that is; of too many actions one more than makes sense, and no more.

    An endless iterator would fill the memory.
    """
    return list(islice(policy.decide(snapshot), most_actions(snapshot) + 1))


def checked(snapshot: Snapshot, given: Sequence[object], allowance: Allowance, who: str) -> tuple[Action, ...]:
    """Carry actions out on paper and return them in plain numbers.

    Raises:
        IllegalAction: one of them is not possible, or not allowed.
        TooOften: they would disturb more than is allowed now.
    """
    if len(given) > most_actions(snapshot):
        raise IllegalAction(f"{who} wants more than {most_actions(snapshot):,} actions at once")
    actions = tuple(plain(action) for action in given)
    for action in actions:
        snapshot = snapshot.after(action)
        allowance.check(action, snapshot, who)
    if allowance.disturbances is not None and disturbing(actions) > allowance.disturbances:
        raise TooOften(
            f"{who} wants more preemptions, moves and power limits than may still be made in this minute: "
            f"{disturbing(actions)}, not {allowance.disturbances}"
        )
    return actions


def carried_out(snapshot: Snapshot, actions: Sequence[Action]) -> Snapshot:
    """Return the snapshot after actions that have been checked."""
    for action in actions:
        snapshot = snapshot.after(action)
    return snapshot


def disturbing(actions: Sequence[object]) -> int:
    """Return how many actions disturb what runs."""
    return sum(isinstance(action, Preempt | Migrate | SetPowerLimit) for action in actions)


def most_actions(snapshot: Snapshot) -> int:
    """Return how many actions at once make sense: stop and start every job and limit every GPU."""
    return 2 * len(snapshot.jobs) + len(snapshot.gpus)
