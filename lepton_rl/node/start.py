"""Starting a daemon in the background and waiting until it answers, or until it is gone."""

import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lepton_rl.errors import NodeError
from lepton_rl.node.client import NodeClient
from lepton_rl.node.daemon import run_daemon
from lepton_rl.node.paths import JOURNAL, LOG
from lepton_rl.node.setup import NodeSetup, check_can_start

LEAST_FREE_MIB = 4
"""Of the disk of a new journal: it and the log grow by less in some minutes."""
PATIENCE_S = 900.0
"""Seconds that a daemon may take to answer: the first one compiles, on a slow machine for minutes."""

LIFE_S = 15.0
"""Seconds between signs of life of one that starts."""


def run_here(setup: NodeSetup) -> None:
    """Run the daemon in this process, logging to standard error."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    check_can_start(setup.state_dir, setup.sharing)
    run_daemon(setup)


def run_in_background(
    setup: NodeSetup, words: Sequence[str], on_wait: Callable[[str], object] = lambda sentence: None
) -> dict[str, Any]:
    """Start the daemon as a process of its own; return what it says of itself once it answers.

    Args:
        setup: tells where its state lies.
        words: of the command that runs it in the foreground.
        on_wait: told now and then that it still starts.

    Raises:
        NodeError: one runs already, or it ends at once: then with the last line of its log.
    """
    check_can_start(setup.state_dir, setup.sharing)
    socket = setup.socket
    if _ask(socket) is not None:
        raise NodeError(f"a node runs already in {setup.state_dir}; stop it first with `lepton-rl node stop`")
    setup.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (setup.state_dir / JOURNAL).exists() and _is_full(setup.state_dir):
        raise NodeError(_full(setup.state_dir))
    return start_process([sys.executable, "-m", "lepton_rl.cli", *words], setup.state_dir, socket, on_wait=on_wait)


def start_process(
    command: Sequence[str],
    state_dir: Path,
    socket: Path,
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    on_wait: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Start a daemon by its whole command; return what it says of itself once it answers.

    Raises:
        NodeError: it ends at once, then with the last line of its log, or never answers and was ended.
    """
    log = state_dir / LOG
    with log.open("ab") as output:
        begin = output.tell()
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=directory,
            env=environment,
        )
    began = told = time.monotonic()
    deadline = began + PATIENCE_S
    while time.monotonic() < deadline:
        about = _ask(socket)
        if about is not None:
            daemon.returncode = 0  # it is not waited for: it outlives this process
            return about
        if daemon.poll() is not None:
            raise NodeError(_last_words(log, begin))
        if time.monotonic() - told > LIFE_S:
            told = time.monotonic()
            on_wait(f"still starting, {told - began:.0f} s: the first start on a machine compiles; its log is {log}")
        time.sleep(0.05)
    daemon.kill()
    daemon.wait()
    raise NodeError(f"the daemon does not answer after {PATIENCE_S:.0f} s; see {log}")


def wait_until_gone(pid: int) -> None:
    """Wait until a process has ended, though nobody may have asked yet how.

    Raises:
        NodeError: it does not end.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(PATIENCE_S * 1000):
            raise NodeError(f"the daemon, process {pid}, does not end; see its log")
    finally:
        os.close(pidfd)


def _ask(socket: Path) -> dict[str, Any] | None:
    try:
        with NodeClient(socket, timeout_s=5.0) as client:
            about: dict[str, Any] = client.call("ping")
            return about
    except NodeError:
        return None


def _free_mib(folder: Path) -> float:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize / 2**20


def _is_full(folder: Path) -> bool:
    return _free_mib(folder) < LEAST_FREE_MIB


def _full(folder: Path) -> str:
    return f"{folder}: its disk has {_free_mib(folder):.1f} MiB left; free {LEAST_FREE_MIB} and start again"


def _last_words(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    if not lines and _is_full(log.parent):  # there was no room for its last words
        return _full(log.parent)
    return lines[-1].removeprefix("error: ") if lines else f"the daemon ended without a word; see {log}"
