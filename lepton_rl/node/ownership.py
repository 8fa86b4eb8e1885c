"""Whose a process on a GPU is: a job's of this node, or a stranger's."""

from collections.abc import Iterable
from pathlib import Path

from lepton_rl.node.environment import MARK
from lepton_rl.node.jobs import RunRecord
from lepton_rl.node.supervisor import stat

_MOST_ANCESTORS = 64
_MOST_KNOWN = 4096

RunId = tuple[int, int]
"""Number of a job and of its run."""


class Ownership:
    """Tells the processes of this node's runs from others.

    A process is a run's by the mark in the environment it was started with, or because one it descends from is: some
    programs, containers above all, start others with an empty environment.

    Args:
        node_id: of the journal.
    """

    def __init__(self, node_id: str) -> None:
        self._mark = f"{MARK}={node_id}:".encode()
        self._supervisors: dict[int, RunId] = {}
        self._known: dict[int, RunId] = {}

    def expect(self, runs: Iterable[RunRecord]) -> None:
        """Take note of the runs that there are now: their supervisors are the ancestors that their processes keep."""
        self._supervisors = {run.supervisor_pid: (run.job, run.run) for run in runs if run.supervisor_pid is not None}

    def run_of(self, pid: int) -> RunId | None:
        """Return the run that a process is of, or None for a stranger's.

        One that has ended since the driver listed it is still the run's that it was.
        """
        seen = pid
        for _ in range(_MOST_ANCESTORS):
            columns = _living(seen)
            if columns is None:
                return self._known.get(pid) if seen == pid else None
            found = self._supervisors.get(seen) or self._marked(seen)
            if found is not None:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[pid] = found
                return found
            seen = int(columns[1])
            if seen <= 1:
                break
        self._known.pop(pid, None)  # a stranger has the number now
        return None

    def _marked(self, pid: int) -> RunId | None:
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return None
        for variable in variables:
            if variable.startswith(self._mark):
                job, _, run = variable[len(self._mark) :].partition(b":")
                return (int(job), int(run)) if job.isdigit() and run.isdigit() else None
        return None


def _living(pid: int) -> list[bytes] | None:
    """The columns of a process's state from the third on; None where it has ended."""
    try:
        columns = stat(pid)
    except OSError:
        return None
    return None if columns[0] in (b"Z", b"X") else columns
