"""Where a planned job goes: a placement rule, or on a cluster whose nodes differ a rule that chooses kinds of GPU.

A kind is a type of GPU at one rent. A choice is a whole number, the placement gene of a plan:

| choice | GPUs |
|---|---|
| a `Placement` | by that rule, on every kind that will do |
| LEAST_LOADED | as the policy `least_loaded` |
| LEAST_COST + table | on the kind with room where the run costs least: as `energy`, `cheapest`, `greenest` |
| ON_KIND + kind | on that kind alone, however long it takes; on every kind where that one could never hold the job |

On equal nodes a placement is all there is to choose.
"""

from typing import Any, NamedTuple

from lepton_rl.agents.least_cost import place_at_least_cost
from lepton_rl.agents.node_scores import NodeScore, ScoreTables, place_by_score
from lepton_rl.core import layout as L
from lepton_rl.core.allocation import release
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.geometry import capacity_of
from lepton_rl.core.hardware.tables import Hardware, hourly_integral
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.placement import Placement, place

PLACEMENTS = len(Placement)
LEAST_LOADED = PLACEMENTS
LEAST_COST = LEAST_LOADED + 1
ENERGY, RENT, CARBON = COST_TABLES = range(3)
ON_KIND = LEAST_COST + len(COST_TABLES)
_BEST = int(Placement.BEST)
_BY_LOAD = int(NodeScore.LEAST_LOADED)


class KindTables(NamedTuple):
    """What choosing kinds of GPU looks up. Rows are those of the planned jobs, the running ones first."""

    rates: Floats
    """(rows, kinds + 1): seconds of service that a second gives on each kind alone, on the empty cluster, and on all
    that will do together; 0 where the job never fits."""
    costs: Floats
    """(3, kinds): cost of a second on a busy GPU: added watts, USD, added watts."""
    hours: Floats
    """(hours + 1,): running integral of the carbon intensity; empty where it is not known."""
    no_hours: Floats
    """(0,)"""
    free: Ints64
    """(2, kinds): free milli-GPU; scratch, and as it is now."""
    held: Ints64
    """(rows, kinds): milli-GPU of each kind that a job holds, or is planned to."""
    scores: ScoreTables
    """For LEAST_LOADED."""


Kinds = KindTables | None


@inlined
def choices(kinds: Kinds) -> int:
    """How many choices there are."""
    if kinds is None:
        return PLACEMENTS
    count = kinds.free.shape[1]
    return LEAST_LOADED + 1 if count == 1 else ON_KIND + count


@njit
def place_chosen(
    choice: int, jobs: Floats, row: int, now: float, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64,
    hw: Hardware, kinds: Kinds,
) -> bool:  # fmt: skip
    """Hold the job's GPUs as chosen; return False, with nothing changed, when they are not free."""
    if kinds is None:
        return place(choice, jobs, row, gpus, nodes, bits, totals, hw)
    if choice < PLACEMENTS:
        return place(choice, jobs, row, gpus, nodes, bits, totals, hw)
    if choice == LEAST_LOADED:
        return place_by_score(_BY_LOAD, jobs, row, gpus, nodes, bits, totals, hw, kinds.scores)
    if choice < ON_KIND:
        table = choice - LEAST_COST
        hours = kinds.hours if table == CARBON else kinds.no_hours
        return place_at_least_cost(jobs, row, now, kinds.costs[table], hours, gpus, nodes, bits, totals, hw)
    kind = choice - ON_KIND
    wanted = jobs[row, L.TYPES]
    if kinds.rates[row, kind] > 0.0:
        jobs[row, L.TYPES] = 1 << kind
    fits = place(_BEST, jobs, row, gpus, nodes, bits, totals, hw)
    jobs[row, L.TYPES] = wanted
    return fits


@inlined
def _least_cost_kind(choice: int, jobs: Floats, row: int, now: float, kinds: KindTables) -> int:
    """Kind with enough free GPUs on which the run costs least, or -1."""
    table = choice - LEAST_COST
    best = -1
    least: Any = 0.0
    for kind in range(kinds.free.shape[1]):
        rate = kinds.rates[row, kind]
        if rate > 0.0 and kinds.free[0, kind] >= jobs[row, L.GPUS]:
            seconds = jobs[row, L.PREDICTED] / rate
            if table == CARBON and kinds.hours.shape[0] > 0:
                seconds = hourly_integral(kinds.hours, now, now + seconds)
            cost = kinds.costs[table, kind] * seconds
            if best < 0 or cost < least:
                best = kind
                least = cost
    return best


@inlined
def count_chosen(choice: int, jobs: Floats, row: int, now: float, kinds: KindTables) -> float:
    """Note in `held` which free GPUs the job takes, by counting; return its rate on them, 0 where they are too few.

    Where it may take several kinds together, it takes them in the order of the node groups.
    """
    count = kinds.free.shape[1]
    demand = int(jobs[row, L.GPUS])
    alone = -1
    if choice >= ON_KIND and kinds.rates[row, choice - ON_KIND] > 0.0:
        alone = choice - ON_KIND
        if kinds.free[0, alone] < demand:
            return 0.0
    elif LEAST_COST <= choice < ON_KIND:
        alone = _least_cost_kind(choice, jobs, row, now, kinds)
    left = demand
    last = 0
    taken = 0
    for kind in range(count):
        part = 0
        may = alone == kind if alone >= 0 else (int(jobs[row, L.TYPES]) >> kind) & 1
        if may and left > 0:
            part = min(left, kinds.free[0, kind])
        kinds.held[row, kind] = part
        if part > 0:
            left -= part
            last = kind
            taken += 1
    if left > 0:
        return 0.0
    return float(kinds.rates[row, last if taken == 1 and kinds.rates[row, last] > 0.0 else count])


@inlined
def take_counted(row: int, kinds: KindTables, sign: int) -> None:
    """Book what the job holds as taken (sign 1) or given back (-1)."""
    for kind in range(kinds.free.shape[1]):
        kinds.free[0, kind] -= sign * kinds.held[row, kind]


@inlined
def note_held(jobs: Floats, row: int, gpus: Ints32, nodes: Ints32, kinds: KindTables) -> None:
    """Note in `held` the kinds of the GPUs that the job really holds."""
    for kind in range(kinds.free.shape[1]):
        kinds.held[row, kind] = 0
    share = jobs[row, L.GPUS] < L.MILLI
    gpu = int(jobs[row, L.FIRST_GPU])
    while gpu >= 0:
        kinds.held[row, nodes[gpus[gpu, L.NODE], L.TYPE]] += int(jobs[row, L.GPUS]) if share else L.MILLI
        gpu = -1 if share else int(gpus[gpu, L.NEXT])


@inlined
def added_kwh(row: int, seconds: float, kinds: KindTables) -> float:
    """What the job's run adds to the draw of idle GPUs, kWh."""
    watts = 0.0
    for kind in range(kinds.free.shape[1]):
        watts += kinds.costs[ENERGY, kind] * kinds.held[row, kind] / L.MILLI
    return watts * seconds / 3.6e6


@njit
def fill_kinds(
    jobs: Floats, running: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware,
    kinds: KindTables,
) -> None:  # fmt: skip
    """Fill `free`, `held` of the running jobs and `rates` of the others. The cluster, a copy, is emptied."""
    for node in range(nodes.shape[0]):
        kinds.free[1, nodes[node, L.TYPE]] += capacity_of(node, gpus, nodes, hw) - nodes[node, L.BUSY]
    for row in range(running):
        note_held(jobs, row, gpus, nodes, kinds)
    for row in range(running):
        release(jobs, row, gpus, gpus, nodes, bits, totals, hw)
    count = kinds.free.shape[1]
    for row in range(running, jobs.shape[0]):
        wanted = int(jobs[row, L.TYPES])
        for kind in range(count + 1):
            types = wanted if kind == count else wanted & (1 << kind)
            jobs[row, L.TYPES] = types
            if types != 0 and place(_BEST, jobs, row, gpus, nodes, bits, totals, hw):
                kinds.rates[row, kind] = jobs[row, L.RATE]
                release(jobs, row, gpus, gpus, nodes, bits, totals, hw)
        jobs[row, L.TYPES] = wanted
