"""What a policy can learn while it runs: the service of jobs that have finished, seen from snapshot to snapshot."""

from collections.abc import Iterator

import numpy as np

from lepton_rl.core import Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats


class FinishedJobs:
    """Compares each snapshot with the one before: a job that is gone has finished, now.

    Every completion is a decision point, so that its service is known exactly; restart costs count as service.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._time = -np.inf
        self._jobs: Floats = np.zeros((0, L.JOB_COLUMNS))
        self._running = 0

    def is_new_run(self, snapshot: Snapshot) -> bool:
        """Whether time has gone back: another run has begun, whose past this is not."""
        return snapshot.time < self._time

    def watch(self, snapshot: Snapshot) -> Iterator[tuple[Floats, float]]:
        """Yield each job that has finished since the last call, as a row of the job table, and its service, seconds."""
        gone = np.flatnonzero(~np.isin(self._jobs[:, L.ID], snapshot.jobs[:, L.ID]))
        for row in gone.tolist():
            job = self._jobs[row]
            if row < self._running and snapshot.hw is not None:
                served = (snapshot.time - job[L.SINCE]) * job[L.RATE]
            else:  # a job that waited was started just then; on GPUs that nobody has seen
                served = snapshot.time - (job[L.START] if row < self._running else self._time)
            yield job, float(job[L.ATTAINED] + served)
        self._time, self._jobs, self._running = snapshot.time, snapshot.jobs, snapshot.running_count
