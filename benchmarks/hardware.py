"""Rows of what the hardware model costs: whole traces with all of it off, and with all of it on, run by run."""

from collections.abc import Iterator

import numpy as np

from benchmarks.environments import SMALL, measure_vector_env
from benchmarks.rows import Row, at_least, at_most
from benchmarks.timing import cpu_seconds
from benchmarks.workloads import workload
from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import NodeGroup, Tariffs
from lepton_rl.core.hardware import HourlySeries, Locality, SpreadCurve, gpu_type
from lepton_rl.core.hardware.dynamics import Dynamics, Faults, Interference, Lifetimes, Reservation
from lepton_rl.simulator import Blocking, Order, Rule, Timing
from lepton_rl.simulator.state import build_state, outcome_of
from lepton_rl.simulator.trace_run import run_state
from lepton_rl.workloads import Trace

NODES, GPUS_PER_NODE = 64, 8
LOAD = 0.9
STRETCH = 1.06  # run times are so much longer with everything on: the load is lowered by as much
RULES = (("FCFS, head", Rule(Order.FCFS, Blocking.HEAD), 2.0), ("SJF + EASY", Rule(Order.SJF, Blocking.EASY), 10.0))
"""With twice the seconds that a million jobs may take with everything off (benchmarks.traces)."""


def _plain() -> ClusterSpec:
    return ClusterSpec(NODES, GPUS_PER_NODE)


def _everything(hours: int, nodes: int = NODES) -> ClusterSpec:
    """The same GPUs with locality, prices, sharing, heat, failures and reservations."""
    daily = 60.0 + 40.0 * np.sin(np.arange(hours) * (2.0 * np.pi / 24.0))
    return ClusterSpec.of_groups(
        (NodeGroup(nodes, GPUS_PER_NODE, gpu_type("A100-SXM4-80GB"), (("cpu_cores", 128.0),), racks=8),),
        locality=Locality(SpreadCurve((1, 2), (1.0, 1.05))),
        tariffs=Tariffs(HourlySeries.of(daily, "price"), HourlySeries.of(5.0 * daily, "carbon")),
        dynamics=Dynamics(
            interference=Interference(0.5),
            inlet_temperature_c=42.0,
            faults=Faults(
                gpu=Lifetimes(4000.0, 6.0), node=Lifetimes(8000.0, 12.0), until_hours=float(hours),
                checkpoint_interval_s=1800.0, checkpoint_cost_s=15.0, restart_cost_s=60.0,
            ),
            reservations=tuple(
                Reservation(week * 604_800, week * 604_800 + 14_400, (week % nodes,)) for week in range(1, 9)
            ),
        ),
    )  # fmt: skip


def _followed(trace: Trace) -> Trace:
    """The trace with every tenth job after the one before it."""
    rows = np.arange(10, len(trace), 10)
    return trace.with_after(np.stack((rows - 1, rows), axis=1))


def hardware_model(quick: bool) -> Iterator[Row]:
    """Seconds for a million jobs with all of the hardware model on, and how many times those with all of it off."""
    jobs = 20_000 if quick else 1_000_000
    off, on = (
        workload(jobs, NODES * GPUS_PER_NODE, LOAD),
        _followed(workload(jobs, NODES * GPUS_PER_NODE, LOAD / STRETCH)),
    )
    everything = _everything(int(on.submit_time[-1] / 3600.0 * 1.5) + 24)
    for name, rule, most in RULES:
        least = {"off": float("inf"), "on": float("inf")}
        used = {}
        for _ in range(3):  # in turns: both meet the same neighbours on the machine
            for label, trace, cluster in (("off", off, _plain()), ("on", on, everything)):
                state = build_state(trace, cluster, rule, Timing())
                least[label] = min(least[label], cpu_seconds(lambda state=state: run_state(state)))  # type: ignore[misc]
                used[label] = outcome_of(trace, state)
        yield Row(
            f"{jobs:,} jobs on 64 × 8 GPUs, {name}, all of the hardware model on",
            least["on"],
            "CPU-s",
            at_most(most),
            details={
                "times all off": least["on"] / least["off"],
                **{f"{label}, µs per job": seconds / jobs * 1e6 for label, seconds in least.items()},
                **{f"{label}, utilisation": outcome.utilization for label, outcome in used.items()},
                **{f"{label}, mean wait, s": float(outcome.wait.mean()) for label, outcome in used.items()},
            },
        )
    yield _vector_env(quick)


def _vector_env(quick: bool) -> Row:
    """The vector env on 16 nodes with all of it on; the bar is half of that with all of it off."""
    hours = int(SMALL.trace(8 if quick else 32).submit_time[-1] / 3600.0 * 3.0) + 100
    on = measure_vector_env(SMALL, "basic", quick, _everything(hours, SMALL.nodes))
    off = measure_vector_env(SMALL, "basic", quick)
    return Row(
        "vector env, 16 × 8 GPUs, basic observation, all of the hardware model on", on.steps_per_second, "steps/CPU-s",
        at_least(500_000),
        details={
            "all off, steps/CPU-s": off.steps_per_second, "times all off": off.steps_per_second / on.steps_per_second,
            "mean queue on": on.queue, "off": off.queue,
        },
    )  # fmt: skip
