"""Clusters whose nodes differ, in plain Python: rule R6, on top of R1 to R5 of `simulator`. Shares no code with
`lepton_rl`.

R6 Nodes that differ. Nodes are numbered through the groups in their order, GPUs through the nodes. Node i of a group
   of n nodes in r racks stands in rack i * r // n of the group; groups share no rack.
   Wishes. A job names the types of GPU that will do (any if none is named) and, for each of its GPUs, amounts of what
     a node has beside them (CPU, RAM, ...), counted in thousandths; a share takes them once. A GPU with less memory
     than the job's figure will not do. What a node does not name is not counted on it.
   Offers. A node offers a gang its wholly free GPUs, the lowest first, or as many of them as its CPU, RAM, ... last
     for; none if its type will not do. A share goes only to a node whose type will do and that has the rest for it.
   Placement, as R4 with offers in place of free GPUs:
     first: nodes in index order, all that each offers.
     best: of the nodes that offer enough for the rest of the gang, the one with the fewest free GPUs (offered or not).
       If none does, all that the node offering most has to offer, again and again.
     worst: one GPU at a time from the node that offers most.
     consolidated: as best, but a gang waits unless it comes to lie on the fewest nodes that hold it on the empty
       cluster.
     A job on whole GPUs holds all their memory; a share its figure, or its part of the memory of the GPU it is on.
   Speed. Run and requested times are seconds of service: seconds on the reference type of GPU. A running job gets
     rate = lowest speed of its GPUs' types for its class, relative to the reference type's
            / (slowdown of the nodes it spans * slowdown of the racks it spans)
     seconds of service in a second, as long as the run lasts. Slowdowns are linear between the points of a curve
     and constant behind the last. A run with s seconds of service left takes s / rate seconds.
   What follows. Attained service, what remains and the cost of a preemption are seconds of service; the quantum is
     time. The predicted end of a running job is its start + the service that remained then / rate. EASY: a later job
     ends in time if now + service left / its rate on the GPUs that it would get <= shadow. Conservative: a
     reservation lasts service left / the job's lowest rate on any type of the cluster that will do, not spread, and
     counts GPUs of every type. R5.2 counts GPUs of every type too.
   Energy: each GPU draws idle_w + (max_w - idle_w) * load of its own type.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

from tests.reference.simulator import MEMORY_SLACK_GIB, WHOLE, Cluster, Job, Placement

Curve = Sequence[tuple[int, float]]  # (nodes or racks, slowdown), rising from 1
NO_SLOWDOWN: Curve = ((1, 1.0),)


@dataclass(frozen=True)
class DetailedJob(Job):
    job_class: str = "general"
    types: tuple[str, ...] = ()  # that will do; none: any
    asks: Mapping[str, float] = field(default_factory=dict)  # beside each GPU

    @property
    def wish(self) -> Hashable:
        return self.gpus, self.memory_gib, self.types, tuple(sorted(self.asks.items()))


@dataclass(frozen=True)
class Type:
    name: str
    memory_gib: float
    idle_w: float
    max_w: float
    speed: Mapping[str, float]  # by class of job


@dataclass(frozen=True)
class Group:
    nodes: int
    gpus_per_node: int
    type: Type
    offers: Mapping[str, float] = field(default_factory=dict)  # of each node, beside its GPUs
    racks: int = 1


@dataclass
class Node:
    type: Type
    gpus: range
    rack: int
    room: dict[str, int]  # thousandths that are free of what the node names

    def lasts_for(self, job: DetailedJob) -> int:
        """GPUs' worth of what the job asks for beside them."""
        asked = {name: thousandths(amount) for name, amount in job.asks.items() if amount > 0}
        return min((self.room[name] // amount for name, amount in asked.items() if name in self.room), default=10**9)

    def will_do(self, job: DetailedJob) -> bool:
        """Whether the job may run on GPUs of this type."""
        return (not job.types or self.type.name in job.types) and (job.memory_gib or 0.0) <= self.type.memory_gib

    def change_room(self, job: DetailedJob, change: int) -> None:
        """Take what the job asks for beside one GPU (-1), or give it back (1)."""
        for name, amount in job.asks.items():
            if name in self.room:
                self.room[name] += change * thousandths(amount)
                assert self.room[name] >= 0


def thousandths(amount: float) -> int:
    return round(amount * 1000)


def slowdown(curve: Curve, count: int) -> float:
    """Slowdown of a job that spans so many nodes or racks."""
    for (low, before), (high, after) in pairwise(curve):
        if low <= count <= high:
            return before + (after - before) / (high - low) * (count - low)
    return curve[-1][1]


class DetailedCluster(Cluster):
    """Groups of nodes that differ, and where a job would go on them (R6)."""

    def __init__(
        self,
        groups: Sequence[Group],
        placement: Placement,
        reference: Type | None = None,
        node_curve: Curve = NO_SLOWDOWN,
        rack_curve: Curve = NO_SLOWDOWN,
    ) -> None:
        self.groups = groups
        self.placement = placement
        self.reference = reference or groups[0].type
        self.node_curve = node_curve
        self.rack_curve = rack_curve
        self.machines: list[Node] = []
        self.node_of: list[int] = []  # of each GPU
        racks = 0
        for group in groups:
            for index in range(group.nodes):
                gpus = range(len(self.node_of), len(self.node_of) + group.gpus_per_node)
                room = {name: thousandths(amount) for name, amount in group.offers.items()}
                rack = racks + index * group.racks // group.nodes
                self.node_of += [len(self.machines)] * group.gpus_per_node
                self.machines.append(Node(group.type, gpus, rack, room))
            racks += group.racks
        self.free_share = [WHOLE] * len(self.node_of)
        self.free_memory = [self.machine(gpu).type.memory_gib for gpu in range(len(self.node_of))]
        self.free = WHOLE * len(self.node_of)
        self._answers = {}
        self._fewest: dict[Hashable, int] = {}  # by wish, of the empty cluster

    def machine(self, gpu: int) -> Node:
        return self.machines[self.node_of[gpu]]

    def copy(self) -> Self:
        twin = super().copy()
        twin.machines = [Node(node.type, node.gpus, node.rack, dict(node.room)) for node in self.machines]
        return twin

    # What a job holds.

    def memory_on(self, job: Job, gpu: int) -> float:
        """GiB that the job holds on a GPU."""
        whole = self.machine(gpu).type.memory_gib
        if not job.is_share:
            return whole
        return job.gpus * whole if job.memory_gib is None else job.memory_gib

    def take(self, job: Job, gpus: list[int]) -> None:
        assert isinstance(job, DetailedJob)
        for gpu in gpus:
            self.free_share[gpu] -= min(job.demand, WHOLE)
            self.free_memory[gpu] -= self.memory_on(job, gpu)
            assert self.free_share[gpu] >= 0
            assert self.free_memory[gpu] >= -MEMORY_SLACK_GIB
            self.machine(gpu).change_room(job, -1)
        self.free -= job.demand
        self._answers.clear()

    def give(self, job: Job, gpus: list[int]) -> None:
        assert isinstance(job, DetailedJob)
        for gpu in gpus:
            self.free_share[gpu] += min(job.demand, WHOLE)
            self.free_memory[gpu] += self.memory_on(job, gpu)
            if self.free_share[gpu] == WHOLE:
                self.free_memory[gpu] = self.machine(gpu).type.memory_gib  # no rounding error outlives the jobs
            self.machine(gpu).change_room(job, 1)
        self.free += job.demand
        self._answers.clear()

    def power_w(self) -> float:
        draw = 0.0
        for gpu, free in enumerate(self.free_share):
            kind = self.machine(gpu).type
            draw += kind.idle_w + (kind.max_w - kind.idle_w) * (WHOLE - free) / WHOLE
        return draw

    # How fast it runs.

    def speed(self, kind: Type, job: DetailedJob) -> float:
        return kind.speed[job.job_class] / self.reference.speed[job.job_class]

    def rate(self, job: Job, gpus: list[int]) -> float:
        assert isinstance(job, DetailedJob)
        machines = {self.node_of[gpu]: self.machine(gpu) for gpu in gpus}
        racks = {machine.rack for machine in machines.values()}
        slowest = min(self.speed(machine.type, job) for machine in machines.values())
        return slowest / (slowdown(self.node_curve, len(machines)) * slowdown(self.rack_curve, len(racks)))

    def planned_rate(self, job: Job) -> float:
        assert isinstance(job, DetailedJob)
        return min(self.speed(machine.type, job) for machine in self.machines if machine.will_do(job))

    # Where it goes.

    def offered(self, job: DetailedJob) -> list[list[int]]:
        """The GPUs that each node offers a gang."""
        offers = []
        for node in self.machines:
            free = [gpu for gpu in node.gpus if self.free_share[gpu] == WHOLE]
            offers.append(free[: node.lasts_for(job)] if node.will_do(job) else [])
        return offers

    def _find_share(self, job: Job) -> list[int] | None:
        assert isinstance(job, DetailedJob)
        with_room = [
            gpu
            for gpu, free in enumerate(self.free_share)
            if free >= job.demand
            and self.free_memory[gpu] >= self.memory_on(job, gpu) - MEMORY_SLACK_GIB
            and self.machine(gpu).will_do(job)
            and self.machine(gpu).lasts_for(job) >= 1
        ]
        return self._choose_for_share(with_room)

    def _find_gang(self, job: Job) -> list[int] | None:
        assert isinstance(job, DetailedJob)
        offers, size = self.offered(job), int(job.gpus)
        if sum(len(offer) for offer in offers) < size:
            return None
        if self.placement == "first":
            return [gpu for offer in offers for gpu in offer][:size]
        if self.placement == "worst":
            return self._spread(offers, size)
        chosen = self._pack_offers(offers, size)
        nodes_used = len({self.node_of[gpu] for gpu in chosen})
        if self.placement == "consolidated" and nodes_used > self._fewest_nodes(job):
            return None
        return chosen

    def _pack_offers(self, offers: list[list[int]], size: int) -> list[int]:
        free = [sum(self.free_share[gpu] == WHOLE for gpu in node.gpus) for node in self.machines]
        chosen: list[int] = []
        while len(chosen) < size:
            remainder = size - len(chosen)
            enough = [node for node, offer in enumerate(offers) if len(offer) >= remainder]
            if enough:
                node = min(enough, key=lambda node: free[node])
            else:
                node = max(range(len(offers)), key=lambda node: len(offers[node]))
            chosen += offers[node][:remainder]
            offers[node] = []
        return sorted(chosen)

    def _fewest_nodes(self, job: DetailedJob) -> int:
        """Fewest nodes that hold the job on the empty cluster."""
        if job.wish not in self._fewest:
            empty = DetailedCluster(self.groups, "best")
            largest_first = sorted((len(offer) for offer in empty.offered(job)), reverse=True)
            counts = range(len(largest_first) + 1)
            self._fewest[job.wish] = next(nodes for nodes in counts if sum(largest_first[:nodes]) >= job.gpus)
        return self._fewest[job.wish]
