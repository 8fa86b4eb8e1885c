"""Why a job waits, what would let it start, and what the policy makes of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.actions import Preempt, Start
from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import IllegalAction
from lepton_rl.node.cluster import NodeCluster
from lepton_rl.node.guard import Guard
from lepton_rl.node.jobs import ACTIVE, JobRecord, JobState
from lepton_rl.node.trial import deciding

MOST_NAMED = 5
"""Jobs that are named one by one."""


class Scored(Protocol):
    """What a policy makes of the waiting jobs."""

    @property
    def values(self) -> NDArray[np.float64]:
        """(waiting,); the lowest goes first, ties by submission; infinite for a job that it does not look at yet."""

    @property
    def meaning(self) -> str:
        """What the number is, in words."""


Scoring = Callable[[Policy, Snapshot], Scored | None]


@dataclass(frozen=True, slots=True)
class _Own:
    values: NDArray[np.float64]
    meaning: str = "the policy's own score"


def own_scores(policy: Policy, snapshot: Snapshot) -> Scored | None:
    """Return what a policy says by itself, if it has a method `scores` over the rows of `snapshot.jobs`."""
    scores = getattr(policy, "scores", None)
    if scores is None:
        return None
    return _Own(np.asarray(scores(snapshot), np.float64)[snapshot.running_count :])


def explain(record: JobRecord, cluster: NodeCluster, guard: Guard, scoring: Scoring = own_scores) -> dict[str, Any]:
    """Return what is known of a job's place in the queue, plain data with sentences for people.

    `scoring` says what a policy makes of each waiting job.
    """
    found: dict[str, Any] = {"job": record.id, "state": record.state, "why": _why_not_waiting(record, cluster)}
    if found["why"]:
        return found
    snapshot = cluster.state.snapshot_of(record)
    if record.id not in snapshot.queue.id or record.id in cluster.snapshot().running.id:  # a start was put off
        found["why"] = "it is about to start, or its last run has not left its GPUs yet"
        return found
    found |= _fit(record, snapshot, cluster)
    found["waited_s"] = max(0.0, cluster.clock.wall() - record.submit_time)
    found["ahead"] = _ahead(record.id, snapshot)
    found["policy"] = guard.policy_name
    found |= _scores(record.id, snapshot, guard, scoring)
    starving = guard.starving(snapshot)
    if starving is not None:
        found["note"] = f"job {starving[0]} has waited for too long: until it runs, the order of submission holds"
    return found


def _scores(job: int, snapshot: Snapshot, guard: Guard, scoring: Scoring) -> dict[str, Any]:
    """What the policy makes of the job, its rank, and the jobs that rank before it."""
    try:
        found = scoring(deciding(guard.policy, job), snapshot)
        if found is None:
            return {"no_score": f"{guard.policy_name} weighs the jobs together and has no score for each"}
        values = np.asarray(found.values, np.float64)
        ids = snapshot.queue.id
        order = np.argsort(values, kind="stable")
        place = int(np.flatnonzero(ids == job)[0])
        rank = int(np.flatnonzero(order == place)[0])
    except Exception as error:  # it is a policy's own code
        return {"note": f"{guard.policy_name} could not say what it makes of it: {type(error).__name__}"}
    best = int(order[0])
    return {
        "score": _finite(values[place]),
        "score_is": f"{found.meaning}; the lowest goes first",
        "alternative": {"job": int(ids[best]), "score": _finite(values[best])},
        "rank": rank + 1,
        "waiting": len(ids),
        "first": [_before(int(ids[other]), values[other], values[place]) for other in order[:rank][:MOST_NAMED]],
    }


def _before(job: int, score: float, behind: float) -> dict[str, Any]:
    why = "the same score, and it was submitted earlier" if score == behind else f"its score {score:.4g} is lower"
    return {"job": job, "score": _finite(score), "why": why}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _why_not_waiting(record: JobRecord, cluster: NodeCluster) -> str:
    if record.state in ACTIVE:
        return f"it is {record.state} on its run {record.run}"
    if record.state is not JobState.WAITING:
        return f"it has ended{f': {record.reason}' if record.reason else ''}"
    if record.request.begin_time > cluster.clock.wall():
        return f"it begins in {record.request.begin_time - cluster.clock.wall():,.0f} s at the earliest, as asked for"
    return ""


def _fit(record: JobRecord, snapshot: Snapshot, cluster: NodeCluster) -> dict[str, Any]:
    """Whether the job could start now, and if not, when enough of what runs is predicted to have ended."""
    try:
        snapshot.after(Start(record.id))
    except IllegalAction as error:
        when, ends = _release(record.id, snapshot)
        unavailable = cluster.state.unavailable(record)
        return {"why": _singular(str(error)), "unavailable": unavailable, "starts_when": when, "ends": ends}
    if record.id in cluster.jobs.not_started:
        why = f"it could not be started when that was tried last: {cluster.jobs.not_started[record.id]}"
        return {"why": why, "unavailable": []}
    return {"why": "it fits now; the policy lets others go first or keeps room for them", "unavailable": []}


def _singular(sentence: str) -> str:
    """Put right what the simulator's sentence, which mostly counts many, says of one GPU."""
    return re.sub(r"\b1 are free", "1 is free", re.sub(r"\b1 GPUs\b", "1 GPU", sentence))


def _release(job: int, snapshot: Snapshot) -> tuple[str, list[dict[str, Any]]]:
    """The first predicted end of running jobs after which the job fits, and the ends until then, the last ones."""
    running = snapshot.running
    ends = running.start_time + running.predicted_time
    later, freed = replace(snapshot, quantum=0.0), []
    for index in np.argsort(ends, kind="stable"):
        other, seconds = int(running.id[index]), max(0.0, float(ends[index]) - snapshot.time)
        later = later.after(Preempt(other))
        freed.append({"job": other, "gpus": float(running.gpus[index]), "in_s": seconds})
        try:
            later.after(Start(job))
        except IllegalAction:
            continue
        told = f"job {other} has ended, in about {seconds:,.0f} s by the times that were asked for"
        return told, freed[-MOST_NAMED:]
    return "more GPUs take work than now", []


def _ahead(job: int, snapshot: Snapshot) -> int:
    """Number of jobs that were submitted before and wait as well."""
    return int(np.flatnonzero(snapshot.queue.id == job)[0]) if job in snapshot.queue.id else 0
