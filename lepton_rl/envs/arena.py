"""Memory for the arrays of many environments."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Arena:
    """Zeroed arrays side by side in large blocks of memory, each at the start of a cache line.

    NumPy asks for huge pages for large blocks alone; with small pages a step spends a part of its time on addresses.
    """

    _BLOCK = 1 << 23
    _LINE = 64

    def __init__(self) -> None:
        self._left = np.empty(0, np.uint8)

    def zeros(self, shape: tuple[int, ...], kind: type) -> NDArray[Any]:
        """Return a zeroed array of this shape and kind."""
        size = math.prod(shape) * np.dtype(kind).itemsize
        skip = -self._left.ctypes.data % self._LINE
        if len(self._left) < skip + size:
            self._left = np.zeros(max(size + self._LINE, self._BLOCK), np.uint8)
            skip = -self._left.ctypes.data % self._LINE
        array: NDArray[Any] = self._left[skip : skip + size].view(kind).reshape(shape)
        self._left = self._left[skip + size :]
        return array
