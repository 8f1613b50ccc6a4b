"""Twin of ops.norm in float32."""

from functools import cache

import numpy as np
from numba import njit, prange, types

from .language.arithmetic import fma, fold, hsum
from .language.compile_time import address, call, entry
from .language.memory import load, store
from .language.reshaping import splat
from .language.vectors import Vec

f32x16, f32x64 = Vec("f", 32, 16), Vec("f", 32, 64)
NUMBERS = types.Array(types.float32, 2, "C")
PART = 1 << 14  # numbers that are worth another thread


@njit(cache=True)
def _rows(x, eps, out, start, stop):
    """Some rows of x [R, n]: squares are summed in 64 lanes, what is left behind them one by one."""
    n = x.shape[1]
    whole = n // 64 * 64
    for r in range(start, stop):
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


@njit(parallel=True, cache=True, nogil=True)
def _all_rows(some, x, eps, out):
    """All of x, in parts that several threads take if there is more than one."""
    R, each = len(x), max(PART // max(x.shape[1], 1), 1)
    if each >= R:
        call(some, (x, eps, out, np.int64(0), R))
    else:
        for part in prange((R + each - 1) // each):
            start = np.int64(part) * each
            call(some, (x, eps, out, start, min(start + each, R)))


@cache
def _compiled():
    """The kernel, and the address of what each thread does in it."""
    first = NUMBERS, types.float32, NUMBERS
    return entry(_all_rows, (), types.int64, *first), address(_rows, (), *first, types.int64, types.int64)


def rms_norm(x, eps):
    """Twin of ops.norm.rms_norm: x / sqrt(mean(x²) + eps) over the last axis, in float32. Any shape; returns a new array of it."""
    x, (run, some) = np.ascontiguousarray(x, np.float32), _compiled()
    out = np.empty(x.shape, np.float32)
    run(some, x.reshape(-1, x.shape[-1]), np.float32(eps), out.reshape(-1, x.shape[-1]))
    return out
