"""The socket of a helper that is root: one user may call, what is asked is one line of JSON, and nothing ends it.

A request is `{"id": 7, "verb": "renew", ...}`, its answer `{"id": 7, "ok": true, "result": ...}` or `{"id": 7, "ok":
false, "error": "a sentence"}`. Each refusal is a line of the log.
"""

import json
import logging
import os
import selectors
import signal
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_rl.errors import LeptonError, NodeError
from lepton_rl.node.peer import credentials_of
from lepton_rl.node.request_line import request_of

_log = logging.getLogger(__name__)
_MOST_BYTES = 4096
_MOST_CLIENTS = 8
_TURN_S = 1.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request comes to; the descriptors go to the caller with it and are then closed here."""

    result: Any = None
    descriptors: tuple[int, ...] = ()


class HelperSocket:
    """Serves one user, and root.

    Args:
        path: of the socket, in a folder that only its owner can write: who could write there could put another socket
            or a link in its place.
        uid: the user who may call.
        answer: does what a request asks; a LeptonError is the caller's refusal.
        each_turn: called at least once a second.

    Raises:
        NodeError: the socket cannot be made there, or another process listens on it.
    """

    def __init__(
        self, path: Path, uid: int, answer: Callable[[dict[str, Any]], Reply], each_turn: Callable[[], object]
    ) -> None:
        self._path, self._uid, self._answer, self._each_turn = path, uid, answer, each_turn
        self._clients: dict[socket.socket, bytearray] = {}
        self.closing = False
        _check_folder(path)
        check_silent(path)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            self._socket.bind(str(path))
            os.chown(path, uid, -1, follow_symlinks=False)
        except OSError as error:
            self._socket.close()
            raise NodeError(f"{path}: the socket cannot be made: {error.strerror or error}") from error
        finally:
            os.umask(before)
        self._socket.listen()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)

    def end_on_signals(self) -> None:
        """Let SIGTERM and SIGINT end `serve`."""

        def end(number: int, frame: object) -> None:
            self.closing = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)

    def serve(self) -> None:
        """Answer until `closing` is set."""
        while not self.closing:
            for key, _ in self._selector.select(timeout=_TURN_S):
                if key.fileobj is self._socket:
                    self._welcome()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._read(key.fileobj)
            self._each_turn()

    def close(self) -> None:
        """Let go of the clients and the socket."""
        for client in list(self._clients):
            self._drop(client)
        self._selector.close()
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _welcome(self) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError as error:  # who called has gone, or there are no descriptors left
            _log.warning("a caller could not be let in: %s", error)
            return
        pid, uid, _ = credentials_of(client)
        if uid not in (0, self._uid) or len(self._clients) >= _MOST_CLIENTS:
            _log.warning("refused: process %d of user %d may not call, or too many do", pid, uid)
            client.close()
            return
        client.setblocking(False)
        self._clients[client] = bytearray()
        self._selector.register(client, selectors.EVENT_READ)

    def _drop(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        del self._clients[client]
        client.close()

    def _read(self, client: socket.socket) -> None:
        try:
            data = client.recv(_MOST_BYTES)
        except OSError:
            data = b""
        buffer = self._clients[client]
        buffer += data
        if not data or len(buffer) > _MOST_BYTES:
            self._drop(client)
            return
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            if not self._respond(client, line):
                self._drop(client)
                return

    def _respond(self, client: socket.socket, line: bytes) -> bool:
        """Do what a line asks and say so; return whether the caller could be told."""
        answer, reply = self._do(line)
        try:
            data = json.dumps(answer).encode() + b"\n"
            if reply.descriptors:
                return socket.send_fds(client, [data], list(reply.descriptors)) == len(data)
            client.sendall(data)
        except OSError:
            return False
        else:
            return True
        finally:
            for descriptor in reply.descriptors:
                os.close(descriptor)

    def _do(self, line: bytes) -> tuple[dict[str, Any], Reply]:
        number, lasting = None, False
        try:
            request = request_of(line)
            number = request.pop("id", None)
            reply = self._answer(request)
        except LeptonError as error:
            trouble, lasting = str(error), bool(getattr(error, "lasting", False))
        except Exception:
            _log.exception("a request failed")
            trouble = "the helper could not do that: an error of ours, see its log"
        else:
            return {"id": number, "ok": True, "result": reply.result}, reply
        _log.warning("refused: %s", trouble)
        return {"id": number, "ok": False, "error": trouble, "lasting": lasting}, Reply()


def check_silent(path: Path) -> None:
    """Refuse to take the place of a helper that lives: it would go on unseen, and at its end remove our socket.

    Raises:
        NodeError: names its process.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_TURN_S)
        try:
            probe.connect(str(path))
        except OSError:  # none, or one that a dead process has left
            return
        holder = credentials_of(probe)[0]
    raise NodeError(f"{path}: process {holder} listens here already; end it before another one starts")


def _check_folder(path: Path) -> None:
    """Refuse a folder in which others could replace the socket."""
    try:
        found = path.parent.stat()
    except OSError as error:
        raise NodeError(f"{path.parent}: the socket cannot be made here: {error.strerror}") from error
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise NodeError(
            f"{path.parent}: a helper's socket needs a folder of its own user, root, that nobody else can write; make "
            "one with mode 0750 and the group of the daemon"
        )
