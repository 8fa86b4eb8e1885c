"""Which job held which GPUs from when to when: one run of a trace, event by event, and remembered."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lepton_rl.agents import NamingCluster, check_requested_times, run_on
from lepton_rl.core import (
    Action,
    ClusterSpec,
    Outcome,
    Placement,
    Policy,
    Preempt,
    SetPowerLimit,
    Snapshot,
    Start,
)
from lepton_rl.experiments.watched import Watch, Watched
from lepton_rl.simulator import SimulatedCluster, Timing
from lepton_rl.workloads import Trace

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Recording:
    """A whole run. A *stay* is one uninterrupted time of a job on its GPUs; stays are in order of their begin.

    Queue, load, power and all that is drawn follow exactly.

    Attributes:
        outcome: when each job was submitted and finished, and the metrics.
        job: (stays,) row of the trace.
        begin: (stays,) seconds.
        end: (stays,) seconds.
        gpu: (held,) GPUs of all stays, one stay's behind the other's.
        first: (stays + 1,) where in `gpu` those of each stay begin.
        watched: what a cluster of groups showed; on a plain one all follows from the stays.
    """

    outcome: Outcome
    job: Ints
    begin: Floats
    end: Floats
    gpu: Ints
    first: Ints
    watched: Watched | None = None

    @property
    def cluster(self) -> ClusterSpec:
        """The machine."""
        return self.outcome.cluster

    @property
    def begun(self) -> float:
        """First submission, seconds."""
        return float(self.outcome.submit.min())

    @property
    def ended(self) -> float:
        """Last finish, seconds."""
        return float(self.outcome.finish.max())

    @cached_property
    def stay(self) -> Ints:
        """The stay that each entry of `gpu` belongs to, shape (held,)."""
        return np.repeat(np.arange(len(self.job)), np.diff(self.first))

    @cached_property
    def share(self) -> Floats:
        """What each stay holds of each of its GPUs, above 0 to 1, shape (stays,)."""
        return np.minimum(self.outcome.gpus[self.job], 1.0)

    @cached_property
    def interrupted(self) -> NDArray[np.bool_]:
        """Whether a stay ended before its job was done (preempted, migrated or struck), shape (stays,)."""
        return self.end < self.outcome.finish[self.job]

    def gpus_of(self, stay: int) -> Ints:
        """Return the GPUs of one stay, in the order taken."""
        return self.gpu[self.first[stay] : self.first[stay + 1]]


class Recorder:
    """A simulated cluster that remembers who ran where."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self._running: dict[int, int] = {}  # job: its stay
        self._jobs: list[int] = []
        self._begins: list[float] = []
        self._ends: list[float] = []
        self._gpus: list[tuple[int, ...]] = []
        self._watch = Watch(cluster.snapshot()) if cluster.cluster.groups else None

    def advance(self) -> bool:
        """Move to the next event, see `SimulatedCluster.advance`."""
        if self._watch is not None:
            self._watch.see(self.cluster.snapshot())
        return self.cluster.advance()

    def snapshot(self) -> Snapshot:
        """Return what a scheduler can know now, and end the stays of jobs that run no more, whatever stopped them."""
        snapshot = self.cluster.snapshot()
        if snapshot.running_count < len(self._running):
            for job in self._running.keys() - set(snapshot.running):
                self._end(job)
        return snapshot

    def apply(self, action: Action) -> None:
        """Carry the action out now, see `SimulatedCluster.apply`."""
        self.cluster.apply(action)
        if isinstance(action, SetPowerLimit):
            return
        if not isinstance(action, Start):
            self._end(action.job)
        if isinstance(action, Preempt):
            return
        self._running[action.job] = len(self._jobs)
        self._jobs.append(action.job)
        self._begins.append(self.cluster.time)
        self._ends.append(np.nan)
        self._gpus.append(self.cluster.gpus_of(action.job))

    def recording(self) -> Recording:
        """Return what was seen; complete once `advance` has returned False."""
        assert not self._running, "a job runs for ever"
        outcome = self.cluster.outcome()
        counts = np.array([len(gpus) for gpus in self._gpus], np.int64)
        return Recording(
            outcome=outcome,
            job=np.array(self._jobs, np.int64),
            begin=np.array(self._begins),
            end=np.array(self._ends),
            gpu=np.array([gpu for gpus in self._gpus for gpu in gpus], np.int64),
            first=np.concatenate(([0], np.cumsum(counts))),
            watched=None if self._watch is None else self._watch.watched(float(outcome.finish.max())),
        )

    def _end(self, job: int) -> None:
        self._ends[self._running.pop(job)] = self.cluster.time


def record(
    policy: Policy,
    trace: Trace,
    cluster: ClusterSpec,
    timing: Timing | None = None,
    placement: Placement = Placement.FIRST,
) -> Recording:
    """Run `trace` on `cluster` through the policy's `decide`; the schedule is the one of `run_policy`.

    A compiled rule, too, decides instant by instant here: some 50 microseconds for each, more on thousands of GPUs.

    Raises:
        TraceError: a job can never run on this cluster, or the policy needs requested times that are absent.
        IllegalAction: the policy asked for something impossible.
        ConfigError: the policy failed.
    """
    check_requested_times(policy, trace)
    recorder = Recorder(NamingCluster(trace, cluster, placement, timing))
    run_on(recorder, policy)
    return recorder.recording()
