"""The simulator's state: a handful of packed arrays, built from a trace and a cluster."""

from dataclasses import dataclass

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.allocation import empty_allocation
from lepton_rl.core.arrays import Floats, Ints32, Ints64, Words
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.metrics import Outcome
from lepton_rl.errors import TraceError
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
    started: Ints32  # (most running,)
    preempted: Ints32  # (most running,)
    clock: Floats  # (CLOCK_COLUMNS,)
    counts: Ints64  # (COUNT_COLUMNS,)
    rules: Ints64  # (RULE_COLUMNS,)
    settings: Floats  # (SETTING_COLUMNS,)


def job_table(trace: Trace) -> Floats:
    """Return what a scheduler can know of each job, rows in trace order, ids the row numbers."""
    jobs = np.zeros((len(trace), L.JOB_COLUMNS))
    jobs[:, L.ID] = np.arange(len(trace))
    jobs[:, L.SUBMIT] = trace.submit_time
    jobs[:, L.REQUESTED] = trace.requested_time
    jobs[:, L.GPUS] = np.rint(trace.gpus * L.MILLI)
    jobs[:, L.MEMORY] = np.ceil(np.nan_to_num(trace.gpu_memory_gib, nan=0.0) * L.MIB_PER_GIB)
    jobs[:, L.COMPUTE] = trace.compute_intensity
    jobs[:, L.TIME_SENSITIVITY] = trace.time_sensitivity
    jobs[:, L.QUEUE] = trace.queue
    jobs[:, L.USER] = trace.user
    jobs[:, L.PROJECT] = trace.project
    jobs[:, L.PREDICTED] = trace.requested_time
    jobs[:, L.FIRST_GPU] = -1
    jobs[:, L.DEADLINE] = trace.submit_time + np.nan_to_num(trace.deadline, nan=np.inf)
    return jobs


def truth_table(trace: Trace) -> Floats:
    """Return what only the simulator knows of each job."""
    truth = np.zeros((len(trace), L.TRUTH_COLUMNS))
    truth[:, L.RUN] = trace.run_time
    truth[:, L.REMAINING] = trace.run_time
    truth[:, L.FIRST_START] = np.nan
    truth[:, L.FINISH] = np.nan
    return truth


def check_fits(trace: Trace, cluster: ClusterSpec) -> None:
    """Refuse a workload with a job that the empty cluster cannot run.

    Raises:
        TraceError: names the first such job.
    """
    if len(trace) == 0:
        raise TraceError(f"{trace.name}: the trace has no jobs")
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
    gpus, nodes, bits, totals = empty_allocation(cluster.nodes, cluster.gpus_per_node, cluster.gpu_memory_mib)
    clock = np.zeros(L.CLOCK_COLUMNS)
    clock[L.NOW] = trace.submit_time[0]
    clock[L.TIMER] = trace.submit_time[0] + timing.timer if timing.timer > 0 else np.inf
    counts = np.zeros(L.COUNT_COLUMNS, np.int64)
    counts[L.HEAD] = -1
    rules, settings = rule.arrays(whole, timing)
    return State(
        jobs=job_table(trace),
        truth=truth_table(trace),
        queue=np.zeros(len(trace), np.int32),
        run_end=np.zeros((2, most_running)),
        run_job=np.zeros((3, most_running), np.int32),
        gpus=np.stack((gpus, gpus)),
        nodes=np.stack((nodes, nodes)),
        bits=np.stack((bits, bits)),
        totals=np.stack((totals, totals)),
        started=np.zeros(most_running, np.int32),
        preempted=np.zeros(most_running, np.int32),
        clock=clock,
        counts=counts,
        rules=rules,
        settings=settings,
    )


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
    )
