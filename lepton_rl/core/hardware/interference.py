"""Slowdown of jobs that share one GPU: a table of measured pairs, or a formula of their shares.

The formula: a job with share `u` beside others with shares `v` in all takes `1 + c u v` times as long as it does
alone on its share. Two busy jobs (`u = v = 1`) are slowed by `1 + c`. More than two: what each other job adds to the
slowdown is added up, for the formula and for the table alike; no public data measure three.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import ConfigError, nearest


def shared_slowdown(share: float, others_share: float, coefficient: float) -> float:
    """Return how many times longer a job takes beside others on its GPU, 1 or more.

    Args:
        share: of the GPU that the job keeps busy, 0 to 1.
        others_share: the others' shares, added up.
        coefficient: what a second busy job adds to the slowdown of a busy one.
    """
    return 1.0 + coefficient * share * others_share


@dataclass(frozen=True, slots=True, eq=False)
class PairTable:
    """Measured slowdowns of pairs of jobs on one GPU.

    Attributes:
        jobs: the names of the kinds of job.
        slowdown: (jobs, jobs); entry (i, j) is what i suffers beside j, 1 or more; nan where it was not measured,
            infinite where the two do not run together (out of memory).
    """

    jobs: tuple[str, ...]
    slowdown: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.slowdown.shape != (len(self.jobs), len(self.jobs)):
            raise ConfigError(
                f"a pair table of {len(self.jobs)} jobs must be square, not of shape {self.slowdown.shape}"
            )
        if len(set(self.jobs)) != len(self.jobs):
            raise ConfigError("a pair table names a job twice")
        if (self.slowdown < 1.0).any():
            raise ConfigError(f"a slowdown must be 1 or more, not {np.nanmin(self.slowdown):g}")

    def index(self, job: str) -> int:
        """Return the row of a kind of job.

        Raises:
            ConfigError: it is not in the table.
        """
        if job not in self.jobs:
            raise ConfigError(f"the pair table has no job called {job!r}{nearest(job, self.jobs)}")
        return self.jobs.index(job)

    def slowdown_beside(self, job: str, others: Sequence[str]) -> float:
        """Return how many times longer `job` takes beside all of `others`; nan where a pair was not measured."""
        row = self.slowdown[self.index(job)]
        return 1.0 + math.fsum(float(row[self.index(other)]) - 1.0 for other in others)


def slowdowns_by_class(table: PairTable, classes: Mapping[str, str]) -> tuple[tuple[str, str, float], ...]:
    """Return (class, other class, mean slowdown of the first beside the second) over the pairs that were measured.

    Args:
        table: measured pairs of kinds of job.
        classes: class of job by how the name of a kind begins; the longest beginning counts. Kinds without one are left
            out, and so are pairs that did not run together.

    Raises:
        ConfigError: no kind begins so.
    """
    class_of = {}
    for begin in sorted(classes, key=len):
        kinds = [kind for kind in table.jobs if kind.startswith(begin)]
        if not kinds:
            raise ConfigError(f"no kind of job in the pair table begins with {begin!r}{nearest(begin, table.jobs)}")
        class_of.update(dict.fromkeys(kinds, classes[begin]))
    names = list(dict.fromkeys(classes.values()))
    rows = {name: [i for i, kind in enumerate(table.jobs) if class_of.get(kind) == name] for name in names}
    means = []
    for name in names:
        for other in names:
            block = table.slowdown[np.ix_(rows[name], rows[other])]
            measured = block[np.isfinite(block)]
            if len(measured):
                means.append((name, other, float(measured.mean())))
    return tuple(means)


def pair_table(speeds: Mapping[tuple[str, str], tuple[float, float]]) -> PairTable:
    """Return the table of measured relative speeds: `{(a, b): (a's beside b, b's beside a)}`, 1 is as fast as alone.

    Speeds above 1 are noise of the measurement and count as 1; 0 means that the two do not run together. Where the
    same pair was measured more than once, whichever way round, the mean slowdown holds.
    """
    jobs = tuple(dict.fromkeys(job for pair in speeds for job in pair))
    rows = {job: row for row, job in enumerate(jobs)}
    total = np.zeros((len(jobs), len(jobs)))
    count = np.zeros((len(jobs), len(jobs)))
    for (first, second), (speed, other_speed) in speeds.items():
        for i, j, value in ((rows[first], rows[second], speed), (rows[second], rows[first], other_speed)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"the speed of {jobs[i]!r} beside {jobs[j]!r} must be 0 or more, not {value}")
            total[i, j] += math.inf if value == 0 else max(1.0, 1.0 / value)
            count[i, j] += 1
    with np.errstate(invalid="ignore"):
        return PairTable(jobs, np.where(count > 0, total / count, np.nan))
