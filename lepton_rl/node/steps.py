"""The steps of a decision: first on all jobs, then, ahead of each reservation, on those that end before it."""

from collections.abc import Callable

from lepton_rl.core.snapshot import Snapshot
from lepton_rl.node.allowance import Allowance
from lepton_rl.node.reservations import Ahead, Window, windows
from lepton_rl.node.state import NodeState


class DecisionSteps:
    """What policies see of a node, step by step.

    Args:
        state: of the node.

    Attributes:
        starving: returns the job that has waited for too long and how long, if any; that job's step goes first.
    """

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self.starving: Callable[[Snapshot], tuple[int, float] | None] = lambda snapshot: None
        self._windows, self._step = [Window(0.0)], 0
        self._ahead = Ahead()
        self._view: Snapshot | None = None
        self._allowance: Allowance | None = None

    def allowance(self) -> Allowance:
        """Return what actions on the snapshot may ask for."""
        self.snapshot()  # may be about a later moment than the last one
        if self._allowance is None:
            jobs = [each.record for each in self._state.jobs.known.values()]
            restartable = frozenset(job.id for job in jobs if job.request.restartable)
            unsaid = [job.id for job in jobs if job.request.requested_s is None] if self._ahead.next else ()
            self._allowance = Allowance(restartable, self._ahead, frozenset(unsaid))
        return self._allowance

    def narrow(self) -> bool:
        """Go on to the jobs that end before the next reservation ahead; False, and back to all, if there are none."""
        self._step = (self._step + 1) % len(self._windows)
        self.forget()
        return self._step > 0

    def snapshot(self) -> Snapshot:
        """Return what a policy can know now."""
        if self._view is None:
            if self._step == 0:
                self._ahead = self._state.ahead(self._state.clock.wall())
                self._plan()
            else:  # of the same moment, though some may have been made or given up since
                self._ahead = self._state.ahead(self._ahead.wall)
            self._view, self._allowance = self._seen(self._windows[self._step]), None
        return self._view

    def follow(self, before: Snapshot, after: Snapshot) -> None:
        """Take in what an action has made of a snapshot, unless the node has turned out to be another one meanwhile."""
        self._view = after if self._view is before else None

    def forget(self) -> None:
        """Look at the node anew before the next snapshot."""
        self._view = None

    def _plan(self) -> None:
        """Work out the steps of the next decision."""
        state, jobs = self._state, self._state.jobs
        wall = self._ahead.wall
        ready = [known.record.request for known in jobs.ready(wall)]
        asked = {(state.end(request, wall), max(1, -(-request.gpu_milli // 1000))) for request in ready}
        runs = [jobs.known[job].record.request for job in jobs.holding if job in jobs.known]
        movable = [state.end(request, wall) for request in runs if request.restartable]
        found = windows(asked, self._ahead.begins(len(state.hardware.uuids)), movable)
        late = None if len(found) == 1 else self.starving(self._seen(found[0]))
        for step in found[1:]:  # a shorter job may need GPUs that the first step gives away again and again
            alone = Window(step.until)
            starves = self.starving(self._seen(alone))
            if starves is not None and (late is None or starves[1] > late[1]):
                found, late = [alone], starves
        self._windows = found

    def _seen(self, window: Window) -> Snapshot:
        """Return what one step of a decision is about."""
        state, wall = self._state, self._ahead.wall
        begins = self._ahead.begins(len(state.hardware.uuids))
        waiting = [known for known in state.jobs.ready(wall) if window.shows(state.end(known.record.request, wall))]
        withheld = {number for number, begin in enumerate(begins) if not window.offers(begin)}
        return state.snapshot(waiting, state.out() | withheld)
