"""Twin of quants.f32: rows of packed floats -> float32, bit for bit."""

import numpy as np
from numba import njit, prange

from .ieee import float_of


@njit(parallel=True, cache=True)
def dequantize(rows, out):
    """rows [O, bytes], out [O, I] float32: overwritten. The bytes are put together because a mapping need not be aligned."""
    for o in prange(rows.shape[0]):
        for i in range(out.shape[1]):
            b = rows[o, 4 * i : 4 * i + 4]
            out[o, i] = float_of(np.uint32(b[0]) | np.uint32(b[1]) << 8 | np.uint32(b[2]) << 16 | np.uint32(b[3]) << 24)
