"""What stands before the API: who calls, how often, how much, and the headers of every answer.

Nothing behind it runs for a request that is refused here.
"""

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from lepton_rl.node.http.limits import RateLimit
from lepton_rl.node.http.rules import HttpRules
from lepton_rl.node.http.tokens import TokenBook

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/", "/app.js", "/app.css", "/api/v1/openapi.json"})
"""Paths that need no token: they hold nothing of this node."""
_BURST_S = 5.0
_OF_ADDRESS = 10.0
# A client that is a little over is heard to its end, or it would see a broken connection instead of the answer.
_DISCARDED = 8
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)


class Refused(Exception):
    """A request that goes no further: status, sentence and headers of the answer."""

    def __init__(self, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


class Gate:
    """An ASGI application around another one, which it gives `scope["state"]["token"]`, or None on an open path.

    Args:
        app: behind it.
        tokens: who may call.
        rules: what is let through.
        clock: seconds that do not jump, for rates.
    """

    def __init__(
        self, app: App, tokens: TokenBook, rules: HttpRules, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._tokens, self._rules = app, tokens, rules
        rate = rules.requests_per_second
        self._by_token = RateLimit(rate, max(1.0, _BURST_S * rate), clock)
        self._by_address = RateLimit(_OF_ADDRESS * rate, max(1.0, _OF_ADDRESS * _BURST_S * rate), clock)
        self._extra = ((b"strict-transport-security", b"max-age=31536000"),) if rules.certificate else ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(event: Event) -> None:
            if event["type"] == "http.response.start":
                event = {**event, "headers": [*event.get("headers", ()), *_HEADERS, *self._extra]}
            await send(event)

        try:
            self._admit(scope)
            body = await self._body(scope, receive)
        except Refused as refused:
            await _answer(send_with_headers, refused)
            return
        if body is None:  # the client has left
            return
        told = False

        async def receive_body() -> Event:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_body, send_with_headers)

    def _admit(self, scope: Scope) -> None:
        """Refuse those who may not call; note who does."""
        address = (scope.get("client") or ("", 0))[0]
        _within(self._by_address.wait_s(address))
        headers = _single(scope)
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if _without_port(host) not in self._rules.names:
            raise Refused(421, f"this node is not called {host[:80]!r}; `http.hosts` of its configuration adds names")
        token = None
        path = scope["path"]
        if path not in OPEN and not (path == "/metrics" and self._rules.metrics_open):
            kind, _, text = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
            token = self._tokens.find(text.strip(), time.time()) if kind.lower() == "bearer" else None
            if token is None:
                raise Refused(
                    401,
                    ("this token is not known, or not any more" if text.strip() else "this needs a token")
                    + ": send the header `Authorization: Bearer TOKEN`; `lepton-rl node token add` makes one",
                    (b"www-authenticate", b"Bearer"),
                )
            _within(self._by_token.wait_s(token.id))
        scope.setdefault("state", {})["token"] = token

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the whole body; None where the client leaves before its end."""
        most = self._rules.body_bytes
        too_much = Refused(413, f"the body of a request has at most {most:,} bytes", (b"connection", b"close"))
        length = _single(scope).get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > _DISCARDED * most:
            raise too_much
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._rules.body_s):
                while True:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        return None
                    part = event.get("body", b"")
                    size += len(part)
                    if size <= most:
                        parts.append(part)
                    if size > _DISCARDED * most or (size > most and not event.get("more_body")):
                        raise too_much
                    if not event.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(408, "the body of the request did not arrive in time", (b"connection", b"close")) from None


def _single(scope: Scope) -> dict[bytes, bytes]:
    """The headers by name; of several with one name the last."""
    return dict(scope["headers"])


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _within(wait_s: float) -> None:
    if wait_s > 0.0:
        seconds = str(math.ceil(wait_s)).encode()
        raise Refused(429, f"too many requests; wait {wait_s:.1f} s", (b"retry-after", seconds))


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"error": refused.sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *refused.headers]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
