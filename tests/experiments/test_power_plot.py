"""The picture of power and energy shows the textbook models' numbers."""

import numpy as np
import pytest

from lepton_rl.core.hardware import gpu_type

pytest.importorskip("matplotlib")

from lepton_rl.experiments.power_plot import power_figure


def test_the_curves_are_the_models() -> None:
    gpu = gpu_type("A100")
    power, energy, limit = power_figure(gpu).axes
    with_idle, proportional = (np.array(line.get_xydata()) for line in power.get_lines())
    assert with_idle[0].tolist() == [0.0, 50.0]
    assert with_idle[-1].tolist() == [1.0, 400.0]
    assert proportional[50].tolist() == pytest.approx([0.5, 200.0])
    falling, flat = (np.array(line.get_ydata()) for line in energy.get_lines())
    assert flat == pytest.approx(np.full(len(flat), 400.0))
    assert (np.diff(falling) < 0).all()
    assert falling[-1] == pytest.approx(400.0)
    speed, joules = (np.array(line.get_ydata()) for line in limit.get_lines()[:2])
    assert speed[-1] == 1.0
    assert joules[-1] == 1.0
    assert joules.min() < 0.95  # a limit saves energy before it wastes it
