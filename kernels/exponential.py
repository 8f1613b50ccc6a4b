"""e^x of f32 lanes, any number of them: ggml's polynomials, whose definitions are ops.ggml.exp8 and exp16."""

import numpy as np

from .language.arithmetic import fma
from .language.compile_time import inline
from .language.reshaping import bitcast, convert, splat, where_less
from .language.vectors import f32, i32, u32

E, LN2_HIGH, LN2_LOW = (np.float32(float.fromhex(x)) for x in ("0x1.715476p+0", "-0x1.62e4p-1", "-0x1.7f7d1cp-20"))
SHIFT, ZERO, HALF, NEAR, FAR = (np.float32(x) for x in (3 << 22, 0, 0.5, 126, 192))
P1, P2, P3, P4, P5 = (
    np.float32(float.fromhex(x)) for x in ("0x1.ffffecp-1", "0x1.fffdb6p-2", "0x1.555e66p-3", "0x1.573e2ep-5", "0x1.0e4020p-7")
)


@inline
def _parted(x):
    """x = n ln 2 + b with a whole n: SHIFT + n, whose last bits are n; n; b; and the magnitude of n."""
    z = fma(x, splat(x, E), splat(x, SHIFT))
    n = z - SHIFT
    b = fma(n, splat(x, LN2_LOW), fma(n, splat(x, LN2_HIGH), x))
    return z, n, b, bitcast(f32, bitcast(u32, n) & 0x7FFFFFFF)


@inline
def _polynomial(b, lowest):
    """About e^b - 1 - P1 b, and `lowest` added to it."""
    u = b * b
    low = fma(splat(b, P5), b, splat(b, P4))
    return fma(fma(low, u, fma(splat(b, P3), b, splat(b, P2))), u, lowest)


@inline
def exp(x):
    """e^x, at most 1.95 units in the last place off. Twin of ops.ggml.exp8."""
    z, n, b, size = _parted(x)
    j = _polynomial(b, b * P1)
    e = bitcast(u32, z) << 23
    k = bitcast(f32, e + 0x3F800000)
    below = where_less(n, splat(n, HALF), splat(e, 0x82000000), splat(e, 0))
    # 1 where it does not matter: what stands there else may make subnormal products, which some processors take long for
    rest = where_less(splat(n, NEAR), size, e - below, splat(e, 0x3F800000))
    s1, s2 = bitcast(f32, below + 0x7F000000), bitcast(f32, rest)
    far = where_less(splat(n, FAR), size, s1 * s1, fma(s2, j, s2) * s1)
    return where_less(splat(n, NEAR), size, far, fma(j, k, k))


@inline
def exp_of_16(x):
    """e^x in the order of AVX-512. Twin of ops.ggml.exp16. Two powers of two scale the result; the first is exact."""
    _, n, b, size = _parted(x)
    j = _polynomial(b, fma(splat(b, P1), b, splat(b, np.float32(1))))
    power = convert(i32, where_less(splat(n, FAR), size, splat(n, ZERO), n))
    half = power >> 1
    near = j * bitcast(f32, (half + 127) << 23) * bitcast(f32, (power - half + 127) << 23)
    far = where_less(splat(n, ZERO), n, splat(n, np.float32(np.inf)), splat(n, ZERO))
    return where_less(splat(n, FAR), size, far, near)
