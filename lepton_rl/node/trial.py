"""A second policy beside the acting one: as a shadow that only decides and is compared, or with a share of the jobs.

What it asks for is held against the same checks as what the guard lets through, by itself and before anything is made
of it: its mistakes are counted against it, and cost the acting policy nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action
from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import LeptonError
from lepton_rl.node.allowance import Allowance, carried_out, checked, disturbing, wanted
from lepton_rl.node.doubt import doubt_of
from lepton_rl.node.trial_record import OnTrial, starts, told


class Shadow:
    """A policy with another one in its shadow: what the shadow decides is compared and never done.

    The shadow may ask for what the acting policy may; what would be refused is counted.

    Args:
        acting: decides.
        shadow: decides too.
        names: of both.
    """

    def __init__(self, acting: Policy, shadow: Policy, names: tuple[str, str]) -> None:
        self.acting, self._names = acting, names
        self._trial = OnTrial(shadow, names[1])
        self.record = self._trial.record

    @property
    def members(self) -> tuple[tuple[str, Policy], ...]:
        """Both, each with its name."""
        return tuple(zip(self._names, (self.acting, self._trial.policy), strict=True))

    def told(self) -> dict[str, Any]:
        """Return what `status` says of the trial, plain data."""
        return told(f"{self._names[1]} decides in the shadow of {self._names[0]}", "shadow", self._names, self.record)

    def out_of_range(self, snapshot: Snapshot) -> str:
        """Return in a sentence what the acting policy has not seen in its training, or nothing."""
        return doubt_of(self.acting, snapshot)

    def close(self) -> None:
        """Let the shadow's thread end."""
        self._trial.close()

    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        """Return what the acting policy decides."""
        return self.decide_within(snapshot, Allowance())

    def decide_within(self, snapshot: Snapshot, allowance: Allowance) -> list[Any]:
        """Return what the acting policy decides, for the guard to check."""
        actions = wanted(self.acting, snapshot)
        others = self._trial.decide(snapshot, allowance)
        if others is None:
            return actions
        self.record.counts["decisions"] += 1
        if starts(actions) == starts(others):
            self.record.counts["same"] += 1
        else:
            differing = [
                f"{name} starts {sorted(starts(each)) or 'nothing'}"
                for name, each in zip(self._names, (actions, others), strict=True)
            ]
            self.record.examples.append("; ".join(differing))
        return actions


class Canary:
    """Two policies, each with its own jobs: one in so many jobs, drawn once by its number, is the canary's.

    At each decision one of them goes first, drawn by the same share; the other decides on what is left. Where the
    canary fails, is late, or wants what is not possible or not allowed, that is counted, and the acting policy decides
    on all that wait. What is allowed comes with the snapshot: the threads of policies must not touch the journal.

    Args:
        acting: has most jobs.
        canary: has the share.
        share: 0 to 1.
        name: of the canary.
        acting_name: of the other.
    """

    def __init__(
        self, acting: Policy, canary: Policy, share: float, name: str = "canary", acting_name: str = "acting"
    ) -> None:
        if not 0 < share < 1:
            raise LeptonError(f"a canary has a share between 0 and 1 of the jobs, not {share:g}")
        self.acting, self.canary, self.share = acting, canary, share
        self.acting_name, self.canary_name = acting_name, name
        self._turns = 0
        self._acted: set[str] = set()
        self._own: set[int] = set()
        self._trial = OnTrial(canary, name)
        self.record = self._trial.record
        self.started: Mapping[str, tuple[int, ...]] = {}
        """Jobs that the last decision starts, by who decided: "acting" or "canary"."""

    @property
    def members(self) -> tuple[tuple[str, Policy], ...]:
        """Both, each with its name."""
        return ((self.acting_name, self.acting), (self.canary_name, self.canary))

    @property
    def deciders(self) -> str:
        """Who made the last decision, by name: the one of the two that wanted something, or both."""
        names = {"acting": self.acting_name, "canary": f"{self.canary_name} (canary)"}
        return ", ".join(name for role, name in names.items() if role in self._acted) or self.acting_name

    def told(self) -> dict[str, Any]:
        """Return what `status` says of the trial, plain data."""
        names = (self.acting_name, self.canary_name)
        sentence = f"{names[1]} decides on {self.share:.0%} of the jobs as a canary, {names[0]} on the others"
        return told(sentence, "canary", names, self.record) | {"share": self.share}

    def out_of_range(self, snapshot: Snapshot) -> str:
        """Return in a sentence what the acting policy has not seen in its training, or nothing."""
        return doubt_of(self.acting, snapshot)

    def close(self) -> None:
        """Let the canary's thread end."""
        self._trial.close()

    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        """Return what both decide, one after the other."""
        return self.decide_within(snapshot, Allowance())

    def decide_within(self, snapshot: Snapshot, allowance: Allowance) -> list[Any]:
        """Return what both decide, one after the other, for the guard to check."""
        self.started, self._acted = {}, set()
        self._turns += 1
        canary_first = of_canary(-self._turns, self.share)
        both = (self._canary_first if canary_first else self._acting_first)(snapshot, allowance)
        if both is None:
            alone = wanted(self.acting, snapshot)
            self._note("acting", alone)
            return alone
        return both

    def _canary_first(self, snapshot: Snapshot, allowance: Allowance) -> list[Any] | None:
        """What both decide; None where the canary's part cannot be done."""
        seen = _of(snapshot, self.share, True)
        own = self._trial.decide(seen, allowance)
        if own is None:
            return None
        others = wanted(self.acting, _of(carried_out(snapshot, own), self.share, False))
        most = allowance.disturbances
        if most is not None and most - disturbing(own) < disturbing(others) <= most:
            why = f"{self.canary_name} leaves {self.acting_name} too few preemptions, moves and power limits"
            self.record.refuse("illegal", f"{why} of those that may still be made in this minute")
            return None
        self._note("acting", others)
        self._count(seen, own, allowance)
        return [*own, *others]

    def _acting_first(self, snapshot: Snapshot, allowance: Allowance) -> list[Any] | None:
        """What both decide; None where the canary's part cannot be done."""
        given = wanted(self.acting, _of(snapshot, self.share, False))
        self._note("acting", given)
        try:
            others = checked(snapshot, given, allowance, self.acting_name)
        except Exception:
            return given  # the guard finds the same, and says why
        seen = _of(carried_out(snapshot, others), self.share, True)
        own = self._trial.decide(seen, allowance.less(others))
        if own is None:
            return None
        self._count(seen, own, allowance)
        return [*others, *own]

    def _note(self, role: str, actions: Sequence[object]) -> None:
        """Keep who decided what."""
        self.started = {**self.started, role: tuple(sorted(starts(actions)))}
        if actions:
            self._acted.add(role)

    def _count(self, seen: Snapshot, own: Sequence[Action], allowance: Allowance) -> None:
        """Count a decision of the canary's, and whether the acting policy would have made the same of these jobs."""
        self._note("canary", own)
        self._own.update(self.started["canary"])  # a start that is put off is decided again, and counts once
        self.record.counts["started"] = len(self._own)
        if len(seen.queue) == 0:
            return
        self.record.counts["decisions"] += 1
        if allowance.seconds is not None and allowance.left() < allowance.seconds / 2.0:
            return  # the comparison must not make the decision late
        with suppress(Exception):
            if starts(wanted(self.acting, seen)) == starts(own):
                self.record.counts["same"] += 1


def deciding(policy: Policy, job: int) -> Policy:
    """Return the policy that decides on a job, where two share the jobs or one is in the other's shadow."""
    if isinstance(policy, Canary):
        return policy.canary if of_canary(job, policy.share) else policy.acting
    return policy.acting if isinstance(policy, Shadow) else policy


def of_canary(job: int, share: float) -> bool:
    """Return whether a job is the canary's: by its number alone, the same after a restart and in every report."""
    digest = hashlib.blake2b(str(job).encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def _of(snapshot: Snapshot, share: float, canary: bool) -> Snapshot:
    """The snapshot with the waiting jobs of one of the two alone."""
    running = snapshot.running_count
    own = [of_canary(int(job), share) is canary for job in snapshot.jobs[running:, L.ID]]
    jobs = snapshot.jobs[np.concatenate((np.ones(running, np.bool_), np.array(own, np.bool_)))]
    jobs.setflags(write=False)
    return replace(snapshot, jobs=jobs)
