"""The compiled part of the SWF reader; import it only where a file is read, since it loads numba."""

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.jit import njit

SWF_FIELDS = 18

OK = 0
NOT_A_NUMBER = 1
TOO_FEW_FIELDS = 2

_NEWLINE, _RETURN, _TAB, _BLANK = 10, 13, 9, 32
_SEMICOLON, _PLUS, _MINUS, _POINT, _ZERO, _NINE = 59, 43, 45, 46, 48, 57
_E, _SMALL_E = 69, 101


@njit
def parse_rows(
    data: NDArray[np.uint8],  # the whole file
    keep: NDArray[np.int64],  # (SWF_FIELDS,): the row of `out` for each field, or -1
    out: NDArray[np.float64],  # (kept fields, rows): filled here
    lines: NDArray[np.int64],  # (rows,): the file's line of each row, from 1
) -> tuple[int, int, int, int, int]:
    """Parse every job row; return (rows, status, line, field, position of the token) of the first fault.

    Blank lines and lines that begin with ; are skipped, fields after the 18th are not looked at. Numbers are
    [sign] digits [. digits] [e [sign] digits]; up to 15 digits they are exact.
    """
    size = data.size
    i = 0
    line = 0
    row = 0
    while i < size:
        line += 1
        while i < size and (data[i] == _BLANK or data[i] == _TAB or data[i] == _RETURN):
            i += 1
        field = 0
        if i < size and data[i] != _NEWLINE and data[i] != _SEMICOLON:
            while field < SWF_FIELDS and i < size and data[i] != _NEWLINE:
                token = i
                negative = data[i] == _MINUS
                if negative or data[i] == _PLUS:
                    i += 1
                value = 0.0
                digits = 0
                decimals = 0
                exponent = 0
                while i < size and _ZERO <= data[i] <= _NINE:
                    value = value * 10.0 + (data[i] - _ZERO)
                    digits += 1
                    i += 1
                if i < size and data[i] == _POINT:
                    i += 1
                    while i < size and _ZERO <= data[i] <= _NINE:
                        value = value * 10.0 + (data[i] - _ZERO)
                        digits += 1
                        decimals += 1
                        i += 1
                if digits > 0 and i < size and (data[i] == _E or data[i] == _SMALL_E):
                    i += 1
                    down = i < size and data[i] == _MINUS
                    if down or (i < size and data[i] == _PLUS):
                        i += 1
                    digits = 0  # the exponent needs some of its own
                    while i < size and _ZERO <= data[i] <= _NINE and exponent < 1000:
                        exponent = exponent * 10 + (data[i] - _ZERO)
                        digits += 1
                        i += 1
                    if down:
                        exponent = -exponent
                exponent -= decimals
                if exponent > 0:
                    value *= 10.0**exponent
                elif exponent < 0:
                    value /= 10.0 ** (-exponent)
                ended = i >= size or (data[i] == _BLANK or data[i] == _TAB or data[i] == _RETURN or data[i] == _NEWLINE)
                if digits == 0 or not ended or not np.isfinite(value):
                    return row, NOT_A_NUMBER, line, field, token
                if keep[field] >= 0:
                    out[keep[field], row] = -value if negative else value
                field += 1
                while i < size and (data[i] == _BLANK or data[i] == _TAB or data[i] == _RETURN):
                    i += 1
            if field < SWF_FIELDS:
                return row, TOO_FEW_FIELDS, line, field, i
            lines[row] = line
            row += 1
        while i < size and data[i] != _NEWLINE:
            i += 1
        i += 1
    return row, OK, 0, 0, 0
