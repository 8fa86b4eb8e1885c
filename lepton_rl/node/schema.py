"""The tables of the journal: each entry of MIGRATIONS takes it one version on and is never edited once released."""

import sqlite3
from collections.abc import Sequence

APPLICATION_ID = 0x4C70524C  # "LpRL": tells our file from any other SQLite file

_FIRST = """
CREATE TABLE meta (
  only INTEGER PRIMARY KEY CHECK (only = 1), node_id TEXT NOT NULL, created REAL NOT NULL
) STRICT;

CREATE TABLE jobs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, not even after the last row is gone
  state TEXT NOT NULL
    CHECK (state IN ('waiting','starting','running','stopping','done','failed','cancelled','lost')),
  uid INTEGER NOT NULL, user TEXT NOT NULL, project TEXT NOT NULL, queue TEXT NOT NULL, name TEXT NOT NULL,
  argv TEXT NOT NULL CHECK (json_valid(argv)), cwd TEXT NOT NULL, env TEXT NOT NULL CHECK (json_valid(env)),
  gpu_milli INTEGER NOT NULL, gpu_memory_mib INTEGER, cpus REAL, ram_mib INTEGER,
  begin_time REAL NOT NULL, requested_s REAL, priority REAL NOT NULL,
  compute_intensity REAL, time_sensitivity REAL,
  restartable INTEGER NOT NULL, checkpoint_signal INTEGER NOT NULL, checkpoint_grace_s REAL NOT NULL,
  stop_grace_s REAL NOT NULL,
  submit_time REAL NOT NULL, run INTEGER NOT NULL DEFAULT 0, start_time REAL, end_time REAL,
  exit_code INTEGER, signal INTEGER, reason TEXT
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, priority DESC, submit_time, id);
CREATE INDEX jobs_by_end ON jobs (end_time);

CREATE TABLE runs (
  job INTEGER NOT NULL REFERENCES jobs (id), run INTEGER NOT NULL,
  gpu_uuids TEXT NOT NULL CHECK (json_valid(gpu_uuids)), gpu_milli INTEGER NOT NULL,
  decided_time REAL NOT NULL, starting_time REAL NOT NULL, boot_id TEXT NOT NULL,
  started_time REAL, ended_time REAL, run_s REAL CHECK (run_s >= 0),
  supervisor_pid INTEGER, supervisor_ticks INTEGER, child_pid INTEGER, child_ticks INTEGER,
  stop_time REAL, stop_how TEXT, stop_then TEXT, stop_reason TEXT,
  outcome TEXT, exit_code INTEGER, signal INTEGER,
  cpu_s REAL, max_rss_kib INTEGER, log_bytes_dropped INTEGER, energy_mj INTEGER, peak_gpu_memory_mib INTEGER,
  holds_gpus INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY (job, run)
) STRICT;
CREATE INDEX runs_holding ON runs (holds_gpus) WHERE holds_gpus;
CREATE INDEX runs_by_end ON runs (ended_time);

CREATE TABLE gpus (
  uuid TEXT PRIMARY KEY, state TEXT NOT NULL, reason TEXT, since REAL NOT NULL
) STRICT;

CREATE TABLE reservations (
  id INTEGER PRIMARY KEY AUTOINCREMENT, uid INTEGER NOT NULL, user TEXT NOT NULL, project TEXT NOT NULL,
  gpu_uuids TEXT NOT NULL CHECK (json_valid(gpu_uuids)), begin_time REAL NOT NULL, end_time REAL NOT NULL,
  reason TEXT, cancelled_time REAL, CHECK (end_time > begin_time)
) STRICT;

CREATE TABLE decisions (
  id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, policy TEXT NOT NULL, decision_s REAL NOT NULL,
  fallback_reason TEXT, job INTEGER REFERENCES jobs (id), detail TEXT NOT NULL CHECK (json_valid(detail))
) STRICT;
CREATE INDEX decisions_by_time ON decisions (time);
CREATE INDEX decisions_by_job ON decisions (job);

CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, uid INTEGER NOT NULL, user TEXT NOT NULL,
  verb TEXT NOT NULL, target TEXT NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL CHECK (json_valid(detail))
) STRICT;
CREATE INDEX audit_by_time ON audit (time);
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
  BEGIN SELECT RAISE(ABORT, 'the audit log can only grow'); END;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log can only grow'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log can only grow'); END;
"""

_SECOND = """
ALTER TABLE jobs ADD COLUMN time_limit_s REAL;

CREATE TABLE past_jobs (state TEXT PRIMARY KEY, jobs INTEGER NOT NULL, runs INTEGER NOT NULL) STRICT;

CREATE TABLE past_usage (
  day INTEGER NOT NULL,  -- since 1970, UTC
  user TEXT NOT NULL, project TEXT NOT NULL, queue TEXT NOT NULL,
  jobs INTEGER NOT NULL, runs INTEGER NOT NULL, gpu_s REAL NOT NULL, energy_mj REAL NOT NULL,
  PRIMARY KEY (day, user, project, queue)
) STRICT;

CREATE TABLE feedback (
  only INTEGER PRIMARY KEY CHECK (only = 1), setting TEXT NOT NULL, change TEXT NOT NULL CHECK (json_valid(change))
) STRICT;
"""

_THIRD = """
ALTER TABLE jobs ADD COLUMN umask INTEGER;
"""

_FOURTH = """
CREATE TABLE throughputs (uuid TEXT PRIMARY KEY, tflops REAL NOT NULL, measured_time REAL NOT NULL) STRICT;
"""

_FIFTH = """
ALTER TABLE runs ADD COLUMN gpu_utilisation REAL;
ALTER TABLE runs ADD COLUMN gpu_samples INTEGER;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH)


def version_of(connection: sqlite3.Connection) -> int:
    """Return how many migrations a database has been through; 0 for an empty one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring a database to the newest version, each step in one transaction of its own: it happens whole or not at all.

    Raises:
        sqlite3.Error: a step failed; the database is as the step before left it.
    """
    for number, step in enumerate(migrations[version_of(connection) :], start=version_of(connection) + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{step}\nPRAGMA application_id = {APPLICATION_ID};\n"
                f"PRAGMA user_version = {number};\nCOMMIT;"
            )
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise
