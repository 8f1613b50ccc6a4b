"""Q8_0: d (f16), 32 signed codes. Twin of quants.q8_0."""

import numpy as np
from numba import njit, prange

from .half import half
from .layout import FOUR_ROWS, number, take
from .simd import Vec, bitcast, convert, dot4_u8i8, f16, f32, fma, hsum, i8, load, magnitude, part, repeat, splat, tile, with_sign

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


i8x32, f32x32 = Vec("i", 8, 32), Vec("f", 32, 32)


@njit
def four_rows(rows, first, stride, blocks, q, d, sums, result):
    """The path eight_lanes for four rows, `stride` bytes apart: lanes [4 rows][8 partial sums]."""
    total = splat(f32x32, 0)
    for n in range(blocks):
        at = first + BLOCK * n
        weights = bitcast(i8, take(FOUR_ROWS, 32, rows, at + 2, stride))
        signed = with_sign(tile(load(i8x32, q, 32 * n), 4), weights)  # vpmaddubsw wants one side without signs
        dot = dot4_u8i8(magnitude(weights), signed)
        scale = convert(f32, number(FOUR_ROWS, f16, rows, at, stride)) * d[n]
        total = fma(repeat(scale, 8), convert(f32, dot), total)
    result[0], result[1] = hsum(part(total, 4, 0)), hsum(part(total, 4, 1))
    result[2], result[3] = hsum(part(total, 4, 2)), hsum(part(total, 4, 3))
