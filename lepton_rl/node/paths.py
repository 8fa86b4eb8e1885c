"""Where a node keeps its files and where it listens."""

import json
import os
from contextlib import suppress
from pathlib import Path

JOURNAL, HISTORY, SOCKET, LOG, JOBS = "journal.sqlite3", "telemetry.sqlite3", "socket", "daemon.log", "jobs"
NODE = "node.json"
"""What the last daemon was: cluster, policy, placement, and the policy on trial."""


SHARED_STATE_DIR = Path("/var/lib/lepton-rl/node")
SHARED_SOCKET, LAUNCHER_SOCKET = Path("/run/lepton-rl/node.sock"), Path("/run/lepton-rl-launcher/launcher.sock")
"""Of a shared node, unless its configuration names others."""
SOCKET_VARIABLE = "LEPTON_RL_NODE_SOCKET"


def find_socket(state_dir: Path | None) -> Path:
    """Return the socket of the node to ask.

    That of a state folder, where one is named; else what LEPTON_RL_NODE_SOCKET names; else that of a node of one's own;
    else, where there is none but a shared one, that.
    """
    if state_dir is not None:
        return _socket_of(state_dir)
    named = os.environ.get(SOCKET_VARIABLE)
    if named:
        return Path(named).expanduser()
    own = default_state_dir() / SOCKET
    return SHARED_SOCKET if not own.exists() and SHARED_SOCKET.exists() else own


def _socket_of(state_dir: Path) -> Path:
    """Return where the daemon of a state folder listens: a shared one says where in its NODE file."""
    own = state_dir / SOCKET
    if not own.exists():
        with suppress(OSError, ValueError, KeyError, TypeError):
            return Path(json.loads((state_dir / NODE).read_text(encoding="utf-8"))["socket"])
    return own


def default_state_dir() -> Path:
    """Return where a node of one's own keeps its files."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "lepton-rl" / "node"
