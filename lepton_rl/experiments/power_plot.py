"""The picture of a GPU type's power: against utilisation, per unit of work, and under a power limit."""

from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_rl.core.hardware import GpuType, power_under_limit, speed_under_limit
from lepton_rl.core.physics import energy_per_work, power_w
from lepton_rl.experiments.drawing import GRID, HEURISTIC, LEARNED, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WITH_IDLE, PROPORTIONAL, LIMITED = HEURISTIC, LEARNED, "#009e73"
_LOADS = (1.0, 0.7, 0.4)


def power_figure(gpu: GpuType) -> "Figure":
    """Draw power and energy per work against utilisation, and speed and energy per work against the power limit."""
    figure = new_figure(10.4, 3.4)
    power, energy, limit = figure.subplots(1, 3)
    _against_utilization(gpu, power, energy)
    _against_limit(gpu, limit)
    for axes in (power, energy, limit):
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        axes.set_ylim(bottom=0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(frameon=False, fontsize=8.5)
    figure.suptitle(gpu.name, x=0.01, ha="left", fontsize=11)
    return figure


def _against_utilization(gpu: GpuType, power: Any, energy: Any) -> None:
    loads = np.linspace(0.0, 1.0, 101)
    busy = loads[8:]  # nearer to 0 the energy per work leaves the picture
    for idle_w, colour, dash, label in (
        (gpu.idle_power_w, WITH_IDLE, "-", f"{gpu.idle_power_w:g} W idle"),
        (0.0, PROPORTIONAL, "--", "proportional"),
    ):
        power.plot(loads, power_w(loads, gpu.max_power_w, idle_w), dash, color=colour, label=label)
        energy.plot(busy, energy_per_work(busy, gpu.max_power_w, idle_w), dash, color=colour, label=label)
    power.set(xlabel="utilisation U", ylabel="power, W", xlim=(0, 1))
    energy.set(xlabel="utilisation U", ylabel="J for a second of full-speed work", xlim=(0, 1))


def _against_limit(gpu: GpuType, axes: Any) -> None:
    limits = np.linspace(gpu.min_power_limit_w, gpu.max_power_limit_w, 101)
    curve = gpu.power_curve
    for load, dash in zip(_LOADS, ("-", "--", ":"), strict=True):
        natural = power_w(load, gpu.max_power_w, gpu.idle_power_w)
        speed = np.array([speed_under_limit(natural, limit, curve.floor_w, curve.exponent) for limit in limits])
        draw = np.array([power_under_limit(natural, limit, curve.lowest_held_w) for limit in limits])
        axes.plot(limits, speed, dash, color=WITH_IDLE, label=f"speed, U = {load:g}")
        axes.plot(limits, draw / speed / natural, dash, color=LIMITED, label=f"energy, U = {load:g}")
    axes.set(xlabel="power limit, W", ylabel="of a job without the limit")
