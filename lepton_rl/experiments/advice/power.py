"""Power limits: energy saved against time lost, for each type of GPU."""

from dataclasses import replace

from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import GpuType
from lepton_rl.errors import counted
from lepton_rl.experiments.advice.candidate import Candidate
from lepton_rl.experiments.advice.study import Idea, LeftOut, Study

LEVELS = (0.85, 0.7, 0.55)
"""Limits that are tried, in parts of the maximum power."""


def power_limits(study: Study) -> Idea:
    """Try limits below the present ones, for one type of GPU at a time."""
    cluster = study.setup.cluster
    if not cluster.groups:
        yield LeftOut("power limits", "the cluster names no types of GPU (--cluster FILE does)")
        return
    for kind in {group.gpu.name: group.gpu for group in cluster.groups}.values():
        limits = [limit for level in LEVELS if _binds(limit := round(level * kind.max_power_w), kind, cluster)]
        if not limits:
            yield LeftOut(f"power limits of {kind.name}", "the card takes none below the present one")
        for limit in limits:
            yield _limited(study, kind, limit)


def _binds(limit: float, kind: GpuType, cluster: ClusterSpec) -> bool:
    """Return whether the card takes the limit, and each group's draw falls by it."""
    draws = [group.limited_gpu.max_power_w for group in cluster.groups if group.gpu == kind]
    return kind.min_power_limit_w <= limit <= kind.max_power_limit_w and limit < min(draws)


def _limited(study: Study, kind: GpuType, limit: float) -> Candidate:
    cluster = study.setup.cluster
    limited = kind.under_limit(limit)
    speed = limited.speed["general"] / kind.speed["general"]
    gpus = sum(group.gpus for group in cluster.groups if group.gpu == kind)
    text = (
        f"Limit the {counted(gpus, 'GPU')} of type {kind.name} to {limit:g} W each: by the catalogue's curve they keep "
        f"{speed:.0%} of their speed at {limited.max_power_w / kind.max_power_w:.0%} of the draw."
    )
    groups = tuple(replace(group, power_limit_w=limit) if group.gpu == kind else group for group in cluster.groups)
    after = study.setup.on(of_groups(cluster, groups))
    return Candidate(f"power limit of {kind.name}", f"{kind.name} at {limit:g} W", text, "energy_kwh", after)


def of_groups(cluster: ClusterSpec, groups: tuple[NodeGroup, ...]) -> ClusterSpec:
    """Return the cluster with other groups of nodes."""
    return ClusterSpec.of_groups(groups, cluster.reference, cluster.locality, cluster.tariffs)
