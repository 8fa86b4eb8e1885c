"""The worked examples of the texts that lepton_rl was born from, put right (docs/worked-examples.md)."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lepton_rl.agents import HeapPriority, Priority, allocate, heap_order, run_policy, weighted_priority
from lepton_rl.core import ClusterSpec
from lepton_rl.core.physics import (
    demand_ratio,
    energy_joules,
    energy_per_work,
    mean_utilization,
    power_w,
    utilization,
)
from lepton_rl.errors import ConfigError
from lepton_rl.workloads import Trace

PAGE = (Path(__file__).parents[1] / "docs" / "worked-examples.md").read_text()

# task: (compute, time sensitivity, memory)
TASKS = {1: (100, 5, 100), 2: (80, 3, 150), 3: (120, 6, 200), 10: (50, 2, 50)}


class TestW1Priorities:
    """P = 0.5 C + 0.3 T + 0.2 M; the text says 83.0, 72.5, 99.0 and 23.0."""

    def test_values(self) -> None:
        ours = [weighted_priority(*task) for task in TASKS.values()]
        assert ours == pytest.approx([71.5, 70.9, 101.8, 35.6])

    def test_order(self) -> None:
        names = list(TASKS)
        order = heap_order([weighted_priority(*task) for task in TASKS.values()])
        assert [names[place] for place in order] == [3, 1, 2, 10]

    def test_the_policy_starts_them_in_that_order(self) -> None:
        # One GPU, ten seconds each. The GPU is large enough for every task's memory.
        compute, urgency, memory = zip(*TASKS.values(), strict=True)
        trace = Trace.from_columns(
            {
                "submit_time": [0.0] * 4,
                "run_time": [10.0] * 4,
                "gpus": [1.0] * 4,
                "gpu_memory_gib": memory,
                "compute_intensity": compute,
                "time_sensitivity": urgency,
            }
        )
        outcome = run_policy(HeapPriority(), trace, ClusterSpec(gpus_per_node=1, gpu_memory_gib=256.0))
        assert outcome.first_start.tolist() == [10.0, 20.0, 0.0, 30.0]

    def test_the_page_tells_it(self) -> None:
        for number, text, task in zip(TASKS, ("83.0", "72.5", "99.0", "23.0"), TASKS.values(), strict=True):
            assert f"| {number} | {task[0]} | {task[1]} | {task[2]} | {text} | **" in PAGE
            assert f"**{weighted_priority(*task):.1f}**" in PAGE


class TestW2Shares:
    """Four tasks of 100, 80, 120 and 50 s on 50, 30, 20 and 10 % of a GPU; the text says "total 315 s"."""

    @staticmethod
    def finish(gpus: int) -> list[float]:
        # in the priorities' order, 3, 1, 2, 4; the first three fill one GPU
        trace = Trace.from_columns(
            {
                "submit_time": [0.0] * 4,
                "run_time": [100.0, 80.0, 120.0, 50.0],
                "gpus": [0.5, 0.3, 0.2, 0.1],
                "compute_intensity": [100.0, 80.0, 120.0, 50.0],
                "time_sensitivity": [5.0, 3.0, 6.0, 2.0],
                "gpu_memory_gib": [10.0, 15.0, 20.0, 5.0],
            }
        )
        outcome = run_policy(HeapPriority(), trace, ClusterSpec(gpus_per_node=gpus))
        assert outcome.metrics()["makespan"] == max(outcome.finish)
        return list(outcome.finish.tolist())

    def test_one_gpu(self) -> None:
        assert self.finish(1) == [100.0, 80.0, 120.0, 130.0]  # task 4 waits for the first that ends, task 2

    def test_two_gpus(self) -> None:
        assert self.finish(2) == [100.0, 80.0, 120.0, 50.0]


class TestW3LowestUtilisationFirst:
    """Five tasks of 100 to 500 s that use 50, 70, 80, 90 and 100 % of a GPU."""

    def test_on_one_gpu_nothing_overlaps(self) -> None:
        trace = Trace.from_columns(
            {
                "submit_time": [0.0] * 5,
                "run_time": [100.0, 200.0, 300.0, 400.0, 500.0],
                "gpus": [0.5, 0.7, 0.8, 0.9, 1.0],
            }
        )
        outcome = run_policy(Priority(score="smallest"), trace, ClusterSpec(gpus_per_node=1))
        assert outcome.first_start.tolist() == [0.0, 100.0, 300.0, 600.0, 1000.0]
        assert outcome.metrics()["makespan"] == 1500.0
        assert outcome.metrics()["mean_jct"] == 700.0


class TestW4UtilisationAndEnergy:
    """U = 75 / 100; "energy" 225, f(0.3, 300) = 90, f(1, 300) = 300: figures right, but they are watts."""

    def test_three_meanings_of_utilisation(self) -> None:
        assert utilization(75, 100) == 0.75
        assert mean_utilization(work=75 * 3600, capacity=100, seconds=3600) == 0.75
        assert demand_ratio(150, 100) == 1.5  # a request may ask for more than there is

    @pytest.mark.parametrize(
        ("figure", "says"),
        [
            (lambda: utilization(75, 0), "a capacity must be above 0, not 0"),
            (lambda: utilization(150, 100), "of a capacity of 100 between 0 and 100 can be used, not 150"),
            (lambda: utilization(math.nan, 100), "can be used, not nan"),
            (lambda: utilization(1, math.nan), "a capacity must be above 0, not nan"),
            (lambda: mean_utilization(75, 1, 0), "a period must be above 0, not 0"),
            (lambda: mean_utilization(75, 1, 60), "a capacity of 1 does between 0 and 60 in 60 s, not 75"),
            (lambda: demand_ratio(-1, 100), "a demand must be 0 or more, not -1"),
            (lambda: energy_per_work(0.0, 300), "needs a utilisation above 0"),
            (lambda: energy_per_work(np.array([0.5, math.nan]), 300), "needs a utilisation above 0"),
        ],
    )
    def test_what_has_no_utilisation_is_refused(self, figure: Callable[[], float], says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            figure()

    def test_power(self) -> None:
        assert power_w(0.75, 300) == 225
        assert power_w(0.3, 300) == 90
        assert power_w(1.0, 300) == 300
        assert power_w(0.75, 400, idle_power_w=50) == 312.5

    def test_energy_needs_a_time(self) -> None:
        assert energy_joules(power_w(0.75, 300), 3600) == 810_000  # 225 Wh

    def test_more_work_at_once_draws_more_power(self) -> None:
        assert power_w(1.0, 300) > power_w(0.3, 300)  # the text calls this a reduction "from 90 to 300"

    def test_proportional_power_makes_energy_per_work_constant(self) -> None:
        for load in (0.1, 0.3, 0.75, 1.0):
            assert energy_per_work(load, 300) == pytest.approx(300)

    def test_idle_power_rewards_a_full_gpu(self) -> None:
        costs = [energy_per_work(load, 300, idle_power_w=50) for load in (0.1, 0.3, 0.75, 1.0)]
        assert costs == sorted(costs, reverse=True)
        assert costs[-1] == 300

    def test_the_table_and_the_picture_of_the_page(self) -> None:
        rows = re.findall(r"^\| (\d\.\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
        assert len(rows) >= 5
        columns = []
        for row in rows:
            load = float(row[0])
            expected = (
                power_w(load, 300),
                energy_per_work(load, 300),
                power_w(load, 300, idle_power_w=50),
                energy_per_work(load, 300, idle_power_w=50),
            )
            assert [float(value) for value in row[1:]] == pytest.approx(expected, abs=0.5)
            columns.append(row)
        for index in range(1, 5):
            assert f"[{', '.join(row[index] for row in columns)}]" in PAGE

    def test_the_simulator_integrates_the_same_power(self) -> None:
        # Three of four GPUs busy for an hour: U = 0.75.
        trace = Trace.from_columns({"submit_time": [0.0], "run_time": [3600.0], "gpus": [3.0]})
        spec = ClusterSpec(gpus_per_node=4, idle_power_w=50.0, max_power_w=300.0)
        outcome = run_policy(Priority(score="fcfs"), trace, spec)
        assert outcome.metrics()["utilization"] == 0.75
        assert outcome.energy_joules == pytest.approx(4 * energy_joules(power_w(0.75, 300, 50), 3600))


class TestW6LinearProgram:
    """One task on 10 GPUs of 100 GFLOP/s; the text maximises a constant under limits that are upside down."""

    @pytest.mark.parametrize(("demand", "utilisation"), [(10.0, 0.01), (100.0, 0.1)])
    def test_a_tenth_each(self, demand: float, utilisation: float) -> None:
        found = allocate([demand], [100.0] * 10)
        assert found.parts[0] == pytest.approx([0.1] * 10)
        assert found.loads == pytest.approx([utilisation] * 10)
        assert found.utilization == pytest.approx(utilisation)
        assert f"| utilisation of the pool, T = {demand:g} | | **{100 * utilisation:g} %** |" in PAGE


class TestW7Balancer:
    """Requests of 5, 3 and 2 GPUs, 6 free, smallest first."""

    CLUSTER = ClusterSpec.pool(6)

    def test_smallest_first(self) -> None:
        trace = Trace.from_columns({"submit_time": [0.0] * 3, "run_time": [100.0] * 3, "gpus": [5.0, 3.0, 2.0]})
        outcome = run_policy(Priority(score="smallest"), trace, self.CLUSTER)
        assert outcome.first_start.tolist() == [100.0, 0.0, 0.0]  # 1 GPU is left: task 1 waits

    def test_ties_go_to_the_earlier_task(self) -> None:
        trace = Trace.from_columns({"submit_time": [0.0] * 3, "run_time": [100.0] * 3, "gpus": [4.0, 4.0, 4.0]})
        outcome = run_policy(Priority(score="smallest"), trace, self.CLUSTER)
        assert outcome.first_start.tolist() == [0.0, 100.0, 200.0]

    def test_big_jobs_starve_while_small_ones_keep_coming(self) -> None:
        # A task of 3 GPUs runs 100 s and another comes each 50 s: two always run, and 5 are never free.
        arrivals = [50.0 * i for i in range(20)]
        trace = Trace.from_columns(
            {
                "submit_time": [0.0, *arrivals],
                "run_time": [100.0] * 21,
                "gpus": [5.0] + [3.0] * 20,
            }
        )
        for blocking in ("head", "skip", "easy", "conservative"):
            policy = Priority.model_validate({"score": "smallest", "blocking": blocking})
            smallest = run_policy(policy, trace, self.CLUSTER)
            assert smallest.wait[0] == 1050.0  # until the last of them has ended
        fcfs = run_policy(Priority(score="fcfs"), trace, self.CLUSTER)
        assert fcfs.wait[0] == 0.0
