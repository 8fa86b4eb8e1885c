"""What becomes of a policy on trial: its decisions, tried one by one, counted, and told to who asks."""

import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_rl.core.actions import Action, Start
from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import counted
from lepton_rl.node.allowance import Allowance, checked
from lepton_rl.node.doubt import in_one_line
from lepton_rl.node.policy_thread import Answer, PolicyThread

_log = logging.getLogger(__name__)
_KEPT = 1000
_MOST_OF_THE_REST, _LEAST_PART = 0.8, 0.05
"""Of the time that is left, and of all of it."""


@dataclass
class TrialRecord:
    """What became of the decisions of the second policy.

    Attributes:
        counts: decisions; same (the acting policy would have started the same jobs); failed (it raised, was late, or
            saw what its training had not); illegal (it wanted what is not possible, or not allowed); started (jobs).
        seconds: that its last decisions took.
        examples: last decisions that differed or could not be done, each a sentence.
    """

    counts: Counter[str] = field(default_factory=Counter)
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    examples: deque[str] = field(default_factory=lambda: deque(maxlen=20))

    def refuse(self, kind: str, why: str) -> None:
        """Count a decision that is not carried out, as "failed" or "illegal"."""
        self.counts[kind] += 1
        self.examples.append(why)
        _log.warning("the policy on trial: %s", why)


class OnTrial:
    """A policy on trial, in a thread of its own: one that hangs costs the acting policy nothing.

    Args:
        policy: decides.
        name: of it.
    """

    def __init__(self, policy: Policy, name: str) -> None:
        self.policy, self.name = policy, name
        self.record = TrialRecord()
        self._thread: PolicyThread | None = None

    def decide(self, snapshot: Snapshot, allowance: Allowance) -> tuple[Action, ...] | None:
        """Return what it wants, where that can be done and is allowed; else None, and that is counted.

        It has half of the time that the decision may take, or what the acting policy has left of it; where that is
        next to nothing it is not asked, which says nothing against it.
        """
        if self._thread is None:
            self._thread = PolicyThread(self.policy)
        budget_s = None
        if allowance.seconds is not None:
            budget_s = min(allowance.seconds / 2.0, _MOST_OF_THE_REST * allowance.left())
            if budget_s < _LEAST_PART * allowance.seconds:
                return None
        answer = self._thread.ask(snapshot, allowance, budget_s)
        if answer is None:
            self.record.refuse("failed", f"{self.name} took more than {budget_s:g} s")
        elif answer.error is not None:
            self.record.refuse("failed", f"{self.name} failed: {in_one_line(answer.error)}")
        elif answer.doubt:
            self.record.refuse("failed", answer.doubt)
        else:
            return self._checked(snapshot, answer, allowance)
        return None

    def _checked(self, snapshot: Snapshot, answer: Answer, allowance: Allowance) -> tuple[Action, ...] | None:
        try:
            actions = checked(snapshot, answer.actions, allowance, self.name)
        except Exception as error:
            self.record.refuse("illegal", in_one_line(error))
            return None
        self.record.seconds.append(answer.seconds)
        return actions

    def close(self) -> None:
        """Let its thread end."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None


def told(sentence: str, kind: str, names: tuple[str, str], record: TrialRecord) -> dict[str, Any]:
    """Return what `status` says of a trial of the second of two policies, plain data."""
    counts = {name: record.counts[name] for name in ("decisions", "same", "failed", "illegal", "started")}
    wrong = counts["failed"] + counts["illegal"]
    decisions = counted(counts["decisions"], "decision")
    compared = f"{decisions}, {counts['same']} as {names[0]}'s would be, {wrong} not possible"
    return {
        "kind": kind, "policy": names[1], "acting": names[0], "counts": counts, "examples": list(record.examples),
        "text": f"{sentence}: {compared}",
    }  # fmt: skip


def starts(actions: Sequence[object]) -> set[int]:
    """Return the jobs that actions start; what is no number names none."""
    starts = [action.job for action in actions if isinstance(action, Start)]
    return {int(job) for job in starts if isinstance(job, int | np.integer)}
