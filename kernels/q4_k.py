"""Twin of quants.q4_k: rows of packed blocks -> float32, bit for bit."""

import numpy as np
from numba import njit, prange

from .half import half
from .k_scales import scale_and_minimum

BLOCK = 144  # bytes: d and dmin (f16), 12 of packed scales and minima, 128 of codes


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
