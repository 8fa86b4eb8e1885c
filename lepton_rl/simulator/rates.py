"""Rates that change while jobs run: neighbours on a shared GPU, power limits, heat."""

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.progress import predicted_end, seconds_for, settle
from lepton_rl.core.rates import set_rate
from lepton_rl.simulator.ends import add_prediction, drop_prediction, move_end
from lepton_rl.simulator.heat import warm


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
) -> None:  # fmt: skip
    """Set the rate of a running job anew."""
    before = jobs[job, L.RATE]
    foreseen = predicted_end(jobs, job, hw)
    set_rate(jobs, job, gpus, nodes, hw)
    after = jobs[job, L.RATE]
    if after == before:
        return
    jobs[job, L.RATE] = before
    truth[job, L.REMAINING] -= settle(jobs, job, clock[L.NOW], hw)
    jobs[job, L.RATE] = after
    truth[job, L.END] = clock[L.NOW] + seconds_for(truth[job, L.REMAINING], jobs, job, hw)
    move_end(run_end, run_job, counts[L.RUNNING], truth[job, L.END], job)
    if rules[L.PREDICTS]:
        drop_prediction(run_end, run_job, counts[L.RUNNING], foreseen, job)
        add_prediction(jobs, run_end, run_job, counts[L.RUNNING] - 1, predicted_end(jobs, job, hw), job)
    tell_change(truth, job, run_job, counts)


@inlined
def _another_is_as_slow(jobs: Floats, job: int, gpu: int, gpus: Ints32, nodes: Ints32, hw: Hardware) -> bool:
    """Whether a gang has another GPU that is as slow as this one is now: then what slowed this one changes nothing."""
    if hw is None:
        return False
    kind = int(jobs[job, L.CLASS])
    speed = hw.speed[nodes[gpus[gpu, L.NODE], L.TYPE], kind] * gpus[gpu, L.KEPT]
    other = int(jobs[job, L.FIRST_GPU])
    while other >= 0:
        if other != gpu and hw.speed[nodes[gpus[other, L.NODE], L.TYPE], kind] * gpus[other, L.RATED] <= speed:
            return True
        other = int(gpus[other, L.NEXT])
    return False


@njit
def change_rates_now(
    jobs: Floats, truth: Floats, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64,
    hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Set the rates of all jobs on marked GPUs anew, and take the marks off."""
    if hw is None:
        return
    with_heat = hw.heat.shape[0] > 0
    gpu = int(totals[L.STIRRED_GPUS]) - 1
    while with_heat and gpu >= 0:
        warm(gpu, gpus, nodes, totals, hw, clock)
        gpu = int(gpus[gpu, L.STIRRED]) - 2
    gpu = int(totals[L.STIRRED_GPUS]) - 1
    totals[L.STIRRED_GPUS] = 0
    while gpu >= 0:
        following = int(gpus[gpu, L.STIRRED]) - 2
        gpus[gpu, L.STIRRED] = 0
        if gpus[gpu, L.FREE] < L.MILLI and gpus[gpu, L.DOWN] == 0:
            job = int(gpus[gpu, L.FIRST_JOB])
            if jobs[job, L.GPUS] >= L.MILLI:
                slower = gpus[gpu, L.KEPT] < gpus[gpu, L.RATED]
                if gpus[gpu, L.KEPT] != gpus[gpu, L.RATED] and not (
                    slower and _another_is_as_slow(jobs, job, gpu, gpus, nodes, hw)
                ):
                    _change_rate(jobs, truth, job, gpus, nodes, hw, run_end, run_job, clock, counts, rules)
            else:
                while job >= 0:
                    _change_rate(jobs, truth, job, gpus, nodes, hw, run_end, run_job, clock, counts, rules)
                    job = int(jobs[job, L.NEXT_SHARE])
        gpus[gpu, L.RATED] = gpus[gpu, L.KEPT]
        gpu = following


@inlined
def change_rates(
    jobs: Floats, truth: Floats, run_end: Floats, run_job: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64,
    hw: Hardware, clock: Floats, counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Set anew the rates of the jobs on GPUs whose load, limit or health has changed."""
    if hw is not None and totals[L.STIRRED_GPUS] > 0:
        change_rates_now(jobs, truth, run_end, run_job, gpus, nodes, totals, hw, clock, counts, rules)
