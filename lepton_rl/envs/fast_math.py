"""A logarithm and an exponential for features, made of plain arithmetic that compiled loops do in parallel lanes.

The logarithms of a hundred waiting jobs were most of the cost of an observation: libm's take one number at a time.
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
_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.693147180369123816490
_LN2_LOW = 1.90821492927058770002e-10
_WHOLE = 6755399441055744.0  # 1.5 x 2^52: added to a small number, its last bits are that number as an integer
_BIAS64 = np.int64(1023)
_MANTISSA_BITS64 = np.int64(52)


def _reinterpreting(source: Any, target: Any, form: Any) -> Any:
    """Return a compiled function that takes the bits of a `source` for a `target`, which LLVM calls `form`."""

    @intrinsic
    def reinterpret(context: Any, value: Any) -> Any:
        def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], form)

        return target(source), generate

    return reinterpret


_bits32 = _reinterpreting(types.float32, types.int32, ir.IntType(32))
_from_bits32 = _reinterpreting(types.int32, types.float32, ir.FloatType())
_bits64 = _reinterpreting(types.float64, types.int64, ir.IntType(64))
_from_bits64 = _reinterpreting(types.int64, types.float64, ir.DoubleType())


@inlined
def fast_log(value: float) -> float:
    """Return log(value) for a positive, normal float32, within 4e-6."""
    bits: Any = _bits32(np.float32(value))
    exponent = (bits >> _EXPONENT_BITS) - _EXPONENT_BIAS
    m = _from_bits32((bits & _MANTISSA) | _ONE)  # 1 <= m < 2
    # Chebyshev interpolation of log(m) at degree 6, shifted to be 0 at 1.
    p = np.float32(0.18370084115152) - np.float32(0.017029610589036435) * m
    p = np.float32(-0.8520795951448832) + p * m
    p = np.float32(2.2269434607536414) + p * m
    p = np.float32(-3.647120395291447) + p * m
    p = np.float32(4.20523484145975) + p * m
    p = np.float32(-2.0996498) + p * m
    logarithm: float = np.float32(exponent) * _LN2 + p
    return logarithm


@inlined
def fast_exp(value: float) -> float:
    """Return exp(value) for a value of 0 or less, within 4e-15; 0 below exp(-700)."""
    x = max(value, -700.0)
    shifted = x * _LOG2_E + _WHOLE
    halvings = shifted - _WHOLE
    r = (x - halvings * _LN2_HIGH) - halvings * _LN2_LOW  # at most ln(2) / 2 by size
    p = 1.0 / 6227020800.0  # Taylor's series to degree 13: less than 5e-18 is left of it
    p = 1.0 / 479001600.0 + p * r
    p = 1.0 / 39916800.0 + p * r
    p = 1.0 / 3628800.0 + p * r
    p = 1.0 / 362880.0 + p * r
    p = 1.0 / 40320.0 + p * r
    p = 1.0 / 5040.0 + p * r
    p = 1.0 / 720.0 + p * r
    p = 1.0 / 120.0 + p * r
    p = 1.0 / 24.0 + p * r
    p = 1.0 / 6.0 + p * r
    p = 0.5 + p * r
    p = 1.0 + p * r
    p = 1.0 + p * r
    whole: Any = _bits64(shifted) - _bits64(_WHOLE)
    power = _from_bits64((whole + _BIAS64) << _MANTISSA_BITS64)
    exponential: float = p * power if value >= -700.0 else 0.0
    return exponential
