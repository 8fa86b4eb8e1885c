"""The two clocks of a node; only the node reads them."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for durations; both seconds."""

    def wall(self) -> float:
        """Return Unix time, which may jump."""

    def monotonic(self) -> float:
        """Return the system's monotonic time, which does not and is the same for all processes of a boot."""


class SystemClock:
    """The machine's own clocks."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
