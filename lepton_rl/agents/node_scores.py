"""What placements by a score of the node share: the scores, compiled, and the pass that starts jobs by them.

The lowest score wins, then the tighter GPU (or the node with fewer free GPUs), then the lowest index. A gang goes to
the best of the nodes that hold it. Where none does, the node that offers the most GPUs gives them all, and so on for
the rest; under WEIGHTED the score alone decides between nodes, for it counts what they offer.
"""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from lepton_rl.agents.ordered import OrderedPolicy, Starts, Trial
from lepton_rl.core import ClusterSpec, Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.allocation import held_gpus, hold_share, share_memory, take_from_node
from lepton_rl.core.arrays import Bools, Floats, Ints32, Ints64, Words
from lepton_rl.core.geometry import gpu_memory, gpus_on, node_of
from lepton_rl.core.hardware.tables import LOAD_MW, Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.placement import Placement, available, fits, takes_share
from lepton_rl.core.rates import set_rate
from lepton_rl.simulator.fragmentation import CPU_LEFT, FIRST_GPU, MODEL, fragmentation

CPU = "cpu_cores"
"""The resource that typical demands count beside GPUs."""


class NodeScore(IntEnum):
    """Rule that scores nodes and GPUs for a job."""

    LEAST_LOADED = 0
    DOT_PRODUCT = 1
    PACKING = 2
    CLUSTERING = 3
    FRAGMENTATION = 4
    WEIGHTED = 5
    BEST_FIT = 6


_LEAST_LOADED, _DOT_PRODUCT, _PACKING, _CLUSTERING, _FRAGMENTATION, _WEIGHTED, _BEST_FIT = map(int, NodeScore)
_FIRST = int(Placement.FIRST)
LOAD, AVAILABILITY, ENERGY = range(3)
"""Weights of WEIGHTED."""


class ScoreTables(NamedTuple):
    """What the scores look up, beside the cluster."""

    weights: Floats
    """(3,): of load, availability, energy."""
    most_room: Floats
    """(resources,): the most that a node of the cluster offers of each resource, thousandths."""
    typical: Ints64
    """(typical, 5): `fragmentation.typical_pods` of the demands seen."""
    allowed: Bools
    """(demands, types): the types of GPU that will do for each."""
    cpu: int
    """Column of `nodes` for CPU; 0 where no node counts it."""
    demands: Ints64
    """(nodes,): bit d is set where a job of demand class d runs; written by the pass."""
    scratch: Ints64
    """(1, 4 + GPUs): a node as `fragmentation` reads it; written by the pass."""


class ScoredPlacement(OrderedPolicy, frozen=True, extra="forbid"):
    """Base of the policies that choose GPUs by a score of the node, the same on clusters of every kind."""

    @property
    def node_score(self) -> NodeScore:
        """The rule."""
        raise NotImplementedError

    def tables(self, snapshot: Snapshot) -> ScoreTables:
        """Return what the rule looks up."""
        return tables_for(snapshot.cluster)

    def place_in_order(self, snapshot: Snapshot, trial: Trial, rows: Ints64, out: Starts) -> int:
        """Place each job where the score is lowest."""
        return _start_by_score(
            int(self.node_score), rows, snapshot.running_count, self.blocking == "skip", trial.jobs, trial.gpus,
            trial.nodes, trial.bits, trial.totals, trial.hw, self.tables(snapshot), out.rows, out.held,
        )  # fmt: skip


def tables_for(
    cluster: ClusterSpec,
    weights: tuple[float, float, float] = (0.0, 0.0, 0.0),
    typical: Ints64 | None = None,
    allowed: Bools | None = None,
) -> ScoreTables:
    """Return the tables; a rule that reads no typical demands leaves them out."""
    most = [
        max(amount for group in cluster.groups for name, amount in group.offers if name == resource)
        for resource in cluster.resources
    ]
    return ScoreTables(
        weights=np.array(weights),
        most_room=np.array(most, dtype=np.float64) * L.MILLI,
        typical=np.zeros((0, 5), np.int64) if typical is None else typical,
        allowed=np.zeros((0, 0), np.bool_) if allowed is None else allowed,
        cpu=L.ROOM + cluster.resources.index(CPU) if CPU in cluster.resources else 0,
        demands=np.zeros(cluster.nodes, np.int64),
        scratch=np.zeros((1, FIRST_GPU + cluster.gpus_per_node), np.int64),
    )


@inlined
def _demand_class(jobs: Floats, job: int) -> int:
    """0 for a share, k + 1 for a gang of more than 2^(k-1) and up to 2^k GPUs."""
    gpus = int(jobs[job, L.GPUS]) // L.MILLI
    found = 0
    if gpus > 0:
        found = 1
        while (1 << (found - 1)) < gpus:
            found += 1
    return found


@inlined
def _free_part_of_room(jobs: Floats, job: int, node: int, nodes: Ints32, most: Floats, count: int) -> float:
    """Dot product of what the job asks for beside its GPUs with what the node has left of it, in parts of the most."""
    total = 0.0
    for resource in range(most.shape[0]):
        ask = jobs[job, L.ASKS + resource]
        if ask > 0.0 and most[resource] > 0.0:
            room = nodes[node, L.ROOM + resource]
            free = 1.0 if room == L.UNCOUNTED else room / most[resource]
            total += ask * count / most[resource] * free
    return total


@inlined
def _dot_product(
    jobs: Floats, job: int, node: int, count: int, gpu: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware,
    t: ScoreTables,
) -> float:  # fmt: skip
    """Demand times what is free: GPUs (a share: compute and memory of its GPU), then what else the job asks for."""
    if gpu >= 0:
        memory = gpu_memory(node, nodes, totals, hw)
        asked = share_memory(jobs, job, node, nodes, totals, hw) / memory
        total = jobs[job, L.GPUS] / L.MILLI * gpus[gpu, L.FREE] / L.MILLI + asked * gpus[gpu, L.MEMORY_FREE] / memory
    else:
        most = t.scratch.shape[1] - FIRST_GPU
        total = (count / most) * (nodes[node, L.WHOLE] / most)
    if hw is not None:
        total += _free_part_of_room(jobs, job, node, nodes, t.most_room, max(count, 1))
    return total


@inlined
def _milli_up(node: int, gpus: Ints32, nodes: Ints32, hw: Hardware) -> int:
    """Milli-GPU of a node that no failure keeps down."""
    up = gpus_on(node, gpus, nodes, hw)
    if hw is not None:
        up -= int(nodes[node, L.GPUS_DOWN])
    return int(L.MILLI * up)


@inlined
def _left_after(
    jobs: Floats, job: int, node: int, count: int, gpu: int, gpus: Ints32, nodes: Ints32, hw: Hardware, t: ScoreTables
) -> float:
    """What the node has left once the job is there: GPUs and each resource in parts of the most, summed."""
    taken = int(jobs[job, L.GPUS]) if gpu >= 0 else L.MILLI * count
    most = t.scratch.shape[1] - FIRST_GPU
    total = (_milli_up(node, gpus, nodes, hw) - nodes[node, L.BUSY] - taken) / (L.MILLI * most)
    if hw is not None:
        for resource in range(t.most_room.shape[0]):
            if t.most_room[resource] > 0.0:
                room = nodes[node, L.ROOM + resource]
                asked = jobs[job, L.ASKS + resource] * max(count, 1)
                total += 1.0 if room == L.UNCOUNTED else (room - asked) / t.most_room[resource]
    return total


@inlined
def _packing(node: int, gpu: int, gpus: Ints32, nodes: Ints32) -> float:
    """0 for a GPU in use, 1 for a free one on a node in use, 2 for one on an idle node."""
    tier = 2.0
    if gpu >= 0 and gpus[gpu, L.FREE] < L.MILLI:
        tier = 0.0
    elif nodes[node, L.BUSY] > 0:
        tier = 1.0
    return tier


@inlined
def _clustering(jobs: Floats, job: int, node: int, gpus: Ints32, nodes: Ints32, hw: Hardware, demands: Ints64) -> float:
    """Nodes with jobs of this class of demand only, then among others, idle nodes, other nodes; the fullest first."""
    own = np.int64(1) << np.int64(_demand_class(jobs, job))
    there = demands[node]
    tier = 3.0
    if there == own:
        tier = 0.0
    elif there & own != 0:
        tier = 1.0
    elif there == 0:
        tier = 2.0
    return tier + (_milli_up(node, gpus, nodes, hw) - nodes[node, L.BUSY]) / (L.MILLI * (gpus.shape[0] + 1.0))


@inlined
def _fragmentation_gradient(
    jobs: Floats, job: int, node: int, count: int, gpu: int, gpus: Ints32, nodes: Ints32, hw: Hardware, t: ScoreTables
) -> float:
    """Growth of the node's expected fragmentation, in thousandths of a GPU times typical demands."""
    row = t.scratch
    first = int(nodes[node, L.FIRST]) if hw is not None else node * (gpus.shape[0] // nodes.shape[0])
    size = gpus_on(node, gpus, nodes, hw)
    row[0, MODEL] = nodes[node, L.TYPE] if hw is not None else 0
    row[0, CPU_LEFT] = nodes[node, t.cpu] if hw is not None and t.cpu > 0 else L.UNCOUNTED
    for place in range(row.shape[1] - FIRST_GPU):
        row[0, FIRST_GPU + place] = gpus[first + place, L.FREE] if place < size else 0
    before = fragmentation(t.typical, t.allowed, row, 0)
    if gpu >= 0:
        row[0, FIRST_GPU + gpu - first] -= int(jobs[job, L.GPUS])
    else:
        left = count
        for place in range(FIRST_GPU, row.shape[1]):
            if left > 0 and row[0, place] == L.MILLI:
                row[0, place] = 0
                left -= 1
    if hw is not None and t.cpu > 0 and nodes[node, t.cpu] != L.UNCOUNTED:
        row[0, CPU_LEFT] -= int(jobs[job, L.ASKS + t.cpu - L.ROOM]) * max(count, 1)
    return float(fragmentation(t.typical, t.allowed, row, 0) - before)


@inlined
def _joules_part(jobs: Floats, job: int, node: int, nodes: Ints32, hw: Hardware) -> float:
    """Energy of a second of the job's service on the node's type of GPU, in parts of the thirstiest type's."""
    if hw is None:
        return 0.0
    kind = int(jobs[job, L.CLASS])
    most = 0.0
    for row in range(hw.speed.shape[0]):
        most = max(most, hw.power_mw[row, LOAD_MW] / hw.speed[row, kind])
    own = hw.power_mw[nodes[node, L.TYPE], LOAD_MW] / hw.speed[nodes[node, L.TYPE], kind]
    return float(own / most if most > 0.0 else 0.0)


@inlined
def _score(
    rule: int, jobs: Floats, job: int, node: int, count: int, left: int, gpu: int, gpus: Ints32, nodes: Ints32,
    totals: Ints64, hw: Hardware, t: ScoreTables,
) -> float:  # fmt: skip
    """Score of giving a gang that lacks `left` GPUs `count` of a node (`gpu` is -1), or a share this GPU (0 of 1)."""
    if rule == _DOT_PRODUCT:
        return _dot_product(jobs, job, node, count, gpu, gpus, nodes, totals, hw, t)
    if rule == _BEST_FIT:
        return _left_after(jobs, job, node, count, gpu, gpus, nodes, hw, t)
    if rule == _PACKING:
        return _packing(node, gpu, gpus, nodes)
    if rule == _CLUSTERING:
        return _clustering(jobs, job, node, gpus, nodes, hw, t.demands)
    if rule == _FRAGMENTATION:
        return _fragmentation_gradient(jobs, job, node, count, gpu, gpus, nodes, hw, t)
    capacity = max(_milli_up(node, gpus, nodes, hw), 1)
    if rule == _LEAST_LOADED:
        return nodes[node, L.BUSY] / capacity
    taken = min(int(jobs[job, L.GPUS]), L.MILLI) * max(count, 1)
    missing = 1.0 - count / left if gpu < 0 else 0.0
    return (
        t.weights[LOAD] * (nodes[node, L.BUSY] + taken) / capacity
        + t.weights[AVAILABILITY] * missing
        + t.weights[ENERGY] * _joules_part(jobs, job, node, nodes, hw)
    )


@inlined
def _gpu_for_share(
    rule: int, jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, t: ScoreTables
) -> int:
    """GPU of the lowest score that has room for the share, or -1."""
    demand = int(jobs[job, L.GPUS])
    chosen = -1
    least: Any = np.inf
    tightest: Any = np.inf
    for node in range(nodes.shape[0]):
        size = gpus_on(node, gpus, nodes, hw)
        if L.MILLI * size - nodes[node, L.BUSY] < demand or not takes_share(jobs, job, node, nodes, hw):
            continue
        memory = share_memory(jobs, job, node, nodes, totals, hw)
        first = int(nodes[node, L.FIRST]) if hw is not None else node * size
        seen = -1  # GPU scored last on this node: its equals score alike and lose the tie
        for gpu in range(first, first + size):
            free = gpus[gpu, L.FREE]
            if free < demand or gpus[gpu, L.MEMORY_FREE] < memory:
                continue
            if seen >= 0 and free == gpus[seen, L.FREE] and gpus[gpu, L.MEMORY_FREE] == gpus[seen, L.MEMORY_FREE]:
                continue
            seen = gpu
            score = _score(rule, jobs, job, node, 0, 1, gpu, gpus, nodes, totals, hw, t)
            second = -free if rule == _LEAST_LOADED else free
            if score < least or (score == least and second < tightest):
                least = score
                tightest = second
                chosen = gpu
    return chosen


@inlined
def _node_for_gang(
    rule: int, jobs: Floats, job: int, left: int, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware,
    t: ScoreTables,
) -> int:  # fmt: skip
    """Node of the lowest score for a gang that lacks `left` GPUs; nodes that offer more of them go first."""
    chosen = -1
    most = 0
    least: Any = np.inf
    fewest = 0
    for node in range(nodes.shape[0]):
        count = min(available(jobs, job, node, nodes, hw), left)
        if count == 0 or (count < most and rule != _WEIGHTED):
            continue
        score = _score(rule, jobs, job, node, count, left, -1, gpus, nodes, totals, hw, t)
        more = count > most and rule != _WEIGHTED
        free = nodes[node, L.WHOLE]
        if more or score < least or (score == least and rule != _LEAST_LOADED and free < fewest):
            chosen = node
            most = count
            least = score
            fewest = free
    return chosen


@njit
def place_by_score(
    rule: int, jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware,
    t: ScoreTables,
) -> bool:  # fmt: skip
    """Choose and hold the job's GPUs; return False, with nothing changed, when it does not fit."""
    if jobs[job, L.GPUS] < L.MILLI:
        gpu = _gpu_for_share(rule, jobs, job, gpus, nodes, totals, hw, t)
        if gpu < 0:
            return False
        hold_share(jobs, job, gpus, nodes, bits, totals, hw, gpu)
    else:
        if not fits(_FIRST, jobs, job, gpus, nodes, totals, hw):
            return False
        left = int(jobs[job, L.GPUS]) // L.MILLI
        tail = -1
        while left > 0:
            node = _node_for_gang(rule, jobs, job, left, gpus, nodes, totals, hw, t)
            count = min(available(jobs, job, node, nodes, hw), left)
            tail = take_from_node(jobs, job, gpus, nodes, bits, totals, hw, node, count, tail)
            left -= count
    set_rate(jobs, job, gpus, nodes, hw)
    return True


@inlined
def _mark_demand(jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, hw: Hardware, demands: Ints64) -> None:
    """Note on its nodes that a job of its class runs there."""
    own = np.int64(1) << np.int64(_demand_class(jobs, job))
    gpu = int(jobs[job, L.FIRST_GPU])
    while gpu >= 0:
        demands[node_of(gpu, gpus, nodes, hw)] |= own
        gpu = -1 if jobs[job, L.GPUS] < L.MILLI else int(gpus[gpu, L.NEXT])


@njit
def _start_by_score(
    rule: int, rows: Ints64, running: int, skip: bool, jobs: Floats, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, t: ScoreTables, started: Ints64, held: Ints64,
) -> int:  # fmt: skip
    """Start these rows one after the other; list rows and their GPUs, return how many."""
    if rule == _CLUSTERING:
        for row in range(running):
            _mark_demand(jobs, row, gpus, nodes, hw, t.demands)
    count = 0
    offset = 0
    for row in rows:
        if totals[L.HELD] == L.MILLI * gpus.shape[0]:
            break
        if place_by_score(rule, jobs, row, gpus, nodes, bits, totals, hw, t):
            if rule == _CLUSTERING:
                _mark_demand(jobs, row, gpus, nodes, hw, t.demands)
            offset += held_gpus(jobs, row, gpus, held[offset:])
            started[count] = row
            count += 1
        elif not skip:
            break
    return count
