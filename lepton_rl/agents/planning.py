"""Plans over one snapshot: an order of starts becomes start times, predicted from requested times.

A plan starts jobs strictly in its order, each as soon as the one before it has started and its GPUs are
free. For gangs of whole GPUs every schedule is reached so: run its jobs in the order of their starts and
none starts later. So the orders of starts hold the schedules of skipping, backfilling and reserving policies
too.
"""

from dataclasses import dataclass

import numpy as np

from lepton_rl.agents.plan_kernels import NOW, improve, place_now, plan_cost, starts_of_rule
from lepton_rl.core import Snapshot
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.simulator import Rule, Timing


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
    hw: Hardware
    begin: Floats  # (running + window,): planned starts, scratch
    seen: Ints64  # (nodes,): scratch
    options: Floats  # (OPTION_COLUMNS,)

    @classmethod
    def of(
        cls, snapshot: Snapshot, window: int, jct_weight: float, node_weight: float, slowdown_weight: float = 1.0
    ) -> "Horizon":
        """Return the horizon of the `window` waiting jobs of smallest predicted area (GPUs x time)."""
        running = snapshot.running_count
        rows = np.arange(running, len(snapshot.jobs))
        if len(rows) > window:
            area = snapshot.jobs[rows, L.GPUS] * snapshot.jobs[rows, L.PREDICTED]
            rows = np.sort(rows[np.argsort(area, kind="stable")[:window]])
        jobs = snapshot.jobs[np.concatenate((np.arange(running), rows))]
        ends = predicted_ends(jobs[:running], snapshot.time, snapshot.hw)
        by_end = np.argsort(ends, kind="stable")
        placing = snapshot.hw is not None or len(snapshot.nodes) > 1 or bool((jobs[running:, L.GPUS] < L.MILLI).any())
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
            gpus=snapshot.gpus.copy(),  # kernels are compiled for writeable arrays
            nodes=snapshot.nodes.copy(),
            bits=snapshot.bits.copy(),
            totals=snapshot.totals.copy(),
            hw=snapshot.hw,
            begin=np.zeros(len(jobs)),
            seen=np.zeros(len(snapshot.nodes), np.int64),
            options=np.array((snapshot.time, jct_weight, node_weight, slowdown_weight)),
        )

    @property
    def waiting(self) -> int:
        """Jobs to plan."""
        return len(self.jobs) - self.running


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


def start_order(horizon: Horizon, rule: Rule, skip: bool) -> Ints64:
    """Return the window's jobs in the order in which the rule would start them if nothing else arrived."""
    _, settings = rule.arrays(True, Timing())
    h = horizon
    sequence = np.zeros(h.waiting, np.int64)
    capacity = float(L.MILLI * len(h.gpus))
    starts_of_rule(
        int(rule.order), skip, settings, h.jobs, h.running, h.run_end, h.run_job, capacity,
        float(h.totals[L.HELD]), float(h.options[NOW]), h.hw, sequence,
    )  # fmt: skip
    return sequence


def improve_plans(
    horizon: Horizon, orders: Ints64, placements: Ints64, moves: int, replacing: bool, state: Words
) -> Floats:
    """Improve the plans in place (rows of both arrays) and return their costs."""
    costs = np.empty(len(orders))
    h = horizon
    improve(
        orders, placements, costs, moves, replacing and h.placing, state, h.jobs, h.running, h.placing,
        h.run_end, h.run_job, h.gpus, h.nodes, h.bits, h.totals, h.hw, h.begin, h.seen, h.options,
    )  # fmt: skip
    return costs


def plan_starts(horizon: Horizon, order: Ints64, placements: Ints64) -> tuple[float, Floats]:
    """Return the plan's cost and the planned start of each job of the window, seconds."""
    h = horizon
    cost = plan_cost(
        order[None], placements[None], 0, h.jobs, h.running, h.placing, h.run_end, h.run_job, h.gpus, h.nodes,
        h.bits, h.totals, h.hw, h.begin, h.seen, h.options, np.inf,
    )  # fmt: skip
    return float(cost), h.begin[h.running :].copy()


def starts_now(horizon: Horizon, rows: Ints64, rules: Ints64) -> tuple[Ints64, Ints64]:
    """Return which of these rows fit now, one after the other, and their GPUs behind each other."""
    h = horizon
    started = np.empty(len(rows), np.int64)
    held = np.empty(len(h.gpus) + len(rows), np.int64)
    count = place_now(rows, rules, h.jobs, h.gpus, h.nodes, h.bits, h.totals, h.hw, started, held)
    return started[:count], held
