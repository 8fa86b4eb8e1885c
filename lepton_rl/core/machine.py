"""A cluster as compiled functions hold it: the empty allocation, and the tables of a cluster whose nodes differ."""

from collections.abc import Sequence

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import empty_allocation
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.hardware.dynamics import Interference, Reservation
from lepton_rl.core.hardware.power_limit import speed_under_limit
from lepton_rl.core.hardware.speed import JOB_CLASSES
from lepton_rl.core.hardware.tables import CURVE_COLUMNS, HEAT_FIGURES, IDLE_MW, LOAD_MW, Hardware, HardwareTables
from lepton_rl.core.hardware.tariffs import HourlySeries

GENERAL = "general"


def empty_cluster(cluster: ClusterSpec) -> tuple[Ints32, Ints32, Words, Ints64]:
    """Return (gpus, nodes, bits, totals) of the cluster with nothing running on it."""
    if not cluster.groups:
        return empty_allocation(cluster.nodes, cluster.gpus_per_node, cluster.gpu_memory_mib)
    types = [kind.name for kind in cluster.types]
    told_apart = len(JOB_CLASSES) if cluster.dynamics.interference.pairs else 0
    gpus = np.zeros((cluster.gpus, L.DETAILED_GPU_COLUMNS + told_apart), np.int32)
    nodes = np.zeros((cluster.nodes, L.ROOM + len(cluster.resources)), np.int32)
    bits = np.zeros((cluster.nodes, (cluster.gpus_per_node + 63) // 64), np.uint64)
    totals = np.zeros(L.DETAILED_TOTAL_COLUMNS + cluster.nodes, np.int64)
    node, gpu, rack = 0, 0, 0
    for group in cluster.groups:
        memory = ClusterSpec(gpu_memory_gib=group.limited_gpu.memory_gib).gpu_memory_mib
        offers = dict(group.offers)
        kind = group.limited_gpu
        idle = round(kind.idle_power_w * 1e6)
        load = round((kind.max_power_w - kind.idle_power_w) * 1e3)
        limit = round(group.limit_w * 1e3)
        for index in range(group.nodes):
            nodes[node, : L.ROOM] = (
                group.gpus_per_node, 0, 0, gpu, group.gpus_per_node, types.index(group.limited_gpu.name), memory,
                rack + index * group.racks // group.nodes, 0, L.UNCOUNTED, 0,
            )  # fmt: skip
            nodes[node, L.ROOM :] = [
                round(offers[name] * L.MILLI) if name in offers else L.UNCOUNTED for name in cluster.resources
            ]
            gpus[gpu : gpu + group.gpus_per_node, : L.STIRRED] = (
                L.MILLI, memory, -1, node, 0, limit, load, L.WHOLE_SPEED,
            )  # fmt: skip
            gpus[gpu : gpu + group.gpus_per_node, L.RATED] = L.WHOLE_SPEED
            gpus[gpu : gpu + group.gpus_per_node, L.FIRST_JOB] = -1
            for word in range(bits.shape[1]):
                used = min(max(group.gpus_per_node - 64 * word, 0), 64)
                bits[node, word] = np.uint64((1 << used) - 1)
            gpu += group.gpus_per_node
            node += 1
        totals[L.POWER] += idle * group.gpus
        first = L.NODE_DRAW + node - group.nodes
        totals[first : first + group.nodes] = idle * group.gpus_per_node
        rack += group.racks
    totals[L.FREE_WHOLE] = cluster.gpus
    totals[L.GPU_MEMORY] = cluster.gpu_memory_mib
    return gpus, nodes, bits, totals


def hardware_tables(cluster: ClusterSpec) -> Hardware:
    """Return what compiled functions look up by GPU type; None for a cluster of identical GPUs."""
    if not cluster.groups:
        return None
    reference = cluster.reference or cluster.types[0]
    dynamics = cluster.dynamics
    base = {group.limited_gpu.name: group.gpu for group in cluster.groups}
    power = np.zeros((len(cluster.types), 2), np.int64)
    curve = np.zeros((len(cluster.types), CURVE_COLUMNS))
    heat = np.zeros((0 if dynamics.inlet_temperature_c is None else len(cluster.types), HEAT_FIGURES))
    inlet = dynamics.inlet_temperature_c or 0.0
    for row, kind in enumerate(cluster.types):
        card = base[kind.name]
        power[row, IDLE_MW] = round(kind.idle_power_w * 1e3)
        power[row, LOAD_MW] = round((kind.max_power_w - kind.idle_power_w) * 1e3)
        kept = kind.speed[GENERAL] / card.speed[GENERAL]
        shape = card.power_curve
        curve[row] = (
            card.max_power_w, card.idle_power_w, shape.floor_w, shape.exponent, shape.lowest_held_w,
            kept,
        )  # fmt: skip
        if len(heat):
            hold = (card.throttle_temperature_c - inlet) / card.thermal_resistance_c_per_w
            full = power[row].sum() * 1000 * 1e-6
            heat[row] = (
                card.throttle_temperature_c, hold, card.thermal_resistance_c_per_w, card.thermal_time_constant_s, full,
                speed_under_limit(full, hold, shape.floor_w, shape.exponent),
            )  # fmt: skip
    times, units = dynamics.faults.events(cluster.first_gpus, cluster.gpus)
    speed = [[kind.speed[name] / reference.speed[name] for name in JOB_CLASSES] for kind in cluster.types]
    return HardwareTables(
        speed=np.array(speed) * dynamics.faults.rate,
        power_mw=power,
        node_slowdown=cluster.locality.nodes.table(cluster.nodes),
        rack_slowdown=cluster.locality.racks.table(sum(group.racks for group in cluster.groups)),
        price=_hours(cluster.tariffs.electricity),
        carbon=_hours(cluster.tariffs.carbon),
        curve=curve,
        interference=float(dynamics.interference.coefficient),
        pairs=_pairs(dynamics.interference),
        heat=heat,
        inlet_c=float(inlet),
        fault_time=times,
        fault_gpus=units,
        checkpoint_interval=float(dynamics.faults.checkpoint_interval_s),
        restart_cost=float(dynamics.faults.restart_cost_s),
        reservations=_reserved(dynamics.reservations),
        followers_from=np.zeros(1, np.int64),
        followers=np.zeros(0, np.int64),
        levels_mw=np.zeros((len(cluster.types), 0), np.int64),
    )


def power_levels_w(cluster: ClusterSpec, levels: Sequence[float]) -> Floats:
    """Return parts of each type's maximum power as power limits, watts, shape (types, levels).

    They are clipped to the card's range and to its group's own limit, which 1 stands for.
    """
    groups = {group.limited_gpu.name: group for group in cluster.groups}
    watts = np.zeros((len(cluster.types), len(levels)))
    for row, kind in enumerate(cluster.types):
        own, card = groups[kind.name].limit_w, groups[kind.name].gpu
        parts = [max(level * card.max_power_w, card.min_power_limit_w) for level in levels]
        watts[row] = [own if level == 1 else min(part, own) for level, part in zip(levels, parts, strict=True)]
    return watts


def with_power_levels(hw: Hardware, cluster: ClusterSpec, levels: Sequence[float]) -> Hardware:
    """Return the tables with these power limits to choose among."""
    if hw is None:
        return None
    return hw._replace(levels_mw=np.rint(power_levels_w(cluster, levels) * 1e3).astype(np.int64))


def clock_columns(cluster: ClusterSpec) -> int:
    """Return the length of the cluster's `clock`."""
    if not cluster.groups:
        return L.CLOCK_COLUMNS
    if cluster.dynamics.inlet_temperature_c is None:
        return L.DETAILED_CLOCK_COLUMNS
    blocks = -(-cluster.gpus // L.HEAT_BLOCK)
    per_gpu = 1 + L.HEAT_COLUMNS
    return L.DETAILED_CLOCK_COLUMNS + per_gpu * cluster.gpus + blocks + L.NODE_HEAT_ROWS * cluster.nodes


def _reserved(reservations: Sequence[Reservation]) -> Floats:
    """Begin, end and node of each time that a node is reserved; what overlaps or touches is one."""
    spells: list[list[float]] = []
    for node, begin, end in sorted((node, r.begin_s, r.end_s) for r in reservations for node in r.nodes):
        if spells and spells[-1][2] == node and begin <= spells[-1][1]:
            spells[-1][1] = max(spells[-1][1], end)
        else:
            spells.append([begin, end, node])
    return np.array(spells, np.float64).reshape(-1, 3)


def _pairs(interference: Interference) -> Floats:
    """What each share of one class adds to the slowdown of one of another."""
    if not interference.pairs:
        return np.zeros((0, 0))
    classes = list(JOB_CLASSES)
    table = np.zeros((len(classes), len(classes)))
    for name, other, slowdown in interference.pairs:
        table[classes.index(name), classes.index(other)] = slowdown - 1.0
    return table


def _hours(series: HourlySeries | None) -> Floats:
    return np.zeros(0) if series is None else series.cumulative.copy()
