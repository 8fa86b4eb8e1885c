"""The history: bounded, never in the way, readable while it is written."""

import csv
import io
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest

from lepton_rl.devices import (
    DeviceIdentity,
    History,
    HistoryError,
    Reading,
    TelemetryRow,
    read_history,
    read_identities,
    write_csv,
)
from lepton_rl.devices.history import COLUMNS

_FULL = Reading(
    "GPU-0",
    1000.0,
    False,
    0.5,
    0.25,
    100,
    60,
    30,
    10,
    62_000,
    400_000,
    31,
    210,
    1593,
    2**40,
    ("sw_power_cap", "hw_slowdown"),
    7,
    0,
    2,
    True,
    False,
    "none",
)


def _row(time: float, uuid: str = "GPU-0", power_mw: int | None = 100) -> TelemetryRow:
    reading = Reading(uuid, time, power_mw=power_mw)
    return TelemetryRow(reading, reading)


def _written(history: History, *rows: TelemetryRow) -> None:
    history.append(rows)
    assert history.flush()


def test_what_was_written_is_read_unchanged(tmp_path: Path) -> None:
    filtered = Reading(**{field.name: getattr(_FULL, field.name) for field in fields(Reading)} | {"power_mw": 61_000})
    empty = Reading("GPU-1", 1001.0, throttle_reasons=())
    lost = Reading("GPU-1", 1002.0, lost=True)
    rows = [TelemetryRow(_FULL, filtered), TelemetryRow(empty, empty), TelemetryRow(lost, lost)]
    with History(tmp_path / "telemetry.db") as history:
        _written(history, *rows)
        assert list(history.rows()) == rows
        assert history.dropped == 0
    assert list(read_history(tmp_path / "telemetry.db")) == rows


def test_since_and_one_gpu(tmp_path: Path) -> None:
    with History(tmp_path / "telemetry.db") as history:
        _written(history, *(_row(time, uuid) for time in (1.0, 2.0, 3.0) for uuid in ("GPU-0", "GPU-1")))
        assert [row.raw.time for row in history.rows(since=2.0, uuid="GPU-1")] == [2.0, 3.0]
        assert len(list(history.rows(since=3.5))) == 0


def test_a_wall_clock_that_is_set_back_keeps_the_order(tmp_path: Path) -> None:
    with History(tmp_path / "telemetry.db") as history:
        _written(history, _row(5000.0), _row(1000.0), _row(1001.0))
        assert [row.raw.time for row in history.rows()] == [5000.0, 1000.0, 1001.0]


def test_bound_by_rows(tmp_path: Path) -> None:
    with History(tmp_path / "telemetry.db", max_rows=10) as history:
        for batch in range(5):
            _written(history, *(_row(batch * 10.0 + place) for place in range(7)))
        assert [row.raw.time for row in history.rows()] == [34.0, 35.0, 36.0, 40.0, 41.0, 42.0, 43.0, 44.0, 45.0, 46.0]


def test_bound_by_age(tmp_path: Path) -> None:
    with History(tmp_path / "telemetry.db", max_age_s=100.0) as history:
        _written(history, _row(0.0), _row(50.0))
        _written(history, _row(149.0))
        assert [row.raw.time for row in history.rows()] == [50.0, 149.0]


def test_bound_by_bytes(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    with History(path, max_bytes=400_000) as history:
        for batch in range(40):
            _written(history, *(_row(batch * 200.0 + place) for place in range(200)))
        kept = [row.raw.time for row in history.rows()]
        assert kept == [float(time) for time in range(8000 - len(kept), 8000)]  # the newest, without a gap
        assert 1000 < len(kept) < 8000
    assert path.stat().st_size < 800_000


def test_a_full_disk_costs_rows_and_nothing_else(tmp_path: Path) -> None:
    # A limit on the size of files stands for the disk: a child process writes until it is reached.
    script = """
import resource, signal, sys
from pathlib import Path
from lepton_rl.devices import History, Reading, TelemetryRow
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with History(Path(sys.argv[1])) as history:
    def write(count):
        for time in range(count):
            reading = Reading("GPU-0", float(time))
            history.append([TelemetryRow(reading, reading)])
            if time % 500 == 499:
                assert history.flush()
    write(1000)
    before = len(list(history.rows()))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    write(20_000)
    full = history.dropped, history.problem
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    write(500)
    print(before, full[0] > 0, full[1] is not None, history.problem, len(list(history.rows())) + history.dropped)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "telemetry.db")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1000", "True", "True", "None", "21500"]
    with closing(sqlite3.connect(tmp_path / "telemetry.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_queue_that_overflows_drops_and_does_not_wait(tmp_path: Path) -> None:
    with History(tmp_path / "telemetry.db", batch_s=3600.0) as history:
        history.append(_row(float(time)) for time in range(25_000))
        assert history.dropped == 5_000
        assert history.problem == "rows come faster than the disk takes them"
        assert history.flush()
        assert len(list(history.rows())) == 20_000


def test_closing_writes_what_is_left_and_may_be_done_twice(tmp_path: Path) -> None:
    history = History(tmp_path / "telemetry.db", batch_s=3600.0)
    history.append([_row(1.0)])
    history.close()
    history.close()
    with History(tmp_path / "telemetry.db") as again:
        assert len(list(again.rows())) == 1


def test_another_process_reads_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    script = (
        "import sys; from pathlib import Path; from lepton_rl.devices import read_history;"
        "print(len(list(read_history(Path(sys.argv[1])))))"
    )
    with History(path) as history:
        _written(history, _row(1.0), _row(2.0))
        done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
        assert done.stdout == "2\n"
        _written(history, _row(3.0))


def test_the_devices_are_kept(tmp_path: Path) -> None:
    second = DeviceIdentity(1, "GPU-1", "Fake", max_power_limit_mw=400_000, divided=True)
    first = DeviceIdentity(0, "GPU-0", "Fake", memory_total_bytes=2**36)
    with History(tmp_path / "telemetry.db") as history:
        history.describe([second, first])
        history.describe([second])
        assert history.flush()
        assert read_identities(history.path) == (first, second)


def test_csv(tmp_path: Path) -> None:
    file = io.StringIO()
    empty = Reading("GPU-1", 1001.5, throttle_reasons=())
    assert write_csv([TelemetryRow(_FULL, _FULL), TelemetryRow(empty, empty)], file) == 2
    first, second = csv.DictReader(io.StringIO(file.getvalue()))
    assert tuple(first) == COLUMNS
    assert (first["time"], first["power_mw"], first["filtered_power_mw"]) == ("1000.0", "62000", "62000")
    assert first["throttle_reasons"] == "sw_power_cap hw_slowdown"
    assert (second["uuid"], second["power_mw"], second["throttle_reasons"]) == ("GPU-1", "", "")


def test_what_is_no_history_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    with pytest.raises(HistoryError, match=r"notes\.txt: this is no telemetry history"):
        History(path)
    assert path.read_text().startswith("not a database")
    with pytest.raises(HistoryError, match="there is no telemetry history here"):
        list(read_history(tmp_path / "missing.db"))
    with pytest.raises(HistoryError, match="this is no telemetry history"):
        list(read_history(path))
    with pytest.raises(HistoryError, match="name another file"):
        History(tmp_path / "no" / "folder" / "telemetry.db")


def test_a_newer_history_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    History(path).close()
    shutil.copy(path, tmp_path / "newer.db")
    with closing(sqlite3.connect(tmp_path / "newer.db")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryError, match="of version 99, newer than 1: update lepton-rl"):
        History(tmp_path / "newer.db")
