"""Twin of quants.q8_0: rows of packed blocks -> float32, bit for bit; and rows times 8-bit activations."""

import numpy as np
from numba import njit, prange

from .half import half
from .simd import Vec, convert, dot4_u8i8, fma, hsum, load, load_rows, magnitude, part, repeat, splat, tile, with_sign

BLOCK = 34  # bytes: d (f16), 32 signed codes


@njit(parallel=True, cache=True)
def dequantize(rows, out):
    """rows [O, bytes], out [O, I] float32: overwritten."""
    for o in prange(rows.shape[0]):
        for b in range(out.shape[1] // 32):
            block, to = rows[o, BLOCK * b : BLOCK * (b + 1)], out[o, 32 * b : 32 * (b + 1)]
            d = half(block[0], block[1])
            for i in range(32):
                to[i] = d * np.float32(np.int8(block[2 + i]))


i8x32, i8x128 = Vec("i", 8, 32), Vec("i", 8, 128)
f16x4, f32x4, f32x32 = Vec("f", 16, 4), Vec("f", 32, 4), Vec("f", 32, 32)


@njit
def four_rows(rows, first, stride, blocks, q, d, sums, result):
    """The path eight_lanes for four rows, `stride` bytes apart: lanes [4 rows][8 partial sums]."""
    total = splat(f32x32, 0)
    for n in range(blocks):
        at = first + BLOCK * n
        weights = load_rows(i8x128, 4, rows, at + 2, stride)
        signed = with_sign(tile(i8x128, load(i8x32, q, 32 * n)), weights)  # vpmaddubsw wants one side without signs
        dot = dot4_u8i8(magnitude(weights), signed)
        scale = convert(f32x4, load_rows(f16x4, 4, rows, at, stride)) * d[n]
        total = fma(repeat(f32x32, scale), convert(f32x32, dot), total)
    result[0], result[1] = hsum(part(total, 4, 0)), hsum(part(total, 4, 1))
    result[2], result[3] = hsum(part(total, 4, 2)), hsum(part(total, 4, 3))
