"""Rates that change while jobs run: neighbours on a shared GPU, power limits, heat."""

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import is_stirred, set_rate, settle_stirred
from lepton_rl.core.arrays import Floats, Ints32, Ints64
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.progress import predicted_end, seconds_for, settle
from lepton_rl.simulator.ends import add_prediction, drop_prediction, order_ends
from lepton_rl.simulator.heat import find_next_heat, warm


@inlined
def tell_change(truth: Floats, job: int, run_job: Ints32, counts: Ints64) -> None:
    """List a job whose true end has changed, for those who count with it."""
    if truth[job, L.CHANGED] == 0.0:
        truth[job, L.CHANGED] = 1.0
        run_job[L.CHANGED_ENDS, counts[L.CHANGES]] = job
        counts[L.CHANGES] += 1


@inlined
def forget_changes(truth: Floats, run_job: Ints32, hw: Hardware, counts: Ints64) -> None:
    """Empty the list of jobs whose true end has changed."""
    if hw is not None:
        for index in range(counts[L.CHANGES]):
            truth[run_job[L.CHANGED_ENDS, index], L.CHANGED] = 0.0
        counts[L.CHANGES] = 0


@inlined
def _change_rate(
    jobs: Floats, truth: Floats, job: int, gpus: Ints32, nodes: Ints32, hw: Hardware, run_end: Floats,
    run_job: Ints32, clock: Floats, counts: Ints64, rules: Ints64,
) -> bool:  # fmt: skip
    """Set the rate of a running job anew; return whether it changed. The heap of true ends is then out of order."""
    before = jobs[job, L.RATE]
    foreseen = predicted_end(jobs, job, hw)
    set_rate(jobs, job, gpus, nodes, hw)
    after = jobs[job, L.RATE]
    if after == before:
        return False
    jobs[job, L.RATE] = before
    truth[job, L.REMAINING] -= settle(jobs, job, clock[L.NOW], hw)
    jobs[job, L.RATE] = after
    truth[job, L.END] = clock[L.NOW] + seconds_for(truth[job, L.REMAINING], jobs, job, hw)
    if rules[L.PREDICTS]:
        drop_prediction(run_end, run_job, counts[L.RUNNING], foreseen, job)
        add_prediction(jobs, run_end, run_job, counts[L.RUNNING] - 1, predicted_end(jobs, job, hw), job)
    tell_change(truth, job, run_job, counts)
    return True


@njit
def change_rates_now(
    jobs: Floats, truth: Floats, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64,
    hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Set the rates of all jobs on marked GPUs anew, and take the marks off."""
    if hw is None:
        return
    left = totals[L.STIRRED_GPUS]
    if hw.heat.shape[0] > 0:
        for gpu in range(gpus.shape[0]):
            if left > 0 and gpus[gpu, L.STIRRED] == 1:
                left -= 1
                warm(gpu, gpus, nodes, totals, hw, clock)
        if clock[L.NEXT_HEAT] <= clock[L.NOW]:
            find_next_heat(gpus, clock)
    changed = False
    for index in range(counts[L.RUNNING]):
        job = run_job[L.TRUE_ENDS, index]
        if is_stirred(jobs, job, gpus) and _change_rate(
            jobs, truth, job, gpus, nodes, hw, run_end, run_job, clock, counts, rules
        ):
            run_end[L.TRUE_ENDS, index] = truth[job, L.END]
            changed = True
    if changed:
        order_ends(run_end, run_job, counts[L.RUNNING])
    settle_stirred(gpus, totals)


@inlined
def change_rates(
    jobs: Floats, truth: Floats, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64,
    hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Set anew the rates of the jobs on GPUs whose load, limit or health has changed."""
    if hw is not None and totals[L.STIRRED_GPUS] > 0:
        change_rates_now(jobs, truth, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules)
