"""How long a job without a requested time will take: from the jobs of its queue that have finished.

The estimate is a high quantile, so that backfilling plans with it as with a bound that most users would give: of the
same user's jobs in the queue, else of the queue's, else what the node's configuration says.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lepton_rl.node.jobs import JobRequest, JobState
from lepton_rl.node.journal import Journal

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class EstimateRules:
    """How estimates are made.

    Attributes:
        default_s: where there are too few jobs.
        quantile: of the run times, 0 to 1.
        least_jobs: that must have finished.
        last_jobs: that count.
    """

    default_s: float = 86_400.0
    quantile: float = 0.9
    least_jobs: int = 5
    last_jobs: int = 200


class RunTimes:
    """Learns from finished jobs, and only from the past."""

    def __init__(self, rules: EstimateRules | None = None) -> None:
        self.rules = rules or EstimateRules()
        self._seen: dict[Key, deque[float]] = {}
        self._estimates: dict[Key, float] = {}

    def recall(self, journal: Journal) -> None:
        """Learn from the jobs that a journal holds."""
        for record in journal.jobs([JobState.DONE]):
            seconds = sum(run.run_s or 0.0 for run in journal.runs(record.id))
            self.learn(record.request, seconds)

    def learn(self, request: JobRequest, seconds: float) -> None:
        """Take in a job that has finished by itself, and the seconds that its runs took."""
        for key in _keys(request):
            times = self._seen.setdefault(key, deque(maxlen=self.rules.last_jobs))
            times.append(seconds)
            self._estimates.pop(key, None)

    def of(self, request: JobRequest) -> float:
        """Return what a job counts as asking for, seconds: what it asks for, or the estimate; never beyond its limit.

        With a limit and too few finished jobs to learn from, that is the limit.
        """
        if request.time_limit_s is None:
            return self._asked(request, self.rules.default_s)
        return min(self._asked(request, request.time_limit_s), request.time_limit_s)

    def _asked(self, request: JobRequest, default_s: float) -> float:
        if request.requested_s is not None:
            return request.requested_s
        for key in _keys(request):
            times = self._seen.get(key, ())
            if len(times) >= self.rules.least_jobs:
                if key not in self._estimates:
                    self._estimates[key] = max(1.0, float(np.quantile(times, self.rules.quantile)))
                return self._estimates[key]
        return default_s


def _keys(request: JobRequest) -> Iterable[Key]:
    """The closest relations first."""
    return ((request.queue, request.user), (request.queue, ""))
