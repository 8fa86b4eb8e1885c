"""Why a job waits, what would let it start, and what the policy makes of it."""

import re
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from lepton_rl.core.actions import Preempt, Start
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import IllegalAction
from lepton_rl.node.cluster import NodeCluster
from lepton_rl.node.guard import Guard
from lepton_rl.node.jobs import ACTIVE, JobRecord, JobState


class Scoring(Protocol):
    """A policy that can say what it thinks of each job."""

    def scores(self, snapshot: Snapshot) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a score for each row of `snapshot.jobs`; the lowest goes first."""


def explain(record: JobRecord, cluster: NodeCluster, guard: Guard) -> dict[str, Any]:
    """Return what is known of a job's place in the queue, plain data with sentences for people."""
    found: dict[str, Any] = {"job": record.id, "state": record.state, "why": _why_not_waiting(record, cluster)}
    if found["why"]:
        return found
    snapshot = cluster.snapshot()
    if record.id not in snapshot.queue.id:
        found["why"] = "it is about to start, or its last run has not left its GPUs yet"
        return found
    found |= _fit(record.id, snapshot, cluster)
    found["waited_s"] = max(0.0, cluster.clock.wall() - record.submit_time)
    found["ahead"] = _ahead(record.id, snapshot)
    found["policy"] = guard.policy_name
    found |= _scores(record.id, snapshot, guard)
    starving = guard.starving(snapshot)
    if starving is not None:
        found["note"] = f"job {starving[0]} has waited for too long: until it runs, the order of submission holds"
    return found


def _scores(job: int, snapshot: Snapshot, guard: Guard) -> dict[str, Any]:
    """What the policy makes of the job, and of the waiting one that it likes best, where it can say so."""
    scoring = getattr(guard.policy, "scores", None)
    if scoring is None:
        return {}
    try:
        scores = np.asarray(scoring(snapshot), np.float64)[snapshot.running_count :]
        place, best = int(np.flatnonzero(snapshot.queue.id == job)[0]), int(scores.argmin())
        alternative = {"job": int(snapshot.queue.id[best]), "score": float(scores[best])}
        return {"score": float(scores[place]), "alternative": alternative}
    except Exception as error:  # it is a policy's own code
        return {"note": f"{guard.policy_name} could not say what it makes of it: {type(error).__name__}"}


def _why_not_waiting(record: JobRecord, cluster: NodeCluster) -> str:
    if record.state in ACTIVE:
        return f"it is {record.state} on its run {record.run}"
    if record.state is not JobState.WAITING:
        return f"it has ended: {record.reason or record.state}"
    if record.request.begin_time > cluster.clock.wall():
        return f"it begins in {record.request.begin_time - cluster.clock.wall():,.0f} s at the earliest, as asked for"
    return ""


def _fit(job: int, snapshot: Snapshot, cluster: NodeCluster) -> dict[str, Any]:
    """Whether the job could start now, and if not, when enough of what runs is predicted to have ended."""
    try:
        snapshot.after(Start(job))
    except IllegalAction as error:
        why = _singular(str(error))
        return {"why": why, "unavailable": cluster.unavailable(), "starts_when": _release(job, snapshot)}
    return {"why": "it fits now; the policy lets others go first or keeps room for them", "unavailable": []}


def _singular(sentence: str) -> str:
    """Put right what the simulator's sentence, which mostly counts many, says of one GPU."""
    return re.sub(r"\b1 are free", "1 is free", re.sub(r"\b1 GPUs\b", "1 GPU", sentence))


def _release(job: int, snapshot: Snapshot) -> str:
    """The first predicted end of running jobs after which the job fits."""
    running = snapshot.running
    ends = running.start_time + running.predicted_time
    later = replace(snapshot, quantum=0.0)
    for index in np.argsort(ends, kind="stable"):
        later = later.after(Preempt(int(running.id[index])))
        try:
            later.after(Start(job))
        except IllegalAction:
            continue
        seconds = max(0.0, float(ends[index]) - snapshot.time)
        return f"job {int(running.id[index])} has ended, in about {seconds:,.0f} s by the times that were asked for"
    return "more GPUs take work than now"


def _ahead(job: int, snapshot: Snapshot) -> int:
    """Number of jobs that were submitted before and wait as well."""
    return int(np.flatnonzero(snapshot.queue.id == job)[0]) if job in snapshot.queue.id else 0
