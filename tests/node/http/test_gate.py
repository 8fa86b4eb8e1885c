"""The gate: what it refuses never reaches the application behind it."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from lepton_rl.errors import NodeError
from lepton_rl.node.http.gate import Event, Gate, Receive, Scope, Send
from lepton_rl.node.http.limits import RateLimit
from lepton_rl.node.http.rules import HttpRules, check_rules, parse_listen
from lepton_rl.node.http.tokens import TokenBook


class Echo:
    """An application that answers with the body it was sent, and remembers the requests."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        event = await receive()
        assert not event["more_body"]
        self.seen.append(event["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": event["body"]})


class Client:
    """Calls a gate with the events of a request; its clock stands still unless the test moves it."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        self.book, self.echo, self.now_s = TokenBook(folder / "tokens"), Echo(), 0.0
        self.token = self.book.add("alice", "read", time.time())
        self.gate = Gate(self.echo, self.book, HttpRules(**rules), clock=lambda: self.now_s)

    def ask(
        self, *parts: bytes, path: str = "/x", address: str = "127.0.0.1", ends: bool = True, **headers: str
    ) -> tuple[int, str, dict[bytes, bytes]]:
        """Return status, body and headers of the answer; status 0 is none."""
        sent: list[Event] = []
        given = {"host": "localhost:8265", "authorization": f"Bearer {self.token}"} | headers
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]
        scope: Scope = {"type": "http", "path": path, "headers": pairs, "client": (address, 1)}
        events = [{"type": "http.request", "body": part, "more_body": True} for part in parts or (b"",)]
        if ends:
            events[-1]["more_body"] = False

        async def receive() -> Event:
            if events:
                return events.pop(0)
            await asyncio.sleep(3600.0)
            raise AssertionError("nobody waits for so long")

        async def send(event: Event) -> None:
            sent.append(event)

        asyncio.run(self.gate(scope, receive, send))
        if not sent:
            return 0, "", {}
        body = b"".join(event.get("body", b"") for event in sent[1:])
        return sent[0]["status"], body.decode(), dict(sent[0]["headers"])


def test_who_has_a_token_passes_and_every_answer_has_the_headers(tmp_path: Path) -> None:
    client = Client(tmp_path)
    passed, refused = client.ask(b"he", b"llo"), client.ask(authorization="Bearer nothing")
    assert passed[:2] == (200, "hello")
    assert refused[0] == 401
    assert client.echo.seen == [b"hello"]
    for _, _, headers in (passed, refused):
        assert b"script-src 'self'" in headers[b"content-security-policy"]
        assert b"unsafe" not in headers[b"content-security-policy"]
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert not any(name.startswith(b"access-control") for name in headers)
    assert b"strict-transport-security" not in passed[2]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic YTpi", "Bearer  ", "\xff"])
def test_what_is_no_token(tmp_path: Path, authorization: str) -> None:
    client = Client(tmp_path)
    status, body, headers = client.ask(authorization=authorization)
    assert (status, headers[b"www-authenticate"]) == (401, b"Bearer")
    assert "token" in json.loads(body)["error"]
    assert client.echo.seen == []


def test_open_paths_need_no_token_and_metrics_only_where_told(tmp_path: Path) -> None:
    client = Client(tmp_path / "a")
    assert client.ask(path="/", authorization="")[0] == 200
    assert client.ask(path="/metrics", authorization="")[0] == 401
    assert Client(tmp_path / "b", metrics_open=True).ask(path="/metrics", authorization="")[0] == 200


def test_another_host_is_refused_unless_it_is_a_name_of_the_node(tmp_path: Path) -> None:
    client = Client(tmp_path / "a")
    assert client.ask(host="evil.example")[0] == 421
    assert client.ask(host="[::1]:8265")[0] == 200
    assert Client(tmp_path / "b", hosts=("Node.example",)).ask(host="node.example:443")[0] == 200


def test_a_body_that_is_too_large_goes_no_further_with_or_without_its_length(tmp_path: Path) -> None:
    client = Client(tmp_path, body_bytes=10)
    assert client.ask(b"0123456789")[0] == 200
    assert client.ask(b"01234567890")[0] == 413
    assert client.ask(b"", content_length="81")[0] == 413
    assert client.ask(*[b"01234"] * 1000, ends=False)[0] == 413
    assert client.ask(b"", content_length="-1")[0] == 413
    assert client.ask(*[b"01234"] * 1000)[0] == 413
    assert len(client.echo.seen) == 1


def test_a_body_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    client = Client(tmp_path, body_s=0.05)
    assert client.ask(b"01234", ends=False)[0] == 408
    assert client.echo.seen == []


def test_rates_hold_for_a_token_and_for_an_address(tmp_path: Path) -> None:
    client = Client(tmp_path, requests_per_second=1.0)
    statuses = [client.ask(address=f"10.0.0.{number}")[0] for number in range(8)]
    assert statuses == [200] * 5 + [429] * 3  # bursts of five seconds
    assert client.ask()[2][b"retry-after"] == b"1"
    client.now_s = 1.0
    assert [client.ask()[0] for _ in range(2)] == [200, 429]
    guesses = [client.ask(authorization=f"Bearer {number}", address="10.9.9.9")[0] for number in range(60)]
    assert guesses == [401] * 50 + [429] * 10


def test_a_bucket_fills_again_and_never_over_its_burst() -> None:
    now = [0.0]
    limit = RateLimit(2.0, 3.0, lambda: now[0])
    assert [limit.wait_s("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert limit.wait_s("b") == 0.0
    now[0] = 0.5
    assert [limit.wait_s("a"), limit.wait_s("a")] == [0.0, 0.5]
    now[0] = 1e6
    assert [limit.wait_s("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_tls_makes_the_browser_stay_with_it(tmp_path: Path) -> None:
    client = Client(tmp_path, certificate=tmp_path / "c.pem", key=tmp_path / "k.pem")
    assert b"strict-transport-security" in client.ask()[2]


@pytest.mark.parametrize(
    ("text", "found"),
    [("127.0.0.1:8265", ("127.0.0.1", 8265)), ("localhost:0", ("127.0.0.1", 0)), ("[::1]:80", ("::1", 80))],
)
def test_where_to_listen(text: str, found: tuple[str, int]) -> None:
    assert parse_listen(text) == found
    host, port = found
    assert parse_listen(HttpRules(host=host, port=port).listen) == found


@pytest.mark.parametrize("text", ["", "8265", "127.0.0.1", "example.org:80", "127.0.0.1:66000", "127.0.0.1:x", ":80"])
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(NodeError, match="write it as 127"):
        parse_listen(text)


def test_others_may_reach_it_only_with_tls_and_a_token(tmp_path: Path) -> None:
    file = tmp_path / "f.pem"
    file.touch()
    with pytest.raises(NodeError, match="can be reached from other machines: give"):
        check_rules(HttpRules(host="0.0.0.0"), tokens=1)
    with pytest.raises(NodeError, match="no token yet"):
        check_rules(HttpRules(host="0.0.0.0", certificate=file, key=file), tokens=0)
    with pytest.raises(NodeError, match="needs both"):
        check_rules(HttpRules(certificate=file), tokens=1)
    with pytest.raises(NodeError, match="no such file"):
        check_rules(HttpRules(certificate=tmp_path / "none", key=file), tokens=1)
    check_rules(HttpRules(host="0.0.0.0", certificate=file, key=file), tokens=1)
    check_rules(HttpRules(), tokens=0)
