"""Q5_K: Q4_K with 32 bytes of fifth bits before the codes. Twin of quants.q5_k."""

import numpy as np
from numba import njit, prange

from . import q4_k
from .half import half
from .k_scales import scale_and_minimum
from .layout import beside, take

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 176, 256, 4, 32, 4
SIGNED, OFFSET, D, M, ADDED = False, 0, 0, 2, False
scales = q4_k.scales


@njit(forceinline=True)
def codes(layout, rows, at, stride, part):
    """64 weights: halves of 32 bytes, and two bits of each fifth byte."""
    both, fifth = take(layout, 32, rows, at + 48 + 32 * part, stride), take(layout, 32, rows, at + 16, stride) >> 2 * part
    return beside(layout, (both & 15) | ((fifth & 1) << 4), (both >> 4) | ((fifth & 2) << 3))


@njit(parallel=True, cache=True)
def dequantize(rows, out):
    """rows [O, bytes], out [O, I] float32: overwritten."""
    for o in prange(rows.shape[0]):
        for b in range(out.shape[1] // 256):
            block, to = rows[o, BLOCK * b : BLOCK * (b + 1)], out[o, 256 * b : 256 * (b + 1)]
            d, dmin = half(block[0], block[1]), half(block[2], block[3])
            fifth = block[16:48]
            for j in range(8):
                scale, minimum = scale_and_minimum(block[4:16], j)
                s, m = d * np.float32(scale), dmin * np.float32(minimum)
                codes, part, shift = (
                    block[48 + 32 * (j // 2) : 80 + 32 * (j // 2)],
                    to[32 * j : 32 * j + 32],
                    4 * (j % 2),
                )
                for i in range(32):
                    part[i] = s * np.float32(((codes[i] >> shift) & 15) | (((fifth[i] >> j) & 1) << 4)) - m
