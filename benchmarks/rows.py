"""What a benchmark returns: one row for each figure, with the bar that it must hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """A bar: `measured` must be at least (or at most) `value`."""

    value: float
    at_least: bool

    def met(self, measured: float) -> bool:
        """Return whether a figure holds the bar."""
        return measured >= self.value if self.at_least else measured <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {figure(self.value)}"


def at_least(value: float) -> Target:
    """Return the bar of a speed or a ratio."""
    return Target(value, at_least=True)


def at_most(value: float) -> Target:
    """Return the bar of a time or a size."""
    return Target(value, at_least=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure.

    Attributes:
        name: what was measured.
        measured: the figure, the best of the repeats.
        unit: its unit.
        target: the bar, or None for a figure that is only reported.
        ratio: how many times faster than the peer, measured in the same run; None without a peer.
        details: what else the measurement saw, by name.
    """

    name: str
    measured: float
    unit: str
    target: Target | None = None
    ratio: float | None = None
    details: Mapping[str, float | str] = field(default_factory=dict)

    def met(self, quick: bool) -> bool | None:
        """Return whether the bar is held; None without a bar, or when a quick run cannot tell."""
        return None if self.target is None or quick else self.target.met(self.measured)

    def as_json(self, quick: bool) -> dict[str, Any]:
        """Return the row as plain data."""
        return {
            "name": self.name,
            "measured": self.measured,
            "unit": self.unit,
            "target": None if self.target is None else self.target.value,
            "target_is": None if self.target is None else "at least" if self.target.at_least else "at most",
            "met": self.met(quick),
            "ratio_to_peer": self.ratio,
            "details": dict(self.details),
        }


def figure(value: float | str) -> str:
    """Return a number as people read it: three digits, thousands separated."""
    if isinstance(value, str):
        return value
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if value == int(value):
        return f"{int(value)}"
    return f"{value:.3g}"
