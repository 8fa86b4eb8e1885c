"""Between a policy and real processes: every decision is timed and checked, and a named fallback decides on any doubt.

Doubt is: the policy takes too long, raises, or asks for something that is not possible or not allowed here. Then none
of its actions is carried out. A job that has waited for too long is a matter of its own: the fallback, which serves in
order of submission, decides until it runs, whatever the policy says.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Protocol

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import IllegalAction, LeptonError

_log = logging.getLogger(__name__)
_WAITS_KEPT = 200


@dataclass(frozen=True, slots=True)
class GuardRules:
    """What a policy is allowed.

    Attributes:
        budget_s: seconds that one decision may take.
        first_budget_s: seconds for the first one, where there was no `warm_up`.
        actions_per_minute: most preemptions, moves and changes of power limits in any minute.
        starving_factor: a job that has waited so many times the median wait goes ahead.
        starving_floor_s: and at least for so long.
    """

    budget_s: float = 0.5
    first_budget_s: float = 60.0
    actions_per_minute: int = 30
    starving_factor: float = 10.0
    starving_floor_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision.

    Attributes:
        actions: what is carried out.
        by: the name of who decided: the policy or the fallback.
        seconds: that the one who decided took.
        fallback_reason: why not the policy, in a sentence; empty where it did.
        refused: what the policy had wanted, where that was the reason.
    """

    actions: tuple[Action, ...]
    by: str
    seconds: float
    fallback_reason: str = ""
    refused: tuple[Action, ...] = ()


class Ranged(Protocol):
    """A policy that knows what it was trained on."""

    def out_of_range(self, snapshot: Snapshot) -> str:
        """Return in a sentence what it has not seen in its training, or nothing."""


@dataclass(slots=True)
class _Worker:
    """A thread in which a policy decides, so that one that hangs holds up nothing else."""

    policy: Policy
    asked: SimpleQueue[Snapshot | None] = field(default_factory=SimpleQueue)
    answered: SimpleQueue[tuple[Sequence[Action] | None, BaseException | None, float]] = field(
        default_factory=SimpleQueue
    )
    busy: bool = False

    def __post_init__(self) -> None:
        threading.Thread(target=self._work, name="policy", daemon=True).start()

    def _work(self) -> None:
        while (snapshot := self.asked.get()) is not None:
            began = time.perf_counter()
            try:
                actions = list(self.policy.decide(snapshot))
            except BaseException as error:
                self.answered.put((None, error, time.perf_counter() - began))
            else:
                self.answered.put((actions, None, time.perf_counter() - began))


class Guard:
    """A policy that may be trusted with real processes.

    Args:
        policy: decides.
        fallback: decides in doubt; in order of submission with backfilling.
        names: of both.
        rules: what the policy is allowed.
        may_stop: whether a running job may be preempted or moved.
        on_verdict: told of each decision, before it is carried out.
    """

    def __init__(
        self,
        policy: Policy,
        fallback: Policy,
        names: tuple[str, str],
        rules: GuardRules | None = None,
        *,
        may_stop: Callable[[int], bool] = lambda job: True,
        on_verdict: Callable[[Verdict, Snapshot], None] = lambda verdict, snapshot: None,
    ) -> None:
        self.policy, self.fallback = policy, fallback
        self.policy_name, self.fallback_name = names
        self.rules = rules or GuardRules()
        self.counts: Counter[str] = Counter()
        self.seconds: deque[float] = deque(maxlen=1000)
        self.waits: deque[float] = deque(maxlen=_WAITS_KEPT)
        self._may_stop, self.on_verdict = may_stop, on_verdict
        self._worker: _Worker | None = None
        self._used = False
        self._acted_at: deque[float] = deque()

    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        """Return checked actions; nothing here raises for what a policy does.

        Raises:
            LeptonError: the fallback itself fails.
        """
        if len(snapshot.queue) == 0 and len(snapshot.running) == 0:
            return ()
        starving = self.starving(snapshot)
        if starving is None:
            verdict = self._by_policy(snapshot)
        else:
            job, waited = starving
            verdict = self._by_fallback(
                snapshot, f"job {job} has waited {waited:,.0f} s, too long: the order of submission holds", "starvation"
            )
        self.counts["decisions"] += 1
        self.seconds.append(verdict.seconds)
        for action in verdict.actions:
            if isinstance(action, Start):
                row = int(np.flatnonzero(snapshot.jobs[:, L.ID] == action.job)[0])
                self.waits.append(snapshot.time - float(snapshot.jobs[row, L.SUBMIT]))
        self.on_verdict(verdict, snapshot)
        return verdict.actions

    def warm_up(self, snapshots: Sequence[Snapshot]) -> None:
        """Let both decide on made-up nodes, so that what is compiled at its first use is compiled before it matters."""
        for snapshot in snapshots:
            for policy in (self.policy, self.fallback):
                with suppress(LeptonError):  # what it refuses, it refuses when it matters, too
                    for action in policy.decide(snapshot):
                        snapshot.after(action)
        self._used = True

    def starving(self, snapshot: Snapshot) -> tuple[int, float] | None:
        """Return the job that has waited for too long, the longest first, and how long; None where none has."""
        queue = snapshot.queue
        if len(queue) == 0:
            return None
        waited = snapshot.time - queue.submit_time
        median = float(np.median(self.waits)) if self.waits else 0.0
        bound = max(self.rules.starving_floor_s, self.rules.starving_factor * median)
        oldest = int(waited.argmax())
        return (int(queue.id[oldest]), float(waited[oldest])) if waited[oldest] > bound else None

    def close(self) -> None:
        """Let the policy's thread end."""
        if self._worker is not None:
            self._worker.asked.put(None)

    def _by_policy(self, snapshot: Snapshot) -> Verdict:
        ranged = getattr(self.policy, "out_of_range", None)
        doubt = ranged(snapshot) if ranged is not None else ""
        if doubt:
            return self._by_fallback(snapshot, doubt, "range")
        answer = self._ask(snapshot)
        if answer is None:
            why = f"{self.policy_name} took more than {self._budget():g} s"
            return self._by_fallback(snapshot, why, "timeout")
        actions, error, seconds = answer
        self._used = True
        if error is not None or actions is None:
            return self._by_fallback(snapshot, f"{self.policy_name} failed: {_one_line(error)}", "exception")
        try:
            self._check(snapshot, actions)
        except IllegalAction as refused:
            return self._by_fallback(snapshot, str(refused), "illegal", tuple(actions))
        return Verdict(tuple(actions), self.policy_name, seconds)

    def _by_fallback(self, snapshot: Snapshot, reason: str, kind: str, refused: tuple[Action, ...] = ()) -> Verdict:
        self.counts[f"fallback_{kind}"] += 1
        _log.warning("%s decides: %s", self.fallback_name, reason)
        began = time.perf_counter()
        actions = tuple(self.fallback.decide(snapshot))
        return Verdict(actions, self.fallback_name, time.perf_counter() - began, reason, refused)

    def _budget(self) -> float:
        return self.rules.budget_s if self._used else self.rules.first_budget_s

    def _ask(self, snapshot: Snapshot) -> tuple[Sequence[Action] | None, BaseException | None, float] | None:
        """Let the policy decide in its thread; None where it does not answer in time, or still thinks of the last."""
        if self._worker is None:
            self._worker = _Worker(self.policy)
        worker = self._worker
        if worker.busy:
            if worker.answered.empty():
                return None
            worker.answered.get()
            worker.busy = False
        worker.asked.put(snapshot)
        try:
            return worker.answered.get(timeout=self._budget())
        except Empty:
            worker.busy = True
            return None

    def _check(self, snapshot: Snapshot, actions: Sequence[Action]) -> None:
        """Carry the actions out on paper.

        Raises:
            IllegalAction: one of them is not possible, or not allowed.
        """
        for action in actions:
            if isinstance(action, Preempt | Migrate) and not self._may_stop(action.job):
                raise IllegalAction(
                    f"{self.policy_name} wants to stop job {action.job}, which is not declared restartable"
                )
            snapshot = snapshot.after(action)
        costly = sum(isinstance(action, Preempt | Migrate | SetPowerLimit) for action in actions)
        if costly == 0:
            return
        now = time.monotonic()
        while self._acted_at and self._acted_at[0] < now - 60.0:
            self._acted_at.popleft()
        if len(self._acted_at) + costly > self.rules.actions_per_minute:
            raise IllegalAction(
                f"{self.policy_name} wants more than {self.rules.actions_per_minute} preemptions, moves and power "
                "limits a minute"
            )
        self._acted_at.extend([now] * costly)


def _one_line(error: BaseException | None) -> str:
    if isinstance(error, LeptonError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
