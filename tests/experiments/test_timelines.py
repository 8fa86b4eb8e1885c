"""Queue, power, energy, cost and fragmentation over time: by hand, and against the metrics of the run."""

from dataclasses import replace

import numpy as np
import pytest

from lepton_rl.agents import make_policy
from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import Tariffs
from lepton_rl.core.hardware import HourlySeries, carbon_series
from lepton_rl.core.units import JOULES_PER_KWH, JOULES_PER_MWH
from lepton_rl.experiments import timelines
from lepton_rl.experiments.recording import Recording, record
from lepton_rl.experiments.timelines import Steps
from lepton_rl.workloads import Trace
from tests.experiments.test_recording import CLUSTERS, MIXED, TIMING, busy_trace


@pytest.fixture
def by_hand() -> Recording:
    """Two nodes of two GPUs; job 0 holds GPUs 0 and 1, job 1 half of GPU 2, job 2 waits for all four."""
    trace = Trace.from_columns({"submit_time": [0.0, 0.0, 1.0], "run_time": [4.0, 2.0, 3.0], "gpus": [2.0, 0.5, 4.0]})
    return record(make_policy("fcfs"), trace, ClusterSpec(2, 2, idle_power_w=100.0, max_power_w=300.0))


def test_each_series_by_hand(by_hand: Recording) -> None:
    queue = timelines.queue_length(by_hand)
    assert queue.times.tolist() == [0.0, 1.0, 4.0, 7.0]
    assert queue.values.tolist() == [0.0, 1.0, 0.0]
    power = timelines.power_w(by_hand)
    assert power.times.tolist() == [0.0, 2.0, 4.0, 7.0]
    assert power.values.tolist() == [400 + 2.5 * 200, 400 + 2 * 200, 400 + 4 * 200]
    fragmentation = timelines.fragmentation(by_hand)
    assert fragmentation.times.tolist() == [0.0, 2.0, 4.0, 7.0]
    assert fragmentation.values.tolist() == [1.5 / 4, 0.0, 0.0]
    energy = timelines.energy_kwh(power, np.array([0.0, 1.0, 7.0]))
    assert energy * JOULES_PER_KWH == pytest.approx([0.0, 900.0, 2 * 900 + 2 * 800 + 3 * 1200])


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
@pytest.mark.parametrize("policy", ["fcfs", "srtf"])
@pytest.mark.parametrize("shares", [False, True], ids=["whole", "shares"])
def test_what_the_series_sum_to_is_what_the_metrics_say(cluster: ClusterSpec, policy: str, shares: bool) -> None:
    recording = record(make_policy(policy), busy_trace(cluster, shares), cluster, TIMING)
    outcome = recording.outcome
    metrics = outcome.metrics()
    end = recording.ended
    assert (metrics["preemptions"] > 0) == (policy == "srtf")
    energy = timelines.energy_kwh(timelines.power_w(recording), np.array([end]))[0]
    assert energy == pytest.approx(metrics["energy_kwh"], rel=1e-9)
    held = np.bincount(recording.job, recording.end - recording.begin)
    waited = timelines.queue_length(recording).integral(end)
    assert waited == pytest.approx((outcome.jct - held).sum(), rel=1e-9)
    if cluster.nodes > 1:
        mean = timelines.fragmentation(recording).integral(end) / outcome.makespan
        assert mean == pytest.approx(metrics["fragmentation"], rel=1e-9)


def test_costs_follow_the_hours() -> None:
    trace = busy_trace(MIXED)
    hours = np.arange(20_000)
    tariffs = Tariffs(
        HourlySeries.of(90.0 * np.sin(hours), "price"), carbon_series(300.0 + 200.0 * np.cos(hours), "carbon")
    )
    recording = record(make_policy("srtf"), trace, replace(MIXED, tariffs=tariffs), TIMING)
    metrics, power = recording.outcome.metrics(), timelines.power_w(recording)
    end = np.array([recording.begun, recording.ended])
    assert tariffs.electricity is not None
    assert tariffs.carbon is not None
    usd = timelines.cost(power, tariffs.electricity, end, JOULES_PER_MWH)
    grams = timelines.cost(power, tariffs.carbon, end, JOULES_PER_KWH)
    assert usd.tolist() == [0.0, pytest.approx(metrics["electricity_usd"], rel=1e-9)]
    assert grams.tolist() == [0.0, pytest.approx(1000.0 * metrics["carbon_kg"], rel=1e-9)]


def test_bins_hold_the_mean_and_the_extremes_of_what_is_in_them() -> None:
    steps = Steps(np.array([0.0, 1.0, 1.5, 4.0, 8.0]), np.array([2.0, 10.0, 0.0, 1.0]))
    mean, least, most = steps.binned(np.array([0.0, 2.0, 4.0, 6.0, 8.0]))
    assert mean.tolist() == [3.5, 0.0, 1.0, 1.0]
    assert least.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert most.tolist() == [10.0, 0.0, 1.0, 1.0]
