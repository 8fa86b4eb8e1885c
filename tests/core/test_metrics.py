"""Every metric of one small outcome, worked out by hand."""

import dataclasses

import numpy as np
import pytest

from lepton_rl.core import ClusterSpec, Outcome, bounded_slowdown
from lepton_rl.core.metrics import DESCRIPTIONS, OF_FAULTS, PRICED, fairness

# Two nodes of two GPUs, 100 W idle and 300 W under load.
#   job  submit  start  run  finish  gpus   jct  wait  bounded slowdown
#   0    100     100    20   120     2      20   0     20/20 = 1
#   1    105     120    5    125     4      20   15    20/10 = 2
#   2    110     125    30   165     1      55   25    55/30; preempted once and 10 s off
SPEC = ClusterSpec(2, 2, idle_power_w=100.0, max_power_w=300.0)


def outcome(groups: list[int]) -> Outcome:
    return Outcome(
        cluster=SPEC,
        submit=np.array([100.0, 105.0, 110.0]),
        run=np.array([20.0, 5.0, 30.0]),
        gpus=np.array([2.0, 4.0, 1.0]),
        first_start=np.array([100.0, 120.0, 125.0]),
        finish=np.array([120.0, 125.0, 165.0]),
        preemptions=np.array([0, 0, 1]),
        groups=np.array(groups, np.int32),
        busy_gpu_seconds=2.0 * 20 + 4 * 5 + 1 * 30,
        stranded_gpu_seconds=1.0 * 30,  # beside job 2, on its node
    )


def test_times() -> None:
    three = outcome([-1, -1, -1])
    assert three.jct.tolist() == [20, 20, 55]
    assert three.wait.tolist() == [0, 15, 25]
    assert three.makespan == 65
    assert three.bounded_slowdown().tolist() == [1, 2, 55 / 30]


def test_metrics() -> None:
    metrics = outcome([-1, -1, -1]).metrics()
    slowdowns = [1, 2, 55 / 30]
    # jobs in the system: 1, 2, 3, 2, 1 from 100, 105, 110, 120, 125 s; over the lives of the jobs 2.25, 2.5, 80/55
    rho = [20 / (20 * 2 * 2.25 / 4), 20 / (5 * 2.5), 55 / 30]
    joules = 100 * 4 * 65 + 200 * 90
    assert metrics == pytest.approx(
        {
            "mean_jct": 95 / 3,
            "mean_wait": 40 / 3,
            "p50_jct": 20,
            "p90_jct": 20 + 0.8 * 35,  # the 90th percentile lies at 0.9 x 2 = place 1.8
            "p99_jct": 20 + 0.98 * 35,
            "p99_wait": 15 + 0.98 * 10,
            "max_wait": 25,
            "makespan": 65,
            "mean_bounded_slowdown": sum(slowdowns) / 3,
            "p99_bounded_slowdown": 55 / 30 + 0.98 * (2 - 55 / 30),
            "utilization": 90 / (4 * 65),
            "fragmentation": 30 / (4 * 65),
            "fairness": sum(slowdowns) ** 2 / (3 * sum(one**2 for one in slowdowns)),
            "mean_rho": sum(rho) / 3,
            "max_rho": 55 / 30,
            "deadlines_met": 1,
            "mean_tardiness": 0,
            "preemptions": 1,
            "migrations": 0,
            "throughput": 3 / (65 / 3600),
            "energy_kwh": joules / 3.6e6,
            "mean_power_w": joules / 65,
        },
        rel=1e-12,
    )
    assert list(metrics) == [name for name in DESCRIPTIONS if name not in (*PRICED, *OF_FAULTS)]


def test_a_pool_has_no_nodes_that_could_be_partly_used() -> None:
    pool = dataclasses.replace(outcome([-1, -1, -1]), cluster=ClusterSpec.pool(4))
    assert pool.metrics()["fragmentation"] == 0


def test_a_wait_never_rounds_below_zero() -> None:
    submit, run = np.array([1e9 / 7, 0.1, 0.0]), np.array([0.1, 0.2, 0.7])
    three = dataclasses.replace(outcome([-1, -1, -1]), submit=submit, run=run, finish=submit + run)
    assert (three.jct - run).min() < 0
    assert three.wait.min() == 0
    assert three.bounded_slowdown().tolist() == [1, 1, 1]


def test_bounded_slowdown_has_a_floor_of_ten_seconds() -> None:
    wait, run = np.array([0.0, 4.0, 5.0, 95.0, 90.0]), np.array([1.0, 1.0, 5.0, 5.0, 10.0])
    assert bounded_slowdown(wait, run).tolist() == [1, 1, 1, 10, 10]
    assert bounded_slowdown(wait, run, floor=5.0).tolist() == [1, 1, 2, 20, 10]


@pytest.mark.parametrize(
    ("slowdown", "groups", "index"),
    [
        ([3, 3, 3], [-1, -1, -1], 1),  # equal jobs
        ([1, 0, 0, 0], [-1, -1, -1, -1], 1 / 4),  # one has it all
        ([1, 3, 2], [0, 0, 1], 1),  # users 0 and 1 both have 2
        ([1, 3, 6], [0, 0, 5], (2 + 6) ** 2 / (2 * (4 + 36))),  # codes without jobs do not count
        ([1, 3, 100], [0, 1, -1], 16 / (2 * 10)),  # jobs of nobody do not count
    ],
)
def test_fairness_is_jains_index(slowdown: list[float], groups: list[int], index: float) -> None:
    assert fairness(np.array(slowdown, float), np.array(groups, np.int32)) == pytest.approx(index)


def test_fairness_between_the_groups_of_an_outcome() -> None:
    assert outcome([0, 0, 1]).metrics()["fairness"] == pytest.approx(
        (1.5 + 55 / 30) ** 2 / (2 * (1.5**2 + (55 / 30) ** 2))
    )
