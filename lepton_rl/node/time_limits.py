"""Hard limits on how long a job may run, over all its runs; the time while no daemon was there counts."""

from collections.abc import Iterator, Mapping

from lepton_rl.node.clock import Clock
from lepton_rl.node.durations import spelled
from lepton_rl.node.jobs import ACTIVE, JobRecord, JobState, RunRecord
from lepton_rl.node.ownership import RunId
from lepton_rl.node.run_folder import RunFolder
from lepton_rl.node.runs import Runs


class TimeLimits:
    """Finds the runs that are over the limits of their jobs.

    Args:
        runs: whose folders tell when each began, on the clock that never jumps.
        clock: the machine's clocks.
    """

    def __init__(self, runs: Runs, clock: Clock) -> None:
        self._runs, self._clock = runs, clock
        self._began: dict[RunId, float] = {}  # monotonic seconds

    def overrun(self, holding: Mapping[int, RunRecord], jobs: Mapping[int, tuple[JobRecord, float]]) -> Iterator[int]:
        """Yield the jobs that have run for longer than they may and are not being ended yet.

        Args:
            holding: the run of each job that holds GPUs.
            jobs: each job, and the seconds that its former runs took.
        """
        self._began = {key: began for key, began in self._began.items() if _holds(holding, key)}
        now = self._clock.monotonic()
        for job, run in holding.items():
            if job not in jobs or run.stop_then in (JobState.CANCELLED, JobState.FAILED):
                continue
            record, served = jobs[job]
            limit = record.request.time_limit_s
            if limit is None or record.state not in ACTIVE:
                continue
            began = self._beginning(run)
            if began is not None and served + now - began > limit:
                yield job

    def _beginning(self, run: RunRecord) -> float | None:
        key = (run.job, run.run)
        if key not in self._began:
            started = RunFolder(self._runs.folder(*key)).started()
            if started is not None:
                self._began[key] = started.started_monotonic_s
            elif run.started_time is not None:  # somebody removed the folder
                self._began[key] = self._clock.monotonic() - max(0.0, self._clock.wall() - run.started_time)
        return self._began.get(key)


def over_limit(limit_s: float) -> str:
    """Return the reason that a job gets which ran for too long."""
    return f"ran longer than its limit of {spelled(limit_s)}"


def _holds(holding: Mapping[int, RunRecord], key: RunId) -> bool:
    return key[0] in holding and holding[key[0]].run == key[1]
