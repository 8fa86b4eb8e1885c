"""Logs and ends of jobs over HTTP, for their owners, and clients that are too slow."""

import socket
import sqlite3
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.node.http.conftest import RunningNode

pytest.importorskip("fastapi")


def test_a_log_is_read_by_position_and_by_its_last_lines(node: RunningNode) -> None:
    job = node.submit("/bin/sh", "-c", "echo one; echo two; echo bad >&2")
    assert node.ask("GET", f"/api/v1/jobs/{job}/wait", "submit").body["state"] == "done"
    whole = node.ask("GET", f"/api/v1/jobs/{job}/log", "submit")
    assert (whole.status, whole.body, whole.headers["x-log-end"]) == (200, "one\ntwo\n", "true")
    rest = node.ask("GET", f"/api/v1/jobs/{job}/log?position=4", "submit")
    assert (rest.body, rest.headers["x-log-begin"], rest.headers["x-log-after"]) == ("two\n", "4", "8")
    assert node.ask("GET", f"/api/v1/jobs/{job}/log?tail=1", "submit").body == "two\n"
    assert node.ask("GET", f"/api/v1/jobs/{job}/log?stream=stderr&run=1", "operate").body == "bad\n"


def test_anothers_log_and_end_are_not_told(node: RunningNode) -> None:
    job = node.submit("/bin/true", role="operate")
    for what in ("log", "wait"):
        answer = node.ask("GET", f"/api/v1/jobs/{job}/{what}", "submit")
        assert (answer.status, answer.body) == (403, {"error": f"job {job} is another user's"})
        assert node.ask("GET", f"/api/v1/jobs/{job}/{what}", "read").status == 403


def test_a_wait_has_an_end(node: RunningNode) -> None:
    job = node.submit("/bin/sleep", "1000")
    assert node.ask("GET", f"/api/v1/jobs/{job}/wait?timeout_s=0.2", "submit").body["state"] != "done"
    assert node.ask("GET", f"/api/v1/jobs/{job}/wait?timeout_s=1000", "submit").status == 422
    node.over_socket("cancel", job=job, kill=True)
    assert node.ask("GET", f"/api/v1/jobs/{job}/wait?timeout_s=60", "submit").body["state"] == "cancelled"


def test_a_backup_lies_in_the_nodes_folder(node: RunningNode) -> None:
    place = Path(node.ask("POST", "/api/v1/backup").body["path"])
    assert place.parent == node.folder / "backups"
    assert place.parent.stat().st_mode & 0o077 == 0
    copy = sqlite3.connect(place)
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy.close()


def test_who_sends_a_head_slowly_is_hung_up_on(node: RunningNode) -> None:
    place = urlsplit(node.url)
    assert place.hostname is not None
    assert place.port is not None
    deadline = time.monotonic() + 60.0
    with socket.create_connection((place.hostname, place.port), timeout=60.0) as slow:
        slow.settimeout(0.5)
        slow.sendall(b"GET /api/v1/ping HTTP/1.1\r\n")
        while True:
            assert time.monotonic() < deadline, "it is never hung up on"
            try:
                slow.sendall(b"X-Slow: 1\r\n")
                if slow.recv(1000) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert node.ask("GET", "/api/v1/ping").status == 200
