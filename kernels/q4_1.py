"""Twin of quants.q4_1: rows of packed blocks -> float32, bit for bit."""

import numpy as np
from numba import njit, prange

from .half import half

BLOCK = 20  # bytes: d and m (f16), 16 bytes of codes


@njit(parallel=True, cache=True)
def dequantize(rows, out):
    """rows [O, bytes], out [O, I] float32: overwritten."""
    for o in prange(rows.shape[0]):
        for b in range(out.shape[1] // 32):
            block, to = rows[o, BLOCK * b : BLOCK * (b + 1)], out[o, 32 * b : 32 * (b + 1)]
            d, m = half(block[0], block[1]), half(block[2], block[3])
            for i in range(16):
                to[i] = d * np.float32(block[4 + i] & 15) + m
            for i in range(16):
                to[16 + i] = d * np.float32(block[4 + i] >> 4) + m
