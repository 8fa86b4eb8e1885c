"""Small random workloads on clusters that change during a run, as the reference reads them and as the package does."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from lepton_rl.core import Action, ClusterSpec, Migrate, Preempt, SetPowerLimit
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import GpuType, Locality, PowerCurve
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults, Interference, Reservation
from lepton_rl.core.hardware.speed import JOB_CLASSES
from lepton_rl.simulator import Timing
from lepton_rl.workloads import Trace
from tests.reference import dynamic
from tests.reference import simulator as reference
from tests.reference.detailed import DetailedCluster, Group
from tests.reference.dynamic import DynamicJob, DynamicSimulation, DynamicType
from tests.simulator.cases import SHARES, seconds
from tests.simulator.detailed_cases import CURVES, EXACT_CURVES, OFFERS, detailed_trace, job_wishes, made_type

PARTS = ("sharing", "failures", "reservations", "dependencies", "limits", "migrations")
CLASSES = ("general", "vision", "language")
INLET_C = 20.0


def limited_type(name: str, memory_gib: float, idle_w: float, speed: float, held: float, **speeds: float) -> GpuType:
    """A type of which limits of 2, 3, 5 and 9 times its idle draw leave 1/8, 1/4, 1/2 and all of the speed.

    Air of 20 degrees keeps it below its throttle temperature up to 7 times its idle draw.

    Args:
        held: times its idle draw that it draws at least under load.
    """
    plain = made_type(name, memory_gib, idle_w, 9 * idle_w, speed, **speeds)
    return replace(
        plain,
        min_power_limit_w=2 * idle_w,
        max_power_limit_w=9 * idle_w,
        power_curve=PowerCurve(idle_w, 1.0, held * idle_w),
        throttle_temperature_c=INLET_C + 56.0,
        thermal_resistance_c_per_w=8.0 / idle_w,
        thermal_time_constant_s=5.0,
    )


# Powers of two: what they divide and multiply does not round.
SLOW = limited_type("slow", 10.0, 8.0, 0.5, 1, vision=0.25)
PLAIN = limited_type("plain", 40.0, 32.0, 1.0, 1)
FAST = limited_type("fast", 80.0, 64.0, 2.0, 3, language=4.0)
EXACT_TYPES = (SLOW, PLAIN, FAST)
ROUND = replace(PLAIN, name="round", speed=dict.fromkeys(JOB_CLASSES, 0.7), power_curve=PowerCurve(30.0, 1.7, 70.0))
TYPES = (*EXACT_TYPES, ROUND)
LIMITS = (None, 2, 3, 5, 9)  # times the idle draw

EXACT_SHARES = (0.5, 0.5, 0.75)  # no three on a GPU
EXACT_SHARING = (
    Interference(4.0),
    Interference(12.0),
    Interference(pairs=(("general", "general", 2.0), ("vision", "language", 4.0), ("language", "vision", 2.0))),
)
SHARING = (
    *EXACT_SHARING,
    Interference(0.7),
    Interference(pairs=(("general", "general", 1.3), ("general", "vision", 1.7), ("vision", "general", 1.1))),
)


def reference_type(group: NodeGroup) -> DynamicType:
    """The group's type, under its own limit, as the reference reads it."""
    card, limited, curve = group.gpu, group.limited_gpu, group.gpu.power_curve
    return DynamicType(
        name=card.name,
        memory_gib=card.memory_gib,
        idle_w=card.idle_power_w,
        max_w=limited.max_power_w,
        speed=limited.speed,
        natural_max_w=card.max_power_w,
        floor_w=curve.floor_w,
        exponent=curve.exponent,
        lowest_held_w=curve.lowest_held_w,
        min_limit_w=card.min_power_limit_w,
        max_limit_w=card.max_power_limit_w,
        throttle_c=card.throttle_temperature_c,
        resistance=card.thermal_resistance_c_per_w,
        time_constant_s=card.thermal_time_constant_s,
        own_limit_w=group.power_limit_w,
    )


def reference_cluster(cluster: ClusterSpec, placement: reference.Placement = "first") -> DetailedCluster:
    """The cluster, empty, as the reference keeps it."""
    groups = [
        Group(group.nodes, group.gpus_per_node, reference_type(group), dict(group.offers), group.racks)
        for group in cluster.groups
    ]
    assert cluster.reference is not None
    node_curve, rack_curve = (
        tuple(zip(curve.counts, curve.slowdowns, strict=True))
        for curve in (cluster.locality.nodes, cluster.locality.racks)
    )
    card = reference_type(NodeGroup(1, 1, cluster.reference))
    return DetailedCluster(groups, placement, card, node_curve, rack_curve)


def reference_dynamics(cluster: ClusterSpec, migration_cost: float) -> dynamic.Dynamics:
    """What may change on the cluster, as the reference reads it."""
    dynamics = cluster.dynamics
    sharing, faults = dynamics.interference, dynamics.faults
    times, units = faults.events(cluster.first_gpus, cluster.gpus)
    nothing = {(name, other): 1.0 for name in JOB_CLASSES for other in JOB_CLASSES}
    pairs = nothing | {(name, other): slowdown for name, other, slowdown in sharing.pairs}
    return dynamic.Dynamics(
        interference=sharing.coefficient,
        pairs=pairs if sharing.pairs else None,
        inlet_c=dynamics.inlet_temperature_c,
        failures=[
            (time, range(first, first + count), change > 0)
            for time, (first, count, change) in zip(times.tolist(), units.tolist(), strict=True)
        ],
        checkpoint_interval=faults.checkpoint_interval_s,
        checkpoint_cost=faults.checkpoint_cost_s,
        restart_cost=faults.restart_cost_s,
        reservations=[(spell.begin_s, spell.end_s, spell.nodes) for spell in dynamics.reservations],
        migration_cost=migration_cost,
    )


def dynamic_trace(jobs: Sequence[DynamicJob]) -> Trace:
    """The jobs, whose ids are their rows, as a trace; without requested times if these are infinite."""
    trace = detailed_trace([replace(job, requested=job.run) for job in jobs])
    edges = sorted((before, job.id) for job in jobs for before in job.after)
    requested = np.array([job.requested for job in jobs])
    absent = np.isinf(requested)
    return replace(
        trace,
        requested_time=np.where(absent, np.nan, requested),
        requested="absent" if absent.any() else trace.requested,
        after=np.array(edges, np.int64).reshape(-1, 2),
    )


@dataclass(frozen=True)
class Attempt:
    """What a policy tried at a decision point, before its order's pass, and whether it was possible."""

    decision: int
    action: Action
    possible: bool


@dataclass
class Record:
    """What the reference saw at its decision points."""

    times: list[float] = field(default_factory=list)
    temperatures: list[list[float]] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(frozen=True)
class DynamicCase:
    """Jobs in the order of submission, a cluster that can run each of them when all of it is up, and tries.

    `tries[i]` are made at decision point i: (kind, a number that chooses whom, a number that chooses what).
    """

    jobs: list[DynamicJob]
    cluster: ClusterSpec
    tries: tuple[tuple[tuple[str, int, int], ...], ...] = ()
    timing: Timing = field(default_factory=Timing)

    @property
    def trace(self) -> Trace:
        return dynamic_trace(self.jobs)

    def expected(
        self, order: str, blocking: reference.Blocking, placement: reference.Placement
    ) -> tuple[dynamic.DynamicResult, Record]:
        """What the reference says, and its way there."""
        record = Record()

        def decide(simulation: DynamicSimulation) -> None:
            decision = len(record.times)
            record.times.append(simulation.now)
            record.temperatures.append(list(simulation.cluster.temperature_c))
            for kind, whom, what in self.tries[decision] if decision < len(self.tries) else ():
                action = chosen_action(simulation, kind, whom, what)
                if action is not None:
                    record.attempts.append(Attempt(decision, action, is_done(simulation, action)))

        result = dynamic.simulate_dynamic(
            reference_cluster(self.cluster, placement),
            self.jobs,
            order,
            blocking,
            reference_dynamics(self.cluster, self.timing.migration_cost),
            self.timing.preemption_cost,
            self.timing.quantum,
            decide,
        )
        return result, record


def chosen_action(simulation: DynamicSimulation, kind: str, whom: int, what: int) -> Action | None:
    """The action that a try means now; None where there is nobody to act on."""
    cluster = simulation.cluster
    if kind == "limit":
        gpu = whom % len(cluster.node_of)
        times = LIMITS[what % len(LIMITS)]
        return SetPowerLimit(gpu, None if times is None else times * cluster.kind(gpu).idle_w)
    running = sorted(progress.job.id for progress in simulation.running)
    if not running:
        return None
    job = simulation.of[running[whom % len(running)]].job
    if kind == "preempt":
        return Preempt(job.id)
    if what % 3 == 0:
        return Migrate(job.id)
    if what % 3 == 1:  # any GPUs; mostly some that cannot be had
        count = min(max(job.demand // reference.WHOLE, 1), len(cluster.node_of))
        return Migrate(job.id, tuple(random.Random(what).sample(range(len(cluster.node_of)), count)))
    twin = simulation.without(job.id)
    twin.placement = "first" if twin.placement == "worst" else "worst"
    gpus = twin.find(job)
    return None if gpus is None else Migrate(job.id, tuple(gpus))


def is_done(simulation: DynamicSimulation, action: Action) -> bool:
    """Act in the reference; return False, with nothing changed, where that is not possible."""
    try:
        if isinstance(action, SetPowerLimit):
            simulation.set_limit(action.gpu, action.watts)
        elif isinstance(action, Preempt):
            simulation.preempt(action.job)
        else:
            assert isinstance(action, Migrate)
            simulation.migrate(action.job, action.gpus)
    except ValueError:
        return False
    return True


@st.composite
def node_groups(draw: st.DrawFn, types: Sequence[GpuType]) -> NodeGroup:
    nodes = draw(st.integers(1, 2))
    offers = {name: draw(st.sampled_from(amounts)) for name, amounts in OFFERS.items() if draw(st.integers(0, 5)) == 0}
    gpu = draw(st.sampled_from(types))
    limit = draw(st.sampled_from([None, None, None, 5.0, 9.0]))
    return NodeGroup(
        nodes, draw(st.integers(1, 3)), gpu, tuple(offers.items()), draw(st.integers(1, nodes)),
        None if limit is None else limit * gpu.idle_power_w,
    )  # fmt: skip


def moments(most: int) -> st.SearchStrategy[float]:
    """Times on which others often fall too."""
    return st.one_of(st.integers(0, most).map(float), st.integers(0, 8 * most).map(lambda n: n / 8))


@st.composite
def outages(draw: st.DrawFn, first_gpus: Sequence[int], gpus: int) -> tuple[Fault, Fault]:
    down = draw(moments(40))
    up = down + draw(moments(20)) + 0.125
    if draw(st.booleans()):
        first, count = draw(st.integers(0, gpus - 1)), 1
    else:
        node = draw(st.integers(0, len(first_gpus) - 1))
        first = first_gpus[node]
        count = [*first_gpus, gpus][node + 1] - first
    return Fault(down, first, count, True), Fault(up, first, count, False)


@st.composite
def reservations(draw: st.DrawFn, nodes: int) -> tuple[Reservation, ...]:
    """Up to 4, on one node or several; the next often begins as the last one ends."""
    drawn: list[Reservation] = []
    for _ in range(draw(st.integers(1, 4))):
        begin = drawn[-1].end_s if drawn and draw(st.integers(0, 3)) == 0 else draw(st.integers(0, 40))
        on = draw(st.lists(st.integers(0, nodes - 1), min_size=1, max_size=nodes, unique=True))
        drawn.append(Reservation(begin, begin + draw(st.integers(1, 25)), tuple(sorted(on))))
    return tuple(drawn)


@st.composite
def changes(draw: st.DrawFn, parts: Sequence[str], plain: ClusterSpec, exact: bool) -> Dynamics:
    interference, faults = Interference(), Faults()
    reserved: tuple[Reservation, ...] = ()
    if "sharing" in parts:
        interference = draw(st.sampled_from(EXACT_SHARING if exact else SHARING))
    if "failures" in parts:
        drawn = draw(st.lists(outages(plain.first_gpus, plain.gpus), min_size=1, max_size=5))
        interval, cost = draw(st.sampled_from([(0.0, 0.0), (0.0, 0.0), (2.0, 0.0), (0.5, 0.5), (4.0, 12.0)]))
        faults = Faults(
            schedule=tuple(fault for pair in drawn for fault in pair),
            checkpoint_interval_s=interval,
            checkpoint_cost_s=cost,
            restart_cost_s=draw(st.sampled_from([0.0, 1.5, 4.0])),
        )
    if "reservations" in parts:
        reserved = draw(reservations(plain.nodes))
    return Dynamics(interference, INLET_C if "heat" in parts else None, faults, reserved)


def with_dependencies(draw: st.DrawFn, jobs: list[DynamicJob]) -> list[DynamicJob]:
    """Let jobs come after others, which may be submitted later, in no circle."""
    ranks = draw(st.permutations(range(len(jobs))))
    linked = []
    for job in jobs:
        earlier = [other.id for other in jobs if ranks[other.id] < ranks[job.id]]
        after = draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True)) if earlier else []
        linked.append(replace(job, after=tuple(after)))
    return linked


@st.composite
def tries(draw: st.DrawFn, parts: Sequence[str]) -> tuple[tuple[tuple[str, int, int], ...], ...]:
    kinds = [*(["limit"] if "limits" in parts else []), *(["migrate", "migrate", "preempt"] * ("migrations" in parts))]
    if not kinds:
        return ()
    one = st.tuples(st.sampled_from(kinds), st.integers(0, 30), st.integers(0, 99))
    return tuple(tuple(some) for some in draw(st.lists(st.lists(one, max_size=3), min_size=1, max_size=15)))


@st.composite
def dynamic_cases(draw: st.DrawFn, parts: Sequence[str] | None = None, exact: bool = True) -> DynamicCase:
    """Up to 12 jobs; events often fall together.

    Args:
        parts: what changes; one of PARTS, or all of them, if None.
        exact: times, speeds and slowdowns whose sums and quotients do not round.
    """
    if parts is None:
        parts = draw(st.sampled_from([*((part,) for part in PARTS), PARTS, PARTS, PARTS]))
    types, curves = (EXACT_TYPES, EXACT_CURVES) if exact else (TYPES, CURVES)
    groups = tuple(draw(st.lists(node_groups(types), min_size=1, max_size=3)))
    locality = Locality(draw(st.sampled_from(curves)), draw(st.sampled_from(curves)))
    plain = ClusterSpec.of_groups(groups, draw(st.sampled_from([None, *types])), locality)
    cluster = plain.with_dynamics(draw(changes(parts, plain, exact)))
    empty = reference_cluster(cluster)
    gangs: st.SearchStrategy[float] = st.integers(1, min(cluster.gpus, 6)).map(float)
    shares = st.sampled_from(EXACT_SHARES if exact else SHARES)
    sizes = st.one_of(gangs, shares, shares) if "sharing" in parts else st.one_of(gangs, gangs, shares)
    gaps = st.sampled_from([0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 0.125 if exact else 0.3, 15.0])
    jobs: list[DynamicJob] = []
    now = draw(st.sampled_from([0.0, 0.0, 7.5, 20.0]))
    for _ in range(draw(st.integers(1, 13))):
        now += draw(gaps)
        run = draw(seconds(exact))
        requested = run if draw(st.booleans()) else draw(seconds(exact))
        wishes: dict[str, Any] = draw(job_wishes(sizes)) | {"job_class": draw(st.sampled_from(CLASSES)), "types": ()}
        job = DynamicJob(len(jobs), now, run, requested, **wishes)
        if empty.find(job) is not None:
            jobs.append(job)
    jobs = jobs or [DynamicJob(0, now, 5.0, 5.0, 1.0)]
    if "dependencies" in parts:
        jobs = with_dependencies(draw, jobs)
    timing = Timing(
        preemption_cost=draw(st.sampled_from([0.0, 0.0, 1.5, 4.0])),
        quantum=draw(st.sampled_from([0.0, 0.0, 2.0, 5.5])),
        migration_cost=draw(st.sampled_from([0.0, 1.0, 2.5])),
    )
    return DynamicCase(jobs, cluster, draw(tries(parts)), timing)


def without_requested_times(case: DynamicCase) -> DynamicCase:
    """The same jobs; how long they will take nobody knows."""
    return replace(case, jobs=[replace(job, requested=math.inf) for job in case.jobs])
