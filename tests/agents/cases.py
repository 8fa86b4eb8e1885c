"""Small workloads and clusters, drawn by hypothesis, on which policies are compared."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from lepton_rl.agents import (
    BestFit,
    Cheapest,
    DiscretisedLas,
    DotProduct,
    Drf,
    Energy,
    Fgd,
    FinishTimeFairness,
    GavelMaxMin,
    GavelMaxThroughput,
    Genetic,
    Gittins,
    GpuClustering,
    GpuPacking,
    Greedy,
    Greenest,
    HeapPriority,
    LeastLoaded,
    Power,
    Predicted,
    Priority,
    Random,
    Reserve,
    WeightedPlacement,
)
from lepton_rl.agents.compiled import RulePolicy
from lepton_rl.agents.priority import SCORES
from lepton_rl.core import ClusterSpec, Placement, Policy
from lepton_rl.workloads import Trace

CLUSTERS = st.sampled_from(
    [ClusterSpec.pool(6), ClusterSpec(nodes=3, gpus_per_node=2), ClusterSpec(nodes=2, gpus_per_node=4)]
)
PLACEMENTS = st.sampled_from(list(Placement))


def plain_trace(**columns: Any) -> Trace:
    """Return a trace of these columns, submitted at 0 unless they say otherwise."""
    return Trace.from_columns({"submit_time": np.zeros(len(columns["run_time"])), **columns})


@st.composite
def traces(draw: st.DrawFn, shares: bool = True, most: int = 12, burst: bool = False) -> Trace:
    """Draw a few jobs; many times are equal, many runs end before or after their requested time."""
    count = draw(st.integers(1, most))

    def column(values: st.SearchStrategy[float]) -> list[float]:
        return draw(st.lists(values, min_size=count, max_size=count))

    sizes = st.sampled_from([1.0, 1.0, 2.0, 3.0, 4.0, 6.0])
    if shares:
        sizes = st.one_of(sizes, st.sampled_from([0.2, 0.25, 0.5, 0.7]))
    requested = column(st.sampled_from([12.0, 20.0, 60.0, 75.0, 300.0, 4000.0]))
    factors = column(st.sampled_from([1.0] if burst else [0.5, 1.0, 1.0, 1.5]))
    return Trace.from_columns(
        {
            "submit_time": np.zeros(count) if burst else column(st.integers(0, 120).map(float)),
            "run_time": np.multiply(requested, factors),
            "requested_time": requested,
            "gpus": column(sizes),
            "gpu_memory_gib": column(st.sampled_from([np.nan, 8.0, 40.0, 70.0])),
            "compute_intensity": column(st.sampled_from([1.0, 2.0, 50.0])),
            "time_sensitivity": column(st.sampled_from([1.0, 3.0, 6.0])),
            "deadline": column(st.sampled_from([np.nan, 30.0, 100.0, 5000.0])),
            "user": draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)),
        }
    )


@st.composite
def rule_policies(draw: st.DrawFn) -> RulePolicy:
    """Draw any policy that is a compiled rule, with any blocking and placement that it takes."""
    placement = draw(st.sampled_from([None, "first", "best", "worst", "consolidated"]))
    kind = draw(st.sampled_from([*SCORES, "heap_priority", "power", "reserve", "random", "dlas"]))
    blockings = ["head", "skip"]
    if kind not in ("srtf", "las", "dlas", "reserve"):
        blockings += ["easy", "conservative"]
    rules: dict[str, Any] = {"blocking": draw(st.sampled_from(blockings)), "placement": placement}
    if kind == "heap_priority":
        return HeapPriority(compute_scale=50.0, time_scale=6.0, memory_scale=80.0, **rules)
    if kind == "power":
        return Power(a=0.5, b=1.5, **rules)
    if kind == "reserve":
        return Reserve(rho=0.5, t0=20.0, t1=500.0, **rules)
    if kind == "dlas":
        return DiscretisedLas(threshold=draw(st.sampled_from([20.0, 75.0, 900.0])), **rules)
    if kind == "random":
        return Random(seed=draw(st.integers(0, 5)), **rules)
    return Priority.model_validate({"score": kind, **rules})


_MAKERS: list[Callable[[], Policy]] = [
    Greedy,
    lambda: Greedy(placement="worst"),
    lambda: Genetic(generations=1, moves=4),
    Gittins,
    lambda: Predicted(enough=1, blocking="easy"),
    lambda: Drf(blocking="skip"),
    FinishTimeFairness,
    LeastLoaded,
    lambda: Energy(order="sjf"),
    Cheapest,
    Greenest,
    BestFit,
    DotProduct,
    lambda: GpuPacking(blocking="head"),
    GpuClustering,
    Fgd,
    WeightedPlacement,
    GavelMaxMin,
    lambda: GavelMaxMin(blocking="head", placement="consolidated"),
    lambda: GavelMaxThroughput(preempt=True, round_time=20.0),
]


def _made(maker: Callable[[], Policy]) -> Policy:
    return maker()


PYTHON_POLICIES: st.SearchStrategy[Policy] = st.sampled_from(_MAKERS).map(_made)
"""Made anew for each example: some of them learn while they run."""
