"""Where episodes come from: windows of consecutive jobs, drawn from one or more traces."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lepton_rl.errors import ConfigError, counted
from lepton_rl.workloads import Trace


@dataclass(frozen=True, eq=False)
class Episodes:
    """Windows of `warmup + jobs` consecutive jobs; a heuristic runs the first `warmup`, which are not counted.

    Args:
        traces: Drawn from in proportion to the number of windows that each offers.
        jobs: Counted jobs of an episode.
        warmup: Jobs before them that fill the cluster.
    """

    traces: Sequence[Trace]
    jobs: int = 256
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.warmup < 0:
            raise ConfigError(
                f"an episode needs 1 job or more and no negative warm-up, not {self.jobs} and {self.warmup}"
            )
        shortest = min((len(trace) for trace in self.traces), default=0)
        if shortest < self.length:
            raise ConfigError(
                f"an episode takes {counted(self.length, 'job')} ({self.warmup} of them warm-up), "
                f"the shortest trace has {shortest}"
            )

    @property
    def length(self) -> int:
        """Jobs of an episode, warm-up included."""
        return self.jobs + self.warmup

    def checked(self, window: object) -> tuple[int, int]:
        """Return a window that somebody names as (trace, first job), counted from 0.

        Raises:
            ConfigError: it is no such pair, or there is no such window.
        """
        try:
            index, first = (operator.index(value) for value in window)  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            raise ConfigError(f"a window is two whole numbers, (trace, first job), not {window!r}") from None
        if not 0 <= index < len(self.traces):
            raise ConfigError(f"window {window!r}: there are traces 0 to {len(self.traces) - 1}")
        last = len(self.traces[index]) - self.length
        if not 0 <= first <= last:
            raise ConfigError(f"window {window!r}: the first job of trace {index}'s windows is 0 to {last}")
        return index, first

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return a uniformly random window as (trace, first job)."""
        windows = [len(trace) - self.length + 1 for trace in self.traces]
        pick = int(rng.integers(sum(windows)))
        for index, count in enumerate(windows):
            if pick < count:
                return index, pick
            pick -= count
        raise AssertionError("unreachable")
