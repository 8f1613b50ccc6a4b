"""Q4_0: d (f16), 16 bytes of 4-bit codes around 8. Twin of quants.q4_0."""

import numpy as np
from numba import njit, prange

from .half import half
from .layout import beside, take

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 18, 32, 1, 32, 8
SIGNED, OFFSET, D, M, ADDED = False, 8, 0, -1, False


@njit(forceinline=True)
def codes(layout, rows, at, stride, part):
    both = take(layout, 16, rows, at + 2, stride)
    return beside(layout, both & 15, both >> 4)


@njit(parallel=True, cache=True)
def dequantize(rows, out):
    """rows [O, bytes], out [O, I] float32: overwritten."""
    for o in prange(rows.shape[0]):
        for b in range(out.shape[1] // 32):
            block, to = rows[o, BLOCK * b : BLOCK * (b + 1)], out[o, 32 * b : 32 * (b + 1)]
            d = half(block[0], block[1])
            for i in range(16):
                to[i] = d * np.float32(np.int32(block[2 + i] & 15) - 8)
            for i in range(16):
                to[16 + i] = d * np.float32(np.int32(block[2 + i] >> 4) - 8)
