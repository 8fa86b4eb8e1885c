"""The journal: what was asked of a node, what it intended and what happened, durable before anyone is told.

Times are given by the caller, Unix seconds. Changes of a job's state go through one table of legal transitions.
"""

import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from lepton_rl.errors import IllegalTransition, JobError
from lepton_rl.node.database import Database
from lepton_rl.node.jobs import (
    FINAL,
    JobRecord,
    JobRequest,
    JobState,
    RunEnd,
    RunRecord,
    RunUse,
    StopHow,
    check_request,
    check_transition,
)
from lepton_rl.node.ledger import Ledger
from lepton_rl.node.past import Past, Usage
from lepton_rl.node.schema import MIGRATIONS

_REQUEST = tuple(field.name for field in fields(JobRequest))
_JOB = tuple(field.name for field in fields(JobRecord) if field.name not in ("request", "state"))
_RUN = tuple(field.name for field in fields(RunRecord))
_INSERT_JOB = (
    f"INSERT INTO jobs (id, state, submit_time, {', '.join(_REQUEST)}) "
    f"VALUES (:id, 'waiting', :submit_time, {', '.join(f':{name}' for name in _REQUEST)})"
)


class Journal:
    """Jobs and runs of one node; `past` has the jobs forgotten.

    `ledger` holds GPUs, reservations, decisions and the audit log.
    """

    def __init__(
        self, path: Path, *, now: float = 0.0, read_only: bool = False, migrations: Sequence[str] = MIGRATIONS
    ) -> None:
        """Open or make the journal; only one process at a time may write it.

        Raises:
            JournalError: it is damaged, newer than this program, or in use.
        """
        self._database = Database(path, read_only=read_only, migrations=migrations)
        try:
            self.ledger = Ledger(self._database)
            self.past = Past(self._database)
            if not read_only:
                identity = (str(uuid.uuid4()), now)
                self._database.execute("INSERT OR IGNORE INTO meta (only, node_id, created) VALUES (1, ?, ?)", identity)
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the file and let another process write it."""
        self._database.close()

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._database.path

    @property
    def node_id(self) -> str:
        """A name made up when the journal was made; it goes with its backups."""
        row = self._database.row("SELECT node_id FROM meta")
        return "" if row is None else str(row[0])

    @property
    def created(self) -> float:
        """When the journal was begun, Unix seconds."""
        row = self._database.row("SELECT created FROM meta")
        return 0.0 if row is None else float(row[0])

    @property
    def in_transaction(self) -> bool:
        """Whether what is written now is durable only later."""
        return self._database.in_transaction

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Group many changes in one commit: all are on the disk when the block ends, or none is.

        Raises:
            JournalFull: there is no space; nothing was written.
        """
        with self._database.transaction():
            yield

    def backup(self, path: Path) -> None:
        """Write a whole copy, while jobs go on, in place of what `path` held."""
        self._database.copy_to(path)

    def submit(self, request: JobRequest, now: float, *, job: int | None = None) -> int:
        """Write down a new waiting job and return its id, never given again; `job` names one that a restore found.

        Raises:
            JobError: no node could run it.
        """
        check_request(request)
        values = {name: getattr(request, name) for name in _REQUEST}
        values |= {"argv": json.dumps(request.argv), "env": json.dumps(dict(request.env)), "submit_time": now}
        values |= {"restartable": int(request.restartable), "checkpoint_signal": int(request.checkpoint_signal)}
        identity = self._database.execute(_INSERT_JOB, values | {"id": job}).lastrowid
        assert identity is not None
        return identity

    def begin_numbers_after(self, highest: int) -> bool:
        """Give jobs numbers above this one from now on; return whether lower ones would have been given."""
        with self._database.transaction():
            row = self._database.row("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'")
            if highest <= (0 if row is None else int(row[0])):
                return False
            self._database.execute("DELETE FROM sqlite_sequence WHERE name = 'jobs'")
            self._database.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('jobs', ?)", (highest,))
            return True

    def has_jobs_of(self, user: str) -> bool:
        """Return whether a user has ever submitted a job."""
        return self._database.row("SELECT 1 FROM jobs WHERE user = ? LIMIT 1", (user,)) is not None

    def job(self, job: int) -> JobRecord:
        """Return one job.

        Raises:
            JobError: there is none of that number.
        """
        row = self._database.row("SELECT * FROM jobs WHERE id = ?", (job,))
        if row is None:
            raise JobError(f"there is no job {job}; `lepton-rl node queue` lists those that there are")
        return _job(row)

    def jobs(self, states: Iterable[JobState] | None = None, *, since: float | None = None) -> list[JobRecord]:
        """Return jobs by id: those in these states, and where `since` is given those submitted or ended since then."""
        wanted = list(JobState if states is None else states)
        where = f"state IN ({', '.join('?' * len(wanted))})"
        values: list[Any] = [str(state) for state in wanted]
        if since is not None:
            where += " AND (submit_time >= ? OR end_time >= ?)"
            values += [since, since]
        return [_job(row) for row in self._database.rows(f"SELECT * FROM jobs WHERE {where} ORDER BY id", values)]

    def queue(self, limit: int | None = None) -> list[JobRecord]:
        """Return the first waiting jobs, or all: highest priority first, then in order of submission."""
        statement = "SELECT * FROM jobs WHERE state = 'waiting' ORDER BY priority DESC, submit_time, id LIMIT ?"
        return [_job(row) for row in self._database.rows(statement, (-1 if limit is None else limit,))]

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs are in each state, those forgotten since among them."""
        found = dict(tuple(row) for row in self._database.rows("SELECT state, count(*) FROM jobs GROUP BY state"))
        past = self.past.counts()
        return {state: found.get(str(state), 0) + past.get(state, 0) for state in JobState}

    def runs_begun(self) -> int:
        """Return how many runs there were ever."""
        row = self._database.row("SELECT coalesce(sum(run), 0) FROM jobs")
        return self.past.runs_begun() + (0 if row is None else int(row[0]))

    def run(self, job: int, run: int | None = None) -> RunRecord:
        """Return one run of a job, the newest unless told.

        Raises:
            JobError: it has none.
        """
        found = self.runs(job)
        for record in reversed(found):
            if run is None or record.run == run:
                return record
        raise JobError(f"job {job} has {'not run yet' if run is None else f'no run {run}'}")

    def runs(self, job: int) -> list[RunRecord]:
        """Return the runs of a job, in order."""
        return [_run(row) for row in self._database.rows("SELECT * FROM runs WHERE job = ? ORDER BY run", (job,))]

    def holding(self) -> list[RunRecord]:
        """Return the runs whose GPUs are booked: being started, running, stopping, or lost with an orphan alive."""
        return [_run(row) for row in self._database.rows("SELECT * FROM runs WHERE holds_gpus ORDER BY job, run")]

    def transition(self, job: int, to: JobState, *, reason: str | None = None) -> None:
        """Change the state of a job and nothing else.

        Raises:
            IllegalTransition: it may not go there from where it is.
        """
        with self._database.transaction():
            check_transition(job, self.job(job).state, to)
            self._database.execute("UPDATE jobs SET state = ?, reason = ? WHERE id = ?", (str(to), reason, job))

    def cancel_waiting(self, job: int, now: float, reason: str) -> None:
        """Cancel a job that has not started; a running one is stopped by `Runs.stop`.

        Raises:
            IllegalTransition: it is not waiting.
        """
        with self._database.transaction():
            state = self.job(job).state
            if state is not JobState.WAITING:
                raise IllegalTransition(f"job {job} is {state}, not waiting")
            self.transition(job, JobState.CANCELLED, reason=reason)
            self._database.execute("UPDATE jobs SET end_time = ? WHERE id = ?", (now, job))

    def begin_run(self, job: int, gpu_uuids: Sequence[str], decided: float, now: float, boot_id: str) -> RunRecord:
        """Write down the intent to start a job on these GPUs, under its next run number."""
        with self._database.transaction():
            record = self.job(job)
            self.transition(job, JobState.STARTING)
            run, milli = record.run + 1, record.request.gpu_milli
            self._database.execute("UPDATE jobs SET run = ? WHERE id = ?", (run, job))
            self._database.execute(
                "INSERT INTO runs (job, run, gpu_uuids, gpu_milli, decided_time, starting_time, boot_id) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (job, run, json.dumps(list(gpu_uuids)), milli, decided, now, boot_id),
            )
            return self.run(job, run)

    def run_started(
        self, job: int, run: int, started: float, supervisor: tuple[int, int], child: tuple[int, int]
    ) -> None:
        """Write down that a run has begun; `supervisor` and `child` are (process id, start time in ticks)."""
        with self._database.transaction():
            self._database.execute(
                "UPDATE runs SET started_time = ?, supervisor_pid = ?, supervisor_ticks = ?, child_pid = ?, "
                "child_ticks = ? WHERE job = ? AND run = ?",
                (started, *supervisor, *child, job, run),
            )
            self._database.execute("UPDATE jobs SET start_time = coalesce(start_time, ?) WHERE id = ?", (started, job))
            if self.job(job).state is JobState.STARTING:
                self.transition(job, JobState.RUNNING)

    def intend_stop(self, job: int, how: StopHow, then: JobState, reason: str, now: float) -> None:
        """Write down the intent to end a run, and what its job shall be afterwards; a later intent replaces it."""
        with self._database.transaction():
            if self.job(job).state is not JobState.STOPPING:
                self.transition(job, JobState.STOPPING, reason=reason)
            check_transition(job, JobState.STOPPING, then)
            self._database.execute(
                "UPDATE runs SET stop_time = ?, stop_how = ?, stop_then = ?, stop_reason = ? WHERE job = ? AND run = ?",
                (now, str(how), str(then), reason, job, self.job(job).run),
            )

    def end_run(self, job: int, run: int, to: JobState, end: RunEnd, *, outcome: str, holds_gpus: bool = False) -> None:
        """Write down how a run ended and what its job is now; a waiting job shall run again."""
        with self._database.transaction():
            self.transition(job, to, reason=end.reason)
            self._database.execute(
                "UPDATE runs SET ended_time = ?, run_s = ?, outcome = ?, exit_code = ?, signal = ?, cpu_s = ?, "
                "max_rss_kib = ?, log_bytes_dropped = ?, holds_gpus = ? WHERE job = ? AND run = ?",
                (
                    *(end.ended_time, max(0.0, end.run_s), outcome, end.exit_code, end.signal, end.cpu_s),
                    *(end.max_rss_kib, end.log_bytes_dropped, int(holds_gpus), job, run),
                ),
            )
            ended = end.ended_time if to in FINAL else None
            self._database.execute(
                "UPDATE jobs SET end_time = ?, exit_code = ?, signal = ? WHERE id = ?",
                (ended, end.exit_code, end.signal, job),
            )

    def release_gpus(self, job: int, run: int) -> None:
        """Write down that no process of a lost run is left."""
        self._database.execute("UPDATE runs SET holds_gpus = 0 WHERE job = ? AND run = ?", (job, run))

    def set_run_usage(self, job: int, run: int, use: RunUse) -> None:
        """Write down what the devices measured of a run."""
        self._database.execute(
            "UPDATE runs SET energy_mj = ?, peak_gpu_memory_mib = ?, gpu_utilisation = ?, gpu_samples = ? "
            "WHERE job = ? AND run = ?",
            (round(use.energy_mj), use.peak_memory_mib, use.utilisation, use.samples, job, run),
        )

    def usage(self, by: Literal["user", "project", "queue"], since: float, now: float) -> list[Usage]:
        """Return what each has used between two times, most GPU-seconds first; energy is shared evenly over a run.

        Jobs that were forgotten count by whole days, of which the first one counts in proportion.
        """
        rows = self._database.rows(
            f"""
            WITH part AS (
              SELECT jobs.{by} AS name, runs.job, runs.gpu_milli, coalesce(energy_mj, 0) AS energy_mj,
                coalesce(run_s, max(0, :now - started_time)) AS whole_s,
                max(0, min(:now, started_time + coalesce(run_s, :now)) - max(:since, started_time)) AS part_s
              FROM runs JOIN jobs ON jobs.id = runs.job WHERE started_time IS NOT NULL AND started_time < :now
            )
            SELECT name, count(DISTINCT job), count(*), sum(part_s * gpu_milli) / 1000.0,
              sum(CASE WHEN whole_s > 0 THEN energy_mj * part_s / whole_s ELSE 0 END)
            FROM part WHERE part_s > 0 GROUP BY name ORDER BY 4 DESC, name
            """,
            {"since": since, "now": now},
        )
        found = {row[0]: Usage(*row) for row in rows}
        for past in self.past.usage(by, since):
            now_too = found.get(past.name, Usage(past.name, 0, 0, 0.0, 0.0))
            found[past.name] = Usage(
                past.name, past.jobs + now_too.jobs, past.runs + now_too.runs,
                past.gpu_s + now_too.gpu_s, past.energy_mj + now_too.energy_mj,
            )  # fmt: skip
        return sorted(found.values(), key=lambda usage: (-usage.gpu_s, usage.name))


def _job(row: sqlite3.Row) -> JobRecord:
    request = {name: row[name] for name in _REQUEST}
    request["argv"] = tuple(json.loads(row["argv"]))
    request["env"] = _environment(row["env"])
    request["restartable"] = bool(row["restartable"])
    state = JobState(row["state"])
    return JobRecord(state=state, request=JobRequest(**request), **{name: row[name] for name in _JOB})


@lru_cache(maxsize=256)
def _environment(text: str) -> Mapping[str, str]:
    """Return what a job's environment says; a user's jobs share it, and reading it is most of the work of a job."""
    return MappingProxyType(json.loads(text))


def _run(row: sqlite3.Row) -> RunRecord:
    values = {name: row[name] for name in _RUN}
    values |= {"gpu_uuids": tuple(json.loads(row["gpu_uuids"])), "holds_gpus": bool(row["holds_gpus"])}
    values["stop_how"] = StopHow(row["stop_how"]) if row["stop_how"] else None
    values["stop_then"] = JobState(row["stop_then"]) if row["stop_then"] else None
    return RunRecord(**values)
