"""What changes during a run, in plain Python: rule R7, on top of R1 to R6 of `simulator` and `detailed`. Shares no
code with `lepton_rl`.

R7 A running job has a rate that may change.
   One instant, in this order: completions; failures and repairs in their order; reservations that begin or end;
     arrivals, and jobs whose last predecessor has finished; all rates are set anew; one decision; all rates are set
     anew. First come the actions of `decide(simulation)`, each a decision of its own; then the pass of R3 or R5.
     Submissions, failures, repairs and both ends of a reservation are decision points; a GPU that begins to throttle is
     none, it only sets rates anew. What comes while a job waits, runs or is still to come is waited for.
   Progress. A change of rate settles what was served until then: attained service grows by it, the true and the
     predicted end are now + service left / new rate. A run that gets no service never ends.
   Rate = lowest of (speed x part kept x part left by throttling) of its GPUs
          / (slowdown of nodes x of racks x of sharing) x interval / (interval + checkpoint cost).
     Within a decision a job has the rate that it gets where it is placed; its neighbours' rates, and what its own load
     does to the heat of its GPUs, follow after it. The
     planned rate (R6) has the last factor and neither limits, heat nor neighbours.
   Dependencies. A job joins the queue at the latest of its submission and the finishes of the jobs that it comes after.
     Its submit time and its place among equal scores stay those of its submission. A predecessor that is not among the
     jobs counts as finished.
   Sharing. A share u of a GPU on which others hold v in all is slowed by 1 + c u v, or, where there is a table of pairs
     of classes, by 1 + the sum of (slowdown of its class beside the other's - 1) over the other jobs.
   Power limits, in whole milliwatts, of each GPU; none: its group's own. With x = (limit - floor) / (natural maximum -
     floor), 1 at most and 0 at least, a job keeps s = 1 - (1 - x) ** exponent of its speed, relative to the s of the
     group's own limit and rounded to 1e-8. A GPU at full load draws the limit (no less than what it can be held to and
     no less than idle, no more than its natural maximum), to the milliwatt; at load u it draws idle + (that - idle) u.
   Heat. T follows dT/dt = (inlet + resistance x draw - T) / time constant, from the steady state of an idle GPU on. A
     GPU at its throttle temperature whose natural draw (by load and limit) is above
     hold = (throttle - inlet) / resistance draws hold and stays at that temperature; its jobs keep the s of a limit of
     hold on that natural draw.
   Failures. A GPU is up when each time that it was taken down is over. A GPU that is down holds nothing, draws nothing
     and is counted nowhere. A job on a GPU that goes down is struck: it leaves all its GPUs and waits again. Of the
     service of its present run (since its last start, or since it came to its GPUs by a migration) it keeps
     floor(served / interval) x interval seconds, none without checkpoints (interval 0), and owes `restart_cost` more.
   Reservations, of nodes, from begin to before end; those of a node that overlap or touch are one. A job may start on a
     node at a time if no reservation of the node holds then and service left by its requested time / its planned rate
     <= floor(next begin - time). A job without a requested time (inf) never starts on a node with a reservation that
     has not ended. Jobs are not stopped.
     EASY: the shadow is looked for at predicted ends and at ends of reservations; the head must be able to start then.
       Where there is none it is inf: nothing delays the head.
     Conservative: GPUs that are up count; those of a node are out of the profile while it is reserved, whether held
       or not. A job for which there are never enough has no reservation.
     R5.2: what is up, less what is free on nodes that are reserved now.
   Migration, within the instant: the job leaves its GPUs and starts on others, which may be among its own; it owes
     `migration_cost` seconds more. Only a run as old as the quantum may be moved or preempted.

Energy: the integral of what each GPU draws.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from tests.reference.detailed import DetailedCluster, DetailedJob, Type, slowdown
from tests.reference.simulator import (
    MEMORY_SLACK_GIB,
    WHOLE,
    Blocking,
    Cluster,
    Job,
    Progress,
    Result,
    Simulation,
    refuse_impossible,
)

Interval = tuple[float, float]  # from, until; s


@dataclass(frozen=True)
class DynamicJob(DetailedJob):
    """A job that may depend on others; `requested` is inf where it has no requested time."""

    after: tuple[int, ...] = ()  # ids

    @property
    def wish(self) -> int:
        return self.id  # where a job may start depends on how long it runs


@dataclass(frozen=True)
class DynamicType(Type):
    """A GPU under its group's own limit: `max_w` and `speed` are what that limit leaves of them."""

    natural_max_w: float  # without a limit
    floor_w: float
    exponent: float
    lowest_held_w: float
    min_limit_w: float
    max_limit_w: float
    throttle_c: float
    resistance: float  # degrees Celsius per watt
    time_constant_s: float
    own_limit_w: float | None = None  # the group's; None: no limit


@dataclass(frozen=True)
class Dynamics:
    interference: float = 0.0
    pairs: Mapping[tuple[str, str], float] | None = None  # slowdown of the first class beside the second
    inlet_c: float | None = None  # None: no heat
    failures: Sequence[tuple[float, Sequence[int], bool]] = ()  # time, GPUs, whether they go down (else back up)
    checkpoint_interval: float = 0.0  # seconds of service; 0: no checkpoints
    checkpoint_cost: float = 0.0
    restart_cost: float = 0.0
    reservations: Sequence[tuple[float, float, Sequence[int]]] = ()  # begin, end, nodes
    migration_cost: float = 0.0

    @property
    def checkpoint_factor(self) -> float:
        if self.checkpoint_interval == 0:
            return 1.0
        return self.checkpoint_interval / (self.checkpoint_interval + self.checkpoint_cost)


@dataclass(frozen=True)
class DynamicResult(Result):
    strikes: list[int]  # times that a failure took a job off its GPUs
    migrations: list[int]
    lost: list[float]  # seconds of service that strikes undid
    temperature_c: list[float]  # of each GPU at the end; empty without heat


def kept_speed(natural_w: float, limit_w: float, floor_w: float, exponent: float) -> float:
    """The part of its speed that a job of this natural draw keeps under a limit."""
    if limit_w >= natural_w:
        return 1.0
    if limit_w <= floor_w:
        return 0.0
    x = (limit_w - floor_w) / (natural_w - floor_w)
    return 1.0 - float((1.0 - x) ** exponent)


def outside(interval: Interval, cuts: Sequence[Interval]) -> list[Interval]:
    """What is left of an interval when others are cut out of it."""
    pieces = [interval]
    for begin, end in cuts:
        halves = [half for low, high in pieces for half in ((low, min(high, begin)), (max(low, end), high))]
        pieces = [(low, high) for low, high in halves if low < high]
    return pieces


def joined(intervals: Sequence[Interval]) -> list[Interval]:
    """The same times as intervals that neither overlap nor touch."""
    apart: list[Interval] = []
    for begin, end in sorted(intervals):
        if apart and begin <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(apart[-1][1], end))
        else:
            apart.append((begin, end))
    return apart


class DynamicCluster(DetailedCluster):
    """A cluster with the jobs on each GPU, power limits, temperatures, GPUs that are down, and reservations."""

    def __init__(self, like: DetailedCluster, dynamics: Dynamics) -> None:
        super().__init__(like.groups, like.placement, like.reference, like.node_curve, like.rack_curve)
        self.dynamics = dynamics
        gpus = range(len(self.node_of))
        self.jobs_on: list[list[DynamicJob]] = [[] for _ in gpus]
        self.limit_w: list[float | None] = [None for _ in gpus]
        self.times_down = [0 for _ in gpus]
        self.temperature_c: list[float] = []
        if dynamics.inlet_c is not None:
            self.temperature_c = [dynamics.inlet_c + self.kind(gpu).resistance * self.kind(gpu).idle_w for gpu in gpus]
        self.spells = [
            joined([(begin, end) for begin, end, nodes in dynamics.reservations if node in nodes])
            for node in range(len(self.machines))
        ]
        self.cool = [1.0 for _ in gpus]  # part of the speed that heat left when rates were last set
        self.shut: set[int] = set()  # nodes on which the job that is being placed may not start

    def kind(self, gpu: int) -> DynamicType:
        kind = self.machine(gpu).type
        assert isinstance(kind, DynamicType)
        return kind

    def copy(self) -> Self:
        twin = super().copy()
        twin.jobs_on = [list(jobs) for jobs in self.jobs_on]
        return twin

    def take(self, job: Job, gpus: list[int]) -> None:
        assert isinstance(job, DynamicJob)
        super().take(job, gpus)
        for gpu in gpus:
            self.jobs_on[gpu].append(job)

    def give(self, job: Job, gpus: list[int]) -> None:
        assert isinstance(job, DynamicJob)
        super().give(job, gpus)
        for gpu in gpus:
            self.jobs_on[gpu].remove(job)

    # GPUs that are down.

    def is_up(self, gpu: int) -> bool:
        return self.times_down[gpu] == 0

    def take_down(self, gpu: int) -> None:
        if self.is_up(gpu):
            assert not self.jobs_on[gpu]
            self.free_share[gpu] = 0
            self.free -= WHOLE
        self.times_down[gpu] += 1

    def bring_back(self, gpu: int) -> None:
        if self.is_up(gpu):
            raise ValueError(f"GPU {gpu} is brought back, but is not down")
        self.times_down[gpu] -= 1
        if self.is_up(gpu):
            self.free_share[gpu] = WHOLE
            self.free += WHOLE

    # Reservations.

    def reserved(self, node: int, time: float) -> list[Interval]:
        """The reservations of the node that have not ended by then."""
        return [(begin, end) for begin, end in self.spells[node] if end > time]

    def is_reserved(self, node: int, time: float) -> bool:
        return any(begin <= time for begin, _ in self.reserved(node, time))

    def may_start(self, node: int, time: float, planned_s: float) -> bool:
        return all(begin > time and planned_s <= math.floor(begin - time) for begin, _ in self.reserved(node, time))

    def find_at(self, job: Job, time: float, planned_s: float) -> list[int] | None:
        """The GPUs that the job gets if it is to start then for so many seconds; None when it does not fit."""
        self.shut = {node for node in range(len(self.machines)) if not self.may_start(node, time, planned_s)}
        self._answers.clear()
        return self.find(job)

    def offered(self, job: DetailedJob) -> list[list[int]]:
        return [[] if node in self.shut else offer for node, offer in enumerate(super().offered(job))]

    def has_room(self, job: Job, gpus: list[int]) -> bool:
        """Whether the job may start on exactly these GPUs; `shut` is up to date."""
        assert isinstance(job, DynamicJob)
        share, nodes = min(job.demand, WHOLE), [self.node_of[gpu] for gpu in gpus]
        return len(set(gpus)) == max(job.demand // WHOLE, 1) and all(
            self.free_share[gpu] >= share
            and (not job.is_share or self.free_memory[gpu] >= self.memory_on(job, gpu) - MEMORY_SLACK_GIB)
            and self.machine(gpu).will_do(job)
            and self.machine(gpu).lasts_for(job) >= nodes.count(self.node_of[gpu])
            and self.node_of[gpu] not in self.shut
            for gpu in gpus
        )

    def _choose_for_share(self, with_room: list[int]) -> list[int] | None:
        return super()._choose_for_share([gpu for gpu in with_room if self.node_of[gpu] not in self.shut])

    # Power.

    def set_limit(self, gpu: int, watts: float | None) -> None:
        kind = self.kind(gpu)
        if watts is not None and not kind.min_limit_w <= watts <= kind.max_limit_w:
            raise ValueError(f"a limit of {watts} W is outside the range of {kind.name}")
        self.limit_w[gpu] = None if watts is None else round(watts, 3)

    def full_load_w(self, gpu: int) -> float:
        """Draw under the limit of now with all of the GPU held."""
        kind, limit = self.kind(gpu), self.limit_w[gpu]
        if limit is None:
            return kind.max_w
        return round(max(kind.idle_w, min(kind.natural_max_w, max(limit, kind.lowest_held_w))), 3)

    def natural_w(self, gpu: int, load: float) -> float:
        """Draw by load and limit, whatever the temperature."""
        if not self.is_up(gpu):
            return 0.0
        idle = self.kind(gpu).idle_w
        return idle + (self.full_load_w(gpu) - idle) * load

    def part_kept(self, gpu: int) -> float:
        """Speed under the limit of now, as a part of the speed under the group's own."""
        kind, limit = self.kind(gpu), self.limit_w[gpu]
        if limit is None:
            return 1.0
        kept = kept_speed(kind.natural_max_w, limit, kind.floor_w, kind.exponent)
        if kind.own_limit_w is not None:
            kept /= kept_speed(kind.natural_max_w, kind.own_limit_w, kind.floor_w, kind.exponent)
        return round(kept, 8)

    def load(self, gpu: int) -> float:
        return sum(min(job.demand, WHOLE) for job in self.jobs_on[gpu]) / WHOLE

    def draw_w(self, gpu: int) -> float:
        natural = self.natural_w(gpu, self.load(gpu))
        return max(0.0, self.hold_w(gpu)) if self.throttles(gpu, natural) else natural

    def power_w(self) -> float:
        return sum(self.draw_w(gpu) for gpu in range(len(self.node_of)))

    # Heat.

    def hold_w(self, gpu: int) -> float:
        """Draw that just holds the throttle temperature."""
        assert self.dynamics.inlet_c is not None
        return (self.kind(gpu).throttle_c - self.dynamics.inlet_c) / self.kind(gpu).resistance

    def throttles(self, gpu: int, natural_w: float) -> bool:
        """Whether a GPU of this natural draw is slowed by its temperature now."""
        if not self.temperature_c:
            return False
        return self.temperature_c[gpu] >= self.kind(gpu).throttle_c and natural_w > self.hold_w(gpu)

    def final_c(self, gpu: int) -> float:
        """The temperature to which the draw of now leads."""
        assert self.dynamics.inlet_c is not None
        return self.dynamics.inlet_c + self.kind(gpu).resistance * self.draw_w(gpu)

    def seconds_to_throttling(self, gpu: int) -> float:
        """When a GPU that does not throttle yet begins to, if nothing else changes; inf for never."""
        if not self.temperature_c:
            return math.inf
        now, throttle, final = self.temperature_c[gpu], self.kind(gpu).throttle_c, self.final_c(gpu)
        if now >= throttle or final <= throttle:
            return math.inf
        return self.kind(gpu).time_constant_s * math.log((final - now) / (final - throttle))

    def warm(self, seconds: float) -> None:
        """Let time pass for the temperatures; nothing begins to throttle before its end."""
        for gpu, start in enumerate(self.temperature_c):
            kind, final = self.kind(gpu), self.final_c(gpu)
            stays = start == kind.throttle_c and self.throttles(gpu, self.natural_w(gpu, self.load(gpu)))
            if not stays:
                self.temperature_c[gpu] = final + (start - final) * math.exp(-seconds / kind.time_constant_s)

    # How fast a job runs.

    def rate(self, job: Job, gpus: list[int]) -> float:
        assert isinstance(job, DynamicJob)
        nodes = {self.node_of[gpu] for gpu in gpus}
        racks = {self.machines[node].rack for node in nodes}
        slowest = min(self.speed(self.kind(gpu), job) * self.part_kept(gpu) * self.cool[gpu] for gpu in gpus)
        spread = slowdown(self.node_curve, len(nodes)) * slowdown(self.rack_curve, len(racks))
        return slowest / (spread * self.sharing(job, gpus[0])) * self.dynamics.checkpoint_factor

    def planned_rate(self, job: Job) -> float:
        return super().planned_rate(job) * self.dynamics.checkpoint_factor

    def beside(self, job: DynamicJob, gpu: int) -> list[DynamicJob]:
        return [other for other in self.jobs_on[gpu] if other is not job]

    def sharing(self, job: DynamicJob, gpu: int) -> float:
        others = self.beside(job, gpu)
        if self.dynamics.pairs is not None:
            return 1.0 + sum(self.dynamics.pairs[job.job_class, other.job_class] - 1.0 for other in others)
        share, held = job.demand / WHOLE, sum(other.demand for other in others) / WHOLE
        return 1.0 + self.dynamics.interference * share * held

    def feel_heat(self) -> None:
        """Find out what throttling leaves of the speed of each GPU now."""
        for gpu, kind in enumerate(map(self.kind, range(len(self.node_of)))):
            natural = self.natural_w(gpu, self.load(gpu))
            hot = self.throttles(gpu, natural)
            self.cool[gpu] = kept_speed(natural, self.hold_w(gpu), kind.floor_w, kind.exponent) if hot else 1.0


@dataclass(eq=False)
class DynamicProgress(Progress):
    dynamics: Dynamics = field(default_factory=Dynamics)
    strikes: int = 0
    migrations: int = 0
    lost: float = 0.0
    attained_at_start: float = 0.0  # of the present run
    served: float = 0.0  # by the present run, before `rate_since`; s of service
    is_done: bool = False

    @property
    def owed(self) -> float:
        dynamics = self.dynamics
        return super().owed + self.strikes * dynamics.restart_cost + self.migrations * dynamics.migration_cost


class DynamicSimulation(Simulation):
    """The event loop of R7; `decide` may look at anything here and call set_limit, migrate and preempt."""

    cluster: DynamicCluster

    def __init__(
        self,
        jobs: Sequence[DynamicJob],
        cluster: DynamicCluster,
        order: str | Callable[[Job, float], float],
        blocking: Blocking,
        preemption_cost: float,
        quantum: float,
        decide: Callable[["DynamicSimulation"], None],
    ) -> None:
        self.dynamics = cluster.dynamics
        self.decide = decide
        self.of: dict[int, DynamicProgress] = {}  # by id
        super().__init__(jobs, cluster, order, blocking, preemption_cost, quantum)
        self.coming = [self.of[progress.job.id] for progress in self.arrivals]  # to the queue
        self.unseen = list(self.coming)  # not yet submitted
        self.failures = sorted(self.dynamics.failures, key=lambda failure: failure[0])  # those to come

    def _new_progress(self, job: Job, preemption_cost: float) -> DynamicProgress:
        assert job.id not in self.of
        self.of[job.id] = DynamicProgress(job, 0, preemption_cost, dynamics=self.dynamics)
        return self.of[job.id]

    # What a policy may do.

    def set_limit(self, gpu: int, watts: float | None = None) -> None:
        self.cluster.set_limit(gpu, watts)

    def preempt(self, job_id: int) -> None:
        self._preempt(self._movable(job_id))

    def migrate(self, job_id: int, gpus: Sequence[int] | None = None) -> None:
        """Move a running job to these GPUs, or to where the placement puts it; ValueError leaves all as it was."""
        progress = self._movable(job_id)
        without = self.without(job_id)
        chosen = without.find(progress.job) if gpus is None else sorted(gpus)
        if chosen is None or not without.has_room(progress.job, chosen):
            raise ValueError(f"job {job_id} cannot be moved there")
        self._leave(progress)
        progress.migrations += 1
        self.waiting.append(progress)
        self._start(progress, chosen)

    def without(self, job_id: int) -> DynamicCluster:
        """The cluster as a running job would find it that leaves its GPUs to migrate now."""
        progress = self.of[job_id]
        twin = self.cluster.copy()
        twin.give(progress.job, progress.gpus)
        owed = self.dynamics.migration_cost / twin.planned_rate(progress.job)
        twin.find_at(progress.job, self.now, self._planned_seconds(progress) + owed)
        return twin

    def _movable(self, job_id: int) -> DynamicProgress:
        progress = self.of[job_id]
        if not progress.is_running or self.now - progress.segment_start < self.quantum:
            raise ValueError(f"job {job_id} does not run, or its run is younger than the quantum")
        return progress

    # One event after the other.

    def simulate(self) -> None:
        while self.coming or self.waiting or self.running:
            event = max(self.now, self._next_event())
            throttling = self.now + min(map(self.cluster.seconds_to_throttling, range(len(self.cluster.node_of))))
            if min(event, throttling) == math.inf:
                raise ValueError("jobs wait and nothing is left to happen")
            self._pass_time(min(event, throttling))
            if event <= throttling:
                self._one_instant()
            else:
                self._set_rates()

    def _next_event(self) -> float:
        ends = [progress.finish for progress in self.running]
        arrivals = [progress.job.submit for progress in self.unseen]
        failures = [time for time, _, _ in self.failures]
        edges = [edge for spells in self.cluster.spells for spell in spells for edge in spell if edge > self.now]
        return min([*ends, *arrivals, *failures, *edges], default=math.inf)

    def _pass_time(self, until: float) -> None:
        cluster = self.cluster
        gpus = range(len(cluster.node_of))
        begins = [gpu for gpu in gpus if self.now + cluster.seconds_to_throttling(gpu) <= until]
        seconds = until - self.now
        super()._pass_time(until)
        cluster.warm(seconds)
        for gpu in begins:
            cluster.temperature_c[gpu] = cluster.kind(gpu).throttle_c

    def _one_instant(self) -> None:
        for progress in self.of.values():
            if progress.is_running and progress.finish <= self.now:
                self._leave(progress)
                progress.is_done = True
        while self.failures and self.failures[0][0] <= self.now:
            _, gpus, goes_down = self.failures.pop(0)
            if goes_down:
                self._fail(gpus)
            else:
                self._repair(gpus)
        self.unseen = [progress for progress in self.unseen if progress.job.submit > self.now]
        for progress in [progress for progress in self.coming if self._is_ready(progress)]:
            self.coming.remove(progress)
            self.waiting.append(progress)
        self._set_rates()
        self.decide(self)
        self._set_rates()
        self._schedule()
        self._set_rates()

    def _is_ready(self, progress: DynamicProgress) -> bool:
        """Whether the job is submitted and all that it comes after have finished."""
        assert isinstance(progress.job, DynamicJob)
        return progress not in self.unseen and all(
            self.of[other].is_done for other in progress.job.after if other in self.of
        )

    def _set_rates(self) -> None:
        self.cluster.feel_heat()
        for progress in self.of.values():
            if progress.is_running and self.cluster.rate(progress.job, progress.gpus) != progress.rate:
                progress.served += (self.now - progress.rate_since) * progress.rate
                progress.attained = progress.attained_by(self.now)
                self._set_rate(progress)

    def _start(self, progress: Progress, gpus: list[int]) -> None:
        assert isinstance(progress, DynamicProgress)
        super()._start(progress, gpus)
        progress.attained_at_start = progress.attained
        progress.served = 0.0

    # Failures.

    def _fail(self, gpus: Sequence[int]) -> None:
        for progress in self.of.values():
            if progress.is_running and set(progress.gpus) & set(gpus):
                self._strike(progress)
        for gpu in gpus:
            self.cluster.take_down(gpu)
        self._count_capacity()

    def _repair(self, gpus: Sequence[int]) -> None:
        for gpu in gpus:
            self.cluster.bring_back(gpu)
        self._count_capacity()

    def _count_capacity(self) -> None:
        self.capacity = WHOLE * sum(map(self.cluster.is_up, range(len(self.cluster.node_of))))

    def _strike(self, progress: DynamicProgress) -> None:
        served = progress.served + (self.now - progress.rate_since) * progress.rate
        interval = self.dynamics.checkpoint_interval
        kept = math.floor(served / interval) * interval if interval > 0 else 0.0
        self._leave(progress)
        progress.attained = progress.attained_at_start + kept
        progress.strikes += 1
        progress.lost += served - kept
        self.waiting.append(progress)

    # What reservations and failures change in a pass.

    def _find(self, progress: Progress, cluster: Cluster, time: float) -> list[int] | None:
        assert isinstance(cluster, DynamicCluster)
        return cluster.find_at(progress.job, time, self._planned_seconds(progress))

    def _shadow_times(self) -> list[float]:
        ends = {end for spells in self.cluster.spells for _, end in spells if end > self.now}
        return sorted({*super()._shadow_times(), *ends})

    def _taken(self) -> list[tuple[float, float, int]]:
        """Each GPU in turn: when it is reserved, and when jobs hold it outside of that."""
        taken: list[tuple[float, float, int]] = []
        for gpu in filter(self.cluster.is_up, range(len(self.cluster.node_of))):
            reserved = self.cluster.reserved(self.cluster.node_of[gpu], self.now)
            taken += [(begin, end, WHOLE) for begin, end in reserved]
            for job in self.cluster.jobs_on[gpu]:
                held = (self.now, self.of[job.id].predicted_end(self.now))
                taken += [(begin, end, min(job.demand, WHOLE)) for begin, end in outside(held, reserved)]
        return taken

    def _capacity_now(self) -> int:
        reserved = [gpu for gpu, node in enumerate(self.cluster.node_of) if self.cluster.is_reserved(node, self.now)]
        return self.capacity - sum(self.cluster.free_share[gpu] for gpu in reserved)


def refuse_circles(jobs: Sequence[DynamicJob]) -> None:
    """Raise ValueError where jobs wait for each other."""
    left = {job.id: set(job.after) for job in jobs}
    while left:
        free = [job for job, after in left.items() if not after & left.keys()]
        if not free:
            raise ValueError(f"these jobs depend on themselves: {sorted(left)}")
        for job in free:
            del left[job]


def simulate_dynamic(
    cluster: DetailedCluster,
    jobs: Sequence[DynamicJob],
    order: str | Callable[[Job, float], float],
    blocking: Blocking,
    dynamics: Dynamics,
    preemption_cost: float = 0.0,
    quantum: float = 0.0,
    decide: Callable[[DynamicSimulation], None] | None = None,
) -> DynamicResult:
    """Run all jobs to their end on a cluster like this one, empty and of GPUs of `DynamicType`.

    `decide` is called at each decision point, before the pass of the order.
    """
    refuse_circles(jobs)
    refuse_impossible(cluster, jobs, order, blocking)
    if not jobs:
        return DynamicResult([], [], [], [], 0.0, [], [], [], [])
    own = DynamicCluster(cluster, dynamics)
    simulation = DynamicSimulation(
        jobs, own, order, blocking, preemption_cost, quantum, decide or (lambda simulation: None)
    )
    simulation.simulate()
    given = [simulation.of[job.id] for job in jobs]
    return DynamicResult(
        start=[progress.first_start for progress in given],
        finish=[progress.finish for progress in given],
        preemptions=[progress.preemptions for progress in given],
        allocation=[progress.gpus for progress in given],
        energy_joules=simulation.joules,
        strikes=[progress.strikes for progress in given],
        migrations=[progress.migrations for progress in given],
        lost=[progress.lost for progress in given],
        temperature_c=list(own.temperature_c),
    )
