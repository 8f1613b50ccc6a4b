"""e^x of lanes of float32: ggml's polynomials, whose definitions are ops.ggml.exp8 and exp16."""

import numpy as np

from .language.arithmetic import fma
from .language.compile_time import inline
from .language.reshaping import bitcast, convert, splat, where_less
from .language.vectors import Vec, f32, i32, u32

f32xL, u32xL = Vec("f", 32, 16), Vec("u", 32, 16)
E, LN2_HIGH, LN2_LOW = (np.float32(float.fromhex(x)) for x in ("0x1.715476p+0", "-0x1.62e4p-1", "-0x1.7f7d1cp-20"))
SHIFT = np.float32(float.fromhex("0x1.8p23"))
P1, P2, P3, P4, P5 = (
    np.float32(float.fromhex(x)) for x in ("0x1.ffffecp-1", "0x1.fffdb6p-2", "0x1.555e66p-3", "0x1.573e2ep-5", "0x1.0e4020p-7")
)


@inline
def exp(x):
    """e^x of f32 lanes, at most 1.95 units in the last place off. Twin of ops.ggml.exp8."""
    shift = splat(f32xL, SHIFT)
    z = fma(x, splat(f32xL, E), shift)
    n = z - shift  # the nearest whole number to x / ln 2
    b = fma(n, splat(f32xL, LN2_LOW), fma(n, splat(f32xL, LN2_HIGH), x))
    u = b * b
    low = fma(splat(f32xL, P5), b, splat(f32xL, P4))
    j = fma(fma(low, u, fma(splat(f32xL, P3), b, splat(f32xL, P2))), u, b * P1)
    e, size = bitcast(u32, z) << 23, bitcast(f32, bitcast(u32, n) & 0x7FFFFFFF)
    k = bitcast(f32, e + 0x3F800000)
    below = where_less(n, splat(f32xL, np.float32(0.5)), splat(u32xL, 0x82000000), splat(u32xL, 0))
    # 1 where it does not matter: what stands there else may make subnormal products, which some processors take long for
    rest = where_less(splat(f32xL, np.float32(126)), size, e - below, splat(u32xL, 0x3F800000))
    s1, s2 = bitcast(f32, below + 0x7F000000), bitcast(f32, rest)
    far = where_less(splat(f32xL, np.float32(192)), size, s1 * s1, fma(s2, j, s2) * s1)
    return where_less(splat(f32xL, np.float32(126)), size, far, fma(j, k, k))


@inline
def exp_of_16(x):
    """e^x of f32 lanes in the order of AVX-512. Twin of ops.ggml.exp16. Two powers of two scale the result; the first is exact."""
    shift = splat(f32xL, SHIFT)
    n = fma(x, splat(f32xL, E), shift) - shift
    b = fma(n, splat(f32xL, LN2_LOW), fma(n, splat(f32xL, LN2_HIGH), x))
    u = b * b
    low = fma(splat(f32xL, P5), b, splat(f32xL, P4))
    j = fma(fma(low, u, fma(splat(f32xL, P3), b, splat(f32xL, P2))), u, fma(splat(f32xL, P1), b, splat(f32xL, np.float32(1))))
    size = bitcast(f32, bitcast(u32, n) & 0x7FFFFFFF)
    limit = splat(f32xL, np.float32(192))
    power = convert(i32, where_less(limit, size, splat(f32xL, 0), n))
    half = power >> 1
    near = j * bitcast(f32, (half + 127) << 23) * bitcast(f32, (power - half + 127) << 23)
    far = where_less(splat(f32xL, 0), n, splat(f32xL, np.float32(np.inf)), splat(f32xL, 0))
    return where_less(limit, size, far, near)
