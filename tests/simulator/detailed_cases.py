"""Small random workloads on clusters whose nodes differ, as the reference reads them and as the package does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec, Outcome
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import JOB_CLASSES, GpuType, Locality, SpreadCurve, gpu_type, make_gpu_type
from lepton_rl.simulator import Timing, run_trace
from lepton_rl.workloads import Trace
from tests.reference import detailed
from tests.reference import simulator as reference
from tests.reference.detailed import DetailedCluster, DetailedJob
from tests.simulator.cases import SHARES, rule_of, seconds, trace_of


def made_type(name: str, memory_gib: float, idle_w: float, max_w: float, speed: float, **speeds: float) -> GpuType:
    """A GPU type of one's own: `speed` for every class of job, `speeds` for those that have one of their own."""
    figures = {
        "memory_gib": memory_gib,
        "idle_power_w": idle_w,
        "max_power_w": max_w,
        "fp32_tflops": 10.0,
        "fp16_tflops": 40.0,
        "memory_bandwidth_gb_s": 500.0,
    }
    made = make_gpu_type(name, figures)
    return replace(made, speed=dict.fromkeys(JOB_CLASSES, speed) | speeds, sources={})


# Powers of two: what they divide and multiply does not round.
SLOW = made_type("slow", 10.0, 8.0, 70.0, 0.5, vision=0.25)
PLAIN = made_type("plain", 40.0, 25.0, 250.0, 1.0)
FAST = made_type("fast", 80.0, 50.5, 400.25, 2.0, language=4.0)
EXACT_TYPES = (SLOW, PLAIN, FAST)
TYPES = (*EXACT_TYPES, gpu_type("K80"), gpu_type("V100-SXM2-32GB"), gpu_type("A100-SXM4-80GB"))

EXACT_CURVES = (SpreadCurve(), SpreadCurve((1, 2), (1.0, 2.0)), SpreadCurve((1, 2, 3), (1.0, 1.0, 4.0)))
CURVES = (*EXACT_CURVES, SpreadCurve((1, 2, 4), (1.0, 1.1, 1.7)))

OFFERS = {"cpu_cores": (1.0, 4.0, 8.5, 16.0), "ram_gib": (16.0, 64.5, 512.0), "fpga": (0.0, 1.0, 2.0)}
ASKS = {"cpu_cores": (0.5, 1.0, 4.0), "ram_gib": (4.0, 12.25, 64.5), "fpga": (0.5, 1.0)}
SIZES = st.one_of(st.integers(1, 12).map(float), st.sampled_from(SHARES))
FIGURES_GIB = (None, None, None, 5.0, 10.0, 20.5, 40.0, 79.25)


def reference_type(gpu: GpuType) -> detailed.Type:
    """The type as the reference reads it."""
    return detailed.Type(gpu.name, gpu.memory_gib, gpu.idle_power_w, gpu.max_power_w, gpu.speed)


def reference_cluster(cluster: ClusterSpec, placement: reference.Placement = "first") -> DetailedCluster:
    """The cluster, empty, as the reference keeps it."""
    groups = [
        detailed.Group(group.nodes, group.gpus_per_node, reference_type(group.gpu), dict(group.offers), group.racks)
        for group in cluster.groups
    ]
    assert cluster.reference is not None
    node_curve, rack_curve = (
        tuple(zip(curve.counts, curve.slowdowns, strict=True))
        for curve in (cluster.locality.nodes, cluster.locality.racks)
    )
    return DetailedCluster(groups, placement, reference_type(cluster.reference), node_curve, rack_curve)


def detailed_trace(jobs: Sequence[DetailedJob]) -> Trace:
    """The jobs as a trace that keeps their submit times."""
    columns: dict[str, Any] = {
        "job_class": [job.job_class for job in jobs],
        "gpu_type": ["|".join(job.types) for job in jobs],
    }
    names = {name for job in jobs for name in job.asks}
    for name in sorted(names):
        columns[f"{name}_per_gpu"] = [job.asks.get(name, 0.0) for job in jobs]
    return trace_of(jobs, **columns)


@dataclass(frozen=True)
class DetailedCase:
    """Jobs in the order of submission, and a cluster that can run each of them."""

    jobs: list[DetailedJob]
    cluster: ClusterSpec

    @property
    def trace(self) -> Trace:
        return detailed_trace(self.jobs)

    def expected(
        self,
        order: str,
        blocking: reference.Blocking,
        placement: reference.Placement,
        cost: float = 0.0,
        quantum: float = 0.0,
    ) -> reference.Result:
        empty = reference_cluster(self.cluster, placement)
        return reference.simulate_on(empty, self.jobs, order, blocking, cost, quantum)

    def found(
        self,
        order: str,
        blocking: reference.Blocking,
        placement: reference.Placement,
        cost: float = 0.0,
        quantum: float = 0.0,
    ) -> Outcome:
        return run_trace(self.trace, self.cluster, rule_of(order, blocking, placement), Timing(cost, quantum))


@st.composite
def node_groups(draw: st.DrawFn, types: Sequence[GpuType]) -> NodeGroup:
    nodes = draw(st.integers(1, 3))
    offers = {name: draw(st.sampled_from(amounts)) for name, amounts in OFFERS.items() if draw(st.integers(0, 2)) == 0}
    gpu = draw(st.sampled_from(types))
    return NodeGroup(nodes, draw(st.integers(1, 4)), gpu, tuple(offers.items()), draw(st.integers(1, nodes)))


@st.composite
def clusters(draw: st.DrawFn, exact: bool = False) -> ClusterSpec:
    """Up to 4 groups of up to 3 nodes of up to 4 GPUs.

    Args:
        exact: speeds and slowdowns are powers of two.
    """
    types, curves = (EXACT_TYPES, EXACT_CURVES) if exact else (TYPES, CURVES)
    groups = tuple(draw(st.lists(node_groups(types), min_size=1, max_size=4)))
    locality = Locality(draw(st.sampled_from(curves)), draw(st.sampled_from(curves)))
    return ClusterSpec.of_groups(groups, draw(st.sampled_from([None, *types])), locality)


@st.composite
def job_wishes(draw: st.DrawFn, sizes: st.SearchStrategy[float] = SIZES) -> dict[str, Any]:
    """What a job asks for, as arguments of a `DetailedJob`; the cluster may not have it."""
    names = st.lists(st.sampled_from([kind.name for kind in TYPES]), min_size=1, max_size=4, unique=True)
    return {
        "gpus": draw(sizes),
        "memory_gib": draw(st.sampled_from(FIGURES_GIB)),
        "job_class": draw(st.sampled_from(["general", "general", "vision", "language"])),
        "types": tuple(draw(names)) if draw(st.integers(0, 3)) == 0 else (),
        "asks": {
            name: draw(st.sampled_from(amounts)) for name, amounts in ASKS.items() if draw(st.integers(0, 2)) == 0
        },
    }


@st.composite
def detailed_cases(draw: st.DrawFn, exact: bool = False) -> DetailedCase:
    """Up to 12 jobs, each of which the empty cluster can run; events often fall together.

    Args:
        exact: times, speeds and slowdowns whose sums and quotients do not round.
    """
    cluster = draw(clusters(exact))
    empty = reference_cluster(cluster)
    gangs: st.SearchStrategy[float] = st.integers(1, min(cluster.gpus, 8)).map(float)
    sizes = gangs if draw(st.booleans()) else st.one_of(gangs, st.sampled_from(SHARES))
    times = seconds(exact)
    gaps = st.sampled_from([0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 0.125 if exact else 0.3, 15.0])
    jobs: list[DetailedJob] = []
    now = draw(st.sampled_from([0.0, 0.0, 7.5]))
    for _ in range(draw(st.integers(1, 14))):
        now += draw(gaps)
        run = draw(times)
        requested = run if draw(st.booleans()) else draw(times)
        job = DetailedJob(len(jobs), now, run, requested, **draw(job_wishes(sizes)))
        if empty.find(job) is not None:
            jobs.append(job)
    return DetailedCase(jobs or [DetailedJob(0, now, 5.0, 5.0, 1.0)], cluster)
