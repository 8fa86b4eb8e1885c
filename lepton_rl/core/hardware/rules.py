"""Rules for the figures that a GPU type does not state of itself."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lepton_rl.core.hardware.coefficients import GENERIC, Coefficients, Estimate, coefficients
from lepton_rl.core.hardware.gpu_type import GpuType
from lepton_rl.core.hardware.power_limit import PowerCurve
from lepton_rl.core.hardware.shipped import entries, source_text
from lepton_rl.core.hardware.speed import JOB_CLASSES, REFERENCE, predicted_speed

INLET_TEMPERATURE_C = 30.0
"""Inlet air that the thermal rules assume, degrees Celsius."""
THROTTLE_TEMPERATURE_C = 85.0
"""Assumed where no figure is known: what nvidia-smi reports as the A100's highest operating temperature."""
MARGIN_C = 10.0
"""By which a GPU at its maximum power stays below its throttle temperature in inlet air as assumed."""
TIME_CONSTANT_S = 60.0
"""Assumed for every card: an air-cooled heat sink settles within minutes."""

DATASHEET_FIGURES = ("memory_gib", "max_power_w", "fp32_tflops", "fp16_tflops", "memory_bandwidth_gb_s")
"""What a GPU type must say of itself; everything else has a rule."""
OPTIONAL_FIGURES = (
    "idle_power_w", "min_power_limit_w", "max_power_limit_w", "throttle_temperature_c", "thermal_resistance_c_per_w",
    "thermal_time_constant_s", "price_usd_per_hour",
)  # fmt: skip


class Completion:
    """Fills in what a GPU type does not say of itself, and notes what each figure rests on."""

    def __init__(self, name: str, figures: dict[str, float], sources: dict[str, str], siblings: Sequence[str] = ()):
        self.name, self.siblings = name, siblings
        self.figures, self.sources = figures, sources
        self.fitted: Coefficients = coefficients()

    def build(self) -> GpuType:
        self._fill_power()
        self._fill_heat()
        self._fill_price()
        curve = self._power_curve()
        speed = self._speed()
        price = self.figures.pop("price_usd_per_hour", None)
        return GpuType(
            name=self.name,
            speed=speed,
            power_curve=curve,
            price_usd_per_hour=price,
            sources=self.sources,
            **self.figures,
        )

    def _rule(self, figure: str, value: float, source: str) -> None:
        if figure not in self.figures:
            self.figures[figure], self.sources[figure] = value, source

    def _fill_power(self) -> None:
        maximum, fitted = self.figures["max_power_w"], self.fitted
        known = self._known_idle_power_w()
        if known is not None:
            self._rule("idle_power_w", known.value, known.basis)
        self._rule("idle_power_w", round(fitted.idle_share.value * maximum, 1), f"rule: {fitted.idle_share.basis}")
        self._rule("max_power_limit_w", maximum, "rule: the maximum power")
        highest = self.figures["max_power_limit_w"]
        share = fitted.limit_share
        self._rule("min_power_limit_w", round(share.value * min(maximum, highest), 0), f"rule: {share.basis}")

    def _known_idle_power_w(self) -> Estimate | None:
        """Return the measured idle draw, or that of a card with the same chip and maximum power."""
        measured = self.fitted.idle_power_w
        if self.name in measured:
            return measured[self.name]
        for sibling in self.siblings:
            entry = entries()[sibling]
            known = measured.get(sibling)
            if known is None and "idle_power_w" in entry:
                known = Estimate(float(entry["idle_power_w"]), source_text(entry["idle"]))
            if known is not None and entry["max_power_w"] == self.figures["max_power_w"]:
                return Estimate(known.value, f"that of the {sibling}, the same chip at the same power: {known.basis}")
        return None

    def _fill_heat(self) -> None:
        self._rule("throttle_temperature_c", THROTTLE_TEMPERATURE_C, f"assumption: {THROTTLE_TEMPERATURE_C:g} °C")
        rise = self.figures["throttle_temperature_c"] - MARGIN_C - INLET_TEMPERATURE_C
        self._rule(
            "thermal_resistance_c_per_w",
            round(max(rise, 1.0) / self.figures["max_power_w"], 4),
            f"assumption: {MARGIN_C:g} °C below the throttle temperature at maximum power in inlet air of "
            f"{INLET_TEMPERATURE_C:g} °C",
        )
        self._rule("thermal_time_constant_s", TIME_CONSTANT_S, "assumption: the same for every card")

    def _fill_price(self) -> None:
        price = self.fitted.price_usd_per_hour.get(self.name)
        if price is not None:
            self._rule("price_usd_per_hour", price.value, price.basis)

    def _power_curve(self) -> PowerCurve:
        name = next(name for name in (self.name, *self.siblings, GENERIC) if name in self.fitted.power)
        fit = self.fitted.power[name]
        self.sources["power_curve"] = f"{name}, the same chip; {fit.basis}" if name in self.siblings else fit.basis
        lowest = self.figures["min_power_limit_w"]
        # no limit brings a card below the draw that it has without a job
        held = max(round(fit.held_share * lowest, 1), self.figures["idle_power_w"])
        return PowerCurve(round(fit.floor_share * lowest, 1), fit.exponent, held)

    def _speed(self) -> dict[str, float]:
        speed: dict[str, float] = {}
        for job_class in JOB_CLASSES:
            if job_class == "general":
                continue
            estimate = self._measured(job_class) or self._from_sibling(job_class) or self._from_datasheet(job_class)
            speed[job_class] = round(estimate.value, 3)
            self.sources[f"speed.{job_class}"] = estimate.basis
        speed["general"] = round(math.prod(speed.values()) ** (1 / len(speed)), 3)
        self.sources["speed.general"] = "geometric mean of the other classes"
        return speed

    def _measured(self, job_class: str) -> Estimate | None:
        if self.name == REFERENCE:
            return Estimate(1.0, "the reference")
        return self.fitted.measured_speed.get(self.name, {}).get(job_class)

    def _from_datasheet(self, job_class: str) -> Estimate:
        return Estimate(
            _fitted_speed(job_class, self.figures, entries()[REFERENCE], self.fitted),
            f"fit on FP32 rate and memory bandwidth: {self.fitted.speed_basis[job_class]}",
        )

    def _from_sibling(self, job_class: str) -> Estimate | None:
        for sibling in self.siblings:
            measured = self.fitted.measured_speed.get(sibling, {}).get(job_class)
            if measured is not None:
                ratio = _fitted_speed(job_class, self.figures, entries()[sibling], self.fitted)
                return Estimate(
                    measured.value * ratio, f"{sibling}, the same chip, scaled by the fit; {measured.basis}"
                )
        return None


def _fitted_speed(job_class: str, figures: Mapping[str, Any], base: Mapping[str, Any], fitted: Coefficients) -> float:
    exponents = fitted.speed[job_class]
    return predicted_speed(
        figures["fp32_tflops"] / base["fp32_tflops"],
        figures["memory_bandwidth_gb_s"] / base["memory_bandwidth_gb_s"],
        exponents.fp32,
        exponents.bandwidth,
    )
