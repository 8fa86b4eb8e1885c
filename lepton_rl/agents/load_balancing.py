"""Migration from overloaded to underloaded GPUs, beside any order of the queue."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field, PrivateAttr

from lepton_rl.agents.compiled import BlockingName, PlacementName
from lepton_rl.agents.ordered import OrderName, Trial
from lepton_rl.agents.priority import Priority
from lepton_rl.core import Action, Migrate, Placement, Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.allocation import held_gpus, release
from lepton_rl.core.arrays import Floats
from lepton_rl.core.placement import place
from lepton_rl.errors import IllegalAction

_BEST = int(Placement.BEST)


@dataclass(frozen=True, slots=True)
class Move:
    """One migration.

    Attributes:
        time: seconds.
        job: its number in the snapshot.
        source: GPUs that it left.
        target: GPUs that it went to.
        gain_s: seconds of running time that it saves, as predicted, over all jobs whose rates it changes; its own cost
            is taken off.
    """

    time: float
    job: int
    source: tuple[int, ...]
    target: tuple[int, ...]
    gain_s: float


class LoadBalancing(BaseModel, frozen=True, extra="forbid"):
    """Starts jobs by an order, then moves running ones from overloaded to underloaded GPUs where that saves time.

    A share of a GPU may move to the least loaded GPU that has room for it, if that GPU will then be less loaded than
    the present one is by `threshold` or more; a gang, or a share, to free GPUs of a type on which it runs faster. Of
    these the move that saves most is made, again and again, at most `most_moves` times in a decision; what it saves is
    the predicted running time of all jobs whose rates it changes, less the cost of the migration, and must be above
    `least_gain`. Moves are kept in `moves`. Without interference between shares and with one type of GPU nothing is
    ever gained, and nothing moves. One decision costs (moves + 1) x candidates snapshots. Good where shares slow each
    other and jobs come in bursts; it takes free GPUs from gangs to come (`spare_free` keeps them).
    """

    order: OrderName = Field(default="fcfs", description="order of the queue, as the policy of that name")
    blocking: BlockingName = Field(default="skip", description="what happens behind a job that does not fit")
    placement: PlacementName | None = Field(
        default=None, description="which GPUs a job gets at first; none: as the cluster is set"
    )
    threshold: float = Field(default=0.25, ge=0, le=1, description="by how much loads must differ after a share's move")
    least_gain: float = Field(default=60.0, ge=0, allow_inf_nan=False, description="seconds that a move must save")
    most_moves: int = Field(default=4, ge=0, le=1000, description="migrations in one decision")
    candidates: int = Field(default=8, ge=1, le=10_000, description="moves that are weighed before each, longest first")
    spare_free: bool = Field(default=False, description="shares do not move to GPUs on which nothing runs")
    _moves: list[Move] = PrivateAttr(default_factory=list)

    def model_post_init(self, context: object) -> None:
        """Refuse what cannot be combined."""
        _ = self.base

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "load_balancing"

    @property
    def base(self) -> Priority:
        """The policy that starts jobs."""
        return Priority(score=self.order, blocking=self.blocking, placement=self.placement)

    @property
    def needs_requested_times(self) -> bool:
        """True: without them nobody knows what a move saves."""
        return True

    @property
    def moves(self) -> tuple[Move, ...]:
        """The migrations of the present run."""
        return tuple(self._moves)

    @property
    def report(self) -> str:
        """What the migrations of the run gained, as one sentence."""
        gained = sum(move.gain_s for move in self._moves)
        times = "1 migration" if len(self._moves) == 1 else f"{len(self._moves):,} migrations"
        return f"load_balancing: {times}, which saved {gained:,.0f} s of running time as predicted"

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Return starts, then migrations."""
        if self._moves and snapshot.time < self._moves[-1].time:
            self._moves.clear()  # another run
        actions: list[Action] = list(self.base.decide(snapshot))
        if snapshot.hw is None:  # rates are all 1: nothing to gain
            return actions
        for action in actions:
            snapshot = snapshot.after(action)
        for _ in range(self.most_moves):
            best = max(self._weighed(snapshot), key=lambda pair: pair[0].gain_s, default=None)
            if best is None:
                break
            move, snapshot = best
            self._moves.append(move)
            actions.append(Migrate(move.job, move.target))
        return actions

    def _weighed(self, snapshot: Snapshot) -> Iterator[tuple[Move, Snapshot]]:
        """Yield the moves that save enough, with the snapshot behind each."""
        before = _running_time(snapshot)
        left = _time_left(snapshot)
        old_enough = snapshot.time - snapshot.running.start_time >= snapshot.quantum
        weighed = 0
        for row in np.argsort(-left, kind="stable").tolist():
            if weighed == self.candidates or left[row] <= self.least_gain:
                return
            if not old_enough[row]:
                continue
            job = int(snapshot.jobs[row, L.ID])
            source = snapshot.gpus_of(job)
            targets = list(self._targets(snapshot, row, source))
            weighed += bool(targets)
            for target in targets:
                try:
                    after = snapshot.after(Migrate(job, target))
                except IllegalAction:  # a share that does not fit there, or a reservation too soon
                    continue
                gain = before - _running_time(after)
                if gain > self.least_gain:
                    yield Move(snapshot.time, job, source, target, gain), after

    def _targets(self, snapshot: Snapshot, row: int, source: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield the GPUs that a running job could move to."""
        if snapshot.jobs[row, L.GPUS] < L.MILLI:
            found = self._less_loaded(snapshot, row, source[0])
            if found is not None:
                yield (found,)
        yield from _on_faster_type(snapshot, row, source)

    def _less_loaded(self, snapshot: Snapshot, row: int, source: int) -> int | None:
        """Return the least loaded GPU that would be less loaded with the share than its own is, or None."""
        share = snapshot.jobs[row, L.GPUS] / L.MILLI
        load = snapshot.gpu_load
        least = min(load[source] - share - self.threshold, 1.0 - share)
        for gpu in np.argsort(load, kind="stable").tolist():
            if load[gpu] > least + 1e-9:
                return None
            if gpu == source or (self.spare_free and load[gpu] == 0.0):
                continue
            if _takes(snapshot, row, gpu):
                return int(gpu)
        return None


def _takes(snapshot: Snapshot, row: int, gpu: int) -> bool:
    """Whether the share could start on this GPU."""
    try:
        snapshot.after(Migrate(int(snapshot.jobs[row, L.ID]), (gpu,)))
    except IllegalAction:
        return False
    return True


def _on_faster_type(snapshot: Snapshot, row: int, source: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield free GPUs of each type on which the job runs faster than on its own."""
    hw = snapshot.hw
    assert hw is not None
    speed = hw.speed[:, int(snapshot.jobs[row, L.CLASS])]
    own = speed[snapshot.nodes[snapshot.gpus[list(source), L.NODE], L.TYPE]].min()
    wanted = int(snapshot.jobs[row, L.TYPES])
    for kind in np.flatnonzero(speed > own).tolist():
        if not wanted >> kind & 1:
            continue
        trial = Trial.of(snapshot)
        release(trial.jobs, row, trial.gpus, trial.gpus, trial.nodes, trial.bits, trial.totals, trial.hw)
        trial.jobs[row, L.TYPES] = float(1 << kind)
        if place(_BEST, trial.jobs, row, trial.gpus, trial.nodes, trial.bits, trial.totals, trial.hw):
            held = np.empty(len(trial.gpus), np.int64)
            yield tuple(held[: held_gpus(trial.jobs, row, trial.gpus, held)].tolist())


def _time_left(snapshot: Snapshot) -> Floats:
    """Seconds that each running job is predicted to run from now on, at its present rate."""
    running = snapshot.jobs[: snapshot.running_count]
    left = running[:, L.PREDICTED] / running[:, L.RATE] - (snapshot.time - running[:, L.SINCE])
    seconds: Floats = np.maximum(left, 0.0)
    return seconds


def _running_time(snapshot: Snapshot) -> float:
    """Seconds that all running jobs together are predicted to run from now on."""
    return float(_time_left(snapshot).sum())
