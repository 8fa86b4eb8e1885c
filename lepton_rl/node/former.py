"""The daemon that ran before: what decided, and how it was started, to bring it back if its successor fails."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_rl.errors import NodeError
from lepton_rl.node.paths import NODE
from lepton_rl.node.start import start_process

_WORDS = ("start", "--foreground")


@dataclass(frozen=True, slots=True)
class Former:
    """How a daemon was started: command, working directory and environment of its process, and what decided."""

    command: tuple[str, ...]
    directory: Path
    environment: dict[str, str]
    policy: str

    def bring_back(self, state_dir: Path, socket: Path) -> dict[str, Any]:
        """Start it once more, as it was started; return what it says of itself once it answers.

        Raises:
            NodeError: it does not come up.
        """
        return start_process(self.command, state_dir, socket, directory=self.directory, environment=self.environment)


def policy_before(state_dir: Path, configured: Any) -> Any:
    """Return the policy that decided last on a state folder, where that is the latest word on it, and None elsewhere.

    A file that has come to name another policy since is the later word.

    Args:
        state_dir: of the node.
        configured: the policy that a configuration file names now, plain data; None where none does.
    """
    try:
        about = json.loads((state_dir / NODE).read_text(encoding="utf-8"))
        last, then = about["policy"], about.get("configured")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or damaged: it is written anew
        return None
    return None if configured is not None and (last == configured or then != configured) else last


def remember(about: dict[str, Any]) -> Former | None:
    """Return how the daemon was started that says this of itself; None where that cannot be told."""
    place = Path("/proc") / str(about["pid"])
    try:
        command = tuple(_texts(place / "cmdline"))
        variables = dict(text.split("=", 1) for text in _texts(place / "environ") if "=" in text)
        directory = (place / "cwd").readlink()
    except OSError:
        return None
    if any(word not in command for word in _WORDS):  # a program of one's own, which does more than that
        return None
    return Former(command, directory, variables, str(about["policy"]))


def replaced(error: NodeError, former: Former | None, state_dir: Path, socket: Path) -> NodeError:
    """Return what to say after a successor has not come up, having brought the former daemon back if possible."""
    if former is None:
        return NodeError(
            f"{error}; no daemon runs now, and jobs go on: start the former one with `lepton-rl node start`"
        )
    try:
        former.bring_back(state_dir, socket)
    except (NodeError, OSError) as trouble:
        return NodeError(f"{error}; nor did the daemon under {former.policy} come back ({trouble}): jobs go on without")
    return NodeError(f"{error}; the daemon under {former.policy} runs again as before, and jobs go on")


def _texts(path: Path) -> list[str]:
    return [os.fsdecode(part) for part in path.read_bytes().split(b"\0")[:-1]]
