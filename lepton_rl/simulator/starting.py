"""Starting waiting jobs: what every way of scheduling shares."""

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64
from lepton_rl.core.geometry import milli_up
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined
from lepton_rl.core.progress import begin_run, predicted_end
from lepton_rl.simulator.ends import add_prediction
from lepton_rl.simulator.waiting import remove


@inlined
def book(
    jobs: Floats, job: int, hw: Hardware, run_end: Floats, run_job: Ints32, clock: Floats, counts: Ints64,
    rules: Ints64,
) -> None:  # fmt: skip
    """Book a job whose GPUs are held as running from now on."""
    begin_run(jobs, job, clock[L.NOW], hw)
    if rules[L.PREDICTS]:
        add_prediction(jobs, run_end, run_job, counts[L.RUNNING], predicted_end(jobs, job, hw), job)
    counts[L.RUNNING] += 1


@inlined
def begin(
    jobs: Floats, job: int, hw: Hardware, run_end: Floats, run_job: Ints32, started: Ints32, clock: Floats,
    counts: Ints64, rules: Ints64,
) -> None:  # fmt: skip
    """Book a job whose GPUs are held, and list it as started by this pass."""
    book(jobs, job, hw, run_end, run_job, clock, counts, rules)
    started[counts[L.STARTED]] = job
    counts[L.STARTED] += 1


@inlined
def has_room(jobs: Floats, job: int, totals: Ints64, gpus: Ints32, hw: Hardware) -> bool:
    """Whether the margin that the order wants beside the job stays free."""
    margin = jobs[job, L.MARGIN]
    return bool(margin <= 0.0 or jobs[job, L.GPUS] + margin <= milli_up(gpus, totals, hw) - totals[L.HELD])


@inlined
def only_new_jobs(counts: Ints64, rules: Ints64) -> bool:
    """Whether jobs that the last pass could not start are sure not to start now."""
    return bool(counts[L.RELEASED] == 0 and rules[L.DYNAMIC] == 0 and counts[L.ARRIVED] - counts[L.TESTED] <= 1)


@inlined
def begin_at(
    position: int, jobs: Floats, queue: Ints32, hw: Hardware, run_end: Floats, run_job: Ints32, started: Ints32,
    clock: Floats, counts: Ints64, rules: Ints64,
) -> int:  # fmt: skip
    """Take the job at this position, whose GPUs are held, out of the queue and book it; return the next position."""
    begin(jobs, queue[position], hw, run_end, run_job, started, clock, counts, rules)
    front = counts[L.FRONT]
    remove(queue, counts, position)
    moved = counts[L.FRONT] > front  # the shorter side of the queue moves
    return position + 1 if moved else position
