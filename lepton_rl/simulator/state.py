"""The simulator's state: a handful of packed arrays, built from a trace and a cluster."""

from dataclasses import dataclass

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.machine import empty_cluster, hardware_tables
from lepton_rl.core.metrics import Metered, Outcome
from lepton_rl.errors import TraceError
from lepton_rl.simulator.jobs import job_table, runnable, truth_table, wish
from lepton_rl.simulator.rules import Rule, Timing
from lepton_rl.workloads import Trace


@dataclass(frozen=True, eq=False)
class State:
    """One cluster's packed arrays (columns in `core.layout`).

    `gpus`, `nodes`, `bits` and `totals` have a leading axis of two layers: the cluster itself, and the cluster as a
    backfilling pass foresees it.
    """

    jobs: Floats  # (jobs, JOB_COLUMNS)
    truth: Floats  # (jobs, TRUTH_COLUMNS)
    queue: Ints32  # (jobs,)
    run_end: Floats  # (2, most running)
    run_job: Ints32  # (3, most running)
    gpus: Ints32  # (2, GPUs, GPU_COLUMNS)
    nodes: Ints32  # (2, nodes, NODE_COLUMNS)
    bits: Words  # (2, nodes, words)
    totals: Ints64  # (2, TOTAL_COLUMNS)
    hw: Hardware
    started: Ints32  # (most running,)
    preempted: Ints32  # (most running,)
    clock: Floats  # (CLOCK_COLUMNS,)
    counts: Ints64  # (COUNT_COLUMNS,)
    rules: Ints64  # (RULE_COLUMNS,)
    settings: Floats  # (SETTING_COLUMNS,)


def check_fits(trace: Trace, cluster: ClusterSpec) -> None:
    """Refuse a workload with a job that the empty cluster cannot run.

    Raises:
        TraceError: names the first such job.
    """
    if len(trace) == 0:
        raise TraceError(f"{trace.name}: the trace has no jobs")
    if cluster.groups:
        stuck = np.flatnonzero(~runnable(trace, cluster))
        if len(stuck):
            raise TraceError(f"{trace.name}: {wish(trace, int(stuck[0]))}; no node group of {cluster} can ever run it")
        return
    too_many = np.flatnonzero(trace.gpus > cluster.gpus)
    if len(too_many):
        row = too_many[0]
        raise TraceError(
            f"{trace.name}: job {trace.job_id[row]} asks for {trace.gpus[row]:g} GPUs, the cluster has {cluster.gpus}"
        )
    too_much = np.flatnonzero(trace.gpu_memory_gib > cluster.gpu_memory_gib)
    if len(too_much):
        row = too_much[0]
        raise TraceError(
            f"{trace.name}: job {trace.job_id[row]} asks for {trace.gpu_memory_gib[row]:g} GiB of GPU memory, "
            f"a GPU has {cluster.gpu_memory_gib:g}"
        )


def build_state(trace: Trace, cluster: ClusterSpec, rule: Rule, timing: Timing) -> State:
    """Return the state before the first event.

    Raises:
        TraceError: a job can never run on this cluster.
    """
    check_fits(trace, cluster)
    whole = bool((trace.gpus >= 1).all())
    most_running = min(len(trace), cluster.gpus if whole else cluster.gpus * L.MILLI)
    gpus, nodes, bits, totals = empty_cluster(cluster)
    clock = np.zeros(L.DETAILED_CLOCK_COLUMNS if cluster.groups else L.CLOCK_COLUMNS)
    clock[L.NOW] = trace.submit_time[0]
    clock[L.TIMER] = trace.submit_time[0] + timing.timer if timing.timer > 0 else np.inf
    counts = np.zeros(L.COUNT_COLUMNS, np.int64)
    counts[L.HEAD] = -1
    counted = whole and not cluster.groups  # where nodes differ, so does what fits them
    rules, settings = rule.arrays(counted, timing)
    return State(
        jobs=job_table(trace, cluster),
        truth=truth_table(trace),
        queue=np.zeros(len(trace), np.int32),
        run_end=np.zeros((2, most_running)),
        run_job=np.zeros((3, most_running), np.int32),
        gpus=np.stack((gpus, gpus)),
        nodes=np.stack((nodes, nodes)),
        bits=np.stack((bits, bits)),
        totals=np.stack((totals, totals)),
        hw=hardware_tables(cluster),
        started=np.zeros(most_running, np.int32),
        preempted=np.zeros(most_running, np.int32),
        clock=clock,
        counts=counts,
        rules=rules,
        settings=settings,
    )


def metered(clock: Floats, cluster: ClusterSpec) -> Metered | None:
    """Return what a detailed cluster's meters say.

    Raises:
        ConfigError: a tariff ends before the run does.
    """
    if not cluster.groups:
        return None
    for series in (cluster.tariffs.electricity, cluster.tariffs.carbon):
        if series is not None:
            series.require(float(clock[L.NOW]))
    return Metered(float(clock[L.ENERGY]), float(clock[L.ELECTRICITY]), float(clock[L.CARBON]))


def outcome_of(trace: Trace, cluster: ClusterSpec, state: State) -> Outcome:
    """Return the record of a finished run."""
    return Outcome(
        cluster=cluster,
        submit=trace.submit_time,
        run=trace.run_time,
        gpus=trace.gpus,
        first_start=state.truth[:, L.FIRST_START].copy(),
        finish=state.truth[:, L.FINISH].copy(),
        preemptions=state.truth[:, L.PREEMPTIONS].astype(np.int64),
        groups=trace.user if (trace.user >= 0).any() else trace.queue,
        busy_gpu_seconds=float(state.clock[L.BUSY_INTEGRAL]) / L.MILLI,
        deadline=trace.deadline,
        stranded_gpu_seconds=float(state.clock[L.STRANDED_INTEGRAL]) / L.MILLI,
        metered=metered(state.clock, cluster),
    )
