"""What GPUs are: the catalogue of types, and small physical models of speed, power, heat, sharing, spread and cost."""

from lepton_rl.core.hardware.catalogue import aliases, gpu_type, gpu_types, make_gpu_type
from lepton_rl.core.hardware.coefficients import default_locality, interference_coefficient
from lepton_rl.core.hardware.gpu_type import GpuType
from lepton_rl.core.hardware.interference import PairTable, pair_table, shared_slowdown
from lepton_rl.core.hardware.locality import Locality, SpreadCurve, spread_slowdown
from lepton_rl.core.hardware.power_limit import PowerCurve, power_under_limit, speed_under_limit
from lepton_rl.core.hardware.speed import JOB_CLASSES
from lepton_rl.core.hardware.tariffs import (
    HourlySeries,
    carbon_grams,
    carbon_series,
    energy_cost_usd,
    rental_cost_usd,
)
from lepton_rl.core.hardware.thermal import seconds_to_temperature, temperature_after_c, throttled_power_w

__all__ = [
    "JOB_CLASSES",
    "GpuType",
    "HourlySeries",
    "Locality",
    "PairTable",
    "PowerCurve",
    "SpreadCurve",
    "aliases",
    "carbon_grams",
    "carbon_series",
    "default_locality",
    "energy_cost_usd",
    "gpu_type",
    "gpu_types",
    "interference_coefficient",
    "make_gpu_type",
    "pair_table",
    "power_under_limit",
    "rental_cost_usd",
    "seconds_to_temperature",
    "shared_slowdown",
    "speed_under_limit",
    "spread_slowdown",
    "temperature_after_c",
    "throttled_power_w",
]
