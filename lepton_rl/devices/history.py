"""A bounded history of telemetry in SQLite, which never holds up or stops who writes to it."""

import csv
import json
import queue
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

from lepton_rl.devices.device import DeviceIdentity, Reading
from lepton_rl.devices.errors import HistoryError
from lepton_rl.devices.filter import SMOOTHED

T = TypeVar("T")
_VERSION = 1
_RAW = tuple(field.name for field in fields(Reading))
_FILTERED = tuple(f"filtered_{name}" for name in SMOOTHED)
COLUMNS = (*_RAW, *_FILTERED)
_FLAGS = frozenset({"lost", "remap_pending", "remap_failed"})
# Share of the rows that goes when the file has reached its size: deleting few at a time would do so at every write.
_PRUNED_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class TelemetryRow:
    """One reading of one device, as it was read and as it was filtered."""

    raw: Reading
    filtered: Reading


class History:
    """Keeps rows of telemetry within three bounds; the oldest go first.

    Rows are handed to a thread of its own, which writes them in batches. What cannot be written, because the disk is
    full or slower than the rows come, is dropped and counted in `dropped`, with the reason in `problem`.

    Args:
        path: of the SQLite file; it is made where there is none.
        max_rows: rows kept.
        max_age_s: seconds, by the wall clock of the newest row, that a row is kept.
        max_bytes: size of the file, its write-ahead log of some MiB not counted.
        batch_s: seconds between writes.

    Raises:
        HistoryError: the file is not a history, is from a newer version, or cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_rows: int = 5_000_000,
        max_age_s: float = 30 * 86400.0,
        max_bytes: int = 512 * 2**20,
        batch_s: float = 5.0,
    ) -> None:
        self.path = path
        self.dropped = 0
        self.problem: str | None = None
        self._max_rows, self._max_age_s, self._max_bytes = max_rows, max_age_s, max_bytes
        self._batch_s = batch_s
        self._queue: queue.Queue[TelemetryRow | DeviceIdentity] = queue.Queue(maxsize=20_000)
        self._wake, self._closing = threading.Event(), threading.Event()
        self._flushes: queue.Queue[threading.Event] = queue.Queue()
        self._database = _opened(path)
        self._thread = threading.Thread(target=self._run, name="telemetry-history", daemon=True)
        self._thread.start()

    # ---- writing ----

    def describe(self, identities: Iterable[DeviceIdentity]) -> None:
        """Keep who the devices are, for exports."""
        for identity in identities:
            self._put(identity)

    def append(self, rows: Iterable[TelemetryRow]) -> None:
        """Hand rows over; returns at once."""
        for row in rows:
            self._put(row)

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Wait until what was handed over so far is written or dropped; False when it took longer."""
        if self._closing.is_set():
            return self._queue.empty()
        done = threading.Event()
        self._flushes.put(done)
        self._wake.set()
        return done.wait(timeout_s)

    def close(self) -> None:
        """Write what is left and let go of the file; calling it twice is harmless."""
        self._closing.set()
        self._wake.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _put(self, item: TelemetryRow | DeviceIdentity) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.dropped += 1
            self.problem = "rows come faster than the disk takes them"

    def _run(self) -> None:
        with closing(self._database):
            while True:
                self._wake.wait(self._batch_s)
                closing_now = self._closing.is_set()
                self._wake.clear()
                waiting = list(_drained(self._flushes))
                items = list(_drained(self._queue))
                if items:
                    self._write(items)
                for done in waiting:
                    done.set()
                if closing_now:
                    return

    def _write(self, items: Sequence[TelemetryRow | DeviceIdentity]) -> None:
        rows = [_values(item) for item in items if isinstance(item, TelemetryRow)]
        known = [(item.uuid, json.dumps(asdict(item))) for item in items if isinstance(item, DeviceIdentity)]
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO devices VALUES (?, ?)", known)
                self._database.executemany(_INSERT, rows)
        except sqlite3.Error as error:
            self.dropped += len(items)
            self.problem = f"{self.path} cannot be written: {error}"
        else:
            self.problem = None
        with suppress(sqlite3.Error):  # tried again after the next batch
            self._prune()

    def _prune(self) -> None:
        oldest, newest, time = self._database.execute(
            "SELECT min(id), max(id), (SELECT time FROM readings ORDER BY id DESC LIMIT 1) FROM readings"
        ).fetchone()
        if newest is None:
            return
        first_kept = newest - self._max_rows + 1
        pages, free, size = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > self._max_bytes:
            first_kept = max(first_kept, oldest + max(1, round((newest - oldest + 1) * _PRUNED_SHARE)))
        with self._database:
            if first_kept > oldest:
                self._database.execute("DELETE FROM readings WHERE id < ?", (first_kept,))
            self._database.execute("DELETE FROM readings WHERE time < ?", (time - self._max_age_s,))

    # ---- reading ----

    def rows(self, since: float = 0.0, uuid: str | None = None) -> Iterator[TelemetryRow]:
        """Yield the written rows from a time (seconds since the epoch) on, oldest first, of all devices or of one."""
        return read_history(self.path, since, uuid)


def read_history(path: Path, since: float = 0.0, uuid: str | None = None) -> Iterator[TelemetryRow]:
    """Yield the rows of a history file, which another process may be writing to.

    Raises:
        HistoryError: there is no history at `path`.
    """
    where, arguments = ("AND uuid = ?", (since, uuid)) if uuid is not None else ("", (since,))
    with closing(_reader(path)) as database:
        found = database.execute(
            f"SELECT {', '.join(COLUMNS)} FROM readings WHERE time >= ? {where} ORDER BY id", arguments
        )
        for values in found:
            yield _row(dict(zip(COLUMNS, values, strict=True)))


def read_identities(path: Path) -> tuple[DeviceIdentity, ...]:
    """Return the devices that a history file knows, by index."""
    with closing(_reader(path)) as database:
        found = [DeviceIdentity(**json.loads(text)) for (text,) in database.execute("SELECT identity FROM devices")]
    return tuple(sorted(found, key=lambda identity: identity.index))


def write_csv(rows: Iterable[TelemetryRow], file: TextIO) -> int:
    """Write rows under a header line of COLUMNS and return how many; what is not known is an empty cell."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    for row in rows:
        writer.writerow("" if value is None else value for value in _values(row))
        count += 1
    return count


_INSERT = f"INSERT INTO readings ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS devices (uuid TEXT PRIMARY KEY, identity TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY AUTOINCREMENT, {", ".join(COLUMNS)});
CREATE INDEX IF NOT EXISTS readings_time ON readings (time);
"""


def _opened(path: Path) -> sqlite3.Connection:
    database: sqlite3.Connection | None = None
    try:
        database = sqlite3.connect(path, check_same_thread=False, timeout=10.0)
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise HistoryError(
                f"{path}: this telemetry history is of version {version}, newer than {_VERSION}: "
                "update lepton-rl or name another file"
            )
        database.execute("PRAGMA journal_mode = WAL")
        # A power cut may cost the last rows, never the file: telemetry is no journal.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA journal_size_limit = {4 * 2**20}")
        database.executescript(_SCHEMA)
        database.execute(f"PRAGMA user_version = {_VERSION}")
        return database
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        raise HistoryError(
            f"{path}: this is no telemetry history that can be written ({error}); name another file"
        ) from error
    except HistoryError:
        if database is not None:
            database.close()
        raise


def _reader(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise HistoryError(f"{path}: there is no telemetry history here")
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10.0)
    try:
        database.execute("SELECT id FROM readings LIMIT 1").fetchone()
    except sqlite3.Error as error:
        database.close()
        raise HistoryError(f"{path}: this is no telemetry history ({error})") from error
    return database


def _drained(source: queue.Queue[T]) -> Iterator[T]:
    for _ in range(source.qsize()):
        with suppress(queue.Empty):
            yield source.get_nowait()


def _values(row: TelemetryRow) -> tuple[Any, ...]:
    raw = {name: getattr(row.raw, name) for name in _RAW}
    reasons = raw["throttle_reasons"]
    raw["throttle_reasons"] = None if reasons is None else " ".join(reasons)
    for name in _FLAGS:
        raw[name] = None if raw[name] is None else int(raw[name])
    return (*raw.values(), *(getattr(row.filtered, name) for name in SMOOTHED))


def _row(values: dict[str, Any]) -> TelemetryRow:
    smoothed = {name: values.pop(f"filtered_{name}") for name in SMOOTHED}
    reasons = values["throttle_reasons"]
    values["throttle_reasons"] = None if reasons is None else tuple(reasons.split())
    for name in _FLAGS:
        values[name] = None if values[name] is None else bool(values[name])
    return TelemetryRow(Reading(**values), Reading(**(values | smoothed)))
