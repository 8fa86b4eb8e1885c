"""What compiled functions know of a cluster whose nodes differ: tables that every environment shares.

Compiled functions take them as `hw`, None on a cluster of equal nodes: numba compiles each function for both and leaves
out what the plain cluster does not need. What differs by node, GPU or job stands in further columns of `nodes`, `gpus`
and `jobs` (see `core.layout`).
"""

from typing import NamedTuple

from lepton_rl.core.arrays import Floats, Ints64


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


Hardware = HardwareTables | None
IDLE_MW = 0
LOAD_MW = 1
