"""Q4_K: d and dmin (f16), 12 bytes of packed scales and minima, 128 of codes. Twin of quants.q4_k."""

import numpy as np
from numba import njit, prange

from .half import half
from .k_scales import scale_and_minimum
from .layout import beside, piece, take

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 144, 256, 4, 32, 8
SIGNED, OFFSET, D, M, ADDED = False, 0, 0, 2, False


@njit(forceinline=True)
def codes(layout, rows, at, stride, part):
    """64 weights: the lower and the upper halves of 32 bytes."""
    both = take(layout, 32, rows, at + 16 + 32 * part, stride)
    return beside(layout, both & 15, both >> 4)


@njit(forceinline=True)
def scales(layout, rows, at, stride):
    """Eight scales and eight minima of 6 bits; see quants.bits.scales_and_minima."""
    header = take(layout, 16, rows, at, stride)
    first, second, third = piece(layout, header, 4, 1), piece(layout, header, 4, 2), piece(layout, header, 4, 3)
    return (
        beside(layout, first & 63, (third & 15) | (first >> 6 << 4)),
        beside(layout, second & 63, (third >> 4) | (second >> 6 << 4)),
    )


@njit(parallel=True, cache=True)
def dequantize(rows, out):
    """rows [O, bytes], out [O, I] float32: overwritten."""
    for o in prange(rows.shape[0]):
        for b in range(out.shape[1] // 256):
            block, to = rows[o, BLOCK * b : BLOCK * (b + 1)], out[o, 256 * b : 256 * (b + 1)]
            d, dmin = half(block[0], block[1]), half(block[2], block[3])
            for j in range(8):
                scale, minimum = scale_and_minimum(block[4:16], j)
                s, m = d * np.float32(scale), dmin * np.float32(minimum)
                codes, part, shift = (
                    block[16 + 32 * (j // 2) : 48 + 32 * (j // 2)],
                    to[32 * j : 32 * j + 32],
                    4 * (j % 2),
                )
                for i in range(32):
                    part[i] = s * np.float32((codes[i] >> shift) & 15) - m
