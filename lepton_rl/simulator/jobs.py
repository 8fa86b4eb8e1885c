"""What the simulator knows of a trace beside the packed job table: true run times, and which jobs follow which."""

from collections.abc import Sequence

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.workloads import Trace


def cluster_for(traces: Sequence[Trace], cluster: ClusterSpec) -> ClusterSpec:
    """Return the cluster as these traces need it: in groups where jobs come after others."""
    return cluster.in_groups() if any(len(trace.after) for trace in traces) else cluster


def with_followers(hw: Hardware, traces: Sequence[Trace]) -> Hardware:
    """Return the tables with the jobs that come after each job, of all traces one behind the other."""
    total = sum(len(trace) for trace in traces)
    if hw is None or not any(len(trace.after) for trace in traces):
        return hw
    first = np.cumsum([0, *(len(trace) for trace in traces)])
    edges = np.concatenate([trace.after + base for trace, base in zip(traces, first, strict=False)])
    followers_from = np.searchsorted(edges[:, 0], np.arange(total + 1))
    return hw._replace(followers_from=followers_from.astype(np.int64), followers=np.ascontiguousarray(edges[:, 1]))


def truth_table(trace: Trace, cluster: ClusterSpec) -> Floats:
    """Return what only the simulator knows of each job."""
    truth = np.zeros((len(trace), L.DETAILED_TRUTH_COLUMNS if cluster.groups else L.TRUTH_COLUMNS))
    if cluster.groups:
        truth[:, L.END] = np.inf
    truth[:, L.RUN] = trace.run_time
    truth[:, L.REMAINING] = trace.run_time
    truth[:, L.FIRST_START] = np.nan
    truth[:, L.FINISH] = np.nan
    return truth
