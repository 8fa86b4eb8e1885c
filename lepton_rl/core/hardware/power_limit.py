"""What a power limit does to a GPU: the job's speed and the draw, as plain arithmetic.

A job draws its natural power where no limit binds. Below that, the power over a floor buys speed with falling
returns: `1 - (1 - x) ** exponent` with `x = (limit - floor) / (natural - floor)`. The first watts that a limit takes
cost almost nothing, the last ones most. Curves are fitted to zeus_power (docs/hardware.md).
"""

from dataclasses import dataclass

from lepton_rl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PowerCurve:
    """A GPU type's answer to power limits.

    Attributes:
        floor_w: power that buys no speed: leakage, memory, fans; below the lowest limit.
        exponent: how fast the returns fall, 1 (not at all) or more.
        lowest_held_w: least draw that the card can be held to under load, watts; a lower limit is overrun.
    """

    floor_w: float
    exponent: float
    lowest_held_w: float

    def __post_init__(self) -> None:
        if not (self.floor_w >= 0 and self.lowest_held_w >= 0):
            raise ConfigError(
                f"a power curve's floor ({self.floor_w} W) and lowest held draw ({self.lowest_held_w} W) must be 0 or "
                "more"
            )
        if not self.exponent >= 1:
            raise ConfigError(f"a power curve's exponent must be 1 or more, not {self.exponent}")


def speed_under_limit(natural_power_w: float, limit_w: float, floor_w: float, exponent: float) -> float:
    """Return the part of its speed that a job keeps under a power limit, 0 to 1.

    Args:
        natural_power_w: what the job draws without a limit.
        limit_w: the power limit; at or above the natural draw it costs nothing.
        floor_w: power that buys no speed; at or below it nothing is left.
        exponent: how fast the returns fall, 1 or more.
    """
    if limit_w >= natural_power_w:
        return 1.0
    if limit_w <= floor_w:
        return 0.0
    return float(1.0 - (1.0 - (limit_w - floor_w) / (natural_power_w - floor_w)) ** exponent)


def power_under_limit(natural_power_w: float, limit_w: float, lowest_held_w: float) -> float:
    """Return the draw under a power limit, watts: the natural one, or the limit where the card can be held to it."""
    return min(natural_power_w, max(limit_w, lowest_held_w))
