"""Between a policy and real processes: every decision is timed and checked, and a named fallback decides on any doubt.

Doubt is: the policy takes too long, raises, or asks for something that is not possible or not allowed here. Then none
of its actions is carried out. A job that has waited for too long is a matter of its own: the fallback, which serves in
order of submission, decides until it runs, whatever the policy says.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action, Preempt, Start
from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import IllegalAction
from lepton_rl.node.actions import shortly
from lepton_rl.node.allowance import Allowance, TooOften, checked, disturbing, most_actions, wanted
from lepton_rl.node.doubt import in_one_line
from lepton_rl.node.policy_thread import PolicyThread

_log = logging.getLogger(__name__)
_WAITS_KEPT = 200
_MOST_LATE = 20  # of jobs that wait for too long, those looked at
_MOST_SHOWN = 50


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
        refused: what the policy had wanted, in words, where that was the reason.
        started: jobs that start, by "acting" and "canary", where two policies share the decision.
    """

    actions: tuple[Action, ...]
    by: str
    seconds: float
    fallback_reason: str = ""
    refused: tuple[str, ...] = ()
    started: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Guard:
    """A policy that may be trusted with real processes.

    Args:
        policy: decides.
        fallback: decides in doubt; in order of submission with backfilling.
        names: of both.
        rules: what the policy is allowed.
        allowance: what a decision now may ask for; asked before each one.
        on_verdict: told of each decision, before it is carried out.
    """

    def __init__(
        self,
        policy: Policy,
        fallback: Policy,
        names: tuple[str, str],
        rules: GuardRules | None = None,
        *,
        allowance: Callable[[], Allowance] = Allowance,
        on_verdict: Callable[[Verdict, Snapshot], None] = lambda verdict, snapshot: None,
    ) -> None:
        self.policy, self.fallback = policy, fallback
        self.policy_name, self.fallback_name = names
        self.rules = rules or GuardRules()
        self.counts: Counter[str] = Counter()
        self.seconds: deque[float] = deque(maxlen=1000)
        self.waits: deque[float] = deque(maxlen=_WAITS_KEPT)
        self._allowance, self.on_verdict = allowance, on_verdict
        self._thread: PolicyThread | None = None
        self._used = False
        self._acted_at: deque[float] = deque()

    @property
    def fallbacks(self) -> int:
        """How many decisions were the fallback's."""
        causes = [kind for kind in self.counts if kind.startswith("fallback_") and kind != "fallback_failed"]
        return sum(self.counts[kind] for kind in causes)  # where it failed, too, its cause counts already

    @property
    def doubted(self) -> int:
        """How many of these were made in doubt of the policy: a job that has waited for too long is none."""
        return self.fallbacks - self.counts["fallback_starvation"]

    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        """Return checked actions; nothing here raises, whatever policy and fallback do."""
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
                self.waits.append(snapshot.time - float(snapshot.jobs[row, L.SUBMIT] + snapshot.jobs[row, L.ATTAINED]))
        try:
            self.on_verdict(verdict, snapshot)
        except Exception:
            _log.exception("a decision could not be recorded")
        return verdict.actions

    def warm_up(self, snapshots: Sequence[Snapshot]) -> None:
        """Let both decide on made-up nodes, so that what is compiled at its first use is compiled before it matters."""
        for snapshot in snapshots:
            # Of two that share the decisions each by itself: made-up decisions are none to be counted.
            both = getattr(self.policy, "members", ((self.policy_name, self.policy),))
            for name, policy in (*both, (self.fallback_name, self.fallback)):
                try:
                    for action in islice(policy.decide(snapshot), most_actions(snapshot)):
                        snapshot.after(action)
                except Exception as error:  # what it cannot do here, it cannot do when it matters: then the other does
                    _log.warning("%s fails on a made-up state of this node: %s", name, in_one_line(error))
        self._used = True

    def starving(self, snapshot: Snapshot) -> tuple[int, float] | None:
        """Return the job that has waited for too long, the longest first, and how long; None where none has.

        A job that this node could not run now even if it were empty does not count: no policy could help it.
        """
        queue = snapshot.queue
        if len(queue) == 0:
            return None
        waited = snapshot.time - queue.submit_time - queue.attained_service
        median = float(np.median(self.waits)) if self.waits else 0.0
        bound = max(self.rules.starving_floor_s, self.rules.starving_factor * median)
        late = np.flatnonzero(waited > bound)
        if len(late) == 0:
            return None
        empty = emptied(snapshot)
        for place in late[np.argsort(-waited[late], kind="stable")][:_MOST_LATE].tolist():
            job = int(queue.id[place])
            if fits(empty, job):
                return job, float(waited[place])
        return None

    def use(self, policy: Policy, name: str) -> None:
        """Let another policy decide from now on."""
        self.close()
        self.policy, self.policy_name = policy, name

    def close(self) -> None:
        """Let the policy's thread end, and that of one on trial."""
        if self._thread is not None:
            self._thread.close()
            self._thread = None
        end_trial = getattr(self.policy, "close", None)
        if end_trial is not None:
            end_trial()

    def _by_policy(self, snapshot: Snapshot) -> Verdict:
        budget_s = self.rules.budget_s if self._used else self.rules.first_budget_s
        left = self._disturbances_left()
        allowance = replace(self._allowance(), disturbances=left, seconds=budget_s, begun=time.monotonic())
        if self._thread is None:
            self._thread = PolicyThread(self.policy)
        answer = self._thread.ask(snapshot, allowance, budget_s)
        if answer is None:
            why = f"{self.policy_name} took more than {budget_s:g} s"
            return self._by_fallback(snapshot, why, "timeout")
        self._used = True
        if answer.error is not None:
            return self._by_fallback(snapshot, f"{self.policy_name} failed: {in_one_line(answer.error)}", "exception")
        if answer.doubt:
            return self._by_fallback(snapshot, answer.doubt, "range")
        try:
            actions = checked(snapshot, answer.actions, allowance, self.policy_name)
        except TooOften as refused:
            return self._by_fallback(snapshot, str(refused), "rate", answer.actions)
        except Exception as refused:
            return self._by_fallback(snapshot, in_one_line(refused), "illegal", answer.actions)
        self._acted_at.extend([time.monotonic()] * disturbing(actions))
        # Of the decision just made: the policy's thread rests until it is asked again.
        by = str(getattr(self.policy, "deciders", self.policy_name))
        return Verdict(actions, by, answer.seconds, started=getattr(self.policy, "started", {}))

    def _by_fallback(self, snapshot: Snapshot, reason: str, kind: str, refused: Sequence[object] = ()) -> Verdict:
        self.counts[f"fallback_{kind}"] += 1
        _log.warning("%s decides: %s", self.fallback_name, reason)
        began = time.perf_counter()
        actions: tuple[Action, ...] = ()
        try:
            actions = checked(snapshot, wanted(self.fallback, snapshot), self._allowance(), self.fallback_name)
        except Exception as error:
            self.counts["fallback_failed"] += 1
            reason = f"{reason}; {self.fallback_name} failed, too: {in_one_line(error)}"
            _log.error("nobody could decide: %s", reason)
        shown = tuple(shortly(action) for action in refused[:_MOST_SHOWN])
        return Verdict(actions, self.fallback_name, time.perf_counter() - began, reason, shown)

    def _disturbances_left(self) -> int:
        """Return how many preemptions, moves and changes of power limits may still be made in this minute."""
        now = time.monotonic()
        while self._acted_at and self._acted_at[0] < now - 60.0:
            self._acted_at.popleft()
        return self.rules.actions_per_minute - len(self._acted_at)


def emptied(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with all that runs put back into the queue."""
    later = replace(snapshot, quantum=0.0)
    for job in snapshot.running:
        later = later.after(Preempt(job))
    return later


def fits(snapshot: Snapshot, job: int) -> bool:
    """Return whether a waiting job could start now."""
    try:
        snapshot.after(Start(job))
    except IllegalAction:
        return False
    return True
