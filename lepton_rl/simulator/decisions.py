"""A compiled rule as decisions on a snapshot: the same scheduling pass, one instant at a time."""

from functools import lru_cache

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action, Preempt, Start
from lepton_rl.core.allocation import held_gpus
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import njit_allocating
from lepton_rl.core.progress import predicted_end
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.simulator.ends import add_prediction
from lepton_rl.simulator.passes import scheduling_pass
from lepton_rl.simulator.rules import Rule, Timing
from lepton_rl.simulator.scores import margin, score
from lepton_rl.simulator.waiting import insert


@njit_allocating
def _pass_on_snapshot(
    jobs: Floats, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, ahead_gpus: Ints32,
    ahead_nodes: Ints32, ahead_bits: Words, ahead_totals: Ints64, now: float, rules: Ints64, settings: Floats,
    started: Ints32, preempted: Ints32, held: Ints64,
) -> tuple[int, int]:  # fmt: skip
    """Run one pass; list started and preempted rows, and the GPUs of the started ones behind each other in `held`."""
    total = jobs.shape[0]
    queue = np.empty(total, np.int32)
    run_end = np.empty((2, total))
    run_job = np.empty((3, total), np.int32)
    clock = np.zeros(L.CLOCK_COLUMNS)
    clock[L.NOW] = now
    counts = np.zeros(L.COUNT_COLUMNS, np.int64)
    counts[L.HEAD] = -1
    counts[L.RELEASED] = 1
    counts[L.ARRIVED] = total
    for row in range(total):
        if jobs[row, L.FIRST_GPU] >= 0:
            running = counts[L.RUNNING]
            run_job[L.TRUE_ENDS, running] = row
            if rules[L.PREDICTS]:
                add_prediction(jobs, run_end, run_job, running, predicted_end(jobs, row, hw), row)
            counts[L.RUNNING] += 1
        else:
            jobs[row, L.SCORE] = score(rules[L.ORDER], settings, jobs, row, now)
            jobs[row, L.MARGIN] = margin(settings, jobs, row, gpus.shape[0])
            insert(jobs, queue, counts, row)
    scheduling_pass(
        jobs, queue, run_end, run_job, gpus, nodes, bits, totals, hw, ahead_gpus, ahead_nodes, ahead_bits, ahead_totals,
        started, preempted, clock, counts, rules, settings,
    )  # fmt: skip
    offset = 0
    for index in range(counts[L.STARTED]):
        offset += held_gpus(jobs, started[index], gpus, held[offset:])
    return int(counts[L.STARTED]), int(counts[L.PREEMPTED])


@lru_cache(maxsize=256)
def _rule_arrays(rule: Rule, counted: bool, restart_cost: float, quantum: float) -> tuple[Ints64, Floats]:
    """Return what a rule is to compiled functions, which only read it: making it costs a third of a decision."""
    return rule.arrays(counted, Timing(restart_cost, quantum))


def decide(snapshot: Snapshot, rule: Rule) -> list[Action]:
    """Return what one scheduling pass of `rule` does now: preemptions first, then starts with their GPUs."""
    total = len(snapshot.jobs)
    if total == snapshot.running_count:
        return []
    # Ties go to the earlier submission, also between waiting and running jobs: rows stand in that order.
    jobs = snapshot.jobs[np.argsort(snapshot.jobs[:, L.ID])]
    whole = bool((jobs[:, L.GPUS] >= L.MILLI).all())
    rules, settings = _rule_arrays(rule, whole and snapshot.hw is None, snapshot.restart_cost, snapshot.quantum)
    started = np.empty(total, np.int32)
    preempted = np.empty(total, np.int32)
    held = np.empty(len(snapshot.gpus) + total, np.int64)
    starts, stops = _pass_on_snapshot(
        jobs, snapshot.gpus.copy(), snapshot.nodes.copy(), snapshot.bits.copy(), snapshot.totals.copy(), snapshot.hw,
        snapshot.gpus.copy(), snapshot.nodes.copy(), snapshot.bits.copy(), snapshot.totals.copy(), snapshot.time,
        rules, settings, started, preempted, held,
    )  # fmt: skip
    names = jobs[:, L.ID].astype(np.int64)
    actions: list[Action] = [Preempt(int(names[row])) for row in preempted[:stops]]
    offset = 0
    for row in started[:starts]:
        count = max(int(jobs[row, L.GPUS]) // L.MILLI, 1)
        actions.append(Start(int(names[row]), tuple(held[offset : offset + count].tolist())))
        offset += count
    return actions
