"""Where a node keeps its files."""

import os
from pathlib import Path

JOURNAL, HISTORY, SOCKET, LOG = "journal.sqlite3", "telemetry.sqlite3", "socket", "daemon.log"
NODE = "node.json"
"""What the last daemon was: cluster, policy, placement, and the policy on trial."""


def default_state_dir() -> Path:
    """Return where a node of one's own keeps its files."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "lepton-rl" / "node"
