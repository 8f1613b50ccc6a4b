"""Twins of ops.ggml: the same roundings in the same order, rows in parallel."""

import numpy as np
from numba import njit, prange

from .exponential import exp, exp_of_16
from .ggml_floats import dot_f32, hsum
from .language.arithmetic import hsum as hsum_lanes
from .language.compile_time import within
from .language.ieee import added_as_compiled, cosf, expf, fma, half_bits, logf, sinf
from .language.memory import load, store
from .language.vectors import Vec

f32x8, f32x16 = Vec("f", 32, 8), Vec("f", 32, 16)
ONE = np.float32(1)


@within
def _exp_row(x, top, lanes, out):
    """e^(x − top) of a row: whole registers have the polynomial, the rest of a row the C library."""
    whole = x.size // lanes * lanes
    for i in range(0, whole, lanes):
        if lanes == 16:
            store(out, 4 * i, exp_of_16(load(f32x16, x, 4 * i) - top))
        else:
            store(out, 4 * i, exp(load(f32x8, x, 4 * i) - top))
    for i in range(whole, x.size):
        out[i] = expf(x[i] - top)


@njit(parallel=True, cache=True)
def silu(x, lanes):
    """Twin of ops.ggml.silu: x [R, n] -> [R, n] float32; lanes of a register, 8 or 16."""
    R, n = x.shape
    out = np.empty_like(x)
    for r in prange(R):
        _exp_row(-x[r], np.float32(0), lanes, out[r])
        for i in range(n):
            out[r, i] = x[r, i] / (ONE + out[r, i])
    return out


@njit(parallel=True, cache=True)
def swiglu(gate, up, lanes):
    """Twin of ops.ggml.swiglu: gate, up [R, n] -> [R, n] float32; lanes of a register, 8 or 16."""
    R, n = gate.shape
    out = np.empty_like(gate)
    for r in prange(R):
        _exp_row(-gate[r], np.float32(0), lanes, out[r])
        for i in range(n):
            out[r, i] = gate[r, i] / (ONE + out[r, i]) * up[r, i]
    return out


@njit(parallel=True, cache=True)
def geglu(gate, up, table):
    """Twin of ops.ggml.geglu: gate, up [R, n] -> [R, n] float32; table is ops.ggml.gelu_table()."""
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
    """Twin of ops.ggml.sigmoid: x [R, n] -> [R, n] float32."""
    out = np.empty_like(x)
    for r in prange(x.shape[0]):
        for i in range(x.shape[1]):
            out[r, i] = ONE / (ONE + expf(-x[r, i]))
    return out


@njit(parallel=True, cache=True)
def softplus(x):
    """Twin of ops.ggml.softplus: x [R, n] -> [R, n] float32."""
    out = np.empty_like(x)
    for r in prange(x.shape[0]):
        for i in range(x.shape[1]):
            out[r, i] = x[r, i] if x[r, i] > np.float32(20) else logf(ONE + expf(x[r, i]))
    return out


@within
def sum_of(p, lanes):
    """Twin of ops.ggml.sum_of: whole registers of p [n] are summed in float32, their sums in float64, in order."""
    total = 0.0
    for i in range(0, p.size // lanes * lanes, lanes):
        total += np.float64(hsum_lanes(load(f32x16, p, 4 * i)) if lanes == 16 else hsum(p[i : i + 8]))
    return total


@njit(parallel=True, cache=True)
def soft_max(x, lanes):
    """Twin of ops.ggml.soft_max over the last axis: x [R, n] -> [R, n] float32; lanes of a register, 8 or 16."""
    R, n = x.shape
    out = np.empty_like(x)
    for r in prange(R):
        _exp_row(x[r], x[r].max(), lanes, out[r])
        total = sum_of(out[r], lanes)
        for i in range(n // lanes * lanes, n):
            total += np.float64(out[r, i])
        factor = np.float32(1.0 / total)
        for i in range(n):
            out[r, i] *= factor
    return out


@njit(parallel=True, cache=True)
def rms_norm(x, eps):
    """Twin of ops.ggml.rms_norm: x [R, n] -> [R, n], eps float32."""
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
def rope(x, pos, step, scale, factors, unscaled, magnitude, adjacent, at_once):
    """Twin of ops.ggml.rope: x [T, H, D] at positions pos [T] -> [T, H, D].

    step, scale, magnitude  float32: of one pair to the next, of positions, of sines and cosines
    factors, unscaled       [n_rot / 2] float32
    adjacent                whether a pair is 2i and 2i + 1, not i and i + n_rot / 2
    at_once                 pairs that llama.cpp rotates in one register; the pairs after the last whole register are rounded twice
    """
    T, H, _ = x.shape
    pairs, out = factors.size, x.copy()
    for t in prange(T):
        theta = np.float32(pos[t])
        for i in range(pairs):
            whole = theta / factors[i]
            angle = fma(scale * whole, ONE - unscaled[i], whole * unscaled[i])
            c, s = cosf(angle) * magnitude, sinf(angle) * magnitude
            first, second = (2 * i, 2 * i + 1) if adjacent else (i, i + pairs)
            left_over = i >= pairs // at_once * at_once
            for h in range(H):
                a, b = x[t, h, first], x[t, h, second]
                out[t, h, first] = a * c - b * s if left_over else fma(a, c, -(b * s))
                out[t, h, second] = a * s + b * c if left_over else fma(a, s, b * c)
            theta *= step
    return out


@njit(parallel=True, cache=True)
def causal_conv1d(x, w, lanes):
    """Twin of ops.ggml.causal_conv1d: x [K-1+T, C], w [C, K] -> [T, C] float32; lanes of a register, 8 or 16."""
    C, K = w.shape
    T = x.shape[0] - K + 1
    out = np.empty((T, C), np.float32)
    for t in prange(T):
        for c in range(C):
            out[t, c] = added_as_compiled(x[t : t + K, c], w[c], 0, np.float32(0), lanes)
    return out


@njit(parallel=True, cache=True)
def gated_delta_rule(q, k, v, log_decay, beta, before, after, lanes):
    """Twin of ops.ggml.gated_delta_rule, the rows of a state in parallel. With 8 lanes, deltanet.py has the same sums, faster.

    q, k       [T, Hk, Dk]
    v          [T, Hv, Dv]
    log_decay, beta  [T, Hv]
    before, after    [Hv, Dv, Dk]  the states before and after; `after` is overwritten

    Returns the outputs [T, Hv, Dv].
    """
    (T, Hv, Dv), Hk = v.shape, k.shape[1]
    out = np.empty_like(v)
    for row in prange(Hv * Dv):
        h, i = row // Dv, row % Dv
        S = after[h, i]
        S[:] = before[h, i]
        for t in range(T):
            S *= expf(log_decay[t, h])
            delta = beta[t, h] * (v[t, h, i] - dot_f32(S, k[t, h % Hk], lanes))
            for j in range(S.size):
                S[j] = fma(k[t, h % Hk, j], delta, S[j])
            out[t, h, i] = dot_f32(S, q[t, h % Hk], lanes)
    return out
