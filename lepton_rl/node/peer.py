"""Who is at the other end of a Unix socket, as the kernel tells it."""

import os
import pwd
import socket
import struct
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid
_SO_PEERGROUPS = 59  # of Linux; the socket module does not name it
_GROUPS_BYTES = 1024  # the most that Python's getsockopt takes


@dataclass(frozen=True, slots=True)
class Peer:
    """User and groups that a process had when it connected."""

    uid: int
    groups: frozenset[int]


def credentials_of(connection: socket.socket) -> tuple[int, int, int]:
    """Return process, user and group at the other end, as they were when it connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


def peer_of(connection: socket.socket) -> Peer:
    """Return who is at the other end."""
    _, uid, gid = credentials_of(connection)
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
        groups = [number for (number,) in struct.iter_unpack("I", packed)]
    except OSError:  # more than fit: what the accounts say, then
        groups = _groups_by_account(uid, gid)
    return Peer(uid, frozenset((gid, *groups)))


def _groups_by_account(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return []
