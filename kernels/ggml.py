"""Twins of ops.ggml: the same roundings in the same order, rows in parallel."""

import numpy as np
from numba import njit, prange

from .ieee import bits_of, cosf, expf, float_of, fma, half_bits, logf, sinf
from .simd import Vec, halves_added, load, neighbours_added, splat
from .simd import fma as fma_lanes
from .simd import hsum as hsum_lanes
from .static import inline, within

f32x8, f32x32 = Vec("f", 32, 8), Vec("f", 32, 32)
ONE = np.float32(1)
E, LN2_HIGH, LN2_LOW = (np.float32(float.fromhex(x)) for x in ("0x1.715476p+0", "0x1.62e4p-1", "0x1.7f7d1cp-20"))
SHIFT = np.float32(float.fromhex("0x1.8p23"))
P1, P2, P3, P4, P5 = (
    np.float32(float.fromhex(x)) for x in ("0x1.ffffecp-1", "0x1.fffdb6p-2", "0x1.555e66p-3", "0x1.573e2ep-5", "0x1.0e4020p-7")
)


@within
def hsum(x):
    """8 lanes: the upper half is added to the lower until one is left."""
    return ((x[7] + x[3]) + (x[5] + x[1])) + ((x[6] + x[2]) + (x[4] + x[0]))


@inline
def _four_registers(x, y):
    """8 lanes; the numbers of x and y [n] lie side by side."""
    acc = splat(f32x32, 0)
    for i in range(0, x.size // 32 * 32, 32):
        acc = fma_lanes(load(f32x32, x, 4 * i), load(f32x32, y, 4 * i), acc)
    return halves_added(halves_added(acc, 32), 16)


@inline
def _pairwise(lanes):
    return neighbours_added(neighbours_added(halves_added(lanes, 8)))[0]


@within
def _added_in_double(x, y, main):
    total = np.float64(main)
    for i in range(x.size // 32 * 32, x.size):
        total += np.float64(x[i] * y[i])
    return np.float32(total)


@within
def dot_f32(x, y):
    total, n = _pairwise(_four_registers(x, y)), x.size
    for i in range(n // 32 * 32, n // 4 * 4):
        total += x[i] * y[i]
    for i in range(n // 4 * 4, n):
        total = fma(x[i], y[i], total)
    return total


@within
def dot_f16(x, y):
    return _added_in_double(x, y, _pairwise(_four_registers(x, y)))


@within
def dot_bf16(x, y):
    return _added_in_double(x, y, hsum_lanes(_four_registers(x, y)))


@within
def dot_sgemm(x, y):
    acc = splat(f32x8, 0)
    for i in range(0, x.size, 8):
        acc = fma_lanes(load(f32x8, x, 4 * i), load(f32x8, y, 4 * i), acc)
    return hsum_lanes(acc)


@within
def exp8(x):
    """One lane of ops.ggml.exp8."""
    z = fma(x, E, SHIFT)
    n = z - SHIFT
    b = fma(-n, LN2_LOW, fma(-n, LN2_HIGH, x))
    e = np.uint32(bits_of(z) << np.uint32(23))
    u = b * b
    j = fma(fma(fma(P5, b, P4), u, fma(P3, b, P2)), u, P1 * b)
    if abs(n) <= np.float32(126):
        k = float_of(e + np.uint32(0x3F800000))
        return fma(j, k, k)
    g = np.uint32(0x82000000) if n <= 0 else np.uint32(0)
    s1 = float_of(g + np.uint32(0x7F000000))
    if abs(n) > np.float32(192):
        return s1 * s1
    s2 = float_of(np.int64(e) - np.int64(g))
    return fma(s2, j, s2) * s1


@within
def _silu(x, in_eight):
    """One number; whole groups of 8 have the polynomial, the rest of a row the C library."""
    return x / (ONE + (exp8(-x) if in_eight else expf(-x)))


@njit(parallel=True, cache=True)
def silu(x):
    """x [R, n]."""
    R, n = x.shape
    out = np.empty_like(x)
    for r in prange(R):
        for i in range(n):
            out[r, i] = _silu(x[r, i], i < n // 8 * 8)
    return out


@njit(parallel=True, cache=True)
def swiglu(gate, up):
    """gate, up [R, n]."""
    R, n = gate.shape
    out = np.empty_like(gate)
    for r in prange(R):
        for i in range(n):
            out[r, i] = _silu(gate[r, i], i < n // 8 * 8) * up[r, i]
    return out


@njit(parallel=True, cache=True)
def geglu(gate, up, table):
    """gate, up [R, n]; table is ops.ggml.gelu_table()."""
    out = np.empty_like(gate)
    for r in prange(gate.shape[0]):
        for i in range(gate.shape[1]):
            x = gate[r, i]
            if x <= np.float32(-10):
                out[r, i] = 0
            else:
                out[r, i] = (x if x >= np.float32(10) else table[half_bits(x)]) * up[r, i]
    return out


@njit(parallel=True, cache=True)
def sigmoid(x):
    """x [R, n]."""
    out = np.empty_like(x)
    for r in prange(x.shape[0]):
        for i in range(x.shape[1]):
            out[r, i] = ONE / (ONE + expf(-x[r, i]))
    return out


@njit(parallel=True, cache=True)
def softplus(x):
    """x [R, n]."""
    out = np.empty_like(x)
    for r in prange(x.shape[0]):
        for i in range(x.shape[1]):
            out[r, i] = x[r, i] if x[r, i] > np.float32(20) else logf(ONE + expf(x[r, i]))
    return out


@njit(parallel=True, cache=True)
def soft_max(x):
    """x [R, n]."""
    R, n = x.shape
    out = np.empty_like(x)
    for r in prange(R):
        top, total = x[r].max(), 0.0
        for i in range(0, n // 8 * 8, 8):
            for j in range(i, i + 8):
                out[r, j] = exp8(x[r, j] - top)
            total += np.float64(hsum(out[r, i : i + 8]))
        for i in range(n // 8 * 8, n):
            out[r, i] = expf(x[r, i] - top)
            total += np.float64(out[r, i])
        factor = np.float32(1.0 / total)
        for i in range(n):
            out[r, i] *= factor
    return out


@njit(parallel=True, cache=True)
def rms_norm(x, eps):
    """x [R, n], eps float32."""
    R, n = x.shape
    out = np.empty_like(x)
    for r in prange(R):
        total = 0.0
        for i in range(n):
            total += np.float64(x[r, i] * x[r, i])
        factor = ONE / np.float32(np.sqrt(np.float32(total / n) + eps))
        for i in range(n):
            out[r, i] = x[r, i] * factor
    return out


@njit(parallel=True, cache=True)
def rope(x, pos, step, scale, factors, unscaled, magnitude, adjacent, plain_last):
    """x [T, H, D] at pos [T]; step, scale, magnitude float32; factors, unscaled [n_rot / 2] float32."""
    T, H, _ = x.shape
    pairs, out = factors.size, x.copy()
    for t in prange(T):
        theta = np.float32(pos[t])
        for i in range(pairs):
            whole = theta / factors[i]
            angle = fma(scale * whole, ONE - unscaled[i], whole * unscaled[i])
            c, s = cosf(angle) * magnitude, sinf(angle) * magnitude
            first, second = (2 * i, 2 * i + 1) if adjacent else (i, i + pairs)
            left_over = plain_last and i == pairs - 1 and pairs % 2 == 1
            for h in range(H):
                a, b = x[t, h, first], x[t, h, second]
                out[t, h, first] = a * c - b * s if left_over else fma(a, c, -(b * s))
                out[t, h, second] = a * s + b * c if left_over else fma(a, s, b * c)
            theta *= step
    return out


@njit(parallel=True, cache=True)
def causal_conv1d(x, w):
    C, K = w.shape
    T = x.shape[0] - K + 1
    out = np.empty((T, C), np.float32)
    for t in prange(T):
        for c in range(C):
            total = np.float32(0)
            for j in range(K // 4 * 4):
                total += x[t + j, c] * w[c, j]
            for j in range(K // 4 * 4, K):
                total = fma(x[t + j, c], w[c, j], total)
            out[t, c] = total
    return out
