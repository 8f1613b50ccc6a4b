"""Twins of ops.activation in float32, sixteen numbers at a time; silu and swiglu of whole eights have the bits of ops.ggml."""

from functools import cache

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from .exponential import exp
from .simd import Vec, load, splat, store
from .static import entry, for_kernels

f32xL, LANES = Vec("f", 32, 16), 16
NOTHING, FLAT = np.empty(0, np.float32), types.Array(types.float32, 1, "C")
PART = 1 << 14  # numbers that are worth another thread


@for_kernels
def _value(name, x, y):
    """16 values of the function of that name."""


@overload(_value, jit_options={"forceinline": True})
def _of_name(name, x, y):
    one = np.float32(1)
    silu = lambda name, x, y: x / (exp(x * -one) + one)
    swiglu = lambda name, x, y: x / (exp(x * -one) + one) * y
    sigmoid = lambda name, x, y: splat(f32xL, one) / (exp(x * -one) + one)
    return {"silu": silu, "swiglu": swiglu, "sigmoid": sigmoid}[name.value]


@njit
def _some(name, x, y, out, start, stop):
    """Numbers `start` to `stop` of x (and y, or nothing), flat."""
    whole, rest = start + (stop - start) // LANES * LANES, np.zeros((3, LANES), np.float32)
    for i in range(4 * start, 4 * whole, 4 * LANES):
        a = load(f32xL, x, i)
        store(out, i, _value(name, a, load(f32xL, y, i) if y.size else a))
    if whole < stop:
        for i in range(whole, stop):
            rest[0, i - whole], rest[1, i - whole] = x[i], y[i] if y.size else x[i]
        store(rest, 8 * LANES, _value(name, load(f32xL, rest, 0), load(f32xL, rest, 4 * LANES)))
        for i in range(whole, stop):
            out[i] = rest[2, i - whole]


@njit(parallel=True, cache=True, nogil=True)
def _each(name, x, y, out):
    """All of x, in parts that several threads take if there is more than one."""
    if x.size <= PART:
        _some(name, x, y, out, 0, x.size)
    else:
        for part in prange((x.size + PART - 1) // PART):
            _some(name, x, y, out, part * PART, min(part * PART + PART, x.size))


@cache
def _compiled(name):
    return entry(_each, (name,), FLAT, FLAT, FLAT)


def _mapped(name, x, y):
    x, out = np.ascontiguousarray(x, np.float32), np.empty(x.shape, np.float32)
    _compiled(name)(None, x.reshape(-1), np.ascontiguousarray(y, np.float32).reshape(-1), out.reshape(-1))
    return out


def silu(x):
    return _mapped("silu", x, NOTHING)


def swiglu(gate, up):
    return _mapped("swiglu", gate, up)


def sigmoid(x):
    return _mapped("sigmoid", x, NOTHING)


@njit(cache=True, nogil=True)
def _softplus(x, out):
    for i in range(x.size):
        out[i] = x[i] if x[i] > np.float32(20) else np.float32(np.log1p(np.exp(np.float64(x[i]))))


def softplus(x):
    """One by one, in float64: its arguments are few."""
    x, out = np.ascontiguousarray(x), np.empty(x.shape, np.float32)
    _softplus(x.reshape(-1), out.reshape(-1))
    return out
