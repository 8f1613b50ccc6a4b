"""Float arithmetic that Numba does not offer as it is: a fused multiply-add, rounding to half, the C library's functions."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing import signature
from numba.extending import intrinsic

from .compile_time import within


@intrinsic
def fma(typing_context, a, b, c):
    """a · b + c of float32 numbers, rounded once. Twin of ops.ieee.fma."""
    f32 = types.float32

    def emit(context, builder, sig, args):
        return builder.fma(*args)

    return signature(f32, f32, f32, f32), emit


def _of_libm(name):
    """A float32 function of the process's C library, the one that llama.cpp calls; never a vector library's stand-in."""

    @intrinsic
    def call(typing_context, x):
        def emit(context, builder, sig, args):
            kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()])
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            function.attributes.add("nobuiltin")
            return builder.call(function, args)

        return signature(types.float32, types.float32), emit

    return call


expf, logf, cosf, sinf = (_of_libm(name) for name in ("expf", "logf", "cosf", "sinf"))


@within
def added_as_compiled(x, y, start, total, lanes):
    """total + Σ x · y from `start` on, in order, rounded as in a compiled loop. Twin of ops.ggml_floats.added_as_compiled."""
    n, at_once = x.size, lanes // 2
    whole = start + (n - start) // at_once * at_once
    for i in range(start, whole):
        total += x[i] * y[i]
    for i in range(whole, n):
        total = fma(x[i], y[i], total)
    return total


@within
def bits_of(x):
    """The 32 bits of a float32, as uint32."""
    return np.float32(x).view(np.uint32)


@within
def float_of(bits):
    """The float32 of 32 bits. They are cut to uint32 first, because Numba's unsigned arithmetic has 64."""
    return np.uint32(bits).view(np.float32)


@within
def to_half(x):
    """x rounded to the nearest half float, ties to even, as a float32."""
    x = np.float32(x)
    sign, magnitude = bits_of(x) & np.uint32(0x80000000), bits_of(x) & np.uint32(0x7FFFFFFF)
    if magnitude < np.uint32(0x38800000):  # below 2^-14 half floats are multiples of 2^-24, the last place of 0.5
        small = (float_of(magnitude) + np.float32(0.5)) - np.float32(0.5)
        return float_of(bits_of(small) | sign)
    if magnitude > np.uint32(0x7F800000):
        return x
    rounded = (magnitude + np.uint32(0xFFF) + ((magnitude >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return float_of(np.uint32(min(rounded, np.uint32(0x7F800000)) if rounded < np.uint32(0x47800000) else 0x7F800000) | sign)


@within
def half_bits(x):
    """The 16 bits of the half float that is nearest to x; x is not NaN."""
    bits = bits_of(to_half(x))
    sign, magnitude = (bits >> np.uint32(16)) & np.uint32(0x8000), bits & np.uint32(0x7FFFFFFF)
    if magnitude < np.uint32(0x38800000):  # a multiple of 2^-24
        return sign | np.uint32(float_of(magnitude) * np.float32(2.0**24))
    if magnitude >= np.uint32(0x7F800000):
        return sign | np.uint32(0x7C00)
    return sign | ((magnitude - np.uint32(0x38000000)) >> np.uint32(13))
