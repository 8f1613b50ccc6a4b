"""Twin of ops.norm in float32."""

import numpy as np
from numba import njit

from .simd import Vec, fma, fold, hsum, load, splat, store

f32x16, f32x64 = Vec("f", 32, 16), Vec("f", 32, 64)


@njit(cache=True, nogil=True)
def _rows(x, eps, out):
    """x [R, n]: squares are summed in 64 lanes, what is left behind them one by one."""
    n = x.shape[1]
    whole = n // 64 * 64
    for r in range(len(x)):
        at, total = 4 * r * n, splat(f32x64, 0)
        for i in range(0, 4 * whole, 256):
            v = load(f32x64, x, at + i)
            total = fma(v, v, total)
        square = hsum(fold(f32x16, total))
        for i in range(whole, n):
            square += x[r, i] * x[r, i]
        root = np.sqrt(square / np.float32(n) + eps)
        for i in range(0, 4 * whole, 256):
            store(out, at + i, load(f32x64, x, at + i) / splat(f32x64, root))
        for i in range(whole, n):
            out[r, i] = x[r, i] / root


def rms_norm(x, eps):
    x, out = np.ascontiguousarray(x), np.empty(x.shape, np.float32)
    _rows(x.reshape(-1, x.shape[-1]), np.float32(eps), out.reshape(-1, x.shape[-1]))
    return out
