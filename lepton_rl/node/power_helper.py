"""The power helper: the one part of a node that may need to be root. It knows three verbs: set, renew, restore.

It listens on a Unix socket for one user, checks everything itself, reads no network, runs no program, and gives back
all limits when its user falls silent, when it ends, and when it starts after a crash or a reboot.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lepton_rl.devices import Devices
from lepton_rl.errors import ConnectionLost, NodeError
from lepton_rl.node.accounts import user_name
from lepton_rl.node.client import NodeClient
from lepton_rl.node.helper_socket import HelperSocket, Reply, check_silent
from lepton_rl.node.power import LEASE_S, PowerLeases

_log = logging.getLogger(__name__)
CHANGES_PER_MINUTE = 600
"""Of all GPUs: a driver takes 10 to 20 ms for each."""


class PowerHelper:
    """Serves the three verbs.

    Args:
        leases: of the devices.
        path: of the socket.
        uid: the user who may call, beside root.
        clock: seconds, monotonic.
    """

    def __init__(self, leases: PowerLeases, path: Path, uid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._leases, self._clock = leases, clock
        self._changes: list[float] = []
        self._socket = HelperSocket(
            path, uid, lambda request: Reply(self._do(request)), lambda: self._leases.expire(self._clock())
        )

    def serve(self) -> None:
        """Answer until SIGTERM or SIGINT; then give everything back."""
        self._socket.end_on_signals()
        try:
            self._socket.serve()
        finally:
            self._leases.restore()
            self._socket.close()

    def _do(self, request: dict[str, Any]) -> Any:
        verb, now = request.pop("verb", None), self._clock()
        if verb == "renew" and not request:
            self._leases.renew(now)
            return None
        if verb == "restore" and request.keys() <= {"uuid"}:
            self._leases.restore(_text(request["uuid"]) if "uuid" in request else None)
            return None
        if verb == "set" and request.keys() == {"uuid", "limit_mw"}:
            self._count(now)
            return self._leases.set_limit(_text(request["uuid"]), _whole(request["limit_mw"]), now)
        if verb == "set" and request.keys() == {"uuid", "min_mhz", "max_mhz"}:
            self._count(now)
            clocks = _whole(request["min_mhz"]), _whole(request["max_mhz"])
            return self._leases.lock_clocks(_text(request["uuid"]), *clocks, now)
        raise NodeError("the power helper knows set (uuid, limit_mw or min_mhz and max_mhz), renew, restore (uuid)")

    def _count(self, now: float) -> None:
        self._changes = [moment for moment in self._changes if moment > now - 60.0]
        if len(self._changes) >= CHANGES_PER_MINUTE:
            raise NodeError(f"more than {CHANGES_PER_MINUTE} changes in a minute")
        self._changes.append(now)


def run_power_helper(devices: Devices, folder: Path, path: Path, uid: int, lease_s: float = LEASE_S) -> None:
    """Run the helper until SIGTERM or SIGINT.

    Raises:
        NodeError: the socket cannot be made, or what is to be restored cannot be read.
    """
    check_silent(path)  # first: another helper's leases in this folder would be taken for a dead one's, and undone
    helper = PowerHelper(PowerLeases(devices, folder, lease_s), path, uid)
    _log.info("power helper for user %d on %s", uid, path)
    helper.serve()


class HelperPower:
    """Power control through the helper: the daemon itself needs no rights.

    Args:
        path: of the helper's socket.

    Raises:
        NodeError: no helper answers there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client: NodeClient | None = _connect(path)

    def set_limit(self, uuid: str, limit_mw: int | None, now: float) -> None:
        """Ask for a limit; None gives it back."""
        if limit_mw is None:
            self._call("restore", uuid=uuid)
        else:
            self._call("set", uuid=uuid, limit_mw=limit_mw)

    def renew(self, now: float) -> None:
        """Renew all leases; a helper that has gone away is looked for again."""
        try:
            self._call("renew")
        except NodeError as error:
            _log.error("%s", error)

    def close(self) -> None:
        """Give everything back."""
        try:
            self._call("restore")
        except NodeError as error:
            _log.error("%s; it restores the limits by itself", error)
        if self._client is not None:
            self._client.close()

    def _call(self, verb: str, **arguments: Any) -> None:
        if self._client is None:
            self._client = _connect(self._path)
        try:
            self._client.call(verb, **arguments)
        except ConnectionLost:
            self._client.close()
            self._client = None
            raise


def check_helper(path: Path) -> None:
    """Refuse a helper that does not serve this user, before anything relies on it.

    Raises:
        NodeError: none answers there, or it serves another user.
    """
    with _connect(path) as client:
        try:
            client.call("renew")
        except NodeError:
            raise NodeError(
                f"the power helper at {path} does not answer {user_name(os.geteuid())}: its option --user names whom"
            ) from None


def _connect(path: Path) -> NodeClient:
    start = f"`lepton-rl node power-helper --user {user_name(os.geteuid())} --socket {path}`"
    return NodeClient(path, timeout_s=5.0, absent=f"no power helper answers at {path}; start it, as root, with {start}")


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 100:
        raise NodeError("a uuid is a text")
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10**9:
        raise NodeError("limits and clocks are whole numbers above 0, of milliwatts and MHz")
    return value
