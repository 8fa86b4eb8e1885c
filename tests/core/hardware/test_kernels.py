"""The scalar functions compile as they are, and give the same bits."""

from collections.abc import Callable

import numba
import numpy as np
import pytest

from lepton_rl.core.hardware.interference import shared_slowdown
from lepton_rl.core.hardware.locality import spread_slowdown
from lepton_rl.core.hardware.power_limit import power_under_limit, speed_under_limit
from lepton_rl.core.hardware.speed import predicted_speed
from lepton_rl.core.hardware.tariffs import running_integral
from lepton_rl.core.hardware.thermal import seconds_to_temperature, temperature_after_c, throttled_power_w

EDGES = np.arange(5) * 3600.0
CUMULATIVE = np.array([0.0, 1.0, -2.0, 5.0, 5.5])
CURVE = (np.array([1.0, 2.0, 6.0]), np.array([1.0, 1.4, 1.8]))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (speed_under_limit, (300.0, 200.0, 47.0, 1.8)),
        (power_under_limit, (300.0, 200.0, 100.0)),
        (predicted_speed, (1.2, 2.3, 0.4, 0.6)),
        (shared_slowdown, (0.5, 1.0, 0.52)),
        (spread_slowdown, (3.0, *CURVE)),
        (temperature_after_c, (40.0, 300.0, 17.0, 30.0, 0.15, 60.0)),
        (seconds_to_temperature, (40.0, 70.0, 300.0, 30.0, 0.15, 60.0)),
        (throttled_power_w, (86.0, 500.0, 85.0, 30.0, 0.15)),
        (running_integral, (9000.0, EDGES, CUMULATIVE)),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_compiled_and_plain_agree(function: Callable[..., float], arguments: tuple[object, ...]) -> None:
    assert numba.njit(function)(*arguments) == pytest.approx(function(*arguments), rel=1e-14)
