"""What energy costs on a detailed cluster, worked by hand."""

import numpy as np
import pytest

from lepton_rl.core import ClusterSpec
from lepton_rl.core.cluster import NodeGroup, Tariffs
from lepton_rl.core.hardware import GpuType, HourlySeries, gpu_type, make_gpu_type
from lepton_rl.errors import ConfigError
from lepton_rl.simulator import Blocking, Order, Rule, run_trace
from lepton_rl.workloads import Trace

FIGURES = {
    "memory_gib": 32.0, "idle_power_w": 100.0, "max_power_w": 300.0, "fp32_tflops": 15.0, "fp16_tflops": 100.0,
    "memory_bandwidth_gb_s": 900.0, "min_power_limit_w": 150.0, "max_power_limit_w": 300.0,
}  # fmt: skip


def own() -> GpuType:
    return make_gpu_type("own", FIGURES)


def trace(submit: list[float], run: list[float]) -> Trace:
    return Trace.from_columns(
        {"submit_time": submit, "run_time": run, "requested_time": run, "gpus": [1.0] * len(run)}, origin=0.0
    )


def test_energy_cost_and_carbon_by_the_hour() -> None:
    """Two GPUs of 100 W idle and 300 W busy; one job from 0:30 to 1:30, another from 1:00 to 2:00.

    Draw: 400 W from 0:30, 600 W from 1:00, 400 W from 1:30 to 2:00. Energy 0.2 + 0.3 + 0.2 = 0.7 kWh. At 100 USD/MWh
    in the first hour and 200 in the second: 0.2 x 0.1 + 0.5 x 0.2 = 0.12 USD. Carbon 0.2 x 50 + 0.5 x 300 = 160 g.
    """
    tariffs = Tariffs(HourlySeries.of([100.0, 200.0, -50.0]), HourlySeries.of([50.0, 300.0, 10.0]))
    cluster = ClusterSpec.of_groups((NodeGroup(1, 2, own(), rent_usd_per_hour=2.0),), tariffs=tariffs)
    metrics = run_trace(trace([1800.0, 3600.0], [3600.0, 3600.0]), cluster, Rule()).metrics()
    assert metrics["energy_kwh"] == pytest.approx(0.7, rel=1e-12)
    assert metrics["electricity_usd"] == pytest.approx(0.12, rel=1e-12)
    assert metrics["carbon_kg"] == pytest.approx(0.160, rel=1e-12)
    assert metrics["rent_usd"] == pytest.approx(2 * 2.0 * 1.5)


def test_an_hour_below_zero_earns() -> None:
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, own()),), tariffs=Tariffs(HourlySeries.of([-40.0])))
    metrics = run_trace(trace([0.0], [3600.0]), cluster, Rule()).metrics()
    assert metrics["electricity_usd"] == pytest.approx(-0.3 * 0.04)


def test_random_runs_against_a_sum_over_jobs() -> None:
    """Each job's own energy at each hour's price, and the idle draw of all GPUs over the makespan."""
    rng = np.random.default_rng(0)
    prices = HourlySeries.of(rng.uniform(-20, 200, 200))
    cluster = ClusterSpec.of_groups((NodeGroup(2, 3, own()),), tariffs=Tariffs(prices))
    jobs = trace(np.sort(rng.uniform(0, 2e5, 80)).tolist(), rng.uniform(60, 2e4, 80).tolist())
    outcome = run_trace(jobs, cluster, Rule(Order.SJF, Blocking.EASY))
    expected = 6 * 100.0 * prices.integral(outcome.submit.min(), outcome.finish.max())
    for begin, end in zip(outcome.first_start, outcome.finish, strict=True):
        expected += 200.0 * prices.integral(begin, end)
    assert outcome.metrics()["electricity_usd"] == pytest.approx(expected / 3.6e9, rel=1e-9)


def test_a_series_that_ends_before_the_run_is_refused() -> None:
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, own()),), tariffs=Tariffs(HourlySeries.of([40.0], "one hour")))
    with pytest.raises(ConfigError, match="one hour: the series covers 1 hour, and 2 are needed"):
        run_trace(trace([0.0], [3601.0]), cluster, Rule())


def test_a_power_limit_slows_and_saves() -> None:
    """The reference is the type without its limit: the run takes as much longer as the curve says."""
    plain = gpu_type("A100")
    limited = NodeGroup(1, 1, plain, power_limit_w=200.0)
    cluster = ClusterSpec.of_groups((limited,), reference=plain)
    kept = plain.under_limit(200.0).speed["vision"] / plain.speed["vision"]
    assert 0.4 < kept < 0.95
    outcome = run_trace(trace([0.0], [1000.0]), cluster, Rule())
    assert outcome.finish[0] == pytest.approx(1000.0 / kept, rel=1e-12)
    assert outcome.mean_power_w == pytest.approx(200.0)
