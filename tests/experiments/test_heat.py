"""Heat maps: cells by hand, against the metrics of the run, and against the temperature step by step."""

from itertools import pairwise

import numpy as np
import pytest

from lepton_rl.agents import make_policy
from lepton_rl.core import ClusterSpec
from lepton_rl.core.hardware import temperature_after_c
from lepton_rl.core.hardware.rules import INLET_TEMPERATURE_C
from lepton_rl.core.hardware.thermal import steady_temperature_c
from lepton_rl.core.units import JOULES_PER_KWH
from lepton_rl.experiments import heat
from lepton_rl.experiments.recording import Floats, Recording, record
from lepton_rl.workloads import Trace
from tests.experiments.test_recording import CLUSTERS, MIXED, TIMING, busy_trace


def test_cells_by_hand() -> None:
    trace = Trace.from_columns({"submit_time": [0.0, 0.0], "run_time": [5.0, 8.0], "gpus": [1.0, 0.5]})
    cluster = ClusterSpec(1, 3, idle_power_w=100.0, max_power_w=300.0)
    recording = record(make_policy("fcfs"), trace, cluster)
    grid = heat.grid_of(recording, bins=4)
    used = [[1.0, 1.0, 0.5, 0.0], [0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]
    assert grid.edges.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert heat.utilization(recording, grid).tolist() == used
    assert heat.power_w(recording, grid) == pytest.approx(100.0 + 200.0 * np.array(used))


@pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)
@pytest.mark.parametrize("most_rows", [256, 5], ids=["gpus", "rows"])
def test_what_the_cells_sum_to_is_what_the_metrics_say(cluster: ClusterSpec, most_rows: int) -> None:
    recording = record(make_policy("srtf"), busy_trace(cluster, shares=True), cluster, TIMING)
    grid = heat.grid_of(recording, most_rows, bins=77)
    metrics = recording.outcome.metrics()
    assert len(grid.gpus) <= most_rows
    held = (heat.utilization(recording, grid).mean(axis=1) * grid.gpus).sum() / cluster.gpus
    assert held == pytest.approx(metrics["utilization"], rel=1e-9)
    watts = (heat.power_w(recording, grid).mean(axis=1) * grid.gpus).sum()
    assert watts * recording.outcome.makespan / JOULES_PER_KWH == pytest.approx(metrics["energy_kwh"], rel=1e-9)


def test_a_row_is_a_gpu_a_node_or_neighbouring_nodes() -> None:
    trace = Trace.from_columns({"submit_time": [0.0], "run_time": [5.0], "gpus": [1.0]})
    grids = {most: heat.grid_of(record(make_policy("fcfs"), trace, MIXED), most) for most in (144, 40, 10)}
    assert [(grid.unit, grid.together, len(grid.gpus)) for grid in grids.values()] == [
        ("GPU", 1, 144), ("node", 1, 32), ("node", 4, 8),
    ]  # fmt: skip
    assert grids[40].gpus.tolist() == [8] * 8 + [4] * 16 + [2] * 8
    pool = heat.grid_of(record(make_policy("fcfs"), trace, ClusterSpec.pool(1000)), 256)
    assert (pool.unit, pool.together, len(pool.gpus)) == ("GPU", 4, 250)


def stepped_temperature(recording: Recording, gpu: int, grid: heat.Grid, within: int) -> Floats:
    """Return the mean temperature of a GPU by bin, by the midpoints of short times of constant draw."""
    cluster = recording.cluster
    kind = next(
        group.limited_gpu
        for group, behind in zip(cluster.groups, np.cumsum([group.gpus for group in cluster.groups]), strict=True)
        if gpu < behind
    )
    stays = recording.stay[recording.gpu == gpu]
    times = np.unique(np.concatenate((grid.edges, recording.begin[stays], recording.end[stays])))
    now = steady_temperature_c(kind.idle_power_w, INLET_TEMPERATURE_C, kind.thermal_resistance_c_per_w)
    sums = np.zeros(len(grid.edges) - 1)
    for begin, end in pairwise(times.tolist()):
        on = stays[(recording.begin[stays] <= begin) & (recording.end[stays] >= end)]
        load = recording.share[on].sum()
        watts = kind.idle_power_w + (kind.max_power_w - kind.idle_power_w) * load
        figures = INLET_TEMPERATURE_C, kind.thermal_resistance_c_per_w, kind.thermal_time_constant_s
        step = (end - begin) / within
        column = np.searchsorted(grid.edges, begin, side="right") - 1
        for part in range(within):
            sums[column] += step * temperature_after_c(now, watts, (part + 0.5) * step, *figures)
        now = temperature_after_c(now, watts, end - begin, *figures)
    return np.asarray(sums / np.diff(grid.edges))


def test_the_temperature_follows_the_draw() -> None:
    trace = Trace.from_columns(
        {
            "submit_time": [0.0, 5.0, 40.0, 60.0, 61.0],
            "run_time": [150.0, 30.0, 400.0, 10.0, 200.0],
            "gpus": [0.5, 8.0, 72.0, 0.25, 100.0],
        }
    )
    recording = record(make_policy("srtf", placement="worst"), trace, MIXED)
    assert recording.interrupted.any() or len(set(recording.gpu)) > 70
    grid = heat.grid_of(recording, bins=23)
    cells = heat.temperature_c(recording, grid)
    for gpu in (0, 3, 63, 64, 100, 127, 128, 143):
        assert cells[gpu] == pytest.approx(stepped_temperature(recording, gpu, grid, 400), rel=1e-6)
    few = heat.grid_of(recording, 10, bins=23)
    rows = [cells[few.row == row].mean(axis=0) for row in range(len(few.gpus))]
    assert heat.temperature_c(recording, few) == pytest.approx(np.array(rows))
