"""The Lublin-Feitelson model and the synthetic GPU workload."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from lepton_rl.errors import ConfigError
from lepton_rl.workloads import (
    LUBLIN_256,
    GpuClusterParameters,
    LublinParameters,
    Trace,
    gpu_cluster,
    lublin,
)
from lepton_rl.workloads.arrivals import DAY, through_cycle


def test_time_runs_faster_where_the_weight_is_high() -> None:
    # half the day takes 3/4 of the arrivals: the 12 h there pass for 18, the other 12 for 6
    hours = through_cycle(np.array([9.0, 9.0, 3.0, 3.0, 24.0]) * 3600, np.array([3.0, 1.0]), DAY) / 3600
    assert hours.tolist() == pytest.approx([6.0, 12.0, 18.0, 24.0, 48.0])


@pytest.mark.parametrize("make", [lambda s: lublin(500, 128, s), lambda s: gpu_cluster(500, 64, 0.9, s)])
def test_the_same_seed_gives_the_same_jobs(make: object) -> None:
    assert callable(make)
    assert make(3) == make(3)
    assert make(3) != make(4)
    assert make(np.random.SeedSequence(3)) == make(3)


@pytest.fixture(scope="module")
def many() -> Trace:
    return lublin(200_000, 256, seed=1)


def test_lublin_sizes_follow_the_published_shares(many: Trace) -> None:
    # Lublin and Feitelson: 24.4 % serial; 57.6 % rounded to powers of two, and some others fall on one
    assert many.machine is not None
    assert many.machine.max_nodes == 256
    assert many.gpus.max() <= 256
    assert (many.gpus == 1).mean() == pytest.approx(0.244, abs=0.005)
    power = np.isin(many.gpus, 2.0 ** np.arange(1, 9)).mean()
    assert 0.576 < power < 0.63
    larger = np.log2(many.gpus[many.gpus > 1])
    assert (larger < LUBLIN_256.size_mid).mean() == pytest.approx(LUBLIN_256.size_first, abs=0.01)


def test_lublin_run_times_are_whole_seconds_below_the_maximum(many: Trace) -> None:
    assert (many.run_time == np.floor(many.run_time)).all()
    assert many.run_time.min() >= 1.0
    assert many.run_time.max() <= np.exp(12.0)
    assert np.corrcoef(many.gpus, many.run_time)[0, 1] > 0.05  # larger jobs run longer


def test_lublin_arrivals_have_a_daily_cycle(many: Trace) -> None:
    hour = ((many.submit_time + many.origin) % DAY) // 3600
    counts = np.bincount(hour.astype(int), minlength=24)
    assert 9 <= counts.argmax() <= 17
    assert 2 <= counts.argmin() <= 6
    assert counts.max() / counts.min() > 5


@pytest.mark.parametrize("load", [None, 0.5, 1.06])
def test_lublin_load_is_met_in_the_long_run(load: float | None) -> None:
    loads = [lublin(200_000, 256, seed, load=load).offered_load(256) for seed in range(3)]
    expected = LublinParameters.for_machine(256).offered_load if load is None else load
    assert np.mean(loads) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("processors", [1, 2, 3, 8, 100, 1024])
def test_lublin_fits_any_machine(processors: int) -> None:
    trace = lublin(2000, processors, seed=0, load=0.8)
    assert trace.gpus.max() <= processors
    assert trace.gpus.min() == 1


@pytest.mark.parametrize(("kind", "serial"), [("batch", 0.2927), ("interactive", 0.1541)])
def test_lublin_types(kind: Literal["batch", "interactive"], serial: float) -> None:
    parameters = LublinParameters.for_machine(128, kind)
    trace = lublin(20_000, 128, seed=0, parameters=parameters)
    assert (trace.gpus == 1).mean() == pytest.approx(serial, abs=0.01)
    assert (trace.gpus.max() <= 45) == (kind == "interactive")  # "biggest interactive job has 45 nodes"


def test_lublin_refuses_nonsense() -> None:
    with pytest.raises(ConfigError, match="0 jobs"):
        lublin(0, 128, seed=0)
    with pytest.raises(ConfigError, match="the load is 0"):
        lublin(10, 128, seed=0, load=0.0)
    with pytest.raises(ConfigError, match="the parameters are for 256 processors, not 128"):
        lublin(10, 128, seed=0, parameters=LUBLIN_256)
    with pytest.raises(ConfigError, match="0 processors"):
        lublin(10, 0, seed=0)
    with pytest.raises(ConfigError, match="no kind 'both'"):
        LublinParameters.for_machine(8, "both")  # type: ignore[arg-type]
    for change in ({"serial": 0.9}, {"size_low": 6.0}, {"gap": (0.0, 1.0)}, {"max_log_gap": 99.0}):
        with pytest.raises(ConfigError, match="Lublin parameters: "):
            replace(LUBLIN_256, **change)


@pytest.fixture(scope="module")
def cluster() -> Trace:
    return gpu_cluster(100_000, 64, load=0.8, seed=2)


def test_gpu_cluster_gangs_memory_and_names(cluster: Trace) -> None:
    sizes, counts = np.unique(cluster.gpus, return_counts=True)
    assert sizes.tolist() == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert counts / len(cluster) == pytest.approx([0.939, 0.019, 0.022, 0.018, 0.002], abs=0.003)
    assert set(cluster.gpu_memory_gib) == {8.0, 16.0, 24.0, 40.0, 80.0}
    by_user = np.bincount(cluster.user, minlength=100)
    assert by_user.argmax() == 0
    assert by_user[0] / by_user[9] == pytest.approx(10**1.2, rel=0.2)
    assert cluster.labels["user"][0] == "user0"
    assert 0 <= cluster.queue.min() <= cluster.queue.max() < 14
    for user in range(5):  # a user stays in one queue
        assert len(set(cluster.queue[cluster.user == user])) == 1
    assert cluster.requested == "exact"
    assert 50.0 <= cluster.compute_intensity.min() <= cluster.compute_intensity.max() <= 120.0


def test_gpu_cluster_times_are_bursty_daily_weekly_and_heavy_tailed(cluster: Trace) -> None:
    gaps = np.diff(cluster.submit_time)
    assert gaps.std() / gaps.mean() > 2.0
    clock = cluster.submit_time + cluster.origin
    by_hour = np.bincount((clock % DAY // 3600).astype(int), minlength=24)
    assert by_hour[15] / by_hour[3] == pytest.approx(1.6 / 0.4, rel=0.25)
    weekend = (clock // DAY % 7 >= 5).mean()
    assert weekend == pytest.approx(2 * 0.6 / (5 + 2 * 0.6), abs=0.02)
    single = cluster.run_time[cluster.gpus == 1]
    assert np.median(single) == pytest.approx(1000.0, rel=0.05)
    # the Pareto tail begins at the 95th percentile: 10 times further out lies 10**-1.1 of it
    start = np.quantile(single, 0.95)
    assert (single > 10 * start).mean() == pytest.approx(0.05 * 10**-1.1, rel=0.2)
    assert cluster.run_time.max() == 20 * DAY
    assert cluster.run_time.min() >= 1.0


@pytest.mark.parametrize("exponent", [0.7, 1.0, 3.0])
def test_gpu_cluster_load_is_met_in_the_long_run(exponent: float) -> None:
    parameters = GpuClusterParameters(tail_exponent=exponent, max_run_time=DAY)
    loads = [gpu_cluster(200_000, 32, 0.9, seed, parameters).offered_load(32) for seed in range(3)]
    assert np.mean(loads) == pytest.approx(0.9, rel=0.02)


def test_gpu_cluster_on_one_gpu_has_no_gangs() -> None:
    assert set(gpu_cluster(500, 1, 0.5, seed=0).gpus) == {1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gang_sizes": (1, 2)}, "gang_shares needs one weight for each of gang_sizes"),
        ({"gang_sizes": (0, 1, 2, 4, 8)}, "gang_sizes must be whole numbers from 1, or shares between 0 and 1"),
        ({"gang_shares": (-1.0, 1.0, 1.0, 1.0, 1.0)}, "gang_shares must not be negative"),
        ({"memory_gib": (), "memory_shares": ()}, "memory_shares needs one weight"),
        ({"tail_exponent": 0.0}, "tail_exponent is 0; it must lie between 0.5 and 10"),
        ({"daily_swing": 1.0}, "daily_swing is 1; it must lie between 0 and 0.99"),
        ({"users": 0}, "users is 0"),
        ({"compute_intensity": (3.0, 1.0)}, "compute_intensity must be bounds"),
    ],
)
def test_gpu_cluster_settings_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GpuClusterParameters(**change)  # type: ignore[arg-type]


def test_gpu_cluster_refuses_nonsense() -> None:
    only_large = GpuClusterParameters(gang_sizes=(8,), gang_shares=(1.0,))
    for arguments, message in (
        ((0, 4, 0.9, 0, None), "0 jobs"),
        ((9, 0, 0.9, 0, None), "0 GPUs"),
        ((9, 4, 0.0, 0, None), "the load is 0"),
        ((9, 4, 0.9, 0, only_large), "no gang size fits on 4 GPUs"),
    ):
        with pytest.raises(ConfigError, match=message):
            gpu_cluster(*arguments)
