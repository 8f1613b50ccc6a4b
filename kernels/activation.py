"""Twins of ops.activation in float32, sixteen numbers at a time; silu and swiglu of whole eights have the bits of ops.ggml."""

from functools import cache

import numpy as np
from numba import njit, types

from .exponential import exp
from .language.compile_time import inline
from .language.memory import load, store
from .language.reshaping import splat
from .language.threads import in_threads, worth
from .language.vectors import Vec

f32xL, LANES, ONE = Vec("f", 32, 16), 16, np.float32(1)
NOTHING, FLAT = np.empty(0, np.float32), types.Array(types.float32, 1, "C")
NANOSECONDS = 0.5  # for a number


@inline
def _sixteen(inverse, x, y, times):
    """x / (1 + exp(-x)), or its inverse 1 / (1 + exp(-x)); times y or not."""
    value = (splat(f32xL, ONE) if inverse else x) / (exp(x * -ONE) + ONE)
    return value * y if times else value


@njit(cache=True)
def _some(inverse, x, y, out, first, last):
    """Numbers `first` to `last` of x (and y, or nothing), flat."""
    whole, rest = first + (last - first) // LANES * LANES, np.zeros((3, LANES), np.float32)
    for i in range(4 * first, 4 * whole, 4 * LANES):
        a = load(f32xL, x, i)
        store(out, i, _sixteen(inverse, a, load(f32xL, y, i) if y.size else a, y.size > 0))
    if whole < last:
        for i in range(whole, last):
            rest[0, i - whole], rest[1, i - whole] = x[i], y[i] if y.size else x[i]
        store(rest, 8 * LANES, _sixteen(inverse, load(f32xL, rest, 0), load(f32xL, rest, 4 * LANES), y.size > 0))
        for i in range(whole, last):
            out[i] = rest[2, i - whole]


@cache
def _in_threads():
    return in_threads(_some, (), types.boolean, FLAT, FLAT, FLAT)


def _mapped(inverse, x, y):
    x, out = np.ascontiguousarray(x, np.float32), np.empty(x.shape, np.float32)
    y = np.ascontiguousarray(y, np.float32)
    _in_threads()(x.size, worth(NANOSECONDS), inverse, x.reshape(-1), y.reshape(-1), out.reshape(-1))
    return out


def silu(x):
    """Twin of ops.activation.silu: x / (1 + e^-x) in float32. Any shape; returns a new array of that shape."""
    return _mapped(False, x, NOTHING)


def swiglu(gate, up):
    """Twin of ops.activation.swiglu: silu(gate) · up in float32. gate and up have one shape, which the result has too."""
    return _mapped(False, gate, up)


def sigmoid(x):
    """Twin of ops.activation.sigmoid: 1 / (1 + e^-x) in float32. Any shape; returns a new array of that shape."""
    return _mapped(True, x, NOTHING)


@njit(cache=True, nogil=True)
def _softplus(x, out):
    for i in range(x.size):
        out[i] = x[i] if x[i] > np.float32(20) else np.float32(np.log1p(np.exp(np.float64(x[i]))))


def softplus(x):
    """Twin of ops.activation.softplus: log(1 + e^x), number by number in float64, returned as float32. Any shape."""
    x, out = np.ascontiguousarray(x), np.empty(x.shape, np.float32)
    _softplus(x.reshape(-1), out.reshape(-1))
    return out
