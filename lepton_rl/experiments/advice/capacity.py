"""More or fewer nodes, and on which GPUs the queue waits."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import ClusterSpec
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.errors import counted
from lepton_rl.experiments.advice.candidate import Candidate
from lepton_rl.experiments.advice.power import of_groups
from lepton_rl.experiments.advice.study import Idea, LeftOut, Study
from lepton_rl.workloads.job_table import job_table

PART = 0.25
"""Of a group's nodes, at least one, that is taken away or added."""


def other_capacity(study: Study) -> Idea:
    """Try a quarter of each group's nodes fewer and more."""
    dynamics = study.setup.cluster.dynamics
    if dynamics.reservations or dynamics.faults.schedule:
        yield LeftOut("more or fewer nodes", "reservations and outages name nodes by their number")
        return
    for sign in (-1, 1):
        for name, amount, cluster, text in _resized(study, sign):
            kind = f"{'fewer' if sign < 0 else 'more'} {name}"
            if cluster is None:
                yield LeftOut(kind, "nothing would be left")
                continue
            goal = "gpus" if sign < 0 else "mean_jct"
            title = f"{amount} {'fewer' if sign < 0 else 'more'}"
            yield Candidate(kind, title, text, goal, study.setup.on(cluster))


def _resized(study: Study, sign: int) -> Iterator[tuple[str, str, ClusterSpec | None, str]]:
    """Yield (whose number changes, by how much, the changed cluster, what speaks for it)."""
    cluster = study.setup.cluster
    verb = "Take away" if sign < 0 else "Add"
    if not cluster.groups:
        unit = "node" if cluster.nodes > 1 else "GPU"
        size = cluster.nodes if cluster.nodes > 1 else cluster.gpus
        step = _step(size)
        changed = size + sign * step
        resized = _of_size(cluster, changed) if changed else None
        text = f"{verb} {counted(step, unit)} of {size:,}{_reasons(study, sign)}."
        yield f"{unit}s", counted(step, unit), resized, text
        return
    waiting = _share_waiting_for(study, sign)
    for index, group in enumerate(cluster.groups):
        step = _step(group.nodes)
        queue = waiting[group.limited_gpu.name]
        text = f"{verb} {counted(step, 'node')} of the {group}{_reasons(study, sign, queue)}."
        resized = _with_nodes(cluster, index, group.nodes + sign * step)
        yield f"{group.limited_gpu.name} (group {index + 1})", f"{counted(step, 'node')} of {group}", resized, text


def _of_size(cluster: ClusterSpec, size: int) -> ClusterSpec:
    """Return a plain cluster with that many nodes, or a pool with that many GPUs."""
    return replace(cluster, nodes=size) if cluster.nodes > 1 else replace(cluster, gpus_per_node=size)


def _step(size: int) -> int:
    return max(1, round(PART * size))


def _with_nodes(cluster: ClusterSpec, index: int, nodes: int) -> ClusterSpec | None:
    """Return the cluster with that many nodes in a group; None where no group would be left."""
    group = cluster.groups[index]
    new: tuple[NodeGroup, ...] = (replace(group, nodes=nodes, racks=min(group.racks, nodes)),) if nodes else ()
    groups = (*cluster.groups[:index], *new, *cluster.groups[index + 1 :])
    return of_groups(cluster, groups) if groups else None


def _reasons(study: Study, sign: int, queue: str = "") -> str:
    """Return what load and queue say of GPUs less (sign -1) or more (1); what speaks against it comes last."""
    if not math.isfinite(study.load):
        return f": all jobs come at once{queue and f', and {queue}'}"
    load = f"jobs ask for {study.load:.3g} times the GPU-seconds that there are while they come"
    if (study.load < 1) == (sign < 0):
        return f": {load}{queue and f', and {queue}'}"
    return f"{queue and f': {queue}'}, though {load}"


def _share_waiting_for(study: Study, sign: int) -> dict[str, str]:
    """Return for each type of GPU, as a half sentence, how much of the queue needs it (sign 1) or can do without."""
    waited = study.gpu_seconds_waited
    bits = _usable_types(study)
    shares: dict[str, str] = {}
    for bit, kind in enumerate(study.setup.cluster.types):
        if not waited.sum() > 0:
            shares[kind.name] = "no job waits"
            continue
        usable = waited[(bits >> bit) & 1 == 1].sum() / waited.sum()
        alone = waited[bits == 1 << bit].sum() / waited.sum()
        if sign < 0:
            shares[kind.name] = f"{1 - alone:.0%} of the GPU-hours waited are of jobs that may run on other GPUs"
        elif alone > 0:
            shares[kind.name] = f"{alone:.0%} of the GPU-hours waited are of jobs that may run on no other GPUs"
        else:
            shares[kind.name] = f"{usable:.0%} of the GPU-hours waited are of jobs that may run on them, and on others"
    return shares


def _usable_types(study: Study) -> NDArray[np.int64]:
    """Return the types on which each job may run as bits in the order of the cluster's types, shape (jobs,)."""
    tables: list[Floats] = [job_table(trace, study.setup.cluster)[:, L.TYPES] for trace in study.traces]
    return np.concatenate(tables).astype(np.int64)
