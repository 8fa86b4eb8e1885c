"""A trace ready to be cut into episodes: what schedulers know of each job, what they do not, prices and features."""

from dataclasses import dataclass

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats, Singles
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.envs.codec import Codec
from lepton_rl.envs.features import UNKNOWN_TIME, all_static_features
from lepton_rl.envs.objective import Objective
from lepton_rl.simulator.jobs import truth_table
from lepton_rl.simulator.state import check_fits
from lepton_rl.workloads import Trace
from lepton_rl.workloads.job_table import job_table


@dataclass(frozen=True, eq=False)
class EpisodeTables:
    """One trace; the tables have a row for each job."""

    trace: Trace
    jobs: Floats
    truth: Floats
    prices: Floats
    static: Singles


def episode_tables(
    trace: Trace, cluster: ClusterSpec, codec: Codec, objective: Objective, counted: int
) -> EpisodeTables:
    """Return the tables of a trace.

    Args:
        trace: the jobs.
        cluster: what they run on.
        codec: how they are shown.
        objective: what they cost.
        counted: jobs of an episode that count.

    Raises:
        TraceError: a job can never run on this cluster.
    """
    check_fits(trace, cluster)
    jobs = job_table(trace, codec.told_apart(cluster))
    if not cluster.groups:
        jobs = jobs[:, : L.JOB_COLUMNS].copy()  # no codec reads deadlines
    unknown = np.isnan(jobs[:, L.REQUESTED])
    jobs[unknown, L.REQUESTED] = UNKNOWN_TIME
    jobs[:, L.PREDICTED] = jobs[:, L.REQUESTED]
    key = {"fcfs": L.SUBMIT, "sjf": L.REQUESTED, "smallest": L.GPUS}
    if codec.key == "saf":  # rounded as the compiled score is
        jobs[:, L.SCORE] = jobs[:, L.REQUESTED] * (jobs[:, L.GPUS] / L.MILLI)
    else:
        jobs[:, L.SCORE] = jobs[:, key[codec.key]]
    if codec.key == "smallest":
        jobs[:, L.SCORE] /= L.MILLI
    static = all_static_features(jobs, cluster.gpus, cluster.gpu_memory_mib, codec.key == "fcfs")
    return EpisodeTables(trace, jobs, truth_table(trace, cluster), objective.prices(trace.run_time, counted), static)
