"""A client of a node's socket."""

import json
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lepton_rl.errors import ConnectionLost, NodeError
from lepton_rl.node.holder import nobody_answers

AT_ONCE = 200
"""Requests on the way at a time."""


class NodeClient:
    """One connection to a node.

    Args:
        path: of its socket.
        timeout_s: seconds to wait for an answer; None waits for ever.
        absent: what to say where nobody answers, if it is no node that should.

    Raises:
        NodeError: nobody answers there, or this user may not call.
    """

    def __init__(self, path: Path, timeout_s: float | None = 30.0, absent: str | None = None) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            raise NodeError(nobody_answers(path) if absent is None else absent) from None
        except PermissionError:
            self._socket.close()
            raise NodeError(f"{path}: this user may not call this node; ask its operator for the group") from None
        except OSError as error:
            self._socket.close()
            raise NodeError(f"{path}: {error.strerror or error}") from None
        self._lines = self._socket.makefile("rb")
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()

    def call(self, verb: str, **arguments: Any) -> Any:
        """Return what the node answers.

        Raises:
            ConnectionLost: it hangs up, or does not answer in time.
            NodeError: it refuses, in its own words.
        """
        return next(self.call_each([(verb, arguments)]))

    def call_each(self, requests: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Any]:
        """Send many requests without waiting for each answer; return the answers in the order of the requests.

        Raises:
            ConnectionLost: the node hangs up, or does not answer in time.
            NodeError: it refuses one.
        """
        left, sent = iter(requests), deque[int]()
        early: dict[Any, dict[str, Any]] = {}
        while True:
            # Not all at once: who only sends, while the other side's answers pile up unread, waits for ever.
            if len(sent) <= AT_ONCE // 2:
                sent += self._send_each(islice(left, AT_ONCE - len(sent)))
            if not sent:
                return
            number = sent.popleft()
            while number not in early:
                answer = self._receive()
                early[answer["id"]] = answer
                if answer["id"] is None:  # it could not even read one of them
                    raise NodeError(answer["error"])
            answer = early.pop(number)
            if not answer["ok"]:
                raise NodeError(answer["error"])
            yield answer["result"]

    def _send_each(self, requests: Iterable[tuple[str, dict[str, Any]]]) -> list[int]:
        """Send requests and return their numbers."""
        numbers, lines = [], []
        for verb, arguments in requests:
            self._number += 1
            numbers.append(self._number)
            lines.append(json.dumps({"id": self._number, "verb": verb, **arguments}).encode() + b"\n")
        self._send(b"".join(lines))
        return numbers

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except BrokenPipeError:
            self._receive_farewell()
            raise ConnectionLost(f"{self._path}: the node has hung up") from None
        except OSError as error:
            raise ConnectionLost(f"{self._path}: the node has hung up: {error.strerror or error}") from None

    def _receive_farewell(self) -> None:
        """Raise what the node said before it hung up, if it said anything: why it does not serve this connection."""
        with suppress(OSError, ValueError):
            said = json.loads(self._lines.readline())
            if isinstance(said, dict) and said.get("id") is None and "error" in said:
                raise NodeError(said["error"])

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise ConnectionLost(f"{self._path}: the node does not answer in time; see its log") from None
        except OSError as error:
            raise ConnectionLost(f"{self._path}: the node has hung up: {error.strerror or error}") from None
        if not line:
            raise ConnectionLost(f"{self._path}: the node has hung up")
        answer: dict[str, Any] = json.loads(line)
        return answer
