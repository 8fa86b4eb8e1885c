"""The supervisors that a daemon watches: their descriptors, their signals, and their last rites."""

import os
import select
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from lepton_rl.node.jobs import RunRecord
from lepton_rl.node.processes import ended
from lepton_rl.node.starter import Starter


@dataclass(slots=True)
class _Watched:
    pidfd: int
    ready: int | None  # reads as ended once the job has started


class Supervisors:
    """Living supervisors by job; their descriptors are in the epoll given.

    Attributes:
        untold: jobs whose supervisors could not be told yet what the journal intends for them.
    """

    def __init__(self, epoll: select.epoll, starter: Starter) -> None:
        """Watch nothing yet."""
        self._epoll = epoll
        self._starter = starter
        self._watched: dict[int, _Watched] = {}
        self.untold: set[int] = set()

    def close(self) -> None:
        """Stop watching."""
        for watched in self._watched.values():
            os.close(watched.pidfd)
            if watched.ready is not None:
                os.close(watched.ready)
        self._watched.clear()

    def __contains__(self, job: object) -> bool:
        """Return whether a job's supervisor is watched."""
        return job in self._watched

    def __iter__(self) -> Iterator[int]:
        """Yield the jobs whose supervisors are watched."""
        return iter(tuple(self._watched))

    def watch(self, job: int, pidfd: int, ready: int | None = None) -> None:
        """Watch a supervisor by its pidfd, and where we started it by a descriptor that tells of the job's start.

        Raises:
            OSError: the system lets us watch no more; the pidfd is closed.
        """
        try:
            self._epoll.register(pidfd, select.EPOLLIN)
            if ready is not None:
                self._epoll.register(ready, select.EPOLLIN)
        except OSError:
            os.close(pidfd)  # which takes it out of the epoll too
            raise
        self._watched[job] = _Watched(pidfd, ready)

    def told(self, job: int, ready: set[int]) -> bool:
        """Return whether a supervisor has something to tell, by the descriptors that are ready."""
        watched = self._watched[job]
        return watched.pidfd in ready or watched.ready in ready

    def start_noted(self, job: int) -> None:
        """Wait no longer for a job's start."""
        watched = self._watched[job]
        if watched.ready is not None:
            self._epoll.unregister(watched.ready)
            os.close(watched.ready)
            watched.ready = None

    def ended(self, job: int) -> bool:
        """Return whether a supervisor has ended."""
        return ended(self._watched[job].pidfd)

    def signal(self, run: RunRecord) -> None:
        """Tell a run's supervisor what the journal intends for it, if anything; `untold` are to be told again."""
        self.untold.discard(run.job)
        watched = self._watched.get(run.job)
        if run.stop_how is None or watched is None or ended(watched.pidfd):
            return
        if not self._starter.tell(run, watched.pidfd, run.stop_how):
            self.untold.add(run.job)

    def forget(self, job: int) -> None:
        """Take leave of a supervisor that has ended."""
        self.start_noted(job)
        self.untold.discard(job)
        pidfd = self._watched.pop(job).pidfd
        self._epoll.unregister(pidfd)
        with suppress(ChildProcessError):  # a former daemon's child
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        os.close(pidfd)
