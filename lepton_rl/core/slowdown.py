"""The bounded slowdown, apart from the other metrics: compiled functions use its floor."""

import numpy as np

from lepton_rl.core.arrays import Floats

SLOWDOWN_FLOOR = 10.0
"""Run times below this many seconds count as this long in the bounded slowdown (Feitelson 2001)."""


def bounded_slowdown(wait: Floats, run: Floats, floor: float = SLOWDOWN_FLOOR) -> Floats:
    """Return `max(1, (wait + run) / max(run, floor))`, element by element."""
    return np.maximum(1.0, (wait + run) / np.maximum(run, floor))
