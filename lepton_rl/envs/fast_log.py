"""A natural logarithm for features: error below 4e-6, a quarter of the time of libm's.

The logarithms of a hundred waiting jobs were most of the cost of an observation.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lepton_rl.core.jit import inlined

_EXPONENT_BITS = np.int32(23)
_EXPONENT_BIAS = np.int32(127)
_MANTISSA = np.int32(0x7FFFFF)
_ONE = np.int32(0x3F800000)
_LN2 = np.float32(0.6931471805599453)


@intrinsic
def _bits(context: Any, value: Any) -> Any:
    """The bits of a float32 as an int32."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def _from_bits(context: Any, value: Any) -> Any:
    """The float32 that these bits mean."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


# Intrinsics are called without their first argument, the typing context.
to_bits: Any = _bits
from_bits: Any = _from_bits


@inlined
def fast_log(value: float) -> float:
    """Return log(value) for a positive, normal float32, within 4e-6."""
    bits: Any = to_bits(np.float32(value))
    exponent = (bits >> _EXPONENT_BITS) - _EXPONENT_BIAS
    m = from_bits((bits & _MANTISSA) | _ONE)  # 1 <= m < 2
    # Chebyshev interpolation of log(m) at degree 6, shifted to be 0 at 1.
    p = np.float32(0.18370084115152) - np.float32(0.017029610589036435) * m
    p = np.float32(-0.8520795951448832) + p * m
    p = np.float32(2.2269434607536414) + p * m
    p = np.float32(-3.647120395291447) + p * m
    p = np.float32(4.20523484145975) + p * m
    p = np.float32(-2.0996498) + p * m
    logarithm: float = np.float32(exponent) * _LN2 + p
    return logarithm
