"""Stopping running jobs: by a decision, or because a GPU failed."""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import holds
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.marks import unlist_job
from lepton_rl.core.outages import bring_back, take_down
from lepton_rl.core.progress import end_run, predicted_end
from lepton_rl.simulator.ends import drop_prediction, remove_end
from lepton_rl.simulator.rates import tell_change
from lepton_rl.simulator.scores import score
from lepton_rl.simulator.waiting import insert


@inlined
def leave(
    jobs: Floats, job: int, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64,
) -> float:  # fmt: skip
    """Take a running job off its GPUs; what it was served since its rate was set counts as attained. Return that."""
    if rules[L.PREDICTS]:
        drop_prediction(run_end, run_job, counts[L.RUNNING], predicted_end(jobs, job, hw), job)
    counts[L.RUNNING] -= 1
    counts[L.RELEASED] = 1
    unlist_job(jobs, job, gpus, hw)
    return end_run(jobs, job, 0.0, clock[L.NOW], gpus, nodes, bits, totals, hw)


@inlined
def _strike(
    jobs: Floats, truth: Floats, job: int, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32,
    nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64,
    settings: Floats,
) -> None:  # fmt: skip
    """A running job loses a GPU: it goes back to its last checkpoint and waits again."""
    if hw is None:
        return
    remove_end(run_end, run_job, counts[L.RUNNING], job)
    truth[job, L.REMAINING] -= leave(jobs, job, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules)
    service = jobs[job, L.ATTAINED] - jobs[job, L.BEFORE]
    kept = 0.0
    if hw.checkpoint_interval > 0.0:
        kept = np.floor(service / hw.checkpoint_interval) * hw.checkpoint_interval
    owed = service - kept + hw.restart_cost
    truth[job, L.REMAINING] += owed
    truth[job, L.STRIKES] += 1.0
    truth[job, L.LOST] += service - kept
    truth[job, L.END] = np.inf
    jobs[job, L.PREDICTED] += owed
    jobs[job, L.ATTAINED] = jobs[job, L.BEFORE] + kept
    jobs[job, L.SCORE] = score(rules[L.ORDER], settings, jobs, job, clock[L.NOW])
    insert(jobs, queue, counts, job)
    tell_change(truth, job, run_job, counts)


@njit
def fail_and_repair(
    jobs: Floats, truth: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32,
    bits: Words, totals: Ints64, hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64, settings: Floats,
) -> None:  # fmt: skip
    """Let GPUs fail and come back that are due by now."""
    if hw is None:
        return
    while counts[L.FAULT] < hw.fault_time.shape[0] and hw.fault_time[counts[L.FAULT]] <= clock[L.NOW]:
        first = int(hw.fault_gpus[counts[L.FAULT], 0])
        count = int(hw.fault_gpus[counts[L.FAULT], 1])
        down = hw.fault_gpus[counts[L.FAULT], 2] > 0
        counts[L.FAULT] += 1
        place = 0
        while down and place < counts[L.RUNNING]:
            job = run_job[L.TRUE_ENDS, place]
            place += 1
            if holds(jobs, job, gpus, first, count):
                _strike(
                    jobs, truth, job, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules,
                    settings,
                )  # fmt: skip
                place = 0  # the heap is another one now
        for gpu in range(first, first + count):
            if down:
                take_down(gpu, gpus, nodes, bits, totals, hw)
            elif bring_back(gpu, gpus, nodes, bits, totals, hw):
                counts[L.RELEASED] = 1
                counts[L.GREW] = 1
