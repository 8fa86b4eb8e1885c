"""A process that is root and needs no network, in a network namespace of its own; what it starts has the network.

A unit of systemd with PrivateNetwork= would take the network from the jobs, too: they inherit it.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_OWN = "/proc/self/ns/net"


class Networkless:
    """Takes this process, which must have one thread, out of the network.

    Raises:
        OSError: the kernel does not let us.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._former = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._call("unshare", _CLONE_NEWNET)
            self._own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            os.close(self._former)
            raise

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Let a process be started meanwhile that has the network."""
        self._call("setns", self._former, _CLONE_NEWNET)
        try:
            yield
        finally:
            self._call("setns", self._own, _CLONE_NEWNET)

    def _call(self, name: str, *arguments: int) -> None:
        if getattr(self._libc, name)(*map(ctypes.c_int, arguments)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
