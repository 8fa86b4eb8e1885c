"""Gavel's policies: shares of a cluster whose GPUs differ, by linear programs, kept to over time."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field, PrivateAttr

from lepton_rl.agents.compiled import PlacementName, placement_of
from lepton_rl.agents.share_ledger import Claim, JobKind, ShareLedger
from lepton_rl.agents.shares import ShareProblem, max_min_shares, max_throughput_shares
from lepton_rl.core import Action, ClusterSpec, Placement, Preempt, Snapshot, Start
from lepton_rl.core import layout as L
from lepton_rl.core.allocation import held_gpus, release
from lepton_rl.core.arrays import Floats
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.machine import empty_cluster
from lepton_rl.core.placement import nodes_needed, place
from lepton_rl.core.progress import served


class _Room:
    """A cluster on which jobs are tried: copies of the arrays, and placement within a pool."""

    def __init__(self, arrays: tuple[np.ndarray, ...], jobs: Floats, hw: Hardware, placement: Placement) -> None:
        self.gpus, self.nodes, self.bits, self.totals = (array.copy() for array in arrays)
        self.jobs, self.hw, self.placement = jobs.copy(), hw, placement

    def place(self, row: int, pool: int, fewest: int) -> bool:
        """Hold GPUs of the pool's types for a job, if they are free."""
        if self.hw is None:
            return bool(self._place(row))
        wishes = self.jobs[row, [L.TYPES, L.FEWEST]]
        self.jobs[row, [L.TYPES, L.FEWEST]] = pool, fewest
        fits = self._place(row)
        self.jobs[row, [L.TYPES, L.FEWEST]] = wishes
        return bool(fits)

    def _place(self, row: int) -> bool:
        return place(int(self.placement), self.jobs, row, self.gpus, self.nodes, self.bits, self.totals, self.hw)

    def release(self, row: int) -> None:
        """Give a job's GPUs back."""
        release(self.jobs, row, self.gpus, self.gpus, self.nodes, self.bits, self.totals, self.hw)
        self.jobs[row, L.FIRST_GPU] = -1

    def held(self, row: int) -> tuple[int, ...]:
        """GPUs that a job holds."""
        out = np.empty(len(self.gpus), np.int64)
        return tuple(out[: held_gpus(self.jobs, row, self.gpus, out)].tolist())


@dataclass(frozen=True, slots=True)
class _Request:
    """What a job asks for, once looked up on the empty cluster."""

    kind: JobKind
    fewest: Mapping[int, int]  # nodes that hold it, by pool


class _Requests:
    """Kinds of jobs, by what they ask for."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Request] = {}

    def forget(self) -> None:
        """Begin with another cluster."""
        self._known.clear()

    def of(self, snapshot: Snapshot, placement: Placement) -> list[_Request]:
        """Return the request of each row of the snapshot's jobs."""
        columns = [L.GPUS, L.MEMORY]
        if snapshot.hw is not None:
            columns += [L.CLASS, L.TYPES, *range(L.ASKS, snapshot.jobs.shape[1])]
        asked = np.ascontiguousarray(snapshot.jobs[:, columns])
        keys = [row.tobytes() for row in asked]
        for row, key in enumerate(keys):
            if key not in self._known:
                self._known[key] = _look_up(snapshot, row, placement)
        return [self._known[key] for key in keys]


def _look_up(snapshot: Snapshot, row: int, placement: Placement) -> _Request:
    """Find the pools that a job could run in and its rate there, on the empty cluster.

    Each type that can hold it alone is a pool; where none can, all its types together are one.
    """
    gpus = float(snapshot.jobs[row, L.GPUS]) / L.MILLI
    empty = empty_cluster(snapshot.cluster)
    job = snapshot.jobs[row : row + 1].copy()
    job[0, L.FIRST_GPU] = -1
    if snapshot.hw is None:
        return _Request(JobKind(gpus, ((1, 1.0),)), {1: 0})
    asked = int(job[0, L.TYPES])
    rates: list[tuple[int, float]] = []
    fewest: dict[int, int] = {}
    singles = [1 << kind for kind in range(len(snapshot.hw.speed)) if asked >> kind & 1]
    for pools in (singles, [asked]):
        for pool in pools:
            room = _Room(empty, job, snapshot.hw, placement)
            room.jobs[0, L.TYPES] = pool
            nodes = nodes_needed(room.jobs, 0, room.nodes, room.hw, max(int(gpus), 1))
            if nodes <= len(room.nodes) and room.place(0, pool, nodes):
                rates.append((pool, float(room.jobs[0, L.RATE])))
                fewest[pool] = nodes
        if rates:
            break
    return _Request(JobKind(gpus, tuple(rates)), fewest)


class _Gavel(BaseModel, frozen=True, extra="forbid"):
    """Base of Gavel's policies; a subclass says which shares."""

    blocking: Literal["head", "skip"] = Field(
        default="skip", description="what happens on a type of GPU on which the job that is next does not fit"
    )
    placement: PlacementName | None = Field(
        default=None, description="which GPUs of the pool a job gets; none: as the cluster is set"
    )
    preempt: bool = Field(default=False, description="whether jobs take turns on GPUs: runs older than a round stop")
    round_time: float = Field(default=360.0, gt=0, le=1e9, allow_inf_nan=False, description="seconds of a round")
    _ledger: ShareLedger = PrivateAttr(default_factory=ShareLedger)
    _machine: list[tuple[ClusterSpec, Placement]] = PrivateAttr(default_factory=list)
    _requests: _Requests = PrivateAttr(default_factory=_Requests)
    _solved: dict[frozenset[tuple[JobKind, int]], dict[Claim, float]] = PrivateAttr(default_factory=dict)

    @property
    def needs_requested_times(self) -> bool:
        """False: shares depend on rates alone."""
        return False

    def shares(self, problem: ShareProblem) -> Floats:
        """Return the time that each job of a kind spends in each pool, (kinds, pools)."""
        raise NotImplementedError

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Return what starts now, highest rank first, and what is preempted for it.

        Raises:
            MissingExtra: scipy is not installed.
        """
        placement = placement_of(self.placement, snapshot.placement)
        self._begin(snapshot, placement)
        requests = self._requests.of(snapshot, placement)
        self._ledger.advance(snapshot.time, (request.kind for request in requests))
        if snapshot.running_count == len(snapshot.jobs):
            return []
        targets = self._targets(snapshot, Counter(request.kind for request in requests))
        round_ = _Round(snapshot, requests, placement, self._open_rows(snapshot))
        queues = round_.queues(least_service_first=self.preempt)
        chosen = round_.choose(queues, _Ranks(self._ledger, targets, self.round_time), head=self.blocking == "head")
        actions = round_.actions(chosen)
        self._ledger.hold(targets, round_.held)
        return actions

    def _begin(self, snapshot: Snapshot, placement: Placement) -> None:
        """Forget another cluster, and another run: time has gone back."""
        machine = (snapshot.cluster, placement)
        if self._machine != [machine]:
            self._machine[:] = [machine]
            self._requests.forget()
            self._solved.clear()
            self._ledger.forget()
        if snapshot.time < self._ledger.time:
            self._ledger.forget()

    def _open_rows(self, snapshot: Snapshot) -> list[int]:
        """Rows of running jobs that may be stopped: a run is left alone for a round beyond its restart."""
        if not self.preempt:
            return []
        least = max(self.round_time + snapshot.restart_cost, snapshot.quantum)
        age = snapshot.time - snapshot.jobs[: snapshot.running_count, L.START]
        rows: list[int] = np.flatnonzero(age >= least).tolist()
        return rows

    def _targets(self, snapshot: Snapshot, jobs: Mapping[JobKind, int]) -> dict[Claim, float]:
        """GPUs that each claim is due; solved anew only when the set of jobs has changed."""
        key = frozenset(jobs.items())
        if key not in self._solved:
            self._solved.clear()
            self._solved[key] = self._solve(snapshot, jobs)
        return self._solved[key]

    def _solve(self, snapshot: Snapshot, jobs: Mapping[JobKind, int]) -> dict[Claim, float]:
        kinds = sorted(kind for kind in jobs if kind.rates)
        masks = sorted({pool for kind in kinds for pool, _ in kind.rates})
        capacity = _gpus_by_type(snapshot)
        member = np.array([[float(mask >> kind & 1) for kind in range(len(capacity))] for mask in masks]) * capacity
        used = member.sum(axis=0) > 0
        rates = np.array([[dict(kind.rates).get(mask, 0.0) for mask in masks] for kind in kinds])
        counts = np.array([float(jobs[kind]) for kind in kinds])
        gpus = np.array([kind.gpus for kind in kinds])
        problem = ShareProblem(
            counts, gpus, rates, capacity[used], (member / member.sum(axis=1, keepdims=True))[:, used]
        )
        due = (counts * gpus)[:, None] * self.shares(problem)
        return {
            (kind, mask): float(due[row, column])
            for row, kind in enumerate(kinds)
            for column, mask in enumerate(masks)
            if due[row, column] > 0
        }


class GavelMaxMin(_Gavel, frozen=True, extra="forbid"):
    """Starts jobs so that over time the worst-off job is as well off as can be, GPUs of each type at their best use.

    Max-min fairness of Narayanan et al. (Gavel, OSDI 2020, section 4.1), least attained service on GPUs that differ:
    see `shares.max_min_shares`. Jobs of like size, speeds and types are one kind, to which shares belong. Whenever jobs
    wait, the linear programs say how many GPUs of each pool a kind is due, and one rule makes whole jobs of that
    (`docs/policies.md`). One decision costs some milliseconds where the set of jobs has changed, else starts x kinds x
    pools. Good when GPUs differ, classes of jobs gain from them unequally, and no job may be left out.
    """

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "gavel_max_min"

    def shares(self, problem: ShareProblem) -> Floats:
        """Return the max-min fair shares."""
        return max_min_shares(problem)


class GavelMaxThroughput(_Gavel, frozen=True, extra="forbid"):
    """Starts jobs so that over time the cluster gives the most GPU-seconds of service a second.

    Maximum total throughput of Narayanan et al. (Gavel, OSDI 2020, section 4.2): see `shares.max_throughput_shares`;
    the rest is as in `GavelMaxMin`. One decision costs the same with one program more. Good when only the work done
    counts: a kind that every GPU serves slowly waits while others are there.
    """

    @property
    def name(self) -> str:
        """Name in tables and errors."""
        return "gavel_max_throughput"

    def shares(self, problem: ShareProblem) -> Floats:
        """Return the shares of greatest throughput."""
        return max_throughput_shares(problem)


def _gpus_by_type(snapshot: Snapshot) -> Floats:
    """GPUs of each type, (types,)."""
    if snapshot.hw is None:
        return np.array([float(len(snapshot.gpus))])
    counts = np.zeros(len(snapshot.hw.speed))
    np.add.at(counts, snapshot.nodes[:, L.TYPE], snapshot.nodes[:, L.COUNT])
    return counts


@dataclass(frozen=True, slots=True)
class _Ranks:
    """Which claim is furthest behind: Gavel's priorities, for GPUs that are given one job after the other."""

    ledger: ShareLedger
    targets: Mapping[Claim, float]
    seconds: float

    def of(self, claim: Claim, held: float) -> float:
        """Return the rank of the claim's next job while the claim holds so many GPUs."""
        return self.ledger.rank(claim, self.targets[claim], held + claim[0].gpus, self.seconds)


class _Round:
    """One decision: who holds what now, who is chosen, and the actions that follow."""

    def __init__(
        self, snapshot: Snapshot, requests: list[_Request], placement: Placement, open_rows: list[int]
    ) -> None:
        self.snapshot, self.requests, self.placement = snapshot, requests, placement
        self.pools = {row: self._pool_now(row) for row in range(snapshot.running_count)}
        self.open = open_rows
        self.held: dict[Claim, float] = defaultdict(float)
        for row in set(self.pools) - set(open_rows):
            self._count(row, self.pools[row])

    def choose(self, queues: dict[JobKind, list[int]], ranks: "_Ranks", head: bool) -> list[tuple[int, int]]:
        """Return (row, pool) of the jobs that run on from here, highest rank first, tried on GPUs that are free."""
        trial = self._room()
        for row in self.open:
            trial.release(row)
        claims = {claim for claim in ranks.targets if claim[0] in queues}
        held = self.held.copy()
        closed = 0  # pools in which nothing else may start
        chosen: list[tuple[int, int]] = []
        while claims:
            # The pool and then the kind decide between equals, so that one state gives one decision.
            kind, pool = claim = max(claims, key=lambda one: (ranks.of(one, held[one]), one[1], one[0]))
            row = queues[kind][0]
            if pool & closed or not trial.place(row, pool, self.requests[row].fewest[pool]):
                closed |= pool if head else 0
                claims.discard(claim)
                continue
            queues[kind].pop(0)
            chosen.append((row, pool))
            held[claim] += kind.gpus
            if not queues[kind]:
                claims = {left for left in claims if left[0] != kind}
        return self._settled(chosen)

    def _settled(self, chosen: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Let chosen jobs of one kind trade pools, so that as many as can stay where they run."""
        settled = list(chosen)
        for place_, (row, pool) in enumerate(chosen):
            here = self.pools.get(row, pool)
            kind = self.requests[row].kind
            for other, (rival, theirs) in enumerate(settled):
                if settled[place_][1] == here:
                    break
                stays = self.pools.get(rival) == theirs
                if theirs == here and not stays and self.requests[rival].kind == kind:
                    settled[other], settled[place_] = (rival, settled[place_][1]), (row, here)
        return settled

    def actions(self, chosen: list[tuple[int, int]]) -> list[Action]:
        """Return preemptions, then starts; chosen jobs that run in their pool already keep their GPUs."""
        staying = {row for row, pool in chosen if row in self.open and self.pools[row] == pool}
        moving = [(row, pool) for row, pool in chosen if row not in staying]
        names = self.snapshot.jobs[:, L.ID].astype(np.int64).tolist()
        room = self._room()
        stopped = [row for row in self.open if row not in staying] if moving else []
        for row in self.open:
            if row in stopped:
                room.release(row)
            else:
                self._count(row, self.pools[row])
        actions: list[Action] = [Preempt(names[row]) for row in stopped]
        for row, pool in moving:
            if room.place(row, pool, self.requests[row].fewest[pool]):
                actions.append(Start(names[row], room.held(row)))
                self._count(row, pool)
        return actions

    def _room(self) -> _Room:
        s = self.snapshot
        return _Room((s.gpus, s.nodes, s.bits, s.totals), s.jobs, s.hw, self.placement)

    def _count(self, row: int, pool: int) -> None:
        kind = self.requests[row].kind
        self.held[kind, pool] += kind.gpus

    def _pool_now(self, row: int) -> int:
        """The pool in which a job runs."""
        rates = self.requests[row].kind.rates
        if len(rates) == 1 or self.snapshot.hw is None:
            return rates[0][0]
        node = self.snapshot.gpus[int(self.snapshot.jobs[row, L.FIRST_GPU]), L.NODE]
        return int(1 << int(self.snapshot.nodes[node, L.TYPE]))

    def queues(self, least_service_first: bool) -> dict[JobKind, list[int]]:
        """Return the rows that may be chosen, by kind; else in the order of submission."""
        rows = [*self.open, *range(self.snapshot.running_count, len(self.snapshot.jobs))]
        if least_service_first:
            rows.sort(key=self._service)
        queues: dict[JobKind, list[int]] = {}
        for row in rows:
            queues.setdefault(self.requests[row].kind, []).append(row)
        return queues

    def _service(self, row: int) -> tuple[float, float]:
        s = self.snapshot
        present = served(s.jobs, row, s.time, s.hw) if row < s.running_count else 0.0
        return float(s.jobs[row, L.ATTAINED]) + present, float(s.jobs[row, L.SUBMIT])
