"""One scheduling pass: which waiting jobs start now, under an order, a blocking rule and a placement.

A pass knows only what a scheduler can know (never true run times), so the same functions serve the simulator's
whole-trace run and a policy's `decide` on a snapshot. It holds GPUs, moves jobs out of the queue and lists them in
`started` and `preempted`; the driver then does the simulator's own part (true ends).

Nothing is decided for later: what a pass remembers (`HEAD`, `SHADOW`, `EXTRA`, `TESTED`, `RELEASED`) only saves it
from testing again jobs that cannot have become startable.
"""

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import njit
from lepton_rl.core.placement import place
from lepton_rl.simulator.backfilling import backfill_easy, start_reserved
from lepton_rl.simulator.blocking import CONSERVATIVE, EASY, SKIP
from lepton_rl.simulator.preemption import fill_anew
from lepton_rl.simulator.scores import score
from lepton_rl.simulator.starting import begin, begin_at, has_room, only_new_jobs
from lepton_rl.simulator.waiting import find, reorder


@njit
def _start_heads(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, started: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
) -> bool:  # fmt: skip
    """Start jobs in order up to the first that does not fit; return whether any started."""
    any_started = False
    while counts[L.FRONT] < counts[L.BACK]:
        job = queue[counts[L.FRONT]]
        if not has_room(jobs, job, totals, gpus, hw):
            break
        if not place(rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals, hw):
            break
        counts[L.FRONT] += 1
        begin(jobs, job, hw, run_end, run_job, started, clock, counts, rules)
        any_started = True
    return any_started


@njit
def _start_any(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, started: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Start every job that fits, in order."""
    capacity = L.MILLI * gpus.shape[0]
    position = counts[L.FRONT]
    left = counts[L.BACK] - position
    if only_new_jobs(counts, rules):
        if counts[L.ARRIVED] == counts[L.TESTED]:
            return
        position = find(jobs, queue, counts, counts[L.ARRIVED] - 1)
        left = 1
    while left > 0 and totals[L.HELD] < capacity:
        left -= 1
        job = queue[position]
        if has_room(jobs, job, totals, gpus, hw) and place(
            rules[L.PLACEMENT], jobs, job, gpus, nodes, bits, totals, hw
        ):
            position = begin_at(position, jobs, queue, hw, run_end, run_job, started, clock, counts, rules)
        else:
            position += 1


@njit
def scheduling_pass(
    jobs: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, bits: Words,
    totals: Ints64, hw: Hardware, ahead_gpus: Ints32, ahead_nodes: Ints32, ahead_bits: Words, ahead_totals: Ints64,
    started: Ints32, preempted: Ints32, clock: Floats, counts: Ints64, rules: Ints64, settings: Floats,
) -> None:  # fmt: skip
    """Decide once, now: fill `started` and `preempted` (counts[STARTED], counts[PREEMPTED]).

    The four `ahead_` arrays are room for the cluster as it will be when a blocked head can start.
    """
    counts[L.STARTED] = 0
    counts[L.PREEMPTED] = 0
    if counts[L.FRONT] < counts[L.BACK]:
        if rules[L.PREEMPTIVE]:
            fill_anew(
                jobs, queue, run_end, run_job, gpus, nodes, bits, totals, hw, started, preempted, clock, counts,
                rules, settings,
            )  # fmt: skip
        else:
            if rules[L.DYNAMIC]:
                for position in range(counts[L.FRONT], counts[L.BACK]):
                    job = queue[position]
                    jobs[job, L.SCORE] = score(rules[L.ORDER], settings, jobs, job, clock[L.NOW])
                reorder(jobs, queue, counts)
            if rules[L.BLOCKING] == SKIP:
                _start_any(jobs, queue, run_end, run_job, gpus, nodes, bits, totals, hw, started, clock, counts, rules)
            elif rules[L.BLOCKING] == CONSERVATIVE:
                start_reserved(
                    jobs, queue, run_end, run_job, gpus, nodes, bits, totals, hw, started, clock, counts, rules
                )
            else:
                if _start_heads(
                    jobs, queue, run_end, run_job, gpus, nodes, bits, totals, hw, started, clock, counts, rules
                ):
                    counts[L.HEAD] = -1
                if rules[L.BLOCKING] == EASY and counts[L.FRONT] < counts[L.BACK]:
                    backfill_easy(
                        jobs, queue, run_end, run_job, gpus, nodes, bits, totals, hw, ahead_gpus, ahead_nodes,
                        ahead_bits, ahead_totals, started, clock, counts, rules,
                    )  # fmt: skip
    counts[L.TESTED] = counts[L.ARRIVED]
    counts[L.RELEASED] = 0
