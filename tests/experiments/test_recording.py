"""Who held which GPUs when: the same schedule as without a record."""

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lepton_rl.agents import make_policy, run_policy
from lepton_rl.core import Action, ClusterSpec, Migrate, Policy, SetPowerLimit, Snapshot, Start
from lepton_rl.errors import ConfigError, IllegalAction
from lepton_rl.experiments import timelines
from lepton_rl.experiments.cluster_config import ClusterConfig
from lepton_rl.experiments.loader import load
from lepton_rl.experiments.recording import record
from lepton_rl.simulator import Timing
from lepton_rl.workloads import Trace, gpu_cluster

CONFIGS = Path(__file__).parents[2] / "configs" / "cluster"
MIXED = load(CONFIGS / "mixed.yaml", ClusterConfig).build()
EVENTFUL = load(CONFIGS / "eventful.yaml", ClusterConfig).build()  # failures, throttling, interference, a reservation
CLUSTERS = {"pool": ClusterSpec.pool(8), "nodes": ClusterSpec(2, 4), "mixed": MIXED, "eventful": EVENTFUL}
JOBS = 400
TIMING = Timing(preemption_cost=40.0, quantum=100.0)


def busy_trace(cluster: ClusterSpec, shares: bool = False) -> Trace:
    """Return a trace that keeps jobs waiting; with `shares`, some of its jobs want less than a GPU."""
    trace = gpu_cluster(JOBS, cluster.gpus, 30.0, seed=3)
    is_share = (trace.gpus == 1) & (np.arange(JOBS) % 4 == 0)
    return replace(trace, gpus=np.where(is_share, 0.4, trace.gpus)) if shares else trace


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
@pytest.mark.parametrize("shares", [False, True], ids=["whole", "shares"])
@pytest.mark.parametrize(
    "policy",
    [
        make_policy("fcfs"),
        make_policy("sjf", blocking="easy"),
        make_policy("saf", blocking="conservative", placement="best"),
        make_policy("wfp3", blocking="skip", placement="worst"),
        make_policy("reserve", placement="consolidated"),
        make_policy("srtf"),
        make_policy("las", blocking="skip"),
    ],
    ids=lambda policy: policy.name,
)
def test_a_recorded_rule_makes_the_schedule_of_the_compiled_one(
    policy: Policy, shares: bool, cluster: ClusterSpec
) -> None:
    trace = busy_trace(cluster, shares)
    compiled = run_policy(policy, trace, cluster, TIMING)
    recorded = record(policy, trace, cluster, TIMING)
    # where rates change, each action sets them anew on a cluster and only the last of an instant does in a compiled run
    rel = 1e-12 if cluster is EVENTFUL else 0.0
    for name in ("first_start", "finish", "preemptions"):
        assert getattr(recorded.outcome, name) == pytest.approx(getattr(compiled, name), rel=rel, abs=0.0)
    assert recorded.outcome.metrics() == pytest.approx(compiled.metrics(), rel=rel and 1e-9, abs=0.0)


def test_every_stay_is_recorded_with_its_gpus() -> None:
    trace = Trace.from_columns({"submit_time": [0.0, 0.0, 1.0], "run_time": [4.0, 2.0, 3.0], "gpus": [1.0, 1.0, 2.0]})
    recording = record(make_policy("fcfs"), trace, ClusterSpec.pool(2))
    assert recording.job.tolist() == [0, 1, 2]
    assert recording.begin.tolist() == [0.0, 0.0, 4.0]
    assert recording.end.tolist() == [4.0, 2.0, 7.0]
    assert [recording.gpus_of(stay).tolist() for stay in range(3)] == [[0], [1], [0, 1]]
    assert recording.stay.tolist() == [0, 1, 2, 2]
    assert not recording.interrupted.any()
    assert (recording.begun, recording.ended) == (0.0, 7.0)


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
def test_a_preempted_job_has_several_stays_and_no_gpu_is_held_twice(cluster: ClusterSpec) -> None:
    recording = record(make_policy("srtf"), busy_trace(cluster), cluster, TIMING)
    interrupted = np.bincount(recording.job[recording.interrupted], minlength=JOBS)
    disturbed = recording.outcome.disturbed
    struck = 0 if disturbed is None else disturbed.strikes
    assert np.array_equal(interrupted, recording.outcome.preemptions + struck)
    assert recording.interrupted.sum() > 20
    for gpu in range(cluster.gpus):
        stays = recording.stay[recording.gpu == gpu]
        held = sorted(zip(recording.begin[stays], recording.end[stays], strict=True))
        assert all(before[1] <= after[0] for before, after in pairwise(held))


def test_a_policy_that_fails_is_a_sentence() -> None:
    class Leaves:
        def decide(self, snapshot: Snapshot) -> list[Action]:
            sys.exit()

    with pytest.raises(ConfigError, match=r"^Leaves failed at 0 s: SystemExit$"):
        record(Leaves(), gpu_cluster(5, 4, 1.5, seed=2), ClusterSpec(2, 2))


def test_a_refused_action_names_the_job_as_the_trace_does() -> None:
    class Greedy:
        def decide(self, snapshot: Snapshot) -> list[Action]:
            return [Start(job) for job in snapshot.queue]

    trace = Trace.from_columns({"submit_time": [0.0, 0.0], "run_time": [4.0, 2.0], "gpus": [2.0, 1.0]})
    with pytest.raises(IllegalAction, match="job 1 of the snapshot is job_id 2 of"):
        record(Greedy(), trace, ClusterSpec.pool(2))


def test_a_move_ends_a_stay_and_a_power_limit_ends_none() -> None:
    class Moves:
        def decide(self, snapshot: Snapshot) -> list[Action]:
            if snapshot.time == 0.0:
                return [Start(0, (0,))]
            if snapshot.time == 20.0:
                return [Migrate(0, (70,)), SetPowerLimit(70, 150.0), Start(1, (0,))]
            return []

    trace = Trace.from_columns({"submit_time": [0.0, 20.0], "run_time": [100.0, 1.0], "gpus": [1.0, 1.0]})
    recording = record(Moves(), trace, MIXED)
    assert recording.job.tolist() == [0, 0, 1]
    assert recording.gpu.tolist() == [0, 70, 0]
    assert recording.begin.tolist() == [0.0, 20.0, 20.0]
    assert recording.end.tolist() == [20.0, *recording.outcome.finish]
    assert recording.interrupted.tolist() == [True, False, False]
    energy = timelines.power_w(recording).integral(recording.ended)
    assert energy == pytest.approx(recording.outcome.energy_joules, rel=1e-9)
