"""Float32 arithmetic that NumPy does not offer as it is: a fused multiply-add, roundings to 16 bits, the C library's functions."""

import ctypes
import ctypes.util
from functools import cache

import numpy as np

from ..arrays import F32, F

f32 = np.float32
Number = F32 | np.float32
SMALLEST = np.finfo(f32).smallest_normal


def fma(a: Number, b: Number, c: Number) -> F32:
    """a · b + c, rounded once to float32; any shapes that broadcast.

    The product is exact in float64, and so its sum with c is rounded twice. That matters only where the first rounding ends halfway
    between two floats: there it is made again, to odd.
    """
    product = np.multiply(a, b, dtype=np.float64)
    total = np.asarray(product + np.asarray(c, f32))
    out = np.asarray(total.astype(f32))
    bits = total.view(np.int64)
    halfway, size = bits & 0x1FFFFFFF == 0x10000000, np.abs(out)
    if not size.min(initial=np.inf) > SMALLEST:  # subnormals have fewer bits; a minimum may be no number
        halfway |= (size <= SMALLEST) & (bits != 0)
    if halfway.any():
        addends = (np.broadcast_to(x, total.shape)[halfway] for x in (product, np.asarray(c, np.float64)))
        out[halfway] = to_odd(*addends).astype(f32)
    return out


def to_odd(a: F, b: F) -> F:
    """a + b of float64, rounded to odd: a second rounding does not see a tie that is none (Boldo and Melquiond, 2008)."""
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)
    even = total.view(np.int64) & 1 == 0
    odd = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    return np.where((lost != 0) & even & np.isfinite(total), odd, total)


def half(x: F32) -> F32:
    """x rounded to the nearest half float, ties to even, as float32; any shape."""
    return x.astype(np.float16).astype(f32)


def fma_of_halves(a: Number, b: Number, c: Number) -> F32:
    """a · b + c of half floats, rounded once to a half float, as float32; any shapes that broadcast. Source: vfmadd231ph."""
    product = np.multiply(a, b, dtype=np.float64)  # exact
    return np.asarray(to_odd(product, np.asarray(c, np.float64)).astype(np.float16).astype(f32))


def bfloat(x: F32) -> F32:
    """x rounded to the nearest bfloat16, ties to even, as float32; any shape. Source: ggml_compute_fp32_to_bf16."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) & 0xFFFF0000).astype(np.uint32).view(f32)


def flushed(x: F32) -> F32:
    """x with zeros of the same sign instead of subnormal numbers; any shape."""
    return np.where(np.abs(x) < SMALLEST, np.copysign(f32(0), x), x)


@cache
def c_library() -> ctypes.CDLL:
    """The process's mathematical library; finding it takes milliseconds, so it is kept."""
    return ctypes.CDLL(ctypes.util.find_library("m"))


@cache
def libm(name: str) -> np.vectorize:
    """A float32 function of the C library on arrays of any shape. llama.cpp calls it; NumPy's differs in the last place."""
    function = getattr(c_library(), name)
    function.restype, function.argtypes = ctypes.c_float, [ctypes.c_float]
    return np.vectorize(function, otypes=[f32])
