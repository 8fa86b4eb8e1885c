"""Energy of a device, twice: by its own counter and by adding up its power."""

from collections import deque
from dataclasses import dataclass

# Width of the counters that wrap around in the wild.
_WRAPS = (2**32, 2**64)
_SLACK_MJ = 1_000.0


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy since the meter began; it never falls.

    Attributes:
        counter_mj: by the device's counter; None while it has not said one twice.
        integrated_mj: power added up by the trapezoid rule; None while it has not been read twice.
        missing_s: seconds in which power was not known and nothing was added.
        resets: how often the counter began anew, as when the driver is loaded again.
        disagree: whether the two have differed by more than the allowed share over the last full window.
        difference: that share: the distance of the two over the greater one; None before the window is full.
    """

    counter_mj: float | None = None
    integrated_mj: float | None = None
    missing_s: float = 0.0
    resets: int = 0
    disagree: bool = False
    difference: float | None = None


class EnergyMeter:
    """Adds up the energy of one device from its readings.

    Args:
        max_power_mw: the most that the device can draw; a step of the counter beyond it is no energy but a fault.
        allowed_difference: share by which counter and integral may differ, 0 to 1.
        window_s: seconds over which they are compared.
    """

    def __init__(
        self, max_power_mw: float | None = None, *, allowed_difference: float = 0.2, window_s: float = 60.0
    ) -> None:
        self._max_power_mw, self._allowed, self._window_s = max_power_mw, allowed_difference, window_s
        self._at: float | None = None
        self._counter_mj: int | None = None
        self._counter_at = 0.0
        self._power_mw: float | None = None
        self._steps: deque[tuple[float, float, float]] = deque()  # seconds, by counter, by integral
        self._energy = Energy()

    @property
    def energy(self) -> Energy:
        """What was added up so far."""
        return self._energy

    def add(self, monotonic_s: float, counter_mj: int | None, power_mw: float | None) -> Energy:
        """Take one reading in and return the sum.

        Args:
            monotonic_s: when it was read, by a clock that does not jump; an earlier time than the last adds nothing.
            counter_mj: None where the device does not say; the energy of the gap is added once it speaks again.
            power_mw: None where it is not known.
        """
        elapsed_s = 0.0 if self._at is None else max(0.0, monotonic_s - self._at)
        same_span = self._counter_mj is not None and self._counter_at == self._at
        counted, resets = self._counted(monotonic_s, counter_mj)
        integrated = None
        if self._at is not None and self._power_mw is not None and power_mw is not None:
            integrated = (self._power_mw + power_mw) / 2 * elapsed_s
        known = power_mw is not None and (self._power_mw is not None or self._at is None)
        energy = self._energy
        self._compare(elapsed_s, counted if same_span else None, integrated)
        difference = self._difference()
        self._energy = Energy(
            counter_mj=_sum(energy.counter_mj, counted),
            integrated_mj=_sum(energy.integrated_mj, integrated),
            missing_s=energy.missing_s + (0.0 if known else elapsed_s),
            resets=energy.resets + resets,
            disagree=difference is not None and difference > self._allowed,
            difference=difference,
        )
        self._at, self._power_mw = self._forward(monotonic_s), power_mw
        return self._energy

    def _forward(self, monotonic_s: float) -> float:
        return monotonic_s if self._at is None else max(monotonic_s, self._at)

    def _counted(self, now: float, counter_mj: int | None) -> tuple[float | None, int]:
        """Return the energy since the counter's last word and whether it began anew in between."""
        if counter_mj is None:
            return None, 0
        last, elapsed_s = self._counter_mj, max(0.0, now - self._counter_at)
        self._counter_mj, self._counter_at = counter_mj, self._forward(now)
        if last is None:
            return None, 0
        most = float("inf") if self._max_power_mw is None else self._max_power_mw * elapsed_s + _SLACK_MJ
        step = counter_mj - last
        if 0 <= step <= most:
            return float(step), 0
        if step < 0 and self._max_power_mw is not None:
            for width in _WRAPS:
                if last < width and step + width <= most:
                    return float(step + width), 0
            if counter_mj <= most:  # loaded anew since: what it counts, it counted since then
                return float(counter_mj), 1
        return 0.0, 1

    def _compare(self, elapsed_s: float, counted: float | None, integrated: float | None) -> None:
        if elapsed_s <= 0.0:
            return
        if counted is None or integrated is None:
            self._steps.clear()  # the two would cover different spans
            return
        self._steps.append((elapsed_s, counted, integrated))
        while sum(step[0] for step in self._steps) - self._steps[0][0] >= self._window_s:
            self._steps.popleft()

    def _difference(self) -> float | None:
        if sum(step[0] for step in self._steps) < self._window_s:
            return None
        counted, integrated = (sum(step[i] for step in self._steps) for i in (1, 2))
        greater = max(counted, integrated)
        return abs(counted - integrated) / greater if greater > 0 else 0.0


def _sum(total: float | None, step: float | None) -> float | None:
    return total if step is None else (total or 0.0) + step
