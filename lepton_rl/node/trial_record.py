"""What becomes of a policy on trial: its decisions, tried one by one, counted, and told to who asks."""

import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_rl.core.actions import Action, Start
from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.node.allowance import Allowance, checked, wanted
from lepton_rl.node.doubt import doubt_of, in_one_line

_log = logging.getLogger(__name__)
_KEPT = 1000


@dataclass
class TrialRecord:
    """What became of the decisions of the second policy.

    Attributes:
        counts: decisions; same (the acting policy would have started the same jobs); failed (it raised, or saw what its
            training had not); illegal (it wanted what is not possible, or not allowed); started (jobs).
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


def told(sentence: str, kind: str, names: tuple[str, str], record: TrialRecord) -> dict[str, Any]:
    """Return what `status` says of a trial of the second of two policies, plain data."""
    counts = {name: record.counts[name] for name in ("decisions", "same", "failed", "illegal", "started")}
    wrong = counts["failed"] + counts["illegal"]
    counted = f"{counts['decisions']} decisions, {counts['same']} as {names[0]}'s would be, {wrong} not possible"
    return {
        "kind": kind, "policy": names[1], "acting": names[0], "counts": counts, "examples": list(record.examples),
        "text": f"{sentence}: {counted}",
    }  # fmt: skip


def tried(
    policy: Policy, name: str, snapshot: Snapshot, allowance: Allowance, record: TrialRecord
) -> tuple[Action, ...] | None:
    """Return what a policy on trial wants, where that can be done and is allowed; else None, and that is counted."""
    began = time.perf_counter()
    try:
        doubt = doubt_of(policy, snapshot)
        given = [] if doubt else wanted(policy, snapshot)
    except BaseException as error:  # even SystemExit: this is no thread of the daemon's own
        record.refuse("failed", f"{name} failed: {in_one_line(error)}")
        return None
    if doubt:
        record.refuse("failed", doubt)
        return None
    try:
        actions = checked(snapshot, given, allowance, name)
    except Exception as error:
        record.refuse("illegal", in_one_line(error))
        return None
    record.seconds.append(time.perf_counter() - began)
    return actions


def starts(actions: Sequence[object]) -> set[int]:
    """Return the jobs that actions start; what is no number names none."""
    starts = [action.job for action in actions if isinstance(action, Start)]
    return {int(job) for job in starts if isinstance(job, int | np.integer)}
