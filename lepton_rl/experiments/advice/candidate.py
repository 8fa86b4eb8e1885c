"""A change that might help, what its simulation showed, and the rule by which it is worth it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lepton_rl.core import Outcome
from lepton_rl.experiments.advice.setup import Setup, ends_of, figures_of
from lepton_rl.experiments.statistics import Estimate, block_length, relative_change

LEAST_GAIN = 0.02
"""By which part of itself the goal must fall."""
LEAST_GAIN_UNSURE = 0.05
"""The same where nothing says how much of it is chance."""
LEAST_FALLS = 0.75
"""In which part of the windows: few windows of heavy-tailed jobs give an interval that is too narrow."""
MOST_LOSS = 0.5
"""Of what the goal gains, in parts of itself, no other figure may lose more."""

_TIE = 1e-9  # relative; the same schedule may be summed in another order


@dataclass(frozen=True, eq=False)
class Candidate:
    """A change to simulate.

    Attributes:
        kind: candidates of one kind are alternatives, of which the best is advised.
        title: the change in a few words.
        text: what to do and what speaks for it, in whole sentences.
        goal: the figure that ought to fall.
        after: the changed set-up.
        unsaid: figures of which its simulation says nothing.
    """

    kind: str
    title: str
    text: str
    goal: str
    after: Setup
    unsaid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A figure now and after a change, means over the windows.

    Attributes:
        before: now.
        after: after the change.
        relative: the difference as a part of what it was, with its 95 % interval: below 0 is less than now.
        falls: number of windows in which it is less than now.
    """

    before: float
    after: float
    relative: Estimate
    falls: int


@dataclass(frozen=True, slots=True)
class Advice:
    """A change with its simulated figures.

    Attributes:
        kind: as the candidate's.
        title: the change in a few words.
        sentence: what to do and what speaks for it.
        goal: the figure that ought to fall.
        changes: by the names of FIGURES, but for those of which the simulation says nothing.
        worth: whether the goal surely falls by more than the other figures rise: see `is_worth`.
        beaten_by: title of the better one of its kind, where there is one.
    """

    kind: str
    title: str
    sentence: str
    goal: str
    changes: Mapping[str, Change]
    worth: bool
    beaten_by: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def changes_between(now: Sequence[Outcome], then: Sequence[Outcome]) -> dict[str, Change]:
    """Return how each figure changes between the outcomes `now` and `then` of the same windows.

    Power and rent of a window count until the later of its two ends, for GPUs that are idle earlier are still there.
    A difference of waits is a part of the wait or of the mean JCT, whichever is longer: of a wait near 0 it would be
    any part.
    """
    ends = np.maximum(ends_of(now), ends_of(then))
    old, new = figures_of(now, ends), figures_of(then, ends)
    changes: dict[str, Change] = {}
    for name, values in old.items():
        scale = np.maximum(values, old["mean_jct"].mean()) if name == "p99_wait" else np.abs(values)
        difference = new[name] - values
        relative = relative_change(difference, scale, block_length(len(values)))
        falls = int(np.count_nonzero(difference < -_TIE * scale))
        changes[name] = Change(float(values.mean()), float(new[name].mean()), relative, falls)
    return changes


def is_worth(changes: Mapping[str, Change], goal: str) -> bool:
    """Return whether the goal falls by LEAST_GAIN of itself, surely, and at a fair price.

    It is sure where its interval lies below 0 and it falls in LEAST_FALLS of the windows; without an interval it must
    fall by LEAST_GAIN_UNSURE. The price is fair where no other figure rises by more than MOST_LOSS of that, each in
    parts of itself. Of jobs so few that not even the mean JCT has an interval nothing is said.
    """
    if changes["mean_jct"].relative.high is None:
        return False
    aim = changes[goal]
    gain = -aim.relative.mean
    is_certain = aim.relative.high is not None or goal == "gpus"  # a number of GPUs is no chance
    if gain < (LEAST_GAIN if is_certain else LEAST_GAIN_UNSURE) or aim.falls < LEAST_FALLS * aim.relative.n:
        return False
    if aim.relative.high is not None and aim.relative.high >= 0:
        return False
    return all(change.relative.mean <= MOST_LOSS * gain for name, change in changes.items() if name != goal)


def ranked(tried: list[tuple[Candidate, dict[str, Change]]]) -> list[Advice]:
    """Return what to make of the candidates of one kind, the best first where it is worth it."""
    ordered = sorted(tried, key=lambda pair: (not is_worth(pair[1], pair[0].goal), pair[1][pair[0].goal].relative.mean))
    best = ordered[0][0].title if ordered else None
    return [
        Advice(
            candidate.kind,
            candidate.title,
            candidate.text,
            candidate.goal,
            changes,
            worth := is_worth(changes, candidate.goal),
            best if worth and candidate.title != best else None,
        )
        for candidate, changes in ordered
    ]
