"""First-order temperature of a GPU between events, exactly, and how it slows itself.

`T(t) = T_end + (T_0 - T_end) exp(-t / tau)` with `T_end = inlet + resistance x power`. A GPU at its throttle
temperature whose draw would heat it further draws what just holds that temperature. There is no hysteresis: the
state follows from temperature and natural draw alone, so nothing but the temperature is carried between events.
"""

import math


def steady_temperature_c(power_w: float, inlet_c: float, resistance_c_per_w: float) -> float:
    """Return the temperature that a constant draw leads to, degrees Celsius."""
    return inlet_c + resistance_c_per_w * power_w


def temperature_after_c(
    start_c: float, power_w: float, seconds: float, inlet_c: float, resistance_c_per_w: float, time_constant_s: float
) -> float:
    """Return the temperature after `seconds` of a constant draw, degrees Celsius; exact for any length of time."""
    end = inlet_c + resistance_c_per_w * power_w
    return end + (start_c - end) * math.exp(-seconds / time_constant_s)


def seconds_to_temperature(
    start_c: float, target_c: float, power_w: float, inlet_c: float, resistance_c_per_w: float, time_constant_s: float
) -> float:
    """Return when a constant draw brings the GPU from `start_c` to `target_c`: 0 where it is there, inf for never."""
    if start_c == target_c:
        return 0.0
    end = inlet_c + resistance_c_per_w * power_w
    # the target lies between start and end, short of the end, which is reached only in the limit
    if (target_c - start_c) * (end - target_c) <= 0.0:
        return math.inf
    return time_constant_s * math.log((end - start_c) / (end - target_c))


def throttled_power_w(
    temperature_c: float, natural_power_w: float, throttle_c: float, inlet_c: float, resistance_c_per_w: float
) -> float:
    """Return the draw that the GPU's temperature allows, watts.

    Below the throttle temperature that is the natural draw; at or above it, at most what holds that temperature
    (0 where the inlet air itself is as hot). The job's speed is the one under a power limit of as many watts.
    """
    if temperature_c < throttle_c:
        return natural_power_w
    return min(natural_power_w, max(0.0, (throttle_c - inlet_c) / resistance_c_per_w))
