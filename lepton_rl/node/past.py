"""What stays of jobs that the journal has forgotten: what they used by day, and how many there were."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lepton_rl.node.database import Database
from lepton_rl.node.jobs import JobState

DAY_S = 86_400.0
_ENDED_BEFORE = (
    "end_time < ? AND state IN ('done', 'failed', 'cancelled', 'lost') "
    "AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.job = jobs.id AND holds_gpus)"
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one user, project or queue has used: GPU-seconds count a share as its part, energy is in millijoules."""

    name: str
    jobs: int
    runs: int
    gpu_s: float
    energy_mj: float


class Past:
    """The journal's forgotten jobs; changes join the transaction that is open, if one is."""

    def __init__(self, database: Database) -> None:
        """Read and write the journal's own connection."""
        self._database = database

    def ended_before(self, moment: float, *, after: int = 0, most: int = -1) -> list[int]:
        """Return the jobs beyond a number that ended before a moment (Unix seconds) and of which no process is left."""
        rows = self._database.rows(
            f"SELECT id FROM jobs WHERE {_ENDED_BEFORE} AND id > ? ORDER BY id LIMIT ?", (moment, after, most)
        )
        return [int(row[0]) for row in rows]

    def forget(self, jobs: Sequence[int]) -> None:
        """Remove jobs that `ended_before` has named, with their runs; what they used is kept by user and day."""
        with self._database.transaction():
            for job in jobs:
                self._add_up(job)
                self._database.execute("UPDATE decisions SET job = NULL WHERE job = ?", (job,))
                self._database.execute("DELETE FROM runs WHERE job = ?", (job,))
                self._database.execute("DELETE FROM jobs WHERE id = ?", (job,))

    def counts(self) -> dict[JobState, int]:
        """Return how many forgotten jobs ended in each state."""
        return {JobState(row[0]): int(row[1]) for row in self._database.rows("SELECT state, jobs FROM past_jobs")}

    def runs_begun(self) -> int:
        """Return how many runs the forgotten jobs had."""
        row = self._database.row("SELECT coalesce(sum(runs), 0) FROM past_jobs")
        return 0 if row is None else int(row[0])

    def usage(self, by: Literal["user", "project", "queue"], since: float) -> list[Usage]:
        """Return what forgotten jobs have used since a moment; of the day that it lies in, the part that is left.

        A job counts where the day on which it last ran ends after that moment.
        """
        rows = self._database.rows(
            f"""
            SELECT {by}, sum(jobs), sum(runs), sum(gpu_s * part), sum(energy_mj * part) FROM (
              SELECT *, min(1.0, ((day + 1) * :length - :since) / :length) AS part FROM past_usage
              WHERE (day + 1) * :length > :since
            ) GROUP BY {by}
            """,
            {"since": since, "length": DAY_S},
        )
        return [Usage(*row) for row in rows]

    def _add_up(self, job: int) -> None:
        row = self._database.row("SELECT user, project, queue, state, run FROM jobs WHERE id = ?", (job,))
        assert row is not None
        whose = (row["user"], row["project"], row["queue"])
        self._database.execute(
            "INSERT INTO past_jobs (state, jobs, runs) VALUES (?, 1, ?) "
            "ON CONFLICT (state) DO UPDATE SET jobs = jobs + 1, runs = runs + excluded.runs",
            (row["state"], row["run"]),
        )
        last = None
        for run in self._database.rows(
            "SELECT started_time, run_s, gpu_milli, coalesce(energy_mj, 0) AS energy_mj FROM runs "
            "WHERE job = ? AND started_time IS NOT NULL AND run_s > 0 ORDER BY run", (job,),
        ):  # fmt: skip
            gpu_s = run["run_s"] * run["gpu_milli"] / 1000.0
            for day, part in _days(run["started_time"], run["run_s"]):
                self._add(day, whose, 0, 0, gpu_s * part, run["energy_mj"] * part)
                last = day
            if last is not None:
                self._add(last, whose, 0, 1, 0.0, 0.0)
        if last is not None:
            self._add(last, whose, 1, 0, 0.0, 0.0)

    def _add(self, day: int, whose: tuple[str, str, str], jobs: int, runs: int, gpu_s: float, energy_mj: float) -> None:
        self._database.execute(
            "INSERT INTO past_usage (day, user, project, queue, jobs, runs, gpu_s, energy_mj) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (day, user, project, queue) DO UPDATE SET "
            "jobs = jobs + excluded.jobs, runs = runs + excluded.runs, gpu_s = gpu_s + excluded.gpu_s, "
            "energy_mj = energy_mj + excluded.energy_mj",
            (day, *whose, jobs, runs, gpu_s, energy_mj),
        )


def _days(start: float, length: float) -> list[tuple[int, float]]:
    """Return the days (UTC, since 1970) that a span of seconds touches, and the part of it in each."""
    first, last = math.floor(start / DAY_S), math.floor((start + length) / DAY_S)
    parts = []
    for day in range(first, last + 1):
        inside = min(start + length, (day + 1) * DAY_S) - max(start, day * DAY_S)
        if inside > 0:
            parts.append((day, inside / length))
    return parts
