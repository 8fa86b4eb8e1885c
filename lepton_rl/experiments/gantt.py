"""Which job held which GPU when: one window replayed event by event and recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lepton_rl.agents import run_on
from lepton_rl.core import Action, ClusterSpec, Outcome, Policy, Preempt, Snapshot, Start
from lepton_rl.simulator import SimulatedCluster, Timing
from lepton_rl.workloads import Trace


@dataclass(frozen=True, slots=True)
class Segment:
    """One uninterrupted run of a job; seconds."""

    job: int
    start: float
    end: float
    gpus: tuple[int, ...]


@dataclass(eq=False)
class _Recorder:
    """A simulated cluster that remembers who ran where."""

    cluster: SimulatedCluster
    running: dict[int, tuple[float, tuple[int, ...]]] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)

    def advance(self) -> bool:
        return self.cluster.advance()

    def snapshot(self) -> Snapshot:
        return self.cluster.snapshot()

    def apply(self, action: Action) -> None:
        self.cluster.apply(action)
        if isinstance(action, Start):
            self.running[action.job] = (self.cluster.time, self.cluster.gpus_of(action.job))
        elif isinstance(action, Preempt):
            self._close(action.job, self.cluster.time)

    def finish(self) -> Outcome:
        """Close what ran to its end, and return the outcome."""
        outcome = self.cluster.outcome()
        for job in list(self.running):
            self._close(job, float(outcome.finish[job]))
        return outcome

    def _close(self, job: int, end: float) -> None:
        start, gpus = self.running.pop(job)
        self.segments.append(Segment(job, start, end, gpus))


def record(policy: Policy, trace: Trace, cluster: ClusterSpec, timing: Timing) -> tuple[Outcome, tuple[Segment, ...]]:
    """Run a trace through `decide`, and return its outcome and every run of every job."""
    recorder = _Recorder(SimulatedCluster(trace, cluster, timing=timing))
    run_on(recorder, policy)
    outcome = recorder.finish()
    return outcome, tuple(recorder.segments)


def raster(
    segments: Sequence[Segment],
    gpus: int,
    begin: float,
    end: float,
    columns: int = 1400,
    most_rows: int = 512,
) -> NDArray[np.int64]:
    """Return a picture of (GPUs, time) whose cells hold the running job, or -1.

    Large clusters are sampled down to `most_rows` evenly spaced GPUs. A run shorter than a cell is drawn as
    one, under longer ones.
    """
    shown = np.unique(np.linspace(0, gpus - 1, min(gpus, most_rows)).round().astype(np.int64))
    row_of = np.full(gpus, -1, np.int64)
    row_of[shown] = np.arange(len(shown))
    picture = np.full((len(shown), columns), -1, np.int64)
    scale = columns / (end - begin)
    for segment in sorted(segments, key=lambda segment: segment.end - segment.start):
        if segment.end <= begin or segment.start >= end:
            continue
        rows = row_of[np.array(segment.gpus)]
        first = max(0, int((segment.start - begin) * scale))
        last = min(columns, max(first + 1, int(np.ceil((segment.end - begin) * scale))))
        picture[rows[rows >= 0], first:last] = segment.job
    return picture
