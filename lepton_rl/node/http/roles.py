"""What each role may do over HTTP: the one table."""

from lepton_rl.errors import NodeError, nearest

_READ = frozenset({"ping", "status", "queue", "explain", "decisions", "usage", "telemetry", "metrics"})
_SUBMIT = _READ | {"submit", "job", "cancel", "log", "wait"}
_OPERATE = _SUBMIT | {"drain", "resume", "verify", "reserve", "unreserve", "audit", "backup", "feedback", "stop"}

ROLES: dict[str, frozenset[str]] = {"read": _READ, "submit": _SUBMIT, "operate": _OPERATE}
"""The verbs of each role.

`job`, `log`, `wait` and `cancel` reach a caller's own jobs alone, unless the role is operate. Over HTTP the node itself
names the file of a `backup`, and `wait` has an end. `token_add` and `token_revoke` stay with the socket. `telemetry`
and `metrics` are no verbs of the socket.
"""


def check_role(role: str) -> str:
    """Return a role that there is.

    Raises:
        NodeError: there is no such role.
    """
    if role not in ROLES:
        raise NodeError(f"there is no role {role!r}{nearest(role, ROLES)}; known: {', '.join(ROLES)}")
    return role


def may(role: str, verb: str) -> bool:
    """Return whether a role may use a verb."""
    return verb in ROLES[role]


def least_role(verb: str) -> str:
    """Return the role with the fewest rights that may use a verb."""
    return next(role for role, verbs in ROLES.items() if verb in verbs)
