"""Rows of the whole-trace run: a million jobs without Python between the events, and how the time grows."""

import math
from collections.abc import Iterator

from benchmarks.rows import Row, at_most
from benchmarks.timing import cpu_seconds
from benchmarks.workloads import workload
from lepton_rl.core import ClusterSpec
from lepton_rl.simulator import Blocking, Order, Rule, Timing
from lepton_rl.simulator.state import build_state
from lepton_rl.simulator.trace_run import run_state
from lepton_rl.workloads import Trace

CLUSTER = ClusterSpec(64, 8)
LOAD = 0.9
SIZES = (1_000, 10_000, 100_000, 1_000_000)
RULES = (
    ("FCFS, head", Rule(Order.FCFS, Blocking.HEAD), 1.0),
    ("SJF + EASY", Rule(Order.SJF, Blocking.EASY), 5.0),
)


def _kernel_seconds(trace: Trace, rule: Rule, repeats: int) -> float:
    """Return the CPU seconds of the compiled run alone, the state's construction not counted."""
    best = float("inf")
    for _ in range(repeats):
        state = build_state(trace, CLUSTER, rule, Timing())
        best = min(best, cpu_seconds(lambda state=state: run_state(state)))  # type: ignore[misc]
    return best


def whole_traces(quick: bool) -> Iterator[Row]:
    """Seconds for a million jobs on 64 × 8 GPUs, and the growth from a thousand."""
    sizes = SIZES[:3] if quick else SIZES
    traces = {size: workload(size, CLUSTER.gpus, LOAD) for size in sizes}
    for name, rule, most in RULES:
        seconds = {size: _kernel_seconds(trace, rule, max(3, 200_000 // size)) for size, trace in traces.items()}
        largest = sizes[-1]
        per_job = {f"µs per job at {size:,}": seconds[size] / size * 1e6 for size in sizes}
        yield Row(
            f"{largest:,} jobs on 64 × 8 GPUs, load {LOAD}, {name}, kernel alone",
            seconds[largest],
            "CPU-s",
            at_most(most),
            details=per_job,
        )
        fitted = [seconds[size] / (size * math.log2(size)) for size in sizes]
        yield Row(
            f"growth {sizes[0]:,} to {largest:,} jobs against n log n, {name}",
            fitted[-1] / fitted[0],
            "×",
            at_most(2),
            details={
                "exponent of n": math.log(seconds[largest] / seconds[sizes[0]], largest / sizes[0]),
                "ns / (n log2 n), least": min(fitted) * 1e9,
                "ns / (n log2 n), most": max(fitted) * 1e9,
            },
        )
