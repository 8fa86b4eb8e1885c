"""A cluster as compiled functions hold it: the empty allocation, and the tables of a cluster whose nodes differ."""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import empty_allocation
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.hardware.speed import JOB_CLASSES
from lepton_rl.core.hardware.tables import IDLE_MW, LOAD_MW, Hardware, HardwareTables
from lepton_rl.core.hardware.tariffs import HourlySeries


def empty_cluster(cluster: ClusterSpec) -> tuple[Ints32, Ints32, Words, Ints64]:
    """Return (gpus, nodes, bits, totals) of the cluster with nothing running on it."""
    if not cluster.groups:
        return empty_allocation(cluster.nodes, cluster.gpus_per_node, cluster.gpu_memory_mib)
    types = [kind.name for kind in cluster.types]
    gpus = np.empty((cluster.gpus, L.DETAILED_GPU_COLUMNS), np.int32)
    nodes = np.zeros((cluster.nodes, L.ROOM + len(cluster.resources)), np.int32)
    bits = np.zeros((cluster.nodes, (cluster.gpus_per_node + 63) // 64), np.uint64)
    totals = np.zeros(L.DETAILED_TOTAL_COLUMNS, np.int64)
    node, gpu, rack = 0, 0, 0
    for group in cluster.groups:
        memory = ClusterSpec(gpu_memory_gib=group.limited_gpu.memory_gib).gpu_memory_mib
        offers = dict(group.offers)
        idle = round(group.limited_gpu.idle_power_w * 1e6)
        for index in range(group.nodes):
            nodes[node, : L.ROOM] = (
                group.gpus_per_node, 0, 0, gpu, group.gpus_per_node, types.index(group.limited_gpu.name), memory,
                rack + index * group.racks // group.nodes,
            )  # fmt: skip
            nodes[node, L.ROOM :] = [
                round(offers[name] * L.MILLI) if name in offers else L.UNCOUNTED for name in cluster.resources
            ]
            gpus[gpu : gpu + group.gpus_per_node] = (L.MILLI, memory, -1, node)
            for word in range(bits.shape[1]):
                used = min(max(group.gpus_per_node - 64 * word, 0), 64)
                bits[node, word] = np.uint64((1 << used) - 1)
            gpu += group.gpus_per_node
            node += 1
        totals[L.POWER] += idle * group.gpus
        rack += group.racks
    totals[L.FREE_WHOLE] = cluster.gpus
    totals[L.GPU_MEMORY] = cluster.gpu_memory_mib
    return gpus, nodes, bits, totals


def hardware_tables(cluster: ClusterSpec) -> Hardware:
    """Return what compiled functions look up by GPU type; None for a cluster of identical GPUs."""
    if not cluster.groups:
        return None
    reference = cluster.reference or cluster.types[0]
    power = np.zeros((len(cluster.types), 2), np.int64)
    for row, kind in enumerate(cluster.types):
        power[row, IDLE_MW] = round(kind.idle_power_w * 1e3)
        power[row, LOAD_MW] = round((kind.max_power_w - kind.idle_power_w) * 1e3)
    return HardwareTables(
        speed=np.array([[kind.speed[name] / reference.speed[name] for name in JOB_CLASSES] for kind in cluster.types]),
        power_mw=power,
        node_slowdown=cluster.locality.nodes.table(cluster.nodes),
        rack_slowdown=cluster.locality.racks.table(sum(group.racks for group in cluster.groups)),
        price=_hours(cluster.tariffs.electricity),
        carbon=_hours(cluster.tariffs.carbon),
    )


def _hours(series: HourlySeries | None) -> Floats:
    return np.zeros(0) if series is None else series.cumulative.copy()
