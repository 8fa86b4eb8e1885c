"""What an operator should be told of: draw without work, thermal runaway, bursts of failures, fallbacks too often."""

import logging
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lepton_rl.devices import DeviceTelemetry

_log = logging.getLogger(__name__)
THERMAL_REASONS = frozenset({"hw_thermal_slowdown", "sw_thermal_slowdown"})
SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class AlertRules:
    """When there is an alert.

    Attributes:
        idle_power_w: a GPU that no job holds draws more than this
        idle_power_s: for so long.
        hot_c: a GPU is at least so hot
        rise_c_per_min: and gets hotter faster than this, or
        throttling_s: lowers its clocks for its temperature for so long.
        rise_window_s: seconds over which the rise is measured.
        failed_jobs: so many
        of_jobs: of the last jobs that ended by themselves have failed or are lost.
        fallbacks: so many
        of_decisions: of the last decisions were the fallback's.
    """

    idle_power_w: float = 150.0
    idle_power_s: float = 120.0
    hot_c: float = 75.0
    rise_c_per_min: float = 20.0
    rise_window_s: float = 30.0
    throttling_s: float = 30.0
    failed_jobs: int = 5
    of_jobs: int = 10
    fallbacks: int = 10
    of_decisions: int = 50


RULES = ("idle_power", "thermal_runaway", "thermal_throttling", "failure_burst", "fallbacks")
"""The names of what there may be alerts for."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that is wrong now.

    Attributes:
        rule: one of RULES.
        subject: UUID of a GPU, or "node".
        text: a sentence for people.
        since: Unix seconds of its onset.
    """

    rule: str
    subject: str
    text: str
    since: float


class Alerts:
    """Follows what is wrong on a node. All times are given; an alert is logged once, at its onset.

    Args:
        rules: when there is an alert.
    """

    def __init__(self, rules: AlertRules | None = None) -> None:
        self.rules = rules or AlertRules()
        self._active: dict[tuple[str, str], Alert] = {}
        self._drawing_since: dict[str, float] = {}
        self._throttling_since: dict[str, float] = {}
        self._temperatures: dict[str, deque[tuple[float, float]]] = {}
        self._failed: deque[bool] = deque(maxlen=self.rules.of_jobs)
        self._fell_back: deque[bool] = deque(maxlen=self.rules.of_decisions)
        self.onsets = 0

    @property
    def active(self) -> Sequence[Alert]:
        """What is wrong now, oldest first."""
        return sorted(self._active.values(), key=lambda alert: alert.since)

    @property
    def failure_ratio(self) -> float | None:
        """Share of the last `of_jobs` jobs that failed; None before the first has ended."""
        return sum(self._failed) / len(self._failed) if self._failed else None

    def ended(self, failed: Iterable[bool]) -> None:
        """Take in jobs that ended by themselves, in order, and whether each failed."""
        self._failed.extend(failed)

    def decided(self, by_fallback: Iterable[bool]) -> None:
        """Take in decisions and whether the fallback made each, because the policy was in doubt."""
        self._fell_back.extend(by_fallback)

    def update(self, devices: Iterable[DeviceTelemetry], held: Collection[str], now_s: float, wall_s: float) -> None:
        """Work out what is wrong.

        Args:
            devices: as they are now.
            held: UUIDs of GPUs that jobs of this node hold.
            now_s: seconds of a clock that does not jump.
            wall_s: Unix seconds, for onsets.
        """
        found: dict[tuple[str, str], str] = {}
        for device in devices:
            uuid, name = device.identity.uuid, f"GPU {device.identity.index}"
            for rule, text in self._of_device(device, uuid in held, now_s):
                found[rule, uuid] = f"{name} {text}"
        for rule, text in self._of_node():
            found[rule, "node"] = text
        for key in [key for key in self._active if key not in found]:
            _log.info("over: %s", self._active.pop(key).text)
        for (rule, subject), text in found.items():
            known = self._active.get((rule, subject))
            if known is None:
                _log.warning("alert: %s", text)
                self.onsets += 1
            self._active[rule, subject] = Alert(rule, subject, text, wall_s if known is None else known.since)

    def _of_device(self, device: DeviceTelemetry, held: bool, now_s: float) -> Iterator[tuple[str, str]]:
        rules, uuid, reading = self.rules, device.identity.uuid, device.filtered
        watts = None if reading.power_mw is None else reading.power_mw / 1e3
        drawing = not held and watts is not None and watts > rules.idle_power_w
        lasted = _lasting(self._drawing_since, uuid, drawing, now_s)
        if drawing and lasted >= rules.idle_power_s:
            yield "idle_power", f"draws {watts:.0f} W and no job holds it"
        reasons = THERMAL_REASONS.intersection(device.raw.throttle_reasons or ())
        lasted = _lasting(self._throttling_since, uuid, bool(reasons), now_s)
        if reasons and lasted >= rules.throttling_s:
            yield "thermal_throttling", "lowers its clocks because it is too hot"
        rise, temperature_c = self._rise(uuid, reading.temperature_c, now_s), reading.temperature_c
        if rise is None or temperature_c is None:
            return
        if temperature_c >= rules.hot_c and rise > rules.rise_c_per_min:
            yield "thermal_runaway", f"has {temperature_c} °C and gets hotter by {rise:.0f} °C a minute"

    def _rise(self, uuid: str, temperature_c: float | None, now_s: float) -> float | None:
        """Degrees a minute over the window; None before it is full, or where the device does not say."""
        seen = self._temperatures.setdefault(uuid, deque())
        if temperature_c is None:
            seen.clear()
            return None
        seen.append((now_s, temperature_c))
        while len(seen) > 1 and seen[1][0] <= now_s - self.rules.rise_window_s:
            seen.popleft()
        (then_s, before_c), span_s = seen[0], now_s - seen[0][0]
        if span_s < self.rules.rise_window_s:
            return None
        return (temperature_c - before_c) / (now_s - then_s) * SECONDS_PER_MINUTE

    def _of_node(self) -> Iterator[tuple[str, str]]:
        failed, fell_back = sum(self._failed), sum(self._fell_back)
        if failed >= self.rules.failed_jobs:
            yield "failure_burst", f"{failed} of the last {len(self._failed)} jobs have failed"
        if fell_back >= self.rules.fallbacks:
            yield "fallbacks", f"the fallback made {fell_back} of the last {len(self._fell_back)} decisions"


def _lasting(since: dict[str, float], key: str, holds: bool, now_s: float) -> float:
    """Remember since when something holds; return for how long, in seconds."""
    if not holds:
        since.pop(key, None)
        return 0.0
    return now_s - since.setdefault(key, now_s)
