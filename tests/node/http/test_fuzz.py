"""Whatever is sent over HTTP: never an error of ours, never a lost job, and the next call is answered."""

import json
import socket
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_rl.node.http.roles import ROLES
from tests.node.http.conftest import RunningNode

pytest.importorskip("fastapi")
PATHS = [
    ("GET", "/api/v1/{}"), ("GET", "/api/v1/jobs/{}"), ("GET", "/api/v1/jobs/{}/explain"), ("GET", "/{}"),
    ("GET", "/api/v1/jobs/{}/log"), ("GET", "/api/v1/jobs/1/log?tail={}"), ("GET", "/api/v1/jobs/1/log?position={}"),
    ("POST", "/api/v1/jobs/{}/cancel"), ("POST", "/api/v1/gpus/{}/drain"), ("POST", "/api/v1/gpus/{}/resume"),
    ("DELETE", "/api/v1/reservations/{}"), ("GET", "/api/v1/queue?since={}"), ("GET", "/api/v1/decisions?last={}"),
    ("GET", "/api/v1/usage?since={}"), ("GET", "/api/v1/telemetry?since={}"), ("GET", "/api/v1/telemetry?last_s={}"),
]  # fmt: skip
ANY_TEXT = st.text(st.characters(), max_size=20)  # lone surrogates among it
WORDS = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["1", "0", "inf", "-nan", "%00"]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
# near what is right: each field may hold anything
FIELDS = {
    "argv": st.lists(ANY_TEXT, min_size=1, max_size=3), "cwd": st.sampled_from(["/", "/none", "x", "/\0", "/\ud800"]),
    "env": st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=2), "name": ANY_TEXT, "project": ANY_TEXT, "queue": ANY_TEXT,
    "gpus": st.sampled_from([0, 0.5, 1, 1.5, 4, 5, -1, 1e9]), "gpu_memory_mib": st.integers(-1, 2**40),
    "cpus": st.floats(), "ram_mib": st.integers(0, 2**33), "begin_time": st.sampled_from([0, 1e10, 9e10, -1]),
    "requested_s": st.floats(), "priority": st.floats(), "restartable": st.booleans(),
    "checkpoint_signal": st.integers(-1, 70), "stop_grace_s": st.floats(0, 1),
}  # fmt: skip
ONE = st.sampled_from(sorted(FIELDS)).flatmap(lambda name: st.fixed_dictionaries({name: FIELDS[name]}))
NEARLY = st.tuples(ONE, ONE).map(lambda two: {"argv": ["/bin/true"], "cwd": "/", **two[0], **two[1]})
JOBS = NEARLY | st.fixed_dictionaries({}, optional={name: field | JSON for name, field in FIELDS.items()})
RESERVATIONS = st.fixed_dictionaries(
    {},
    optional={
        "gpus": st.integers(-1, 6) | JSON, "begin_time": st.sampled_from([0, 9.9e10, 1e12]) | JSON,
        "duration_s": st.floats() | JSON, "user": st.text(max_size=5) | JSON,
    },
)  # fmt: skip
MANY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def known(node: RunningNode) -> set[int]:
    return {job["job"] for job in node.over_socket("queue", all=True)}


def body_of(value: Any) -> bytes:
    return json.dumps(value).encode()


@MANY
@given(place=st.sampled_from(PATHS), word=WORDS, role=st.sampled_from(sorted(ROLES)), body=JSON)
def test_any_path_is_answered_in_a_sentence(
    node: RunningNode, place: tuple[str, str], word: str, role: str, body: Any
) -> None:
    method, path = place
    target = path.format(quote(word.encode("utf-8", "surrogatepass"), safe=""))
    if "/drain" in path and word in "0123":
        return
    more = {"body": body_of(body), "headers": {"Content-Type": "application/json"}} if method == "POST" else {}
    answer = node.ask(method, target, role, **more)
    assert answer.status < 500, (answer, target)
    if answer.status >= 400:
        assert answer.body["error"]


@MANY
@given(nearly=NEARLY, wild=JOBS | JSON, is_wild=st.booleans())
def test_an_accepted_job_is_there_and_a_refused_one_is_not(
    node: RunningNode, nearly: Any, wild: Any, is_wild: bool
) -> None:
    before = known(node)
    body = wild if is_wild else nearly
    answer = node.ask("POST", "/api/v1/jobs", body=body_of(body), headers={"Content-Type": "application/json"})
    assert answer.status in (201, 400, 422), (answer, body)
    if answer.status == 201:
        assert known(node) == before | {answer.body["job"]}
        node.ask("POST", f"/api/v1/jobs/{answer.body['job']}/cancel?kill=true")
        found = node.wait_for(answer.body["job"], "cancelled", "done", "failed")
        assert found["job"] == answer.body["job"]
        return
    assert known(node) == before


@MANY
@given(asked=RESERVATIONS)
def test_any_reservation_is_taken_or_refused_in_a_sentence(node: RunningNode, asked: Any) -> None:
    asked = {"gpus": 1, "begin_time": 9.9e10, "duration_s": 60.0, **asked}
    answer = node.ask("POST", "/api/v1/reservations", body=body_of(asked), headers={"Content-Type": "application/json"})
    assert answer.status in (201, 400, 422), (answer, asked)
    if answer.status == 201:
        assert node.ask("DELETE", f"/api/v1/reservations/{answer.body['reservation']}").status == 200
    else:
        assert answer.body["error"]


@MANY
@given(junk=st.binary(max_size=300), half=st.booleans())
def test_bytes_that_are_no_http_hang_nobody_up(node: RunningNode, junk: bytes, half: bool) -> None:
    place = urlsplit(node.url)
    head = b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n" if half else b""
    with socket.create_connection((str(place.hostname), place.port), timeout=30.0) as client:
        client.sendall(head + junk + b"\r\n\r\n")
    assert node.ask("GET", "/api/v1/ping", "read").status == 200
