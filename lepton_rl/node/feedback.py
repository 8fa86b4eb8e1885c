"""Result feedback: what became of jobs adjusts who decides, within bounds, and every change is written down.

Watched are, over the last jobs that ended, the share that was done and the mean bounded slowdown, and over the last
decisions the share that the fallback had to make. From them follows one of four things: keep, promote the policy on
trial, roll back to the one before, or nudge the weights of a weighted priority.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

_DRAWS = 2000
_CONFIDENCE = 0.95


class Verdict(StrEnum):
    """What feedback asks for."""

    KEEP = "keep"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class FeedbackRules:
    """Bounds of the feedback.

    Attributes:
        least_jobs: of each policy, before anything is concluded.
        least_gain: part of the acting policy's slowdown by which the one on trial must be better, with confidence.
        most_loss: part by which the acting policy may be worse than what it replaced.
        most_fallbacks: share of decisions; beyond it a policy is not fit to act.
        least_success: part of the success rate before that must be kept.
        step: of one nudge of a weight, a part of it.
        lowest_weight: of a weighted priority.
        highest_weight: the same.
    """

    least_jobs: int = 50
    least_gain: float = 0.05
    most_loss: float = 0.10
    most_fallbacks: float = 0.05
    least_success: float = 0.95
    step: float = 0.1
    lowest_weight: float = 0.01
    highest_weight: float = 10.0


@dataclass(frozen=True, eq=False)
class Results:
    """What a policy's jobs and decisions came to.

    Attributes:
        slowdown: (jobs,) bounded slowdown of each job that ended.
        done: (jobs,) whether it was done, not failed.
        decisions: made at all.
        fallbacks: of them by the fallback.
    """

    slowdown: NDArray[np.float64]
    done: NDArray[np.bool_]
    decisions: int = 0
    fallbacks: int = 0

    @property
    def success(self) -> float:
        """Share of the jobs that were done."""
        return float(self.done.mean()) if len(self.done) else 1.0

    @property
    def fallback_share(self) -> float:
        """Share of the decisions that the fallback made."""
        return self.fallbacks / self.decisions if self.decisions else 0.0


@dataclass(frozen=True, slots=True)
class Advice:
    """What is asked for, and why in a sentence."""

    verdict: Verdict
    reason: str


def judge_trial(acting: Results, trial: Results, rules: FeedbackRules, seed: int = 0) -> Advice:
    """Return whether the policy on trial should act from now on.

    It should where its jobs are slowed less, by the least gain and with 95 % confidence, where as many are done,
    and where the fallback seldom had to decide for it.
    """
    for name, results in (("acting", acting), ("on trial", trial)):
        if len(results.slowdown) < rules.least_jobs:
            return Advice(Verdict.KEEP, f"the policy {name} has had {len(results.slowdown)} of {rules.least_jobs} jobs")
    if trial.fallback_share > rules.most_fallbacks:
        return Advice(Verdict.KEEP, f"the fallback decided for the policy on trial in {trial.fallback_share:.0%}")
    if trial.success < rules.least_success * acting.success:
        return Advice(Verdict.KEEP, f"{trial.success:.0%} of its jobs were done, of the others {acting.success:.0%}")
    low, high = _ratio_interval(trial.slowdown, acting.slowdown, seed)
    told = f"its jobs are slowed {low:.2f} to {high:.2f} times as much"
    if high < 1.0 - rules.least_gain:
        return Advice(Verdict.PROMOTE, told)
    return Advice(Verdict.KEEP, f"{told}, which is not {rules.least_gain:.0%} less for sure")


def judge_promoted(before: Results, now: Results, rules: FeedbackRules, seed: int = 0) -> Advice:
    """Return whether the policy that was promoted should give way to the one before it."""
    if now.decisions >= rules.least_jobs and now.fallback_share > rules.most_fallbacks:
        return Advice(Verdict.ROLL_BACK, f"the fallback decides in {now.fallback_share:.0%} of all cases")
    if len(now.slowdown) < rules.least_jobs:
        return Advice(Verdict.KEEP, f"{len(now.slowdown)} of {rules.least_jobs} jobs have ended since")
    if now.success < rules.least_success * before.success:
        return Advice(Verdict.ROLL_BACK, f"{now.success:.0%} of the jobs are done, before {before.success:.0%}")
    low, high = _ratio_interval(now.slowdown, before.slowdown, seed)
    told = f"jobs are slowed {low:.2f} to {high:.2f} times as much as before"
    return Advice(Verdict.ROLL_BACK if low > 1.0 + rules.most_loss else Verdict.KEEP, told)


def nudged(weights: Mapping[str, float], slowed: Mapping[str, float], rules: FeedbackRules) -> dict[str, float]:
    """Return the weights of a weighted priority, one step nearer to jobs that are slowed more than others.

    Args:
        weights: by the quantity that they weigh.
        slowed: mean slowdown of the jobs that have most of each quantity, over that of all; 1 is like the others.
        rules: step and bounds.
    """
    found = dict(weights)
    for name, ratio in slowed.items():
        if name in found and np.isfinite(ratio) and ratio > 0:
            factor = 1.0 + rules.step * float(np.clip(np.log2(ratio), -1.0, 1.0))
            found[name] = float(np.clip(found[name] * factor, rules.lowest_weight, rules.highest_weight))
    return found


def slowed_by(quantity: NDArray[np.float64], slowdown: NDArray[np.float64]) -> float:
    """Return the mean slowdown of the quarter of jobs that has most of a quantity, over that of all.

    NaN where all have the same.
    """
    if len(quantity) < 4 or quantity.max() == quantity.min():
        return float("nan")
    most = np.argsort(quantity, kind="stable")[-(len(quantity) // 4) :]
    return float(slowdown[most].mean() / slowdown.mean())


def _ratio_interval(ours: NDArray[np.float64], theirs: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """95 % interval of the ratio of two means, by bootstrap."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), (_DRAWS, len(values)))].mean(axis=1) for values in (ours, theirs)]
    tail = 50.0 * (1.0 - _CONFIDENCE)
    low, high = np.percentile(means[0] / means[1], [tail, 100.0 - tail])
    return float(low), float(high)
