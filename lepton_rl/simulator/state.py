"""The simulator's state: a handful of packed arrays, built from a trace and a cluster."""

from dataclasses import dataclass

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.machine import clock_columns, empty_cluster, hardware_tables
from lepton_rl.core.metrics import Disturbed, Metered, Outcome
from lepton_rl.errors import TraceError
from lepton_rl.simulator.events import count_unmet
from lepton_rl.simulator.heat import start_cold
from lepton_rl.simulator.jobs import cluster_for, truth_table, with_followers
from lepton_rl.simulator.rules import Rule, Timing
from lepton_rl.workloads import Trace
from lepton_rl.workloads.job_table import job_table, runnable, wish


@dataclass(frozen=True, eq=False)
class State:
    """One cluster's packed arrays (columns in `core.layout`).

    `gpus`, `nodes`, `bits` and `totals` have a leading axis of two layers: the cluster itself, and the cluster as a
    backfilling pass foresees it.
    """

    cluster: ClusterSpec
    jobs: Floats  # (jobs, JOB_COLUMNS)
    truth: Floats  # (jobs, TRUTH_COLUMNS)
    queue: Ints32  # (jobs,)
    run_end: Floats  # (2, most running)
    run_job: Ints32  # (RUN_ROWS, most running)
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


def most_that_run(jobs: int, whole_gpus: bool, cluster: ClusterSpec) -> int:
    """Return how many jobs may stand in the lists of running jobs.

    On a detailed cluster twice as many as can run: at one instant those that ran and those that then start may change.
    """
    most = cluster.gpus if whole_gpus else cluster.gpus * L.MILLI
    return min(jobs, 2 * most if cluster.groups else most)


def build_state(trace: Trace, cluster: ClusterSpec, rule: Rule, timing: Timing) -> State:
    """Return the state before the first event.

    Raises:
        TraceError: a job can never run on this cluster.
    """
    cluster = cluster_for((trace,), cluster)
    check_fits(trace, cluster)
    whole = bool((trace.gpus >= 1).all())
    most_running = most_that_run(len(trace), whole, cluster)
    gpus, nodes, bits, totals = empty_cluster(cluster)
    hw = with_followers(hardware_tables(cluster), (trace,))
    jobs = job_table(trace, cluster)
    clock = np.zeros(clock_columns(cluster))
    clock[L.NOW] = trace.submit_time[0]
    clock[L.TIMER] = trace.submit_time[0] + timing.timer if timing.timer > 0 else np.inf
    counts = np.zeros(L.COUNT_COLUMNS, np.int64)
    counts[L.HEAD] = -1
    counted = whole and not cluster.groups  # where nodes differ, so does what fits them
    rules, settings = rule.arrays(counted, timing)
    if hw is not None:
        count_unmet(jobs, hw, counts)
        start_cold(gpus, nodes, hw, clock)
    return State(
        cluster=cluster,
        jobs=jobs,
        truth=truth_table(trace, cluster),
        queue=np.zeros(len(trace), np.int32),
        run_end=np.zeros((2, most_running)),
        run_job=np.zeros((L.RUN_ROWS if hw is None else L.DETAILED_RUN_ROWS, most_running), np.int32),
        gpus=np.stack((gpus, gpus)),
        nodes=np.stack((nodes, nodes)),
        bits=np.stack((bits, bits)),
        totals=np.stack((totals, totals)),
        hw=hw,
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


def disturbed(truth: Floats, cluster: ClusterSpec) -> Disturbed | None:
    """Return what failures did to the jobs of a cluster whose GPUs fail."""
    if not cluster.dynamics.faults.is_on:
        return None
    return Disturbed(strikes=truth[:, L.STRIKES].astype(np.int64), lost_seconds=truth[:, L.LOST].copy())


def outcome_of(trace: Trace, state: State) -> Outcome:
    """Return the record of a finished run."""
    cluster = state.cluster
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
        disturbed=disturbed(state.truth, cluster),
    )
