"""The one decision interface."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from lepton_rl.core.actions import Action
from lepton_rl.core.snapshot import Snapshot


@runtime_checkable
class Policy(Protocol):
    """Turns what a scheduler can know now into actions. Heuristics and trained agents are policies."""

    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        """Return the actions to apply now, in order; none means wait for the next event."""
