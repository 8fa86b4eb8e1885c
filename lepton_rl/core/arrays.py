"""Names of the array types that compiled functions take."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints32 = NDArray[np.int32]
Ints64 = NDArray[np.int64]
Words = NDArray[np.uint64]
Bools = NDArray[np.bool_]
