"""Preemptive scheduling: running jobs are ordered with the waiting ones and the cluster is filled anew."""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.geometry import milli_up
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import njit, njit_allocating
from lepton_rl.core.placement import place
from lepton_rl.core.progress import end_run, predicted_end
from lepton_rl.simulator.blocking import HEAD
from lepton_rl.simulator.ends import drop_prediction
from lepton_rl.simulator.reservations import free_but_reserved, has_reservations
from lepton_rl.simulator.scores import running_score, score
from lepton_rl.simulator.starting import begin
from lepton_rl.simulator.waiting import find, insert, remove


@njit
def _stop(
    jobs: Floats, job: int, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, preempted: Ints32, clock: Floats, counts: Ints64, rules: Ints64, settings: Floats,
) -> None:  # fmt: skip
    """Take a running job off its GPUs; it waits again and keeps its progress."""
    if rules[L.PREDICTS]:
        drop_prediction(run_end, run_job, counts[L.RUNNING], predicted_end(jobs, job, hw), job)
    end_run(jobs, job, settings[L.PREEMPTION_COST], clock[L.NOW], gpus, nodes, bits, totals, hw)
    jobs[job, L.SCORE] = score(rules[L.ORDER], settings, jobs, job, clock[L.NOW])
    counts[L.RUNNING] -= 1
    counts[L.RELEASED] = 1
    preempted[counts[L.PREEMPTED]] = job
    counts[L.PREEMPTED] += 1


@njit_allocating
def fill_anew(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, started: Ints32, preempted: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
    settings: Floats,
) -> None:  # fmt: skip
    """Choose by count, from an empty cluster, among running and waiting jobs; preempt and start what follows.

    Runs younger than the quantum go before all others. Chosen running jobs keep their GPUs.
    """
    now = clock[L.NOW]
    order = rules[L.ORDER]
    front = counts[L.FRONT]
    waiting = counts[L.BACK] - front
    running = counts[L.RUNNING]
    left = milli_up(gpus, totals, hw)
    if has_reservations(hw):
        left -= free_but_reserved(gpus, nodes, hw)
    candidates = np.empty(waiting + running, np.int64)
    scores = np.empty(waiting + running)
    for index in range(waiting):
        candidates[index] = queue[front + index]
    for index in range(running):
        candidates[waiting + index] = run_job[L.TRUE_ENDS, index]
    candidates.sort()
    for index in range(waiting + running):
        job = candidates[index]
        if jobs[job, L.FIRST_GPU] < 0:
            scores[index] = jobs[job, L.SCORE]
        elif now - jobs[job, L.START] < settings[L.QUANTUM]:
            scores[index] = -np.inf
        else:
            scores[index] = running_score(order, settings, jobs, job, now, hw)
    ranked = np.argsort(scores, kind="mergesort")
    chosen = 0
    full = False
    for index in ranked:
        job = candidates[index]
        if not full and jobs[job, L.GPUS] <= left:
            left -= int(jobs[job, L.GPUS])
            if jobs[job, L.FIRST_GPU] < 0:
                candidates[index] = -1 - job
                chosen += 1
        else:
            full = full or rules[L.BLOCKING] == HEAD
            if jobs[job, L.FIRST_GPU] >= 0:
                _stop(
                    jobs, job, queue, run_end, run_job, gpus, nodes, bits, totals, hw, preempted, clock, counts,
                    rules, settings,
                )  # fmt: skip
    if chosen == 0 and counts[L.PREEMPTED] == 0:
        return
    open_to_start = True
    for index in ranked:
        if candidates[index] < 0 and open_to_start:
            job = -1 - candidates[index]
            if place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals, hw):
                position = find(jobs, queue, counts, job)
                remove(queue, counts, position)
                begin(jobs, job, hw, run_end, run_job, started, clock, counts, rules)
            elif rules[L.BLOCKING] == HEAD:
                open_to_start = False
    for index in range(counts[L.PREEMPTED]):
        insert(jobs, queue, counts, preempted[index])
