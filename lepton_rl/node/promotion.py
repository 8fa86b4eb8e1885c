"""The result feedback at work: it looks at what jobs came to, says what follows, and where it may, does it.

A promotion or a change of weights is kept in the journal, and the next daemon goes on with it unless it is started with
other policies: the configuration stays the operator's. Each one is in the audit log, and a promotion that does worse
than what it replaced is taken back.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_rl.core.policy import Policy
from lepton_rl.core.slowdown import SLOWDOWN_FLOOR
from lepton_rl.node.cluster import NodeCluster
from lepton_rl.node.feedback import (
    Advice,
    FeedbackRules,
    Results,
    Verdict,
    judge_promoted,
    judge_trial,
    nudged,
    slowed_by,
)
from lepton_rl.node.guard import Guard
from lepton_rl.node.jobs import JobRecord, JobState
from lepton_rl.node.trial import Canary, of_canary

_log = logging.getLogger(__name__)
_ENDED = (JobState.DONE, JobState.FAILED)


@dataclass(frozen=True, slots=True)
class _Former:
    policy: Policy
    name: str
    results: Results


@dataclass(frozen=True, slots=True)
class Weighted:
    """How the weights of a policy are read and changed.

    Attributes:
        read: returns them by quantity ("compute_intensity", "time_sensitivity", "gpu_memory"); None where it has none.
        change: returns the policy with others.
    """

    read: Callable[[Policy], Mapping[str, float] | None]
    change: Callable[[Policy, Mapping[str, float]], Policy]


class Promotion:
    """Follows one node's policy and the one on trial.

    Args:
        cluster: the node.
        guard: holds the policy that acts.
        rules: bounds.
        weighted: for policies with weights.
        setting: the policies that the daemon was started with, in words; a change is kept for these alone.
    """

    def __init__(
        self,
        cluster: NodeCluster,
        guard: Guard,
        rules: FeedbackRules | None = None,
        weighted: Weighted | None = None,
        setting: str = "",
    ) -> None:
        self._cluster, self._guard, self._weighted = cluster, guard, weighted
        self.rules = rules or FeedbackRules()
        self._since = cluster.clock.wall()
        self._former: _Former | None = None
        self._setting = setting
        self.in_force = ""
        """What of the feedback is in force, in a sentence."""

    def take_up(self) -> None:
        """Go on with what the feedback had changed before this daemon, if the policies are the same."""
        ledger, policy = self._cluster.journal.ledger, self._guard.policy
        kept = ledger.feedback()
        if kept is None:
            return
        setting, change = kept
        weights = None if self._weighted is None else self._weighted.read(policy)
        if setting == self._setting and change["what"] == "promoted" and isinstance(policy, Canary):
            former = _Former(policy, self._guard.policy_name, _results_of(change["former"]))
            self._use(policy.canary, policy.canary_name, former, change["since"])
        elif setting == self._setting and change["what"] == "weights" and weights and self._weighted is not None:
            self._use(self._weighted.change(policy, change["weights"]), self._guard.policy_name, None, change["since"])
        else:
            _log.warning("feedback: what it had changed under other policies is forgotten")
            ledger.keep_feedback(self._setting, None)
            return
        self._say(change)

    def _keep(self, change: dict[str, Any] | None) -> None:
        """Let the next daemon know, and those who ask."""
        kept = None if change is None else {**change, "since": self._since}
        self._cluster.journal.ledger.keep_feedback(self._setting, kept)
        self._say(kept)

    def _say(self, change: dict[str, Any] | None) -> None:
        if change is None:
            self.in_force = ""
            return
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(change["since"]))
        what = (
            f"{self._guard.policy_name} was promoted"
            if change["what"] == "promoted"
            else f"the weights of {self._guard.policy_name} were changed"
        )
        self.in_force = f"{what} by the feedback at {when}; a start with other policies takes that back"
        _log.warning("feedback: %s", self.in_force)

    def look(self, apply: bool) -> dict[str, Any]:
        """Return what the results say, plain data; with `apply` do it."""
        policy = self._guard.policy
        if self._former is not None:
            advice = judge_promoted(self._former.results, self._results(), self.rules)
            done = apply and advice.verdict is Verdict.ROLL_BACK
            if done:
                self._use(self._former.policy, self._former.name, None)
                self._keep(None)
            return self._told(advice, done)
        if isinstance(policy, Canary):
            acting, trial = self._results(policy.share, False), self._results(policy.share, True)
            advice = judge_trial(acting, trial, self.rules)
            done = apply and advice.verdict is Verdict.PROMOTE
            if done:
                self._use(policy.canary, policy.canary_name, _Former(policy, self._guard.policy_name, acting))
                self._keep({"what": "promoted", "former": _plain(acting)})
            return self._told(advice, done)
        return self._reweigh(policy, apply)

    def _reweigh(self, policy: Policy, apply: bool) -> dict[str, Any]:
        weights = None if self._weighted is None else self._weighted.read(policy)
        if weights is None or self._weighted is None:
            return self._told(Advice(Verdict.KEEP, "no policy is on trial, and the acting one has no weights"), False)
        ended = self._ended()
        if len(ended) < self.rules.least_jobs:
            return self._told(Advice(Verdict.KEEP, f"{len(ended)} of {self.rules.least_jobs} jobs have ended"), False)
        slowdown = np.array([self._slowdown(record) for record in ended])
        amounts = {
            "compute_intensity": [record.request.compute_intensity or 1.0 for record in ended],
            "time_sensitivity": [record.request.time_sensitivity or 1.0 for record in ended],
            "gpu_memory": [float(record.request.gpu_memory_mib or 0) for record in ended],
        }
        slowed = {name: slowed_by(np.array(values), slowdown) for name, values in amounts.items()}
        found = nudged(weights, slowed, self.rules)
        done = apply and found != weights
        if done:
            self._use(self._weighted.change(policy, found), self._guard.policy_name, None)
            self._keep({"what": "weights", "weights": found})
        reason = "; ".join(f"{name} {weights[name]:.3g} -> {found[name]:.3g}" for name in found)
        return {**self._told(Advice(Verdict.KEEP, reason), done), "weights": found}

    def _use(self, policy: Policy, name: str, former: _Former | None, since: float | None = None) -> None:
        _log.warning("feedback: %s decides from now on", name)
        self._guard.use(policy, name)
        self._former, self._since = former, self._cluster.clock.wall() if since is None else since

    def _told(self, advice: Advice, done: bool) -> dict[str, Any]:
        return {
            "verdict": str(advice.verdict), "reason": advice.reason, "done": done, "policy": self._guard.policy_name,
        }  # fmt: skip

    def _ended(self) -> list[JobRecord]:
        """The jobs that were submitted since the last change and have ended by themselves."""
        records = self._cluster.journal.jobs(_ENDED, since=self._since)
        return [record for record in records if record.submit_time >= self._since and record.start_time is not None]

    def _results(self, share: float | None = None, canary: bool = False) -> Results:
        ended = self._ended()
        decisions, fallbacks = self._guard.counts["decisions"], self._guard.fallbacks
        if share is not None:
            ended = [record for record in ended if of_canary(record.id, share) is canary]
            if canary and isinstance(self._guard.policy, Canary):
                trial = self._guard.policy.record.counts
                fallbacks = trial["failed"] + trial["illegal"]
                decisions = trial["decisions"] + fallbacks
        return Results(
            np.array([self._slowdown(record) for record in ended]),
            np.array([record.state is JobState.DONE for record in ended], np.bool_),
            decisions,
            fallbacks,
        )

    def _slowdown(self, record: JobRecord) -> float:
        ready = max(record.submit_time, record.request.begin_time)
        start, end = record.start_time or ready, record.end_time or ready
        return max(1.0, max(0.0, end - ready) / max(end - start, SLOWDOWN_FLOOR))


def _plain(results: Results) -> dict[str, Any]:
    """Return results as the journal keeps them."""
    return {
        "slowdown": results.slowdown.tolist(),
        "done": results.done.tolist(),
        "decisions": results.decisions,
        "fallbacks": results.fallbacks,
    }


def _results_of(kept: Mapping[str, Any]) -> Results:
    slowdown, done = np.array(kept["slowdown"], np.float64), np.array(kept["done"], np.bool_)
    return Results(slowdown, done, int(kept["decisions"]), int(kept["fallbacks"]))
