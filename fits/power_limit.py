"""Curves of speed against power limit, fitted to zeus_power, and the rules for draw and limits of other cards.

A job's natural draw and speed are those at the highest limit that was measured. The floor is a part of the card's
lowest limit, so that no limit within the range stops a job. Jobs with fewer than four limits are left out.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fits.sources import ZEUS_GPUS, zeus_rows
from fits.speed import root_mean_square
from lepton_rl.core.hardware.shipped import datasheet_figure

FEWEST_LIMITS = 4
STEEPEST = 20.0
"""Highest exponent that is tried."""
HIGHEST_FLOOR = 0.95
"""The floor stays this part of the lowest limit or less: at that limit every card still runs."""


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """What was measured on one GPU type; each array has one entry for each setting."""

    lowest_w: float
    limit_w: NDArray[np.float64]
    natural_w: NDArray[np.float64]
    power_w: NDArray[np.float64]
    speed: NDArray[np.float64]


def settings(data: Path) -> dict[str, Settings]:
    """Return the measurements by GPU type."""
    jobs: dict[tuple[str, Any], list[Any]] = defaultdict(list)
    for row in zeus_rows(data):
        jobs[row.gpu, row.job].append(row)
    columns: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    for (gpu, _), rows in jobs.items():
        if len(rows) < FEWEST_LIMITS:
            continue
        free = max(rows, key=lambda row: row.limit_w)
        columns[gpu] += [
            (row.limit_w, free.power_w, row.power_w, free.epoch_seconds / row.epoch_seconds) for row in rows
        ]
    found = {}
    for gpu in ZEUS_GPUS.values():
        limit, natural, power, speed = np.array(columns[gpu]).T
        found[gpu] = Settings(datasheet_figure(gpu, "min_power_limit_w"), limit, natural, power, speed)
    return found


def fitted_speed(measured: Settings, floor_share: float, exponent: float) -> NDArray[np.float64]:
    """Return what the curve gives for each setting."""
    floor = floor_share * measured.lowest_w
    natural = np.maximum(measured.natural_w, floor + 1e-9)
    part = np.clip((measured.limit_w - floor) / (natural - floor), 0.0, 1.0)
    part = np.where(measured.limit_w >= measured.natural_w, 1.0, part)
    curve: NDArray[np.float64] = 1.0 - (1.0 - part) ** exponent
    return curve


def fit_curve(groups: list[Settings]) -> tuple[float, float]:
    """Return floor share and exponent that fit best; every GPU type counts the same.

    The exponent is found for each floor on a grid of hundredths: for a given floor the error has one minimum.
    """
    best = (math.inf, 0.0, 1.0)
    for floor in np.arange(0.0, HIGHEST_FLOOR + 1e-9, 0.01):
        exponent = _best_exponent(groups, float(floor))
        best = min(best, (_error(groups, float(floor), exponent), float(floor), exponent))
    return round(best[1], 2), round(best[2], 3)


def _best_exponent(groups: list[Settings], floor: float) -> float:
    low, high = 1.0, STEEPEST
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if _error(groups, floor, left) < _error(groups, floor, right):
            high = right
        else:
            low = left
    return (low + high) / 2


def _error(groups: list[Settings], floor: float, exponent: float) -> float:
    return float(np.mean([np.mean((fitted_speed(group, floor, exponent) - group.speed) ** 2) for group in groups]))


def held_share(measured: Settings) -> float:
    """Return the draw that the card is held to at its lowest limit, as a part of it, 1 or more.

    Where busy jobs overrun the lowest limit on average, that is their mean draw; else the limit is held.
    """
    bound = (measured.limit_w == measured.limit_w.min()) & (measured.natural_w > 1.2 * measured.limit_w)
    return round(max(1.0, float(np.mean(measured.power_w[bound])) / measured.lowest_w), 3)


def fitted_power(measured: Settings, held: float) -> NDArray[np.float64]:
    """Return the draw that the model gives for each setting, watts."""
    return np.minimum(measured.natural_w, np.maximum(measured.limit_w, held * measured.lowest_w))


def fit_power_limit(data: Path) -> dict[str, Any]:
    """Return the `power_limit` part of the coefficients."""
    measured = settings(data)
    found: dict[str, Any] = {}
    for gpu, group in measured.items():
        floor, exponent = fit_curve([group])
        held = held_share(group)
        found[gpu] = _entry(
            floor, exponent, held, f"zeus_power, {len(group.speed)} settings; {errors(group, floor, exponent, held)}"
        )
    floor, exponent = fit_curve(list(measured.values()))
    left_out = []
    for gpu, group in measured.items():
        others = fit_curve([other for name, other in measured.items() if name != gpu])
        left_out.append(root_mean_square(fitted_speed(group, *others) - group.speed))
    basis = (
        f"zeus_power, all four GPU types; error of the speed {min(left_out):.3f} to {max(left_out):.3f} on a GPU type "
        "left out"
    )
    found["generic"] = _entry(floor, exponent, 1.0, basis)
    return found


def errors(measured: Settings, floor: float, exponent: float, held: float) -> str:
    """Return the errors of speed and draw in words."""
    speed = root_mean_square(fitted_speed(measured, floor, exponent) - measured.speed)
    draw = root_mean_square(fitted_power(measured, held) / measured.power_w - 1.0)
    return f"error of the speed {speed:.3f}, of the draw {100 * draw:.1f} %"


def _entry(floor: float, exponent: float, held: float, basis: str) -> dict[str, Any]:
    return {"floor_share": floor, "exponent": exponent, "held_share": held, "basis": basis}


DRIVER_IDLE = ("A100-SXM4-80GB", "H100-SXM5")
"""GPU types whose idle draw the catalogue has from nvidia-smi."""


def fit_rules(data: Path) -> dict[str, Any]:
    """Return the `rules` part of the coefficients: idle draws, and the parts of the maximum for other cards."""
    rows = zeus_rows(data)
    idle, limits = {}, []
    for gpu in ZEUS_GPUS.values():
        own = [row for row in rows if row.gpu == gpu]
        idle[gpu] = round(min(row.power_w for row in own), 1)
        limits.append(min(row.limit_w for row in own) / max(row.limit_w for row in own))
    driver = {gpu: datasheet_figure(gpu, "idle_power_w") for gpu in DRIVER_IDLE}
    shares = [draw / datasheet_figure(gpu, "max_power_w") for gpu, draw in (idle | driver).items()]
    return {
        "idle_power_w": {
            gpu: {
                "value": value,
                "basis": "least average draw in zeus_power, of a job that hardly uses the GPU: an upper bound",
            }
            for gpu, value in idle.items()
        },
        "idle_share": {
            "value": round(float(np.exp(np.mean(np.log(shares)))), 3),
            "basis": (
                f"part of the maximum power, geometric mean over {len(shares)} cards ({min(shares):.2f} to "
                f"{max(shares):.2f})"
            ),
        },
        "limit_share": {
            "value": round(float(np.exp(np.mean(np.log(limits)))), 3),
            "basis": (
                f"part of the maximum power, geometric mean over the {len(limits)} cards of zeus_power "
                f"({min(limits):.2f} to {max(limits):.2f})"
            ),
        },
    }
