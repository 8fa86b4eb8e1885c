"""Alibaba's GPU cluster of 2023 ("openb"): what its nodes offer and what its pods ask for, one CSV row for each.

Weng et al., "Beware of Fragmentation", USENIX ATC 2023; repository alibaba/clusterdata, cluster-trace-gpu-v2023.
A pod asks for CPU, memory and GPUs: none, a part of one, or whole ones, possibly of certain models. The lists are
requests to be packed, not a trace of jobs: times and quality of service are not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.layout import MILLI
from lepton_rl.errors import TraceError, counted
from lepton_rl.workloads.columns import Locate, fail
from lepton_rl.workloads.tables import CsvTable, read_table

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = (
    "name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "qos", "pod_phase", "creation_time",
    "deletion_time", "scheduled_time",
)  # fmt: skip
_REQUIRED_OF_PODS = POD_COLUMNS[:5]
_MOST = 10**9  # thousandths of cores, MiB
_MOST_GPUS = 1024  # on one node

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Nodes:
    """What each node offers."""

    cpu_milli: Integers  # (nodes,) thousandths of a core
    memory_mib: Integers  # (nodes,)
    gpus: Integers  # (nodes,)
    models: tuple[str, ...]  # (nodes,) of its GPUs


@dataclass(frozen=True, eq=False)
class Pods:
    """What each pod asks for.

    Attributes:
        locate: turns the index of a pod into the place a reader of the file would look for.
    """

    cpu_milli: Integers  # (pods,) thousandths of a core
    memory_mib: Integers  # (pods,)
    gpus: Integers  # (pods,)
    gpu_milli: Integers  # (pods,) thousandths of each GPU: 0 without GPUs, 1000 with several
    models: tuple[frozenset[str], ...]  # (pods,) that will do; empty where any does
    locate: Locate


def read_nodes(path: Path) -> Nodes:
    """Read a node list, plain or gzip.

    Raises:
        TraceError: it cannot be read, or no node has a GPU.
    """
    table = read_table(path, NODE_COLUMNS, NODE_COLUMNS, rows="nodes")
    gpus = _whole(table, "gpu", _MOST_GPUS)
    if not gpus.any():
        raise TraceError(f"{path}: no node has a GPU: column 'gpu' is 0 throughout")
    cpu_milli, memory_mib = _whole(table, "cpu_milli", _MOST), _whole(table, "memory_mib", _MOST)
    return Nodes(cpu_milli, memory_mib, gpus, tuple(table.columns["model"]))


def read_pods(path: Path) -> Pods:
    """Read a pod list, plain or gzip; without a column gpu_spec every model will do.

    Raises:
        TraceError: it cannot be read, or no pod asks for a GPU.
    """
    table = read_table(path, POD_COLUMNS, _REQUIRED_OF_PODS, rows="pods")
    gpus, gpu_milli = _whole(table, "num_gpu", _MOST_GPUS), _whole(table, "gpu_milli", MILLI)
    for wrong, right in (
        ((gpus > 0) & (gpu_milli == 0), f"1 to {MILLI} of each GPU that the pod asks for"),
        ((gpus == 0) & (gpu_milli > 0), "0 for a pod with num_gpu 0"),
        ((gpus > 1) & (gpu_milli < MILLI), f"{MILLI} for a pod with several GPUs, which are whole ones"),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            raise fail(table.locate(row), "gpu_milli", f"must be {right}, not {gpu_milli[row]}")
    if not gpus.any():
        raise TraceError(f"{path}: no pod asks for a GPU: column 'num_gpu' is 0 throughout")
    cpu_milli, memory_mib = _whole(table, "cpu_milli", _MOST), _whole(table, "memory_mib", _MOST)
    specs: Sequence[str] = table.columns.get("gpu_spec", [""] * len(gpus))
    models = tuple(frozenset(spec.split("|")) - {""} for spec in specs)
    return Pods(cpu_milli, memory_mib, gpus, gpu_milli, models, table.locate)


def without_a_node(pods: Pods, nodes: Nodes) -> NDArray[np.bool_]:
    """Return which pods (pods,) no node could hold even if it were empty; memory aside.

    Raises:
        TraceError: a pod is larger than every node, whatever its model; names its line and what it asks for.
    """
    gone = np.zeros(len(pods.gpus), dtype=np.bool_)
    known: dict[tuple[int, int, frozenset[str]], bool] = {}
    requests = zip(pods.cpu_milli.tolist(), pods.gpus.tolist(), pods.models, strict=True)
    for row, (cpu_milli, gpus, wanted) in enumerate(requests):
        key = (cpu_milli, gpus, wanted if gpus else frozenset[str]())
        if key not in known:
            large_enough = (nodes.cpu_milli >= cpu_milli) & (nodes.gpus >= gpus)
            if not large_enough.any():
                cores = f"{cpu_milli / 1000:g} CPU {'core' if cpu_milli == 1000 else 'cores'}"
                raise TraceError(
                    f"{pods.locate(row)}: no node can hold this pod: it asks for {cores} and {counted(gpus, 'GPU')} "
                    "on one node"
                )
            known[key] = bool(key[2]) and not (large_enough & np.isin(nodes.models, list(key[2]))).any()
        gone[row] = known[key]
    return gone


def _whole(table: CsvTable, column: str, most: int) -> Integers:
    """Return a column of whole numbers from 0 to `most`."""
    values = table.numbers(column)
    bad = (values != np.rint(values)) | (values > most)
    if bad.any():
        row = int(bad.argmax())
        raise fail(table.locate(row), column, f"must be a whole number from 0 to {most}, not {values[row]:g}")
    return values.astype(np.int64)
