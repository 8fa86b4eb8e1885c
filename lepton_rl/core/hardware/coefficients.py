"""The fitted coefficients that come with lepton_rl: `coefficients.yaml`, which `python -m fits --write` rewrites."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from lepton_rl.core.hardware.locality import Locality, SpreadCurve
from lepton_rl.core.hardware.shipped import shipped
from lepton_rl.core.hardware.speed import SpeedFit

GENERIC = "generic"
"""The power curve of a GPU type without measurements."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A fitted figure: its value, and a sentence on what it rests on."""

    value: float
    basis: str


@dataclass(frozen=True, slots=True)
class PowerFit:
    """A fitted answer to power limits, as parts of a card's lowest limit, and a sentence on what it rests on."""

    floor_share: float
    exponent: float
    held_share: float
    basis: str


@dataclass(frozen=True, slots=True, eq=False)
class Coefficients:
    """Everything that was fitted, by GPU type where it depends on it.

    Attributes:
        speed: the log-linear fit of each class of job but "general".
        speed_basis: a sentence for each on what it rests on.
        measured_speed: by GPU type and class, relative to the reference.
        power: power curves by GPU type, and the generic one.
        idle_power_w: least measured draws by GPU type.
        idle_share: part of the maximum that a GPU without such a figure draws when idle.
        limit_share: part of the maximum that is the lowest limit of a card whose range is not known.
        price_usd_per_hour: rent by GPU type.
        interference: what a second busy job adds to the slowdown of a busy one, by GPU type, and "default".
        locality: default slowdown by nodes and racks.
    """

    speed: Mapping[str, SpeedFit]
    speed_basis: Mapping[str, str]
    measured_speed: Mapping[str, Mapping[str, Estimate]]
    power: Mapping[str, PowerFit]
    idle_power_w: Mapping[str, Estimate]
    idle_share: Estimate
    limit_share: Estimate
    price_usd_per_hour: Mapping[str, Estimate]
    interference: Mapping[str, Estimate]
    locality: Locality


@cache
def coefficients() -> Coefficients:
    """Return the shipped coefficients, read once."""
    stored = shipped("coefficients.yaml")
    speed, rules = stored["speed"], stored["rules"]
    return Coefficients(
        speed={name: SpeedFit(entry["fp32"], entry["bandwidth"]) for name, entry in speed["exponents"].items()},
        speed_basis={name: entry["basis"] for name, entry in speed["exponents"].items()},
        measured_speed={name: _estimates(entry) for name, entry in speed["measured"].items()},
        power={name: PowerFit(**entry) for name, entry in stored["power_limit"].items()},
        idle_power_w=_estimates(rules["idle_power_w"]),
        idle_share=Estimate(**rules["idle_share"]),
        limit_share=Estimate(**rules["limit_share"]),
        price_usd_per_hour=_estimates(stored["price_usd_per_hour"]),
        interference=_estimates(stored["interference"]),
        locality=Locality(*(SpreadCurve(**_tuples(stored["locality"][key])) for key in ("nodes", "racks"))),
    )


def interference_coefficient(gpu: str = "default") -> float:
    """Return the default interference coefficient of a GPU type, or of any without one of its own."""
    known = coefficients().interference
    return known[gpu if gpu in known else "default"].value


def default_locality() -> Locality:
    """Return the default slowdown by nodes and racks."""
    return coefficients().locality


def _estimates(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    return {name: Estimate(**entry) for name, entry in stored.items()}


def _tuples(curve: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {key: tuple(curve[key]) for key in ("counts", "slowdowns")}
