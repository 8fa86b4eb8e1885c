"""Readings without noise and outliers: what is impossible is dropped, what jitters is the median of a short window."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from statistics import median
from typing import Any

from lepton_rl.devices.device import DeviceIdentity, Reading

# What jitters. Counters, states and memory, whose steps mean something, are only held to their bounds.
SMOOTHED = ("utilisation", "memory_utilisation", "power_mw", "temperature_c", "sm_clock_mhz", "memory_clock_mhz")
_WHOLE = frozenset(field.name for field in fields(Reading) if field.type in (int | None, "int | None"))
_POWER_MARGIN = 1.5  # short peaks above the limit are real
_MIN_TEMPERATURE_C, _MAX_TEMPERATURE_C = -20, 125
_MAX_CLOCK_MHZ = 10_000

Bound = Callable[[DeviceIdentity, Reading], tuple[float, float]]


def _memory(identity: DeviceIdentity, reading: Reading) -> tuple[float, float]:
    return 0, reading.memory_total_bytes or identity.memory_total_bytes or math.inf


def _power(identity: DeviceIdentity, reading: Reading) -> tuple[float, float]:
    return 0, _POWER_MARGIN * identity.max_power_limit_mw if identity.max_power_limit_mw else math.inf


BOUNDS: dict[str, Bound] = {
    "utilisation": lambda identity, reading: (0, 1),
    "memory_utilisation": lambda identity, reading: (0, 1),
    "memory_used_bytes": _memory,
    "memory_free_bytes": _memory,
    "memory_reserved_bytes": _memory,
    "power_mw": _power,
    "power_limit_mw": _power,
    "temperature_c": lambda identity, reading: (_MIN_TEMPERATURE_C, _MAX_TEMPERATURE_C),
    "sm_clock_mhz": lambda identity, reading: (0, _MAX_CLOCK_MHZ),
    "memory_clock_mhz": lambda identity, reading: (0, _MAX_CLOCK_MHZ),
    "energy_mj": lambda identity, reading: (0, math.inf),
    "ecc_corrected": lambda identity, reading: (0, math.inf),
    "ecc_uncorrected": lambda identity, reading: (0, math.inf),
}


def is_possible(name: str, identity: DeviceIdentity, reading: Reading) -> bool:
    """Return whether a field of a reading is known and within its physical bounds."""
    value = getattr(reading, name)
    if value is None or not math.isfinite(value):
        return False
    low, high = BOUNDS[name](identity, reading)
    return bool(low <= value <= high)


class ReadingFilter:
    """Filters the readings of one device, given in order.

    A value that is missing or not a number stays missing and empties its window. A value outside its physical bounds is
    replaced by the median of the window before it, or is missing where the window is empty.

    Args:
        identity: of the device.
        window: readings in the median, odd or even; 1 smooths nothing.
    """

    def __init__(self, identity: DeviceIdentity, window: int = 5) -> None:
        if window < 1:
            raise ValueError(f"a window holds at least 1 reading, not {window}")
        self._identity = identity
        self._windows: dict[str, deque[float]] = {name: deque(maxlen=window) for name in SMOOTHED}

    def __call__(self, reading: Reading) -> Reading:
        """Return the reading, filtered."""
        changed: dict[str, Any] = {}
        for name in BOUNDS:
            value = getattr(reading, name)
            filtered = self._filtered(name, value, reading)
            if filtered is not value:
                changed[name] = filtered
        return replace(reading, **changed) if changed else reading

    def _filtered(self, name: str, value: float | None, reading: Reading) -> float | None:
        window = self._windows.get(name)
        if value is None or not math.isfinite(value):
            if window is not None:
                window.clear()
            return None
        possible = is_possible(name, self._identity, reading)
        if window is None:
            return value if possible else None
        if possible:
            window.append(value)
        if not window:
            return None
        middle = _median(window)
        return round(middle) if name in _WHOLE else middle


def _median(window: Iterable[float]) -> float:
    return float(median(window))
