"""A thread in which a policy decides, so that one that hangs holds up nothing else."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.node.allowance import Allowance, wanted
from lepton_rl.node.doubt import doubt_of


@dataclass(frozen=True, slots=True)
class Answer:
    """What a policy said, whatever that is.

    Attributes:
        seconds: that it took.
        actions: that it wants, unchecked.
        doubt: what it has not seen in its training, in a sentence; then it wants nothing.
        error: what it raised.
    """

    seconds: float
    actions: Sequence[object] = ()
    doubt: str = ""
    error: BaseException | None = None


class PolicyThread:
    """Asks a policy, and waits for so long.

    Args:
        policy: decides.
    """

    def __init__(self, policy: Policy) -> None:
        self._asked: SimpleQueue[tuple[Snapshot, Allowance] | None] = SimpleQueue()
        self._answered: SimpleQueue[Answer] = SimpleQueue()
        self._busy = False
        threading.Thread(target=self._work, args=(policy,), name="policy", daemon=True).start()

    def ask(self, snapshot: Snapshot, allowance: Allowance, budget_s: float | None) -> Answer | None:
        """Return the answer; None where it does not come in so many seconds, or the policy still thinks of the last.

        A budget of None waits for ever.
        """
        if self._busy:
            if budget_s is not None and self._answered.empty():
                return None
            self._answered.get()
            self._busy = False
        self._asked.put((snapshot, allowance))
        try:
            return self._answered.get(timeout=budget_s)
        except Empty:
            self._busy = True
            return None

    def close(self) -> None:
        """Let the thread end, once the policy has answered."""
        self._asked.put(None)

    def _work(self, policy: Policy) -> None:
        while (asked := self._asked.get()) is not None:
            self._answered.put(_answer(policy, *asked))


def _answer(policy: Policy, snapshot: Snapshot, allowance: Allowance) -> Answer:
    began = time.perf_counter()
    try:
        doubt = doubt_of(policy, snapshot)
        if doubt:
            return Answer(time.perf_counter() - began, doubt=doubt)
        within = getattr(policy, "decide_within", None)
        actions = wanted(policy, snapshot) if within is None else within(snapshot, allowance)
    except BaseException as error:  # even SystemExit: this is no thread of the daemon's own
        return Answer(time.perf_counter() - began, error=error)
    return Answer(time.perf_counter() - began, actions)
