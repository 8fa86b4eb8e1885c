"""What compiled functions know of a cluster whose nodes differ: tables that every environment shares.

Compiled functions take them as `hw`, None on a cluster of equal nodes: numba compiles each function for both and leaves
out what the plain cluster does not need. What differs by node, GPU or job stands in further columns of `nodes`, `gpus`
and `jobs` (see `core.layout`).
"""

from typing import NamedTuple

from lepton_rl.core.arrays import Floats, Ints64
from lepton_rl.core.hardware.tariffs import SECONDS_PER_HOUR
from lepton_rl.core.jit import inlined


class HardwareTables(NamedTuple):
    """Tables by GPU type, and the slowdown of gangs that are spread."""

    speed: Floats
    """(types, classes of jobs), relative to the GPU that run times are for."""
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


Hardware = HardwareTables | None
IDLE_MW = 0
LOAD_MW = 1


@inlined
def hourly_integral(hours: Floats, begin: float, end: float) -> float:
    """Integral over [begin, end], seconds, of the series whose `price` or `carbon` this is; its last hour goes on."""
    last = hours.shape[0] - 2
    first_hour = min(int(begin / SECONDS_PER_HOUR), last)
    last_hour = min(int(end / SECONDS_PER_HOUR), last)
    from_begin = (hours[first_hour + 1] - hours[first_hour]) * (begin / SECONDS_PER_HOUR - first_hour)
    from_end = (hours[last_hour + 1] - hours[last_hour]) * (end / SECONDS_PER_HOUR - last_hour)
    return float(hours[last_hour] - hours[first_hour] + from_end - from_begin)
