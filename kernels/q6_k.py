"""Q6_K: 128 bytes of low bits, 64 of high bits, 16 signed scales, d (f16). Twin of quants.q6_k."""

import numpy as np
from numba import njit, prange

from .half import half
from .layout import beside, take
from .simd import bitcast, i8

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 210, 256, 2, 16, 2
SIGNED, OFFSET, D, M, ADDED = False, 32, 208, -1, False


@njit(forceinline=True)
def codes(layout, rows, at, stride, part):
    """128 weights: halves of 64 bytes, and two bits of each of 32 bytes for each 32 weights."""
    a, b = take(layout, 32, rows, at + 64 * part, stride), take(layout, 32, rows, at + 64 * part + 32, stride)
    high = take(layout, 32, rows, at + 128 + 32 * part, stride)
    return beside(
        layout,
        beside(layout, (a & 15) | ((high & 3) << 4), (b & 15) | ((high & 12) << 2)),
        beside(layout, (a >> 4) | (high & 48), (b >> 4) | ((high >> 6) << 4)),
    )


@njit(forceinline=True)
def scales(layout, rows, at, stride):
    both = bitcast(i8, take(layout, 16, rows, at + 192, stride))
    return both, both


@njit(parallel=True, cache=True)
def dequantize(rows, out):
    """rows [O, bytes], out [O, I] float32: overwritten."""
    for o in prange(rows.shape[0]):
        for b in range(out.shape[1] // 256):
            block, to = rows[o, BLOCK * b : BLOCK * (b + 1)], out[o, 256 * b : 256 * (b + 1)]
            d = half(block[208], block[209])
            for g in range(16):  # 16 weights of one scale: g = 8 · half + 2 · quarter + which 16 of the quarter's 32
                upper, quarter, first = g // 8, (g % 8) // 2, 16 * (g % 2)
                s = d * np.float32(np.int8(block[192 + g]))
                low = block[64 * upper + 32 * (quarter % 2) + first :]
                high, part = block[128 + 32 * upper + first :], to[16 * g : 16 * g + 16]
                for i in range(16):
                    code = ((low[i] >> (4 * (quarter // 2))) & 15) | (((high[i] >> (2 * quarter)) & 3) << 4)
                    part[i] = s * np.float32(np.int32(code) - 32)
