"""The audit log of a node: each change that was asked for, by whom, and what came of it."""

from typing import Any

from lepton_rl.node.caller import Caller
from lepton_rl.node.clock import Clock
from lepton_rl.node.ledger import AuditEntry, Ledger

_TARGETS = ("job", "gpu", "reservation", "token")


class Audit:
    """Writes entries.

    Args:
        ledger: keeps them.
        clock: the machine's clocks.

    Attributes:
        refused: changes that were refused since the daemon started.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock
        self.refused = 0

    def done(self, caller: Caller, verb: str, arguments: dict[str, Any]) -> None:
        """Write down a change that was made."""
        self.enter(caller, verb, _target(arguments), "done", arguments)

    def refuse(self, caller: Caller, verb: str, arguments: dict[str, Any], why: object) -> None:
        """Write down a change that was refused, and count it."""
        self.refused += 1
        self.enter(caller, verb, _target(arguments), f"refused: {why}", arguments)

    def enter(self, caller: Caller, verb: str, target: str, outcome: str, detail: dict[str, Any] | None = None) -> None:
        """Write an entry."""
        entry = AuditEntry(
            time=self._clock.wall(), uid=caller.uid, user=caller.user, verb=verb, target=target, outcome=outcome,
            detail=detail or {},
        )  # fmt: skip
        self._ledger.audit(entry)


def _target(arguments: dict[str, Any]) -> str:
    return next((f"{name} {arguments[name]}" for name in _TARGETS if name in arguments), "")
