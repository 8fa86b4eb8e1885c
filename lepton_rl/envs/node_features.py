"""What a learned policy sees of the nodes: load, memory, power, temperature and health of each group."""

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Singles
from lepton_rl.core.hardware.tables import IDLE_MW, LOAD_MW, Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.envs.fast_math import fast_exp
from lepton_rl.simulator.heat import node_heat, sum_heat


@inlined
def _encode_typed_group(
    gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, clock: Floats, first: int, last: int, group: int,
    machine: Singles,
) -> None:  # fmt: skip
    """Write the five entries of nodes `first` to before `last`, whose GPUs are of types."""
    if hw is None:
        return
    busy, memory, count, capacity, up, draw = 0, 0, 0, 0, 0, 0
    most = 0.0
    for node in range(first, last):
        kind = nodes[node, L.TYPE]
        busy += nodes[node, L.BUSY]
        memory += nodes[node, L.MEMORY_USED]
        count += nodes[node, L.COUNT]
        capacity += nodes[node, L.COUNT] * nodes[node, L.MEMORY_EACH]
        up += nodes[node, L.COUNT] - nodes[node, L.GPUS_DOWN]
        most += (hw.power_mw[kind, IDLE_MW] + hw.power_mw[kind, LOAD_MW]) * nodes[node, L.COUNT]
        draw += totals[L.NODE_DRAW + node]
        if hw.heat.shape[0] > 0:
            sum_heat(node, gpus, nodes, clock)
    machine[0, group] = busy / (L.MILLI * float(count))
    machine[1, group] = memory / float(capacity)
    machine[2, group] = min(float(draw) / (most * 1e3), 1.0)  # a limit may be above the group's own
    machine[4, group] = up / float(count)


@inlined
def _encode_temperature(
    group: int, gpus: Ints32, nodes: Ints32, clock: Floats, per_group: int, machine: Singles
) -> None:
    """Write the mean temperature of one group; of one node rounded as `_encode_temperatures` does."""
    degrees, held = 0.0, 0
    for node in range(group * per_group, min((group + 1) * per_group, nodes.shape[0])):
        passed = clock[L.NOW] - clock[node_heat(L.COUNTED_AT, gpus, nodes) + node]
        above = clock[node_heat(L.ABOVE_SUM, gpus, nodes) + node]
        left = fast_exp(passed * clock[node_heat(L.DECAY, gpus, nodes) + node])
        degrees += clock[node_heat(L.STEADY_SUM, gpus, nodes) + node] + above * left
        held += nodes[node, L.COUNT]
    if per_group == 1:
        machine[3, group] = degrees
        degrees = machine[3, group]
    machine[3, group] = min(max(degrees / (100.0 * held), 0.0), 1.0)


@inlined
def _encode_temperatures(
    gpus: Ints32, nodes: Ints32, hw: Hardware, clock: Floats, per_group: int, machine: Singles
) -> None:
    """Write the mean temperature of each group, which changes by itself."""
    if hw is None:
        return
    now = clock[L.NOW]
    clock[L.SHOWN_AT] = now
    count = nodes.shape[0]
    counted_at = clock[node_heat(L.COUNTED_AT, gpus, nodes) :][:count]
    decay = clock[node_heat(L.DECAY, gpus, nodes) :][:count]
    steady = clock[node_heat(L.STEADY_SUM, gpus, nodes) :][:count]
    above = clock[node_heat(L.ABOVE_SUM, gpus, nodes) :][:count]
    if per_group == 1:
        row = machine[3]
        for node in range(nodes.shape[0]):  # in parallel lanes
            row[node] = steady[node] + above[node] * fast_exp((now - counted_at[node]) * decay[node])
        for node in range(nodes.shape[0]):
            row[node] = min(max(row[node] / (100.0 * nodes[node, L.COUNT]), 0.0), 1.0)
        return
    for group in range(machine.shape[1]):
        _encode_temperature(group, gpus, nodes, clock, per_group, machine)


@inlined
def _encode_group(
    gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, clock: Floats, group: int, per_group: int,
    idle_share: float, machine: Singles,
) -> None:  # fmt: skip
    first = group * per_group
    last = min(first + per_group, nodes.shape[0])
    if hw is not None:
        _encode_typed_group(gpus, nodes, totals, hw, clock, first, last, group, machine)
        return
    busy = 0
    memory = 0
    for node in range(first, last):
        busy += nodes[node, L.BUSY]
        memory += nodes[node, L.MEMORY_USED]
    count = (gpus.shape[0] // nodes.shape[0]) * (last - first)
    machine[0, group] = busy / (L.MILLI * float(count))
    machine[1, group] = memory / (float(totals[L.GPU_MEMORY]) * count)
    machine[2, group] = idle_share + (1.0 - idle_share) * (busy / (L.MILLI * float(count)))


@njit
def encode_nodes(
    gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, clock: Floats, idle_share: float, machine: Singles
) -> None:
    """Write load, memory and power of each group of nodes, 0-1 each; where GPUs are of types, temperature and health.

    `machine` has the shape (3 or 5, groups). Load is the part of the GPUs that jobs hold, memory the part of their
    memory, power the draw as a part of the maximum, temperature the mean in units of 100 degrees Celsius, health the
    part of the GPUs that are up. Only nodes that changed since the last call are read: with hundreds of nodes this
    table would cost more than the rest of the step.
    """
    groups = machine.shape[1]
    per_group = (nodes.shape[0] + groups - 1) // groups
    touched = totals[L.TOUCHED]
    if touched < 0:
        for group in range(groups):
            _encode_group(gpus, nodes, totals, hw, clock, group, per_group, idle_share, machine)
    for index in range(touched):
        node = totals[L.TOUCHED + 1 + index]
        _encode_group(gpus, nodes, totals, hw, clock, node // per_group, per_group, idle_share, machine)
    if hw is not None:
        if hw.heat.shape[0] > 0:
            if touched < 0 or clock[L.SHOWN_AT] != clock[L.NOW]:
                _encode_temperatures(gpus, nodes, hw, clock, per_group, machine)
            else:  # at one instant only what was touched is another
                for index in range(touched):
                    group = totals[L.TOUCHED + 1 + index] // per_group
                    _encode_temperature(group, gpus, nodes, clock, per_group, machine)
        elif touched < 0:
            for group in range(groups):
                machine[3, group] = 0.0
    totals[L.TOUCHED] = 0
