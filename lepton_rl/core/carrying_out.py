"""Actions on the packed arrays of a cluster: clusters of every kind check and carry them out so."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.core.allocation import hold_gpu, hold_share, release, share_memory
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.geometry import node_of
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.placement import Placement, available, lasts_for, place, takes_type
from lepton_rl.core.power import set_limit
from lepton_rl.core.progress import begin_run, planned_seconds, settle
from lepton_rl.core.rates import set_rate
from lepton_rl.errors import IllegalAction

if TYPE_CHECKING:
    from lepton_rl.core.cluster import ClusterSpec


def forget_rates(waiting: Floats) -> None:
    """Blank what the last run of jobs that wait has left of its rate."""
    waiting[:, L.RATE] = 1.0
    waiting[:, L.SINCE] = 0.0


def check_is_action(action: object) -> None:
    """Refuse what is no action."""
    if not isinstance(action, Action):
        raise IllegalAction(f"{action!r} is not an action; use Start, Preempt, Migrate or SetPowerLimit")


def check_quantum(action: Preempt | Migrate, age: float, quantum: float) -> None:
    """Refuse to stop a run that is younger than the quantum (both in seconds)."""
    if age < quantum:
        done = "preempted" if isinstance(action, Preempt) else "migrated"
        raise IllegalAction(f"job {action.job} has run {age:g} s of its {quantum:g} s quantum and cannot be {done} yet")


def limit_power(
    action: SetPowerLimit,
    cluster: "ClusterSpec",
    gpus: Ints32,
    nodes: Ints32,
    totals: Ints64,
    hw: Hardware,
) -> None:
    """Give a GPU the power limit of the action.

    Raises:
        IllegalAction: there is no such GPU, its type is not known, or the limit is outside the card's range.
    """
    gpu = action.gpu
    if not isinstance(gpu, int | np.integer) or not 0 <= gpu < len(gpus):
        raise IllegalAction(f"there is no GPU {gpu}; the cluster has GPUs 0 to {len(gpus) - 1}")
    if hw is None:
        raise IllegalAction(f"GPU {gpu} is of no type whose power limits are known; give the cluster as groups")
    group = cluster.group_of(int(gpu))
    watts = group.limit_w if action.watts is None else action.watts
    if not isinstance(watts, int | float | np.integer | np.floating) or math.isnan(watts):
        raise IllegalAction(f"a power limit is a number of watts, or None for the group's own, not {watts!r}")
    lowest, highest = group.gpu.min_power_limit_w, group.gpu.max_power_limit_w
    if not lowest <= watts <= highest and watts != group.limit_w:
        if lowest == highest:
            raise IllegalAction("this cluster's GPUs have no adjustable power limit; give it as groups of known types")
        raise IllegalAction(
            f"a power limit of {watts:g} W is outside the range of GPU {gpu} ({group.gpu.name}): {lowest:g} to "
            f"{highest:g} W"
        )
    set_limit(int(gpu), round(watts * 1e3), gpus, nodes, totals, hw)


def move_gpus(
    action: Migrate,
    jobs: Floats,
    row: int,
    placement: Placement,
    gpus: Ints32,
    nodes: Ints32,
    bits: Words,
    totals: Ints64,
    hw: Hardware,
    now: float,
    cost: float,
) -> float:
    """Give a running job the GPUs that the action names, or that the placement finds once it has left its own.

    It owes `cost` seconds more from then on. Returns the seconds of service that it was given until now, which are
    counted as attained.

    Raises:
        IllegalAction: it cannot be moved there; nothing has changed.
    """
    changed = (jobs[row], gpus, nodes, bits, totals)
    before = [array.copy() for array in changed]
    service = settle(jobs, row, now, hw)
    jobs[row, L.PREDICTED] += cost
    release(jobs, row, gpus, gpus, nodes, bits, totals, hw)
    try:
        take_gpus(Start(action.job, action.gpus), jobs, row, placement, gpus, nodes, bits, totals, hw)
    except IllegalAction:
        for array, was in zip(changed, before, strict=True):
            array[...] = was
        raise
    begin_run(jobs, row, now, hw)
    return service


def hold_these(
    jobs: Floats,
    row: int,
    chosen: tuple[int, ...],
    gpus: Ints32,
    nodes: Ints32,
    bits: Words,
    totals: Ints64,
    hw: Hardware,
) -> None:
    """Hold GPUs that have room for the job."""
    if jobs[row, L.GPUS] < L.MILLI:
        hold_share(jobs, row, gpus, nodes, bits, totals, hw, chosen[0])
        return
    tail = -1
    for gpu in chosen:
        hold_gpu(jobs, row, gpus, nodes, bits, totals, hw, tail, gpu)
        tail = gpu


def take_gpus(
    action: Start,
    jobs: Floats,
    row: int,
    placement: Placement,
    gpus: Ints32,
    nodes: Ints32,
    bits: Words,
    totals: Ints64,
    hw: Hardware,
) -> None:
    """Hold the GPUs that the action names, or those that the placement chooses; clusters of every kind start so.

    Raises:
        IllegalAction: they are not free, too few, too many or do not exist; nothing has changed.
    """
    demand = int(jobs[row, L.GPUS])
    needed = max(demand // L.MILLI, 1)
    if action.gpus is None:
        if not place(int(placement), jobs, row, gpus, nodes, bits, totals, hw):
            raise IllegalAction(_why_not_placed(action.job, jobs, row, placement, nodes, totals, hw))
        return
    chosen = action.gpus
    if not isinstance(chosen, Sequence) or not all(isinstance(gpu, int | np.integer) for gpu in chosen):
        raise IllegalAction(f"job {action.job}: GPUs are named by whole numbers, as in (0, 1), not {chosen!r}")
    if len(set(chosen)) != len(chosen) or len(chosen) != needed:
        raise IllegalAction(f"job {action.job} needs {needed} different GPUs, the action names {chosen}")
    for gpu in chosen:
        if not 0 <= gpu < len(gpus):
            raise IllegalAction(f"job {action.job}: there is no GPU {gpu}; the cluster has GPUs 0 to {len(gpus) - 1}")
        if hw is not None and gpus[gpu, L.DOWN] > 0:
            raise IllegalAction(f"job {action.job}: GPU {gpu} is down")
        if gpus[gpu, L.FREE] < min(demand, L.MILLI):
            free = gpus[gpu, L.FREE] / L.MILLI
            raise IllegalAction(
                f"job {action.job} needs {min(demand, L.MILLI) / L.MILLI:g} of GPU {gpu}, {free:g} is free"
            )
        node = node_of(gpu, gpus, nodes, hw)
        if demand < L.MILLI and gpus[gpu, L.MEMORY_FREE] < share_memory(jobs, row, node, nodes, totals, hw):
            free_gib = gpus[gpu, L.MEMORY_FREE] / L.MIB_PER_GIB
            raise IllegalAction(f"job {action.job} does not fit the {free_gib:g} GiB that are free on GPU {gpu}")
    if hw is not None:
        _check_nodes(action.job, chosen, jobs, row, gpus, nodes, hw)
    hold_these(jobs, row, chosen, gpus, nodes, bits, totals, hw)
    set_rate(jobs, row, gpus, nodes, hw)


def _check_nodes(
    job: int,
    chosen: tuple[int, ...],
    jobs: Floats,
    row: int,
    gpus: Ints32,
    nodes: Ints32,
    hw: Hardware,
) -> None:
    """Refuse nodes whose type of GPU will not do, or that lack what the job asks for beside its GPUs."""
    on = gpus[list(chosen), L.NODE]
    for node in np.unique(on).tolist():
        if not takes_type(jobs, row, node, nodes, hw):
            raise IllegalAction(f"job {job} cannot run on the type of GPU, or in the GPU memory, of node {node}")
        if not lasts_for(jobs, row, node, nodes, hw):
            begin, left = int(nodes[node, L.LASTS]), int(nodes[node, L.LASTS]) - int(nodes[0, L.CLOCK])
            raise IllegalAction(
                f"job {job} is planned to run {planned_seconds(jobs, row, hw):g} s; node {node} is "
                + ("reserved now" if begin == L.RESERVED else f"reserved in {left} s")
            )
        asked = jobs[row, L.ASKS :] * np.count_nonzero(on == node)
        room = nodes[node, L.ROOM :]
        if ((asked > room) & (room != L.UNCOUNTED)).any():
            raise IllegalAction(f"job {job} asks for more CPU, RAM or accelerators than node {node} has free")


def _why_not_placed(
    job: int,
    jobs: Floats,
    row: int,
    placement: Placement,
    nodes: Ints32,
    totals: Ints64,
    hw: Hardware,
) -> str:
    demand = int(jobs[row, L.GPUS])
    suiting = "" if hw is None else " of a type and on nodes that suit it"
    if demand < L.MILLI:
        return f"job {job} needs {demand / L.MILLI:g} of a GPU{suiting}, none has that much free (with its memory)"
    count = demand // L.MILLI
    free = int(totals[L.FREE_WHOLE])
    if hw is not None:
        free = sum(available(jobs, row, node, nodes, hw) for node in range(len(nodes)))
    if count > free:
        return f"job {job} needs {count} GPUs{suiting}, {free} are free"
    rule = placement.name.lower()
    return f"job {job} needs {count} GPUs on the fewest nodes ({rule}), {free} are free but spread too thin"
