"""One SQLite file with one writer: opening, locking, transactions, and SQLite's errors in plain sentences."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from lepton_rl.errors import JournalError, JournalFull
from lepton_rl.node.holder import lock_file, read_number
from lepton_rl.node.schema import APPLICATION_ID, MIGRATIONS, migrate, version_of

_RESTORE = "restore a backup with: lepton-rl node restore FILE"
_LOCK_PATIENCE_S = 2.0  # a process that a killed daemon was just starting holds its lock until it has begun


class Database:
    """A connection in WAL mode with synchronous=FULL: what a transaction wrote is on the disk when its block ends."""

    def __init__(self, path: Path, *, read_only: bool = False, migrations: Sequence[str] = MIGRATIONS) -> None:
        """Open the file; a writer makes it where there is none, brings it to the newest version and locks others out.

        Raises:
            JournalError: it is damaged, newer than this program, not a journal, or another process writes it.
        """
        self.path = path
        self._depth = 0
        self._lock = None if read_only else lock(path)
        try:
            with translated(path):
                self._connection = _connect(path, read_only)
                try:
                    self._prepare(read_only, migrations)
                except BaseException:
                    self._connection.close()
                    raise
        except BaseException:
            self._unlock()
            raise

    def _prepare(self, read_only: bool, migrations: Sequence[str]) -> None:
        found = version_of(self._connection)
        check_version(self.path, self._connection, len(migrations))
        if read_only and found < len(migrations):
            raise JournalError(f"{self.path}: has version {found}; starting the daemon brings it to {len(migrations)}")
        if read_only:
            return
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        check_whole(self.path, self._connection)
        if 0 < found < len(migrations):
            copy_to(self._connection, self.path.with_name(f"{self.path.name}.version{found}"))
        migrate(self._connection, migrations)

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the file and let others write it."""
        with translated(self.path):
            self._connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._depth > 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block writes, all of it, when the block ends; an exception takes all of it back.

        A transaction inside another is a step of it: it can be taken back alone, and is durable when the outer one is.

        Raises:
            JournalFull: there is no space; nothing of the outermost block was written.
        """
        name = f"step_{self._depth}"
        with translated(self.path):
            self._connection.execute(f"SAVEPOINT {name}" if self._depth else "BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
            if not self._connection.in_transaction:
                raise JournalFull(
                    f"{self.path}: an earlier step of this change found no space; nothing of it was written"
                )
            with translated(self.path):
                self._connection.execute(f"RELEASE {name}" if self._depth > 1 else "COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite itself has taken all back where the disk was full
                self._connection.execute(f"ROLLBACK TO {name}" if self._depth > 1 else "ROLLBACK")
                if self._depth > 1:
                    self._connection.execute(f"RELEASE {name}")
            raise
        finally:
            self._depth -= 1

    def execute(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Cursor:
        """Run one statement; outside a transaction it is one by itself."""
        with translated(self.path):
            if self._depth and not self._connection.in_transaction:
                raise JournalFull(
                    f"{self.path}: an earlier step of this change found no space; nothing of it was written"
                )
            return self._connection.execute(statement, values)

    def rows(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        """Return all rows that a query finds."""
        with translated(self.path):
            return self._connection.execute(statement, values).fetchall()

    def row(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Row | None:
        """Return the first row that a query finds, if any."""
        found = self.rows(statement, values)
        return found[0] if found else None

    def copy_to(self, path: Path) -> None:
        """Write a whole copy of the database, while it is in use, in place of what `path` held."""
        with translated(path):
            copy_to(self._connection, path)


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < (3, 37):
        raise JournalError(f"SQLite {sqlite3.sqlite_version} is too old for the journal: it needs 3.37 or newer")
    if read_only and not path.is_file():
        raise JournalError(f"{path}: there is no journal; `lepton-rl node start` makes one")
    if not read_only:  # it holds the environment of every job: for the owner's eyes only
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    address = path.absolute().as_uri() + ("?mode=ro" if read_only else "?mode=rw")
    connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=5.0)
    connection.row_factory = sqlite3.Row
    return connection


def check_version(path: Path, connection: sqlite3.Connection, newest: int = len(MIGRATIONS)) -> None:
    """Raise JournalError for a database that is not a journal, or is newer than this program."""
    found = version_of(connection)
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION_ID and not (empty and found == 0):
        raise JournalError(f"{path}: is a database, but not a journal of lepton_rl; name another folder or file")
    if found > newest:
        raise JournalError(
            f"{path}: has version {found} and this lepton_rl knows up to {newest}: "
            f"install the one that wrote it, or {_RESTORE}"
        )


def check_file(path: Path) -> None:
    """Look at a journal without changing it.

    Raises:
        JournalError: it is damaged, newer than this program, or no journal.
    """
    with translated(path):
        connection = _connect(path, read_only=True)
        try:
            check_version(path, connection, len(MIGRATIONS))
            check_whole(path, connection)
        finally:
            connection.close()


def check_whole(path: Path, connection: sqlite3.Connection, how: str = "quick_check") -> None:
    """Raise JournalError for a damaged database; `how` is SQLite's quick_check or the slower integrity_check."""
    answer = str(connection.execute(f"PRAGMA {how}(1)").fetchone()[0])
    if answer != "ok":
        raise JournalError(f"{path}: is damaged ({' '.join(answer.split())}); {_RESTORE}")


def copy_to(connection: sqlite3.Connection, path: Path) -> None:
    """Copy a database by SQLite's online backup: fsync, then rename, so that `path` is never half a copy."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        target = sqlite3.connect(draft, isolation_level=None)
        try:
            connection.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file holds all of it
        finally:
            target.close()
        fsync(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def lock(path: Path) -> int:
    """Return the descriptor that holds a journal for one writer until it is closed.

    Raises:
        JournalError: another process holds it, or its folder cannot be written.
    """
    beside = lock_file(path)
    try:
        opened = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalError(f"{beside}: cannot be written ({error.strerror}); name a folder of your own") from error
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        if time.monotonic() > deadline:
            holder = read_number(opened)
            os.close(opened)
            raise JournalError(
                f"{path}: a daemon (process {holder}) is using it; end it with `lepton-rl node stop`, or with `kill "
                f"{holder}` where it does not answer: its jobs go on"
            )
        time.sleep(0.02)
    with suppress(OSError):  # the number is only for that message
        os.ftruncate(opened, 0)
        os.pwrite(opened, str(os.getpid()).encode(), 0)
    return opened


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _in_our_words(path, error) from error
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror or error}; check the folder and its permissions") from error


def _in_our_words(path: Path, error: sqlite3.Error) -> JournalError:
    code = getattr(error, "sqlite_errorcode", 0) or 0
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return JournalFull(
            f"{path}: the disk is full; nothing of this change was written: free some space and try again"
        )
    if code == sqlite3.SQLITE_IOERR_WRITE:
        return JournalFull(
            f"{path}: writing failed (a quota, a limit on file sizes, or a failing disk) and nothing of this change "
            "was written: raise the limit or mend the disk, and try again"
        )
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return JournalError(f"{path}: is damaged ({error}); {_RESTORE}")
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return JournalError(f"{path}: {error}; check the folder and its permissions")
    return JournalError(f"{path}: {error}")
