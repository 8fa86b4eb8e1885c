"""A cluster simulator in plain Python, written to be believed at sight; the compiled one is judged by it.

It shares no code with `lepton_rl.simulator`. The rules, which are binding for both:

R1 Time. All events of one instant are drained, completions before arrivals; then there is ONE scheduling
   pass. Passes happen at arrivals and completions, at no other time.

R2 Order. Waiting jobs are sorted by (score, submit order); submit order is the position after a stable sort
   by submit time. A lower score goes first. With s submit time, r requested time, n GPUs, w = now - s:
     fcfs s | sjf r | ljf -r | smallest n | saf r*n
     f1 log10(r)*n + 870*log10(max(s, 1))        f2 sqrt(r)*n + 25600*log10(max(s, 1))
     f3 r*n + 6860000*log10(max(s, 1))           f4 r*sqrt(n) + 530000*log10(max(s, 1))
     wfp3 -(w/r)^3 * n, the cube as a product of three factors
     unicep -(w + 1e-15) / (log2(max(n, 1) + 1e-15) * r): the published form; log2(1) is 0, and with its 1e-15
       serial jobs go before others, those that waited before all; a share counts as serial
     srtf remaining requested time = requested - attained service, which may be negative
     las attained service: seconds held so far, whatever the number of GPUs
     heap_priority -(w1*compute + w2*time_sensitivity + w3*memory), weights .5, .3, .2; no memory figure is 0

R3 Blocking.
   head: start in order until the first job that does not fit; stop there.
   skip: walk the whole order; start each job that fits.
   easy: start heads while they fit. For the first head that does not: shadow = the earliest predicted end of
     a running job by which the head could be placed if every running job with a predicted end at or before
     that time had left. Each later job, in order, starts if it fits now and either
     now + its remaining requested time <= shadow, or the head could still be placed in the cluster of the
     shadow time (all jobs predicted to end by then gone) with this job staying. Jobs started earlier in the
     pass count as running. The shadow is computed once in a pass; nothing is kept between passes.
   conservative: every waiting job in order gets a reservation at the earliest time from which enough GPUs
     (by count, shares summed) are free for its whole remaining requested time, given the predicted ends of
     running jobs and the reservations before it. A job reserved for now that can be placed now starts; one
     that cannot be placed keeps its reservation in this pass. Plans are made anew at each pass.
   The predicted end of a running job is the start of its run segment plus the requested time that remained
   then; a job that has outrun it is predicted to end now.

R4 Placement. A gang of whole GPUs may span nodes and takes only wholly free GPUs, in a node the lowest first.
   first: nodes in index order.
   best: the tightest node that holds the gang. If none does, all of the freest node is taken, again and
     again, until some node holds the remainder: then the tightest that does.
   worst: one GPU at a time from the node with most free GPUs.
   consolidated: as best, but a gang of n waits unless it comes to lie on ceil(n / gpus_per_node) nodes.
   Free GPUs are counted as wholly free GPUs; ties go to the lower index.
   A share (n < 1) goes to one GPU with enough free share and free memory: first = the lowest index;
   best, consolidated = the least free share; worst = the most free share; ties to the lower index.
   Shares are counted in thousandths. Memory: a job on whole GPUs holds all their memory; a share holds
   its own figure, or share * GPU memory where it has none. Sums of shares are no exact binary numbers, so
   memory is compared with a slack of 1e-6 GiB. A job that an empty cluster cannot hold is a ValueError.

R5 Preemptive orders (srtf, las; blocking head or skip). At each pass:
   1. running and waiting jobs together are put in the order of (score, submit order); running jobs whose run
      segment is younger than `quantum` come before all others;
   2. jobs are chosen by count: from the capacity of the whole cluster each job in order takes its demand if
      that much is left; at one that finds too little, `skip` goes on and `head` stops;
   3. running jobs that were not chosen are preempted: progress is kept, attained service is unchanged, and
      `preemption_cost` seconds are added to what remains of the run time and of the requested time;
      running jobs that were chosen keep their GPUs;
   4. chosen waiting jobs are placed in order; where one cannot be placed, `skip` goes on and `head` stops.

Energy: each GPU draws idle_w + (max_w - idle_w) * load, load = the share of it that is held, from the first
submit to the last finish.

R6 Nodes that differ: see `detailed`. Here every GPU gives a second of service in a second.

R7 What changes during a run: see `dynamic`. Here a rate holds for a whole run and every GPU is always there.
"""

import copy
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

Blocking = Literal["head", "skip", "easy", "conservative"]
Placement = Literal["first", "best", "worst", "consolidated"]

WHOLE = 1000  # thousandths of a GPU
MEMORY_SLACK_GIB = 1e-6
PRIORITY_WEIGHTS = (0.5, 0.3, 0.2)


@dataclass(frozen=True)
class Job:
    id: int
    submit: float
    run: float
    requested: float
    gpus: float  # a whole number, or a share in (0, 1)
    memory_gib: float | None = None  # per GPU
    compute: float = 1.0
    time_sensitivity: float = 1.0

    @property
    def is_share(self) -> bool:
        return self.gpus < 1

    @property
    def demand(self) -> int:
        """Thousandths of a GPU in all."""
        return round(self.gpus * WHOLE)

    @property
    def wish(self) -> Hashable:
        """Jobs of equal wishes fit in the same places."""
        return self.gpus, self.memory_gib


@dataclass(frozen=True)
class Result:
    """What happened; `start[i]` and the other lists belong to the i-th job that was given."""

    start: list[float]  # first start, s
    finish: list[float]
    preemptions: list[int]
    allocation: list[list[int]]  # GPUs held after the last start: node * gpus_per_node + i, ascending
    energy_joules: float


@dataclass(eq=False)
class Progress:
    """One job on its way through the cluster."""

    job: Job
    number: int  # submit order
    cost: float  # seconds that each preemption adds
    attained: float = 0.0  # seconds of service in earlier run segments
    rate: float = 1.0  # seconds of service that a second of this run segment gives
    preemptions: int = 0
    first_start: float = math.nan
    segment_start: float = math.nan
    rate_since: float = math.nan  # what was served before is in `attained`
    finish: float = math.nan
    gpus: list[int] = field(default_factory=list)
    is_running: bool = False

    @property
    def owed(self) -> float:
        """Seconds of service beyond the run time."""
        return self.preemptions * self.cost

    def attained_by(self, now: float) -> float:
        return self.attained + ((now - self.rate_since) * self.rate if self.is_running else 0.0)

    def remaining_requested(self, now: float) -> float:
        return self.job.requested + self.owed - self.attained_by(now)

    def predicted_end(self, now: float) -> float:
        return max(now, self.rate_since + seconds_for(self.remaining_requested(self.rate_since), self.rate))


def seconds_for(service: float, rate: float) -> float:
    """Seconds that so much service takes; for ever at a rate of 0."""
    return service / rate if rate > 0 else math.copysign(math.inf, service)


def _log_submit(job: Job) -> float:
    return math.log10(max(job.submit, 1.0))


def _wfp3(job: Job, now: float) -> float:
    ratio = (now - job.submit) / job.requested
    return -(ratio * ratio * ratio) * job.gpus


def _unicep(job: Job, now: float) -> float:
    return -(now - job.submit + 1e-15) / (math.log2(max(job.gpus, 1.0) + 1e-15) * job.requested)


def _heap_priority(job: Job, now: float) -> float:
    w1, w2, w3 = PRIORITY_WEIGHTS
    return -(w1 * job.compute + w2 * job.time_sensitivity + w3 * (job.memory_gib or 0.0))


SCORES: dict[str, Callable[[Job, float], float]] = {
    "fcfs": lambda job, now: job.submit,
    "sjf": lambda job, now: job.requested,
    "ljf": lambda job, now: -job.requested,
    "smallest": lambda job, now: job.gpus,
    "saf": lambda job, now: job.requested * job.gpus,
    "f1": lambda job, now: math.log10(job.requested) * job.gpus + 870 * _log_submit(job),
    "f2": lambda job, now: math.sqrt(job.requested) * job.gpus + 25600 * _log_submit(job),
    "f3": lambda job, now: job.requested * job.gpus + 6860000 * _log_submit(job),
    "f4": lambda job, now: job.requested * math.sqrt(job.gpus) + 530000 * _log_submit(job),
    "wfp3": _wfp3,
    "unicep": _unicep,
    "heap_priority": _heap_priority,
}
PREEMPTIVE_SCORES: dict[str, Callable[[Progress, float], float]] = {
    "srtf": lambda progress, now: progress.remaining_requested(now),
    "las": lambda progress, now: progress.attained_by(now),
}


class Cluster:
    """Free share and free memory of each GPU, and where a job would go."""

    def __init__(
        self,
        nodes: int,
        gpus_per_node: int,
        gpu_memory_gib: float,
        placement: Placement,
        idle_w: float = 50.0,
        max_w: float = 400.0,
    ) -> None:
        self.nodes = nodes
        self.gpus_per_node = gpus_per_node
        self.gpu_memory_gib = gpu_memory_gib
        self.placement = placement
        self.idle_w = idle_w
        self.max_w = max_w
        self.free_share = [WHOLE] * (nodes * gpus_per_node)
        self.free_memory = [gpu_memory_gib] * (nodes * gpus_per_node)
        self.free = WHOLE * nodes * gpus_per_node  # always sum(free_share)
        self._answers: dict[Hashable, list[int] | None] = {}  # by wish; valid until something changes

    def copy(self) -> Self:
        twin = copy.copy(self)
        twin.free_share = list(self.free_share)
        twin.free_memory = list(self.free_memory)
        twin._answers = {}
        return twin

    def power_w(self) -> float:
        """What all GPUs draw now."""
        load = sum(WHOLE - share for share in self.free_share) / WHOLE
        return self.idle_w * len(self.free_share) + (self.max_w - self.idle_w) * load

    def rate(self, job: Job, gpus: list[int]) -> float:
        """Seconds of service that the job gets in a second on these GPUs."""
        return 1.0

    def planned_rate(self, job: Job) -> float:
        """The rate that a plan counts with before the job has GPUs."""
        return 1.0

    def holds(self, job: Job) -> tuple[int, float]:
        """Thousandths and GiB that the job holds on each of its GPUs."""
        if not job.is_share:
            return WHOLE, self.gpu_memory_gib
        memory = job.gpus * self.gpu_memory_gib if job.memory_gib is None else job.memory_gib
        return job.demand, memory

    def take(self, job: Job, gpus: list[int]) -> None:
        share, memory = self.holds(job)
        for gpu in gpus:
            self.free_share[gpu] -= share
            self.free_memory[gpu] -= memory
            assert self.free_share[gpu] >= 0
            assert self.free_memory[gpu] >= -MEMORY_SLACK_GIB
        self.free -= job.demand
        self._answers.clear()

    def give(self, job: Job, gpus: list[int]) -> None:
        share, memory = self.holds(job)
        for gpu in gpus:
            self.free_share[gpu] += share
            self.free_memory[gpu] += memory
            if self.free_share[gpu] == WHOLE:
                self.free_memory[gpu] = self.gpu_memory_gib  # no rounding error outlives the jobs
        self.free += job.demand
        self._answers.clear()

    def find(self, job: Job) -> list[int] | None:
        """The GPUs that the placement rule gives to the job now, ascending, or None when it does not fit."""
        if job.demand > self.free:
            return None
        if job.wish not in self._answers:
            self._answers[job.wish] = self._find_share(job) if job.is_share else self._find_gang(job)
        return self._answers[job.wish]

    def _find_share(self, job: Job) -> list[int] | None:
        share, memory = self.holds(job)
        with_room = [
            gpu
            for gpu in range(len(self.free_share))
            if self.free_share[gpu] >= share and self.free_memory[gpu] >= memory - MEMORY_SLACK_GIB
        ]
        return self._choose_for_share(with_room)

    def _choose_for_share(self, with_room: list[int]) -> list[int] | None:
        if not with_room:
            return None
        if self.placement == "first":
            return [with_room[0]]
        if self.placement == "worst":
            return [max(with_room, key=lambda gpu: (self.free_share[gpu], -gpu))]
        return [min(with_room, key=lambda gpu: (self.free_share[gpu], gpu))]

    def _find_gang(self, job: Job) -> list[int] | None:
        size = int(job.gpus)
        free_of = [  # the wholly free GPUs of each node
            [
                gpu
                for gpu in range(node * self.gpus_per_node, (node + 1) * self.gpus_per_node)
                if self.free_share[gpu] == WHOLE
            ]
            for node in range(self.nodes)
        ]
        if sum(len(free) for free in free_of) < size:
            return None
        if self.placement == "first":
            return [gpu for free in free_of for gpu in free][:size]
        if self.placement == "worst":
            return self._spread(free_of, size)
        chosen, nodes_used = self._pack(free_of, size)
        if self.placement == "consolidated" and nodes_used > math.ceil(size / self.gpus_per_node):
            return None
        return chosen

    @staticmethod
    def _spread(free_of: list[list[int]], size: int) -> list[int]:
        chosen: list[int] = []
        while len(chosen) < size:
            freest = max(free_of, key=len)  # max returns the first of equals: the lower index
            chosen.append(freest.pop(0))
        return sorted(chosen)

    @staticmethod
    def _pack(free_of: list[list[int]], size: int) -> tuple[list[int], int]:
        chosen: list[int] = []
        nodes_used = 0
        while len(chosen) < size:
            remainder = size - len(chosen)
            holding_all = [free for free in free_of if len(free) >= remainder]
            node = min(holding_all, key=len) if holding_all else max(free_of, key=len)
            chosen += node[:remainder]
            del node[:remainder]
            nodes_used += 1
        return sorted(chosen), nodes_used


class Simulation:
    """The event loop (R1) and the scheduling passes (R2, R3, R5)."""

    def __init__(
        self,
        jobs: Sequence[Job],
        cluster: Cluster,
        order: str | Callable[[Job, float], float],
        blocking: Blocking,
        preemption_cost: float,
        quantum: float,
    ) -> None:
        self.cluster = cluster
        self.capacity = cluster.free
        self.order = order
        self.blocking = blocking
        self.quantum = quantum
        by_submit = sorted(range(len(jobs)), key=lambda i: jobs[i].submit)
        self.given = [self._new_progress(job, preemption_cost) for job in jobs]
        self.arrivals = [self.given[i] for i in by_submit]
        for number, progress in enumerate(self.arrivals):
            progress.number = number
        self.waiting: list[Progress] = []
        self.running: list[Progress] = []
        self.now = self.arrivals[0].job.submit
        self.joules = 0.0

    def _new_progress(self, job: Job, preemption_cost: float) -> Progress:
        return Progress(job, 0, preemption_cost)

    def simulate(self) -> None:
        coming = list(reversed(self.arrivals))
        while coming or self.running:
            next_arrival = coming[-1].job.submit if coming else math.inf
            next_finish = min((progress.finish for progress in self.running), default=math.inf)
            self._pass_time(min(next_arrival, next_finish))
            for progress in [progress for progress in self.running if progress.finish <= self.now]:
                self._leave(progress)
            while coming and coming[-1].job.submit <= self.now:
                self.waiting.append(coming.pop())
            self._schedule()
        assert not self.waiting

    def _pass_time(self, until: float) -> None:
        self.joules += self.cluster.power_w() * (until - self.now)
        self.now = until

    # One job starts, leaves or is preempted.

    def _start(self, progress: Progress, gpus: list[int]) -> None:
        self.cluster.take(progress.job, gpus)
        progress.gpus = list(gpus)
        progress.segment_start = self.now
        if math.isnan(progress.first_start):
            progress.first_start = self.now
        self._set_rate(progress)
        progress.is_running = True
        self.waiting.remove(progress)
        self.running.append(progress)

    def _set_rate(self, progress: Progress) -> None:
        """Set the rate from now on, and what follows from it."""
        remaining = progress.job.run + progress.owed - progress.attained
        progress.rate = self.cluster.rate(progress.job, progress.gpus)
        progress.rate_since = self.now
        progress.finish = self.now + seconds_for(remaining, progress.rate)

    def _leave(self, progress: Progress) -> None:
        self.cluster.give(progress.job, progress.gpus)
        progress.attained = progress.attained_by(self.now)
        progress.is_running = False
        self.running.remove(progress)

    def _preempt(self, progress: Progress) -> None:
        self._leave(progress)
        progress.preemptions += 1
        self.waiting.append(progress)

    # One scheduling pass.

    def _find(self, progress: Progress, cluster: Cluster, time: float) -> list[int] | None:
        """The GPUs that the job gets on the cluster as it is, or will be, at a time; None when it does not fit."""
        return cluster.find(progress.job)

    def _schedule(self) -> None:
        if self.order in PREEMPTIVE_SCORES:
            self._preemptive_pass()
        elif self.cluster.free == 0:
            pass  # nothing can start
        elif self.blocking == "easy":
            self._easy_pass()
        elif self.blocking == "conservative":
            self._conservative_pass()
        else:
            self._place_in_order(self._in_order(self.waiting))

    def _in_order(self, several: list[Progress]) -> list[Progress]:
        keys: dict[Progress, tuple[float, int]] = {}
        for progress in several:
            if callable(self.order):
                score = self.order(progress.job, self.now)
            elif self.order in PREEMPTIVE_SCORES:
                score = PREEMPTIVE_SCORES[self.order](progress, self.now)
            else:
                score = SCORES[self.order](progress.job, self.now)
            keys[progress] = (score, progress.number)
        return sorted(several, key=keys.__getitem__)

    def _place_in_order(self, queue: list[Progress]) -> None:
        for progress in queue:
            gpus = self._find(progress, self.cluster, self.now)
            if gpus is not None:
                self._start(progress, gpus)
            elif self.blocking == "head":
                return

    def _easy_pass(self) -> None:
        queue = self._in_order(self.waiting)
        while queue and (gpus := self._find(queue[0], self.cluster, self.now)) is not None:
            self._start(queue.pop(0), gpus)
        if not queue:
            return
        head = queue.pop(0)
        shadow, later = self._shadow(head)
        refused: set[Hashable] = set()  # wishes that would delay the head
        for progress in queue:
            job = progress.job
            gpus = self._find(progress, self.cluster, self.now)
            if gpus is None:
                continue
            seconds = seconds_for(progress.remaining_requested(self.now), self.cluster.rate(job, gpus))
            if self.now + seconds > shadow:
                if job.wish in refused:
                    continue  # nothing has started since an equal wish was refused
                later.take(job, gpus)
                if self._find(head, later, shadow) is None:
                    later.give(job, gpus)
                    refused.add(job.wish)
                    continue
            self._start(progress, gpus)
            refused.clear()

    def _shadow(self, head: Progress) -> tuple[float, Cluster]:
        """The time by which the head could be placed (inf: never), and the cluster as it is predicted to be then."""
        later = self.cluster.copy()
        leaving = sorted(self.running, key=lambda progress: progress.predicted_end(self.now))
        for time in self._shadow_times():
            while leaving and leaving[0].predicted_end(self.now) <= time:
                progress = leaving.pop(0)
                later.give(progress.job, progress.gpus)
            if self._find(head, later, time) is not None:
                return time, later
        return math.inf, later

    def _shadow_times(self) -> list[float]:
        """When more may be free than now, ascending."""
        return sorted({progress.predicted_end(self.now) for progress in self.running})

    def _conservative_pass(self) -> None:
        promised = self._taken()  # running jobs first, then what waiting ones reserve
        for progress in self._in_order(self.waiting):
            demand = progress.job.demand
            duration = max(self._planned_seconds(progress), 0.0)
            start = self._earliest(promised, demand, duration)
            promised.append((start, start + duration, demand))
            if start == self.now:
                gpus = self._find(progress, self.cluster, self.now)
                if gpus is not None:
                    self._start(progress, gpus)

    def _taken(self) -> list[tuple[float, float, int]]:
        """What is not free from now on: (from, until, thousandths of a GPU)."""
        return [(self.now, progress.predicted_end(self.now), progress.job.demand) for progress in self.running]

    def _planned_seconds(self, progress: Progress) -> float:
        return progress.remaining_requested(self.now) / self.cluster.planned_rate(progress.job)

    def _earliest(self, promised: list[tuple[float, float, int]], demand: int, duration: float) -> float:
        """The first time from which `demand` is free for `duration`: now, or the end of a promise; inf for never."""

        def free_at(time: float) -> int:
            return self.capacity - sum(taken for start, end, taken in promised if start <= time < end)

        for candidate in sorted({self.now} | {end for _, end, _ in promised}):
            # Free capacity falls only where a promise begins.
            falls = [start for start, _, _ in promised if candidate < start < candidate + duration]
            if all(free_at(time) >= demand for time in [candidate, *falls]):
                return candidate
        return math.inf

    def _capacity_now(self) -> int:
        """Thousandths of a GPU that running and chosen waiting jobs may hold together."""
        return self.capacity

    def _preemptive_pass(self) -> None:
        ordered = self._in_order(self.running + self.waiting)
        young = [p for p in ordered if p.is_running and self.now - p.segment_start < self.quantum]
        ordered = young + [progress for progress in ordered if progress not in young]

        chosen: list[Progress] = []
        left = self._capacity_now()
        for progress in ordered:
            if progress.job.demand <= left:
                chosen.append(progress)
                left -= progress.job.demand
            elif self.blocking == "head":
                break

        chosen_waiting = [progress for progress in chosen if not progress.is_running]
        for progress in ordered:
            if progress.is_running and progress not in chosen:
                self._preempt(progress)
        self._place_in_order(chosen_waiting)


def simulate(
    jobs: Sequence[Job],
    *,
    nodes: int,
    gpus_per_node: int,
    order: str | Callable[[Job, float], float],
    blocking: Blocking,
    placement: Placement = "first",
    preemption_cost: float = 0.0,
    quantum: float = 0.0,
    gpu_memory_gib: float = 80.0,
    idle_w: float = 50.0,
    max_w: float = 400.0,
) -> Result:
    """Run all jobs to their end under the rules of this module.

    `order` is a name of R2 or R5, or a function of (job, now) that gives the score.
    """
    for job in jobs:
        if (job.memory_gib or 0.0) > gpu_memory_gib:
            raise ValueError(f"job {job.id} asks for more memory than a GPU has")
    cluster = Cluster(nodes, gpus_per_node, gpu_memory_gib, placement, idle_w, max_w)
    return simulate_on(cluster, jobs, order, blocking, preemption_cost, quantum)


def refuse_impossible(
    cluster: Cluster, jobs: Sequence[Job], order: str | Callable[[Job, float], float], blocking: Blocking
) -> None:
    """Raise ValueError for a job that the empty cluster does not hold, an unknown order, or a wrong combination."""
    for job in jobs:
        if cluster.find(job) is None:
            raise ValueError(f"job {job.id} does not fit into the empty cluster")
    if order in PREEMPTIVE_SCORES and blocking not in ("head", "skip"):
        raise ValueError(f"{order} is preemptive and cannot be combined with {blocking} backfilling")
    if not callable(order) and order not in SCORES and order not in PREEMPTIVE_SCORES:
        raise ValueError(f"no order named {order!r}")


def simulate_on(
    cluster: Cluster,
    jobs: Sequence[Job],
    order: str | Callable[[Job, float], float],
    blocking: Blocking,
    preemption_cost: float = 0.0,
    quantum: float = 0.0,
) -> Result:
    """Run all jobs to their end on an empty cluster of whatever kind."""
    refuse_impossible(cluster, jobs, order, blocking)
    if not jobs:
        return Result([], [], [], [], 0.0)
    simulation = Simulation(jobs, cluster, order, blocking, preemption_cost, quantum)
    simulation.simulate()
    return Result(
        start=[progress.first_start for progress in simulation.given],
        finish=[progress.finish for progress in simulation.given],
        preemptions=[progress.preemptions for progress in simulation.given],
        allocation=[progress.gpus for progress in simulation.given],
        energy_joules=simulation.joules,
    )
