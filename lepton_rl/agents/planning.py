"""Plans over one snapshot: an order of starts becomes start times, predicted from requested times.

A plan starts jobs strictly in its order, each as soon as the one before it has started and its GPUs are
free. For gangs of whole GPUs every schedule is reached so: run its jobs in the order of their starts and
none starts later. So the orders of starts hold the schedules of skipping, backfilling and reserving policies
too.
"""

from dataclasses import dataclass, replace

import numpy as np

from lepton_rl.agents.cheapest import rent_pairs, split_by_rent
from lepton_rl.agents.least_cost import NO_HOURS, added_watts
from lepton_rl.agents.node_scores import tables_for
from lepton_rl.agents.ordered import Trial
from lepton_rl.agents.plan_choices import ENERGY, ON_KIND, Kinds, KindTables, choices, fill_kinds
from lepton_rl.agents.plan_kernels import (
    BEGIN,
    END,
    NOW,
    PLANNED_ROWS,
    improve,
    place_now,
    plan_cost,
    starts_of_rules,
)
from lepton_rl.core import Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.cluster import MAX_TYPES, ClusterSpec
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.units import JOULES_PER_KWH, SECONDS_PER_HOUR

OUTRUN_S = 1.0
"""Planned for a waiting job that had outrun its requested time when it was struck or preempted."""


@dataclass(frozen=True, slots=True)
class CostWeights:
    """What a plan's cost counts, in bounded slowdowns: of an hour of completion time, an extra node, a kWh."""

    jct: float
    node: float
    slowdown: float
    energy: float


@dataclass(frozen=True, slots=True)
class Planned:
    """What a plan promises for the window: when each job starts (window,), and the two objectives of a front."""

    cost: float
    begin: Floats  # seconds
    mean_jct: float  # seconds
    energy_kwh: float  # above the draw of idle GPUs


@dataclass(frozen=True, eq=False)
class Horizon:
    """What is planned: running jobs with predicted ends, and a window of the queue; scratch beside it."""

    jobs: Floats  # (running + window, JOB_COLUMNS)
    running: int
    placing: bool  # whether it matters which GPUs a job gets: several nodes, what they offer, or shares
    run_end: Floats  # (2, running + window): scratch heap; predicted ends of the running jobs, ascending
    run_job: Ints32  # (2, running + window): their rows
    gpus: Ints32  # (GPUs, GPU_COLUMNS)
    nodes: Ints32  # (nodes, NODE_COLUMNS)
    bits: Words  # (nodes, words)
    totals: Ints64  # (TOTAL_COLUMNS,)
    hw: Hardware  # by kind of GPU
    kinds: Kinds  # None on equal nodes
    kind_names: tuple[str, ...]
    watts: float  # what a busy GPU adds on equal nodes
    planned: Floats  # (PLANNED_ROWS, running + window): scratch
    seen: Ints64  # (nodes,): scratch
    options: Floats  # (OPTION_COLUMNS,)

    @classmethod
    def of(cls, snapshot: Snapshot, window: int, weights: CostWeights) -> "Horizon":
        """Return the horizon of the `window` waiting jobs of smallest predicted area (GPUs x time)."""
        running = snapshot.running_count
        rows = np.arange(running, len(snapshot.jobs))
        if len(rows) > window:
            area = snapshot.jobs[rows, L.GPUS] * snapshot.jobs[rows, L.PREDICTED]
            rows = np.sort(rows[np.argsort(area, kind="stable")[:window]])
        return cls._of_rows(snapshot, rows, weights)

    @classmethod
    def _of_rows(cls, snapshot: Snapshot, rows: Ints64, weights: CostWeights) -> "Horizon":
        running = snapshot.running_count
        trial = Trial.of(snapshot)
        trial = replace(trial, jobs=trial.jobs[np.concatenate((np.arange(running), rows))])
        left = trial.jobs[running:, L.PREDICTED]
        left[left <= 0] = OUTRUN_S
        kinds = None
        if trial.hw is not None:
            trial, kinds = _with_kinds(snapshot, trial)
            fits = kinds.rates[running:].any(axis=1)
            if not fits.all():  # not even on the emptied cluster: its GPUs are down, or reserved too soon
                return cls._of_rows(snapshot, rows[fits], weights)
        jobs = trial.jobs
        ends = predicted_ends(jobs[:running], snapshot.time, trial.hw)
        by_end = np.argsort(ends, kind="stable")
        placing = trial.hw is not None or len(snapshot.nodes) > 1 or bool((jobs[running:, L.GPUS] < L.MILLI).any())
        run_end = np.zeros((2, len(jobs)))
        run_job = np.zeros((3, len(jobs)), np.int32)
        run_end[1, :running] = ends[by_end]
        run_job[1, :running] = by_end
        return cls(
            jobs=jobs,
            running=running,
            placing=placing,
            run_end=run_end,
            run_job=run_job,
            gpus=trial.gpus,
            nodes=trial.nodes,
            bits=trial.bits,
            totals=trial.totals,
            hw=trial.hw,
            kinds=kinds,
            kind_names=kind_names(snapshot.cluster),
            watts=snapshot.cluster.max_power_w - snapshot.cluster.idle_power_w,
            planned=np.zeros((PLANNED_ROWS, len(jobs))),
            seen=np.zeros(len(snapshot.nodes), np.int64),
            options=_options(snapshot.time, weights),
        )

    @property
    def waiting(self) -> int:
        """Jobs to plan."""
        return len(self.jobs) - self.running

    @property
    def choices(self) -> int:
        """Choices of GPUs that a job has (`plan_choices`)."""
        return int(choices(self.kinds))

    @property
    def chooses_kinds(self) -> bool:
        """Whether there are kinds of GPU to choose between."""
        return self.choices > ON_KIND

    def weighted(self, weights: CostWeights) -> "Horizon":
        """Return this horizon, scratch and all, with other weights of the cost."""
        return replace(self, options=_options(float(self.options[NOW]), weights))


def _options(now: float, weights: CostWeights) -> Floats:
    return np.array((now, weights.jct, weights.node, weights.slowdown, weights.energy))


def kinds_of(cluster: ClusterSpec) -> list[tuple[str, float]]:
    """Return the kinds of GPU of a cluster: type and rent, USD per hour, infinity where it is not known.

    Rents are not told apart where the kinds would be more than MAX_TYPES.
    """
    kinds = [(cluster.types[kind].name, rent) for kind, rent in rent_pairs(cluster)]
    return kinds if len(kinds) <= MAX_TYPES else [(kind.name, np.inf) for kind in cluster.types]


def kind_names(cluster: ClusterSpec) -> tuple[str, ...]:
    """Return what the kinds of GPU are called: their type, with the rent where a type has several."""
    kinds = kinds_of(cluster)
    types = [name for name, _ in kinds]
    return tuple(name if types.count(name) == 1 else f"{name} at {rent:g} USD/h" for name, rent in kinds)


def _with_kinds(snapshot: Snapshot, trial: Trial) -> tuple[Trial, KindTables]:
    """Return the trial by kinds of GPU, and what choosing them looks up."""
    rent = np.array([rent for _, rent in kinds_of(snapshot.cluster)])
    if len(rent) == len(rent_pairs(snapshot.cluster)):
        trial = split_by_rent(snapshot.cluster, trial)
    assert trial.hw is not None
    watts, rows = added_watts(trial.hw), len(trial.jobs)
    kinds = KindTables(
        rates=np.zeros((rows, len(rent) + 1)),
        costs=np.stack((watts, rent / SECONDS_PER_HOUR, watts)),
        hours=trial.hw.carbon,
        no_hours=NO_HOURS,
        free=np.zeros((2, len(rent)), np.int64),
        held=np.zeros((rows, len(rent)), np.int64),
        scores=tables_for(snapshot.cluster),
    )
    emptied = (trial.gpus.copy(), trial.nodes.copy(), trial.bits.copy(), trial.totals.copy())
    fill_kinds(trial.jobs, snapshot.running_count, *emptied, trial.hw, kinds)
    return trial, kinds


def predicted_ends(running: Floats, now: float, hw: Hardware = None) -> Floats:
    """Return when the running jobs (layout.JOB_COLUMNS) are expected to end, seconds, later than now.

    A job that has outrun its prediction is given twice as long, again and again, as expired predictions are
    raised by growing steps in Tsafrir et al., IEEE TPDS 2007.
    """
    predicted = np.maximum(running[:, L.PREDICTED] if hw is None else running[:, L.PREDICTED] / running[:, L.RATE], 1.0)
    since = running[:, L.START if hw is None else L.SINCE]
    served = now - since
    overrun = np.maximum(served / predicted, 0.5)
    doublings = np.floor(np.log2(overrun)) + 1.0  # 0 before the predicted end, 1 from it on
    ends: Floats = since + predicted * 2.0 ** np.maximum(doublings, 0.0)
    return np.maximum(ends, np.nextafter(now, np.inf))


def start_orders(horizon: Horizon, rules: Ints64, settings: Floats, chosen: Ints64) -> Ints64:
    """Return the window's jobs in the orders in which rules would start them if nothing else arrived.

    Args:
        horizon: what is planned.
        rules: (rules,), each an `Order`.
        settings: (rules, SETTING_COLUMNS) of each.
        chosen: (choices, window): choices of GPUs, each of which goes with every rule.

    Returns:
        (choices x rules x 2, window): for each choice and rule, blocking head and then skip.
    """
    h = horizon
    sequences = np.zeros((len(chosen) * len(rules) * 2, h.waiting), np.int64)
    starts_of_rules(
        rules, settings, chosen, h.jobs, h.running, h.run_end, h.run_job, h.gpus, h.nodes, h.bits, h.totals, h.hw,
        h.kinds, float(h.options[NOW]), sequences,
    )  # fmt: skip
    return sequences


def improve_plans(
    horizon: Horizon, orders: Ints64, chosen: Ints64, moves: int, replacing: bool, state: Words
) -> Floats:
    """Improve the plans in place (rows of both arrays) and return their costs."""
    costs = np.empty(len(orders))
    h = horizon
    improve(
        orders, chosen, costs, moves, replacing and h.placing, state, h.jobs, h.running, h.placing, h.run_end,
        h.run_job, h.gpus, h.nodes, h.bits, h.totals, h.hw, h.kinds, h.planned, h.seen, h.options,
    )  # fmt: skip
    return costs


def plan_starts(horizon: Horizon, order: Ints64, chosen: Ints64) -> Planned:
    """Return what the plan promises."""
    h = horizon
    cost = plan_cost(
        order[None], chosen[None], 0, h.jobs, h.running, h.placing, h.run_end, h.run_job, h.gpus, h.nodes,
        h.bits, h.totals, h.hw, h.kinds, h.planned, h.seen, h.options, np.inf,
    )  # fmt: skip
    begin, end = h.planned[BEGIN, h.running :].copy(), h.planned[END, h.running :]
    if h.kinds is None:
        watts = h.watts * h.jobs[h.running :, L.GPUS] / L.MILLI
    else:
        watts = h.kinds.held[h.running :] @ h.kinds.costs[ENERGY] / L.MILLI
    return Planned(
        cost=float(cost),
        begin=begin,
        mean_jct=float((end - h.jobs[h.running :, L.SUBMIT]).mean()),
        energy_kwh=float((watts * (end - begin)).sum() / JOULES_PER_KWH),
    )


def starts_now(horizon: Horizon, rows: Ints64, chosen: Ints64) -> tuple[Ints64, Ints64]:
    """Return which of these rows fit now, one after the other, and their GPUs behind each other."""
    h = horizon
    started = np.empty(len(rows), np.int64)
    held = np.empty(len(h.gpus) + len(rows), np.int64)
    count = place_now(
        rows, chosen, float(h.options[NOW]), h.jobs, h.gpus, h.nodes, h.bits, h.totals, h.hw, h.kinds, started, held
    )
    return started[:count], held
