"""A second policy beside the acting one: as a shadow that only decides and is compared, or with a share of the jobs."""

import hashlib
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action, Start
from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import LeptonError, counted

_log = logging.getLogger(__name__)
_KEPT = 1000


@dataclass
class TrialRecord:
    """What became of the decisions of the second policy.

    Attributes:
        counts: decisions; same (the acting policy would have started the same jobs); failed; illegal; started (jobs).
        seconds: that its last decisions took.
        examples: last decisions that differed, each a sentence.
    """

    counts: Counter[str] = field(default_factory=Counter)
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    examples: deque[str] = field(default_factory=lambda: deque(maxlen=20))


class Shadow:
    """A policy with another one in its shadow: what the shadow decides is compared and never done.

    Args:
        acting: decides.
        shadow: decides too.
        names: of both.
    """

    def __init__(self, acting: Policy, shadow: Policy, names: tuple[str, str]) -> None:
        self.acting, self._shadow, self._names = acting, shadow, names
        self.record = TrialRecord()

    def told(self) -> dict[str, Any]:
        """Return what `status` says of the trial, plain data."""
        return _told(f"{self._names[1]} decides in the shadow of {self._names[0]}", "shadow", self._names, self.record)

    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        """Return what the acting policy decides."""
        actions = list(self.acting.decide(snapshot))
        wanted = _tried(self._shadow, snapshot, self.record)
        if wanted is None:
            return actions
        self.record.counts["decisions"] += 1
        if _starts(actions) == _starts(wanted):
            self.record.counts["same"] += 1
        else:
            told = [
                f"{name} starts {sorted(_starts(each)) or 'nothing'}"
                for name, each in zip(self._names, (actions, wanted), strict=True)
            ]
            self.record.examples.append("; ".join(told))
        return actions


class Canary:
    """Two policies, each with its own jobs: one in so many jobs, drawn once by its number, is the canary's.

    At each decision one of them goes first, drawn by the same share; the other decides on what is left. Where the
    canary fails, the acting policy decides on all that wait.

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
        self.record = TrialRecord()
        self.started: Mapping[str, tuple[int, ...]] = {}
        """Jobs that the last decision starts, by who decided: "acting" or "canary"."""

    @property
    def deciders(self) -> str:
        """Who made the last decision, by name: the one of the two that wanted something, or both."""
        names = {"acting": self.acting_name, "canary": f"{self.canary_name} (canary)"}
        return ", ".join(name for role, name in names.items() if role in self._acted) or self.acting_name

    def told(self) -> dict[str, Any]:
        """Return what `status` says of the trial, plain data."""
        names = (self.acting_name, self.canary_name)
        sentence = f"{names[1]} decides on {self.share:.0%} of the jobs as a canary, {names[0]} on the others"
        return _told(sentence, "canary", names, self.record) | {"share": self.share}

    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        """Return what both decide, one after the other."""
        self.started, self._acted = {}, set()
        self._turns += 1
        canary_first = of_canary(-self._turns, self.share)
        actions: list[Action] = []
        for canary_turn in (canary_first, not canary_first):
            seen = _of(snapshot, self.share, canary_turn)
            if canary_turn:
                wanted = _tried(self.canary, seen, self.record)
                self._count(seen, wanted)
                if wanted is None:
                    whole = list(self.acting.decide(snapshot))
                    self._note("acting", whole)
                    return [*actions, *whole]
            else:
                wanted = list(self.acting.decide(seen))
            self._note("canary" if canary_turn else "acting", wanted or ())
            for action in wanted or ():
                snapshot = snapshot.after(action)
                actions.append(action)
        return actions

    def _note(self, role: str, actions: Sequence[Action]) -> None:
        """Keep who decided what."""
        started = tuple(sorted(_starts(actions).union(self.started.get(role, ()))))
        self.started = {**self.started, role: started}
        if actions:
            self._acted.add(role)
        if role == "canary":
            self._own.update(started)  # a start that is put off is decided again, and counts once
            self.record.counts["started"] = len(self._own)

    def _count(self, seen: Snapshot, wanted: Sequence[Action] | None) -> None:
        """Count a decision of the canary's, and whether the acting policy would have made the same of these jobs."""
        if wanted is None or len(seen.queue) == 0:
            return
        self.record.counts["decisions"] += 1
        other = _tried(self.acting, seen, TrialRecord())
        if other is not None and _starts(other) == _starts(wanted):
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


def _told(sentence: str, kind: str, names: tuple[str, str], record: TrialRecord) -> dict[str, Any]:
    counts = {name: record.counts[name] for name in ("decisions", "same", "failed", "illegal", "started")}
    wrong = counts["failed"] + counts["illegal"]
    compared = (
        f"{counted(counts['decisions'], 'decision')}, {counts['same']} as {names[0]}'s would be, {wrong} not possible"
    )
    return {
        "kind": kind, "policy": names[1], "acting": names[0], "counts": counts, "examples": list(record.examples),
        "text": f"{sentence}: {compared}",
    }  # fmt: skip


def _of(snapshot: Snapshot, share: float, canary: bool) -> Snapshot:
    """The snapshot with the waiting jobs of one of the two alone."""
    running = snapshot.running_count
    own = [of_canary(int(job), share) is canary for job in snapshot.jobs[running:, L.ID]]
    jobs = snapshot.jobs[np.concatenate((np.ones(running, np.bool_), np.array(own, np.bool_)))]
    jobs.setflags(write=False)
    return replace(snapshot, jobs=jobs)


def _tried(policy: Policy, snapshot: Snapshot, record: TrialRecord) -> list[Action] | None:
    """What a policy on trial wants, where that can be done; its failures are counted."""
    began = time.perf_counter()
    try:
        actions = list(policy.decide(snapshot))
        after = snapshot
        for action in actions:
            after = after.after(action)
    except Exception as error:
        record.counts["illegal" if isinstance(error, LeptonError) else "failed"] += 1
        record.examples.append(f"{type(error).__name__}: {error}")
        _log.warning("the policy on trial: %s", error)
        return None
    record.seconds.append(time.perf_counter() - began)
    return actions


def _starts(actions: Sequence[Action]) -> set[int]:
    return {action.job for action in actions if isinstance(action, Start)}
