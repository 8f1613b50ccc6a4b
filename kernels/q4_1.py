"""Q4_1: d and m (f16), 16 bytes of 4-bit codes; m is added, a negative minimum. Twin of quants.q4_1."""

import numpy as np
from numba import njit, prange

from .half import half
from .layout import beside, take

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 20, 32, 1, 32, 8
SIGNED, OFFSET, D, M, ADDED = False, 0, 0, 2, True


@njit(forceinline=True)
def codes(layout, rows, at, stride, part):
    both = take(layout, 16, rows, at + 4, stride)
    return beside(layout, both & 15, both >> 4)


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
