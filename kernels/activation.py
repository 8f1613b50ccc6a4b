"""Twins of ops.activation in float32, sixteen numbers at a time; silu and swiglu of whole eights have the bits of ops.ggml."""

import numpy as np
from numba import njit
from numba.extending import overload

from .exponential import exp
from .simd import Vec, load, splat, store
from .static import Static, for_kernels

f32xL, LANES = Vec("f", 32, 16), 16
NOTHING = np.empty(0, np.float32)


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


@njit(cache=True, nogil=True)
def _each(name, x, y, out):
    """All of x (and y, or nothing), flat."""
    whole, rest = x.size // LANES * LANES, np.zeros((3, LANES), np.float32)
    for i in range(0, 4 * whole, 4 * LANES):
        a = load(f32xL, x, i)
        store(out, i, _value(name, a, load(f32xL, y, i) if y.size else a))
    for i in range(whole, x.size):
        rest[0, i - whole], rest[1, i - whole] = x[i], y[i] if y.size else x[i]
    store(rest, 8 * LANES, _value(name, load(f32xL, rest, 0), load(f32xL, rest, 4 * LANES)))
    for i in range(whole, x.size):
        out[i] = rest[2, i - whole]


def _mapped(name, x, y):
    x, out = np.ascontiguousarray(x), np.empty(x.shape, np.float32)
    _each(name, x.reshape(-1), np.ascontiguousarray(y).reshape(-1), out.reshape(-1))
    return out


def silu(x):
    return _mapped(SILU, x, NOTHING)


def swiglu(gate, up):
    return _mapped(SWIGLU, gate, up)


def sigmoid(x):
    return _mapped(SIGMOID, x, NOTHING)


SILU, SWIGLU, SIGMOID = Static("silu"), Static("swiglu"), Static("sigmoid")


@njit(cache=True, nogil=True)
def _softplus(x, out):
    for i in range(x.size):
        out[i] = x[i] if x[i] > np.float32(20) else np.float32(np.log1p(np.exp(np.float64(x[i]))))


def softplus(x):
    """One by one, in float64: its arguments are few."""
    x, out = np.ascontiguousarray(x), np.empty(x.shape, np.float32)
    _softplus(x.reshape(-1), out.reshape(-1))
    return out
