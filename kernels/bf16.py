"""Twin of quants.bf16: rows of packed blocks -> float32, bit for bit."""

import numpy as np
from numba import njit, prange

from .ieee import float_of


@njit(parallel=True, cache=True)
def dequantize(rows, out):
    """rows [O, bytes], out [O, I] float32: overwritten."""
    for o in prange(rows.shape[0]):
        for i in range(out.shape[1]):
            out[o, i] = float_of(np.uint32(rows[o, 2 * i]) << 16 | np.uint32(rows[o, 2 * i + 1]) << 24)
