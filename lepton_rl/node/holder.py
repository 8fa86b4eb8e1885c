"""Which process holds a journal: for those who find nobody on its socket."""

import fcntl
import os
from pathlib import Path

from lepton_rl.node.paths import JOURNAL


def lock_file(journal: Path) -> Path:
    """Return the file beside a journal that its one writer holds locked."""
    return journal.with_name(f"{journal.name}.lock")


def holder_of(journal: Path) -> str | None:
    """Return the number of the process that holds a journal, "unknown" where it has not said it; None: none does."""
    try:
        opened = os.open(lock_file(journal), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_number(opened)
    else:
        return None
    finally:
        os.close(opened)


def read_number(lock: int) -> str:
    """Return what the holder of an open lock file has written into it."""
    return os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"


def nobody_answers(socket: Path) -> str:
    """Return what to tell those who find nobody on the socket of a node."""
    holder = holder_of(socket.with_name(JOURNAL))
    if holder is None:
        return f"{socket}: no node answers here; start one with `lepton-rl node start`"
    return (
        f"{socket}: no node answers here, though a daemon, process {holder}, holds the journal: wait some seconds "
        f"until it listens, or end it with `kill {holder}` and start another; its jobs go on"
    )
