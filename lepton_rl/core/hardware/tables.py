"""What compiled functions know of a cluster whose nodes differ: tables that every environment shares.

Compiled functions take them as `hw`, None on a cluster of equal nodes: numba compiles each function for both and leaves
out what the plain cluster does not need. What differs by node, GPU or job stands in further columns of `nodes`, `gpus`
and `jobs` (see `core.layout`).
"""

from typing import NamedTuple

from lepton_rl.core.arrays import Floats, Ints32, Ints64
from lepton_rl.core.jit import inlined
from lepton_rl.core.units import SECONDS_PER_HOUR


class HardwareTables(NamedTuple):
    """Tables by GPU type, and the slowdown of gangs that are spread."""

    speed: Floats
    """(types, classes of jobs), relative to the GPU that run times are for; less what making checkpoints takes."""
    power_mw: Ints64
    """(types, 2): draw of an idle GPU, and what full load adds to it, milliwatts."""
    node_slowdown: Floats
    """(nodes + 1,): by the nodes that a gang spans."""
    rack_slowdown: Floats
    """(racks + 1,): by the racks that a gang spans."""
    price: Floats
    """(hours + 1,): integral of the electricity price from time 0 to each hour, USD/MWh x seconds; empty if unknown."""
    carbon: Floats
    """(hours + 1,): the same of the carbon intensity, gCO2eq/kWh x seconds."""
    curve: Floats
    """(types, CURVE_COLUMNS): what a power limit does."""
    interference: float
    """Coefficient of the slowdown of shares by shares; 0 for none."""
    pairs: Floats
    """(classes, classes): what each share of the second class adds to the slowdown of one of the first; or empty."""
    heat: Floats
    """(types, HEAT_FIGURES): what the temperature does; empty where it is not counted."""
    inlet_c: float
    """Temperature of the cooling air."""
    fault_time: Floats
    """(faults,): seconds, rising."""
    fault_gpus: Ints32
    """(faults, 3): first GPU, number of GPUs, +1 down or -1 back."""
    checkpoint_interval: float
    """Seconds of service between checkpoints, 0 for none."""
    restart_cost: float
    """Seconds that a struck job owes."""
    reservations: Floats
    """(nodes reserved, 3): begin and end, seconds, and the node."""
    followers_from: Ints64
    """(jobs of all traces + 1,): the jobs that come after job i are followers[followers_from[i] : ...[i + 1]]."""
    followers: Ints64
    """Rows in all traces, one behind the other."""
    levels_mw: Ints64
    """(types, levels): power limits that a start chooses among, milliwatts; no columns where none does."""


Hardware = HardwareTables | None
IDLE_MW = 0
LOAD_MW = 1

# curve: the card's draw at full load without a limit, idle draw, floor, exponent, least draw that it can be held to
# (watts), and the part of its speed that the group's own limit leaves.
NATURAL_W, IDLE_W, FLOOR_W, EXPONENT, LOWEST_HELD_W, KEPT_BY_GROUP = range(6)
CURVE_COLUMNS = 6

# heat: throttle temperature (degrees Celsius), the draw that holds it (W), degrees per watt, time constant (s), the
# draw at full load under the group's limit (W), and the part of its speed that holding the temperature leaves of that.
THROTTLE_C, HOLD_W, C_PER_W, TIME_CONSTANT_S, FULL_W, KEPT_HOT = range(6)
HEAT_FIGURES = 6


@inlined
def hourly_integral(hours: Floats, begin: float, end: float) -> float:
    """Integral over [begin, end], seconds, of the series whose `price` or `carbon` this is; its last hour goes on."""
    last = hours.shape[0] - 2
    first_hour = min(int(begin / SECONDS_PER_HOUR), last)
    last_hour = min(int(end / SECONDS_PER_HOUR), last)
    from_begin = (hours[first_hour + 1] - hours[first_hour]) * (begin / SECONDS_PER_HOUR - first_hour)
    from_end = (hours[last_hour + 1] - hours[last_hour]) * (end / SECONDS_PER_HOUR - last_hour)
    return float(hours[last_hour] - hours[first_hour] + from_end - from_begin)
