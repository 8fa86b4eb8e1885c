"""What is left of runs whose supervisor is dead: found, watched, and ended where somebody asks for it."""

import os
import select
from collections.abc import Callable
from dataclasses import dataclass

from lepton_rl.node.jobs import RunRecord, StopHow
from lepton_rl.node.starter import Starter


@dataclass(slots=True)
class _Orphan:
    run: RunRecord
    pidfd: int | None  # of one of its processes; None before the first look, and where none is left


class Orphans:
    """The runs without supervisor that have processes left, by job; their descriptors are in the epoll given."""

    def __init__(self, epoll: select.epoll, starter: Starter) -> None:
        """Watch nothing yet."""
        self._epoll = epoll
        self._starter = starter
        self._orphans: dict[int, _Orphan] = {}

    def close(self) -> None:
        """Stop watching."""
        for orphan in self._orphans.values():
            if orphan.pidfd is not None:
                os.close(orphan.pidfd)
        self._orphans.clear()

    def __contains__(self, job: object) -> bool:
        """Return whether a job has processes left."""
        return job in self._orphans

    def add(self, run: RunRecord) -> None:
        """Watch a run from the next look on."""
        self._orphans[run.job] = _Orphan(run, None)

    def end(self, job: int, how: StopHow) -> int:
        """Signal all that is left of a job; return how many processes there were."""
        return self._starter.end_left(self._orphans[job].run, how)

    def look(self, ready: set[int], gone: Callable[[RunRecord], None]) -> None:
        """Look again at those one of whose processes ended, and call `gone` for each that has none left.

        Where `gone` raises, that run is looked at again the next time.
        """
        for orphan in list(self._orphans.values()):
            if orphan.pidfd is not None and orphan.pidfd not in ready:
                continue
            if orphan.pidfd is not None:
                self._epoll.unregister(orphan.pidfd)
                os.close(orphan.pidfd)
                orphan.pidfd = None
            while orphan.pidfd is None and (
                left := self._starter.left(orphan.run)
            ):  # again: one may have forked meanwhile
                orphan.pidfd = next((pidfd for process in left if (pidfd := process.open()) is not None), None)
            if orphan.pidfd is not None:
                self._epoll.register(orphan.pidfd, select.EPOLLIN)
                continue
            gone(orphan.run)
            del self._orphans[orphan.run.job]
