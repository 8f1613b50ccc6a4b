"""Twin of ops.norm in float32."""

from functools import cache

import numpy as np
from numba import njit, types

from .language.arithmetic import fma, fold, hsum
from .language.memory import load, store
from .language.reshaping import splat
from .language.threads import in_threads, worth
from .language.vectors import Vec

f32x16, f32x64 = Vec("f", 32, 16), Vec("f", 32, 64)
NUMBERS = types.Array(types.float32, 2, "C")
NANOSECONDS = 0.5  # for a number


@njit(cache=True)
def _rows(x, eps, out, first, last):
    """Some rows of x [R, n]: squares are summed in 64 lanes, what is left behind them one by one."""
    n = x.shape[1]
    whole = n // 64 * 64
    for r in range(first, last):
        at, total = 4 * r * n, splat(f32x64, 0)
        for i in range(0, 4 * whole, 256):
            v = load(f32x64, x, at + i)
            total = fma(v, v, total)
        square = hsum(fold(total, 16))
        for i in range(whole, n):
            square += x[r, i] * x[r, i]
        root = np.sqrt(square / np.float32(n) + eps)
        for i in range(0, 4 * whole, 256):
            store(out, at + i, load(f32x64, x, at + i) / splat(f32x64, root))
        for i in range(whole, n):
            out[r, i] = x[r, i] / root


@cache  # the types are looked up once: that takes longer than a norm
def _in_threads():
    return in_threads(_rows, (), NUMBERS, types.float32, NUMBERS)


def rms_norm(x, eps):
    """Twin of ops.norm.rms_norm: x / sqrt(mean(x²) + eps) over the last axis, in float32. Any shape; returns a new array of it."""
    x = np.ascontiguousarray(x, np.float32)
    out, n = np.empty(x.shape, np.float32), x.shape[-1]
    rows = x.reshape(-1, n)
    _in_threads()(len(rows), worth(NANOSECONDS * n), rows, np.float32(eps), out.reshape(-1, n))
    return out
