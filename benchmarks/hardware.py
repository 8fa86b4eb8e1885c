"""Rows of what the hardware model costs: whole traces with all of it off, and with all of it on, run by run."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.rows import Row, at_most
from benchmarks.timing import cpu_seconds
from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import NodeGroup, Tariffs
from lepton_rl.core.hardware import HourlySeries, gpu_type
from lepton_rl.core.hardware.coefficients import default_locality
from lepton_rl.core.hardware.dynamics import Dynamics, Faults, Interference, Lifetimes, Reservation
from lepton_rl.simulator import Blocking, Order, Rule, Timing
from lepton_rl.simulator.state import build_state
from lepton_rl.simulator.trace_run import run_state
from lepton_rl.workloads import Trace, gpu_cluster
from lepton_rl.workloads.gpu_cluster import GpuClusterParameters

NODES, GPUS_PER_NODE = 64, 8
LOAD = 0.8
RULES = (("FCFS, head", Rule(Order.FCFS, Blocking.HEAD)), ("SJF + EASY", Rule(Order.SJF, Blocking.EASY)))
SHARES = GpuClusterParameters(
    gang_sizes=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0), gang_shares=(0.2, 0.2, 0.5, 0.04, 0.03, 0.03), max_run_time=86400.0
)


def _plain() -> ClusterSpec:
    return ClusterSpec(NODES, GPUS_PER_NODE)


def _everything(hours: int) -> ClusterSpec:
    """The same GPUs with locality, prices, sharing, heat, failures and reservations."""
    daily = 60.0 + 40.0 * np.sin(np.arange(hours) * (2.0 * np.pi / 24.0))
    return ClusterSpec.of_groups(
        (NodeGroup(NODES, GPUS_PER_NODE, gpu_type("A100-SXM4-80GB"), (("cpu_cores", 128.0),), racks=8),),
        locality=default_locality(),
        tariffs=Tariffs(HourlySeries.of(daily, "price"), HourlySeries.of(5.0 * daily, "carbon")),
        dynamics=Dynamics(
            interference=Interference(0.5),
            inlet_temperature_c=42.0,
            faults=Faults(
                gpu=Lifetimes(4000.0, 6.0), node=Lifetimes(8000.0, 12.0), until_hours=float(hours),
                checkpoint_interval_s=1800.0, checkpoint_cost_s=15.0, restart_cost_s=60.0,
            ),
            reservations=tuple(
                Reservation(week * 604_800.0, week * 604_800.0 + 14_400.0, (week % NODES,)) for week in range(1, 9)
            ),
        ),
    )  # fmt: skip


def _followed(trace: Trace) -> Trace:
    """The trace with every tenth job after the one before it."""
    rows = np.arange(10, len(trace), 10)
    return trace.with_after(np.stack((rows - 1, rows), axis=1))


def hardware_model(quick: bool) -> Iterator[Row]:
    """How many times longer whole traces take with all of the hardware model on."""
    jobs = 10_000 if quick else 100_000
    off = gpu_cluster(jobs, NODES * GPUS_PER_NODE, LOAD, 0, SHARES)
    off = replace(off, gpu_memory_gib=np.full(jobs, np.nan))  # shares are what stops shares
    on = _followed(off)
    everything = _everything(int(off.submit_time[-1] / 3600.0 * 3.0))
    for name, rule in RULES:
        least = {"off": float("inf"), "on": float("inf")}
        for _ in range(2 if quick else 5):  # in turns: both meet the same neighbours on the machine
            for label, trace, cluster in (("off", off, _plain()), ("on", on, everything)):
                state = build_state(trace, cluster, rule, Timing())
                least[label] = min(least[label], cpu_seconds(lambda state=state: run_state(state)))  # type: ignore[misc]
        yield Row(
            f"{jobs:,} jobs, shares among them, on 64 × 8 GPUs, {name}: all of the hardware model on against off",
            least["on"] / least["off"],
            "×",
            at_most(2),
            details={f"{label}, µs per job": seconds / jobs * 1e6 for label, seconds in least.items()},
        )
