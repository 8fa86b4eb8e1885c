"""What a GPU is to a scheduler: memory, power, speed by class of job, heat, price, and where each figure is from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lepton_rl.core.hardware.power_limit import PowerCurve, power_under_limit, speed_under_limit
from lepton_rl.core.hardware.speed import JOB_CLASSES, known_job_class
from lepton_rl.errors import ConfigError

LIMITED = " at "
"""Between the name of a type and its power limit."""
IN_GROUP = " in group "
"""Between the name of a type and the group that has it, where groups are told apart."""
_POSITIVE = (
    "memory_gib", "max_power_w", "min_power_limit_w", "max_power_limit_w", "fp32_tflops", "fp16_tflops",
    "memory_bandwidth_gb_s", "throttle_temperature_c", "thermal_resistance_c_per_w", "thermal_time_constant_s",
)  # fmt: skip


def card_name(name: str) -> str:
    """Return the name of the card itself, without power limit and group."""
    return name.partition(IN_GROUP)[0].partition(LIMITED)[0]


@dataclass(frozen=True, slots=True)
class GpuType:
    """One type of GPU. For a board with several GPUs (K80, M60, A16) the figures are one GPU's.

    Attributes:
        name: as the catalogue or the user calls it.
        memory_gib: memory of one GPU, GiB.
        idle_power_w: draw without a job, watts.
        max_power_w: draw at full load without a power limit, watts.
        min_power_limit_w: lowest power limit that the card accepts, watts.
        max_power_limit_w: highest one.
        fp32_tflops: peak rate in FP32 without tensor cores, TFLOP/s.
        fp16_tflops: peak dense rate in FP16, on tensor cores where there are any, TFLOP/s.
        memory_bandwidth_gb_s: peak bandwidth of the memory, GB/s.
        speed: by class of job, relative to a V100 SXM2 (1).
        power_curve: what a power limit does to speed and draw.
        throttle_temperature_c: where the card slows itself, degrees Celsius.
        thermal_resistance_c_per_w: rise above the inlet air per watt in the steady state.
        thermal_time_constant_s: seconds in which 63 % of a change of temperature are done.
        price_usd_per_hour: rent of one GPU, or None where no price is known.
        sources: for each figure, where it is from.
    """

    name: str
    memory_gib: float
    idle_power_w: float
    max_power_w: float
    min_power_limit_w: float
    max_power_limit_w: float
    fp32_tflops: float
    fp16_tflops: float
    memory_bandwidth_gb_s: float
    speed: Mapping[str, float]
    power_curve: PowerCurve
    throttle_temperature_c: float
    thermal_resistance_c_per_w: float
    thermal_time_constant_s: float
    price_usd_per_hour: float | None
    sources: Mapping[str, str]

    def __post_init__(self) -> None:
        for figure in _POSITIVE:
            if not 0 < getattr(self, figure) < math.inf:
                raise ConfigError(f"GPU {self.name!r}: {figure} must be above 0, not {getattr(self, figure)}")
        if not 0 <= self.idle_power_w <= self.max_power_w:
            raise ConfigError(
                f"GPU {self.name!r}: power must satisfy 0 <= idle ({self.idle_power_w} W) <= max ({self.max_power_w} W)"
            )
        if not self.min_power_limit_w <= self.max_power_limit_w:
            raise ConfigError(
                f"GPU {self.name!r}: the lowest power limit, {self.min_power_limit_w} W, is above the highest, "
                f"{self.max_power_limit_w} W"
            )
        if not self.power_curve.floor_w < self.min_power_limit_w:
            raise ConfigError(
                f"GPU {self.name!r}: the floor of its power curve, {self.power_curve.floor_w} W, must be below the "
                f"lowest power limit, {self.min_power_limit_w} W"
            )
        if self.price_usd_per_hour is not None and not 0 <= self.price_usd_per_hour < math.inf:
            raise ConfigError(
                f"GPU {self.name!r}: a rental price must be 0 or more, not {self.price_usd_per_hour} USD per hour"
            )
        for job_class, speed in self.speed.items():
            known_job_class(job_class)
            if not 0 < speed < math.inf:
                raise ConfigError(f"GPU {self.name!r}: its speed for {job_class} must be above 0, not {speed}")
        missing = [job_class for job_class in JOB_CLASSES if job_class not in self.speed]
        if missing:
            raise ConfigError(f"GPU {self.name!r}: its speed for {', '.join(missing)} is missing")

    def under_limit(self, limit_w: float) -> "GpuType":
        """Return the type as it runs under a power limit: its draw at full load, and what is left of its speeds.

        Raises:
            ConfigError: the limit is outside the card's range.
        """
        limit = self.checked_power_limit_w(limit_w)
        curve = self.power_curve
        kept = speed_under_limit(self.max_power_w, limit, curve.floor_w, curve.exponent)
        draw = power_under_limit(self.max_power_w, limit, curve.lowest_held_w)
        return replace(
            self,
            name=f"{self.name}{LIMITED}{limit:g} W",
            max_power_w=max(draw, self.idle_power_w),
            speed={name: speed * kept for name, speed in self.speed.items()},
        )

    def checked_power_limit_w(self, limit_w: float) -> float:
        """Return a power limit that the card accepts.

        Raises:
            ConfigError: it is outside the card's range.
        """
        if not self.min_power_limit_w <= limit_w <= self.max_power_limit_w:
            raise ConfigError(
                f"a power limit of {limit_w:g} W is outside the range of {self.name}, "
                f"{self.min_power_limit_w:g} to {self.max_power_limit_w:g} W"
            )
        return limit_w


def unknown_gpu_type(
    name: str,
    memory_gib: float,
    idle_power_w: float,
    max_power_w: float,
    power_limits_w: tuple[float, float] | None = None,
) -> GpuType:
    """Return a type of which no more is known: as fast as the reference, and no power limit binds.

    Args:
        name: what to call it.
        memory_gib: of one GPU, GiB.
        idle_power_w: draw without a job, watts.
        max_power_w: draw at full load, watts.
        power_limits_w: lowest and highest limit that the card accepts, watts; its maximum draw alone if left out.
    """
    lowest, highest = power_limits_w or (max_power_w, max_power_w)
    return GpuType(
        name=name,
        memory_gib=memory_gib,
        idle_power_w=idle_power_w,
        max_power_w=max_power_w,
        min_power_limit_w=lowest,
        max_power_limit_w=highest,
        fp32_tflops=1.0,
        fp16_tflops=1.0,
        memory_bandwidth_gb_s=1.0,
        speed=dict.fromkeys(JOB_CLASSES, 1.0),
        power_curve=PowerCurve(0.0, 1.0, 0.0),
        throttle_temperature_c=85.0,
        thermal_resistance_c_per_w=0.1,
        thermal_time_constant_s=60.0,
        price_usd_per_hour=None,
        sources={},
    )
