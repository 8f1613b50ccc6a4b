"""Q8_0: d (f16), 32 signed codes. Twin of quants.q8_0."""

import numpy as np
from numba import njit, prange

from .half import half
from .layout import take
from .simd import bitcast, i8

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 34, 32, 1, 32, 1
SIGNED, OFFSET, D, M, ADDED = True, 0, 0, -1, False


@njit(forceinline=True)
def codes(layout, rows, at, stride, part):
    return bitcast(i8, take(layout, 32, rows, at + 2, stride))


@njit(parallel=True, cache=True)
def dequantize(rows, out):
    """rows [O, bytes], out [O, I] float32: overwritten."""
    for o in prange(rows.shape[0]):
        for b in range(out.shape[1] // 32):
            block, to = rows[o, BLOCK * b : BLOCK * (b + 1)], out[o, 32 * b : 32 * (b + 1)]
            d = half(block[0], block[1])
            for i in range(32):
                to[i] = d * np.float32(np.int8(block[2 + i]))
