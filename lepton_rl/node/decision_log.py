"""What was decided, for the journal: kept for a moment, and written many at once."""

from typing import Any

from lepton_rl.node.clock import Clock
from lepton_rl.node.guard import Verdict
from lepton_rl.node.journal import Journal
from lepton_rl.node.ledger import Decision

KEPT_S = 30 * 86_400.0
_MOST_ACTIONS = 50


class DecisionLog:
    """Keeps decisions.

    Args:
        journal: they go to its ledger.
        clock: the machine's clocks.
    """

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._clock = journal, clock
        self._kept: list[Decision] = []

    def record(self, verdict: Verdict, policy: str) -> None:
        """Keep a decision, and the policy that acts; those that do nothing and cast no doubt are only counted."""
        if not verdict.actions and not verdict.fallback_reason:
            return
        shown = [str(action) for action in verdict.actions[:_MOST_ACTIONS]]
        detail: dict[str, Any] = {"actions": shown, "by": verdict.by}
        if verdict.started:
            detail["started"] = dict(verdict.started)
        if len(verdict.actions) > len(shown):
            detail["count"] = len(verdict.actions)
        if verdict.refused:
            detail["refused"] = list(verdict.refused)
        self._kept.append(
            Decision(
                time=self._clock.wall(), policy=policy, decision_s=verdict.seconds,
                fallback_reason=verdict.fallback_reason or None, detail=detail,
            )
        )  # fmt: skip

    def flush(self) -> None:
        """Write the decisions that were kept."""
        if self._kept:
            with self._journal.transaction():
                for decision in self._kept:
                    self._journal.ledger.decide(decision)
            self._kept.clear()  # not before: a full disk may have space again next time

    def forget_old(self) -> None:
        """Remove decisions that nobody will ask for any more."""
        self._journal.ledger.forget_decisions(self._clock.wall() - KEPT_S)
