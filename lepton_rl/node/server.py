"""The node's Unix socket: who calls is what the kernel says, requests are lines of JSON."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from lepton_rl.errors import LeptonError, NodeError
from lepton_rl.node.accounts import user_name
from lepton_rl.node.caller import Caller
from lepton_rl.node.messages import MOST_BYTES
from lepton_rl.node.peer import peer_of
from lepton_rl.node.request_line import request_of
from lepton_rl.node.service import Service

_log = logging.getLogger(__name__)
MOST_AT_ONCE = 1000
"""Requests of one client that may wait for their answer."""
MOST_CLIENTS = 100
"""Connections of one user at a time: others want to be let in, too."""
_LONGEST_PATH = 107
_LONG = ("submit", "wait")  # answered when others have been: many may be under way at once, and their answers are short


class SocketServer:
    """Listens for clients on a Unix socket.

    Args:
        path: of the socket; only its owner can open it, and with `group` the members of that group.
        service: answers.
        operators: users who may do what only operators may, beside root and the daemon's own.
        group: number of the group that may call, for a node that is shared.
        operator_group: number of a group whose members are operators.
    """

    def __init__(
        self,
        path: Path,
        service: Service,
        operators: frozenset[int] = frozenset(),
        group: int | None = None,
        operator_group: int | None = None,
    ) -> None:
        self.path, self._operator_group = path, operator_group
        self._service, self._group = service, group
        self._operators = operators | {0, os.geteuid()}
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None  # of the socket's file: device and number
        self._trouble = ""  # why it could not be made again, told once
        self._clients: set[asyncio.Task[None]] = set()
        self._connections: Counter[int] = Counter()  # by user

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            NodeError: another daemon listens there, or the socket cannot be made.
        """
        if len(os.fsencode(self.path)) > _LONGEST_PATH:
            raise NodeError(
                f"{self.path}: the path of a socket has at most {_LONGEST_PATH} bytes; choose a shorter one"
            )
        self._clear()
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._welcome, self.path, limit=MOST_BYTES)
        except OSError as error:
            raise NodeError(f"{self.path}: the socket cannot be made: {error.strerror}") from error
        finally:
            os.umask(before)
        if self._group is not None:
            try:
                os.chown(self.path, -1, self._group)
                self.path.chmod(0o660)
            except OSError as error:
                raise NodeError(f"{self.path}: cannot be opened to group {self._group}: {error.strerror}") from error
        self._identity = self._file()

    async def keep(self) -> None:
        """Listen anew where the socket's file is gone or another one lies in its place; who is connected stays so.

        What cannot be mended is told to the log, once, and tried again with the next call.
        """
        if self._server is None or (found := self._file()) == self._identity:
            return
        try:
            self._clear()
            self._server.close()  # first: where it unlinks, it must not be the new one's file
            await self.start()
        except (NodeError, OSError) as error:
            if str(error) != self._trouble:
                _log.error("nobody can call this node: %s", error)
            self._trouble = str(error)
        else:
            _log.warning("%s was %s; listening there again", self.path, "gone" if found is None else "another file")
            self._trouble = ""

    def _file(self) -> tuple[int, int] | None:
        try:
            found = self.path.lstat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else (0, 0)

    async def close(self) -> None:
        """Stop listening and let go of the clients."""
        if self._server is not None:
            self._server.close()
            for client in list(self._clients):
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)
            await self._server.wait_closed()
            if self._file() == self._identity:
                self.path.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove a socket that a former daemon has left; refuse one on which somebody listens."""
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise NodeError(f"{self.path}: there is a file that is no socket; move it away")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.path))
            except OSError:
                self.path.unlink(missing_ok=True)
                return
        raise NodeError(f"{self.path}: another daemon listens here; stop it with `lepton-rl node stop`")

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = self._caller(writer)
        if caller.uid != 0 and self._connections[caller.uid] >= MOST_CLIENTS:
            await self._answer(writer, None, NodeError(f"{caller.user} has {MOST_CLIENTS} connections open already"))
            return
        self._connections[caller.uid] += 1
        try:
            await self._talk(caller, reader, writer)
        finally:
            self._connections[caller.uid] -= 1

    async def _talk(self, caller: Caller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        room, turn = asyncio.Semaphore(MOST_AT_ONCE), asyncio.Lock()
        requests: set[asyncio.Task[None]] = set()
        try:
            while True:
                try:
                    line = await reader.readuntil()
                except asyncio.IncompleteReadError as rest:
                    if rest.partial.strip():
                        await self._answer(writer, None, NodeError("a request must end with a newline"))
                    break
                except asyncio.LimitOverrunError:
                    await self._answer(writer, None, NodeError(f"a request has at most {MOST_BYTES:,} bytes"))
                    break
                await room.acquire()
                task = asyncio.create_task(self._handle(caller, line, writer, turn))
                requests.add(task)
                task.add_done_callback(requests.discard)
                task.add_done_callback(lambda _: room.release())
            await asyncio.gather(*requests)
        finally:
            for task in list(requests):
                task.cancel()

    async def _handle(self, caller: Caller, line: bytes, writer: asyncio.StreamWriter, turn: asyncio.Lock) -> None:
        try:
            request = request_of(line)
        except NodeError as error:
            await self._answer(writer, None, error)
            return
        number, verb = request.pop("id", None), request.pop("verb", None)
        if verb in _LONG:
            await self._respond(caller, number, verb, request, writer)
            return
        async with turn:  # a client that asks much and reads nothing has one answer in our memory, not a thousand
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            await self._respond(caller, number, verb, request, writer)

    async def _respond(
        self, caller: Caller, number: Any, verb: object, request: dict[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        try:
            result: Any = await self._service.call(caller, verb, request)
        except LeptonError as error:
            await self._answer(writer, number, error)
        except Exception:
            _log.exception("%s failed", verb)
            await self._answer(writer, number, NodeError("the node could not do that: an error of ours, see its log"))
        else:
            await self._answer(writer, number, result)

    async def _answer(self, writer: asyncio.StreamWriter, number: Any, result: Any) -> None:
        answer: dict[str, Any] = {"id": number, "ok": not isinstance(result, LeptonError)}
        if isinstance(result, LeptonError):
            answer["error"] = str(result)
        else:
            answer["result"] = result
        with contextlib.suppress(ConnectionError):  # who has hung up wants no answer
            writer.write(json.dumps(answer, default=str).encode() + b"\n")
            await writer.drain()

    def _caller(self, writer: asyncio.StreamWriter) -> Caller:
        peer = peer_of(writer.get_extra_info("socket"))
        operator = peer.uid in self._operators or self._operator_group in peer.groups
        return Caller(peer.uid, user_name(peer.uid), operator)
