"""Power control: a compiled rule schedules between two settings of power limits, and everything is charged."""

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import njit
from lepton_rl.core.power import set_limit
from lepton_rl.envs.batch_kernel import (
    WAITING,
    WAITING_RATE,
    charge_changes,
    charge_start,
    clear_waiting,
    pay_to_next_event,
)
from lepton_rl.simulator.events import forget_true_end, is_anything_left, set_true_end
from lepton_rl.simulator.passes import scheduling_pass
from lepton_rl.simulator.rates import change_rates, tell_change


@njit
def set_limits(limits_mw: Ints64, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware) -> None:
    """Give each GPU a power limit, milliwatts, shape (GPUs,)."""
    for gpu in range(gpus.shape[0]):
        if gpus[gpu, L.LIMIT] != limits_mw[gpu]:
            set_limit(gpu, limits_mw[gpu], gpus, nodes, totals, hw)


@njit
def run_interval(
    jobs: Floats, truth: Floats, prices: Floats, queue: Ints32, run_end: Floats, run_job: Ints32, gpus: Ints32,
    nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware, ahead_gpus: Ints32, ahead_nodes: Ints32,
    ahead_bits: Words, ahead_totals: Ints64, started: Ints32, preempted: Ints32, clock: Floats, counts: Ints64,
    rules: Ints64, settings: Floats, tally: Floats,
) -> tuple[bool, float]:  # fmt: skip
    """Run a compiled rule until the next timer event, or until all jobs have finished.

    Returns whether anything is left to run, and what the time cost.
    """
    change_rates(jobs, truth, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules)
    cost = charge_changes(jobs, truth, prices, run_job, hw, clock, counts, tally)
    tick = clock[L.TIMER]
    while is_anything_left(jobs, counts) and clock[L.TIMER] == tick:
        moved, price = pay_to_next_event(
            jobs, truth, prices, queue, run_end, run_job, gpus, nodes, bits, totals, hw, clock, counts, rules, settings,
            tally,
        )  # fmt: skip
        if not moved:
            return False, cost
        cost += price
        scheduling_pass(
            jobs, queue, run_end, run_job, gpus, nodes, bits, totals, hw, ahead_gpus, ahead_nodes, ahead_bits,
            ahead_totals, started, preempted, clock, counts, rules, settings,
        )  # fmt: skip
        size = counts[L.RUNNING] - counts[L.STARTED] + counts[L.PREEMPTED]
        for index in range(counts[L.PREEMPTED]):
            forget_true_end(jobs, truth, preempted[index], gpus, hw, run_end, run_job, size, clock, settings)
            tell_change(truth, preempted[index], run_job, counts)
            size -= 1
        cost += charge_changes(jobs, truth, prices, run_job, hw, clock, counts, tally)
        for index in range(counts[L.STARTED]):
            job = started[index]
            set_true_end(jobs, truth, job, gpus, hw, run_end, run_job, size, clock)
            size += 1
            tally[WAITING_RATE] -= prices[job, WAITING]
            cost += charge_start(jobs, truth, prices, job, clock)
        clear_waiting(counts, tally)
        change_rates(jobs, truth, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules)
        cost += charge_changes(jobs, truth, prices, run_job, hw, clock, counts, tally)
    return is_anything_left(jobs, counts), cost
