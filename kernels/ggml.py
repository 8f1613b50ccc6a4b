"""Twins of ops.ggml: the same roundings in the same order, rows in threads.

`lanes` are the floats of a register of llama.cpp, 8 or 16; for each a kernel is compiled when it is needed, on any processor.
"""

from functools import cache

import numpy as np
from numba import njit, types

from .exponential import exp, exp_of_16
from .ggml_floats import dot_f32, hsum
from .language.arithmetic import hsum as hsum_lanes
from .language.compile_time import inline, value, within
from .language.ieee import added_as_compiled, cosf, expf, fma, half_bits, logf, sinf
from .language.memory import load, store
from .language.threads import NUMBER, in_threads, worth
from .language.vectors import Vec

f32x8, f32x16 = Vec("f", 32, 8), Vec("f", 32, 16)
ONE, FLOAT, TRUTH = np.float32(1), types.float32, types.boolean
FLAT, ROWS, CUBE = (types.Array(FLOAT, ndim, "C") for ndim in (1, 2, 3))
PLAIN, EXP, LIBRARY = 0.3, 1.0, 5.0  # nanoseconds for a number: without a function, with the polynomial, with one of the C library


@cache
def _started(kernel, known, *others):
    """A kernel (known, x, others, out, first, last) of the rows of x [R, n] and out [R, n], in threads."""
    return in_threads(kernel, known, ROWS, *others, ROWS)


def _by_row(run, cost, x, *others):
    """What such a kernel makes of x [R, n]; cost in nanoseconds for a number."""
    out = np.empty_like(x)
    run(len(x), worth(cost * x.shape[1]), x, *others, out)
    return out


@inline
def _exp_row(x, sign, top, lanes, out):
    """e^(sign · x − top) of a row: whole registers have the polynomial, the rest of a row the C library."""
    whole = x.size // lanes * lanes
    for i in range(0, whole, lanes):
        if lanes == 16:
            store(out, 4 * i, exp_of_16(load(f32x16, x, 4 * i) * sign - top))
        else:
            store(out, 4 * i, exp(load(f32x8, x, 4 * i) * sign - top))
    for i in range(whole, x.size):
        out[i] = expf(sign * x[i] - top)


@njit(cache=True)
def _silu(lanes, x, out, first, last):
    for r in range(first, last):
        _exp_row(x[r], -ONE, np.float32(0), value(lanes), out[r])
        for i in range(x.shape[1]):
            out[r, i] = x[r, i] / (ONE + out[r, i])


def silu(x, lanes):
    """Twin of ops.ggml.silu: x [R, n] -> [R, n] float32; lanes of a register, 8 or 16."""
    return _by_row(_started(_silu, (lanes,)), EXP, x)


@njit(cache=True)
def _swiglu(lanes, gate, up, out, first, last):
    for r in range(first, last):
        _exp_row(gate[r], -ONE, np.float32(0), value(lanes), out[r])
        for i in range(gate.shape[1]):
            out[r, i] = gate[r, i] / (ONE + out[r, i]) * up[r, i]


def swiglu(gate, up, lanes):
    """Twin of ops.ggml.swiglu: gate, up [R, n] -> [R, n] float32; lanes of a register, 8 or 16."""
    return _by_row(_started(_swiglu, (lanes,), ROWS), EXP, gate, up)


@njit(cache=True)
def _geglu(gate, up, table, out, first, last):
    for r in range(first, last):
        for i in range(gate.shape[1]):
            x = gate[r, i]
            if x <= np.float32(-10):
                out[r, i] = 0
            else:
                out[r, i] = (x if x >= np.float32(10) else table[half_bits(x)]) * up[r, i]


def geglu(gate, up, table):
    """Twin of ops.ggml.geglu: gate, up [R, n] -> [R, n] float32; table is ops.ggml.gelu_table()."""
    return _by_row(_started(_geglu, (), ROWS, FLAT), EXP, gate, up, table)


@njit(cache=True)
def _sigmoid(x, out, first, last):
    for r in range(first, last):
        for i in range(x.shape[1]):
            out[r, i] = ONE / (ONE + expf(-x[r, i]))


def sigmoid(x):
    """Twin of ops.ggml.sigmoid: x [R, n] -> [R, n] float32."""
    return _by_row(_started(_sigmoid, ()), LIBRARY, x)


@njit(cache=True)
def _softplus(x, out, first, last):
    for r in range(first, last):
        for i in range(x.shape[1]):
            out[r, i] = x[r, i] if x[r, i] > np.float32(20) else logf(ONE + expf(x[r, i]))


def softplus(x):
    """Twin of ops.ggml.softplus: x [R, n] -> [R, n] float32."""
    return _by_row(_started(_softplus, ()), 2 * LIBRARY, x)


@within
def sum_of(p, lanes):
    """Twin of ops.ggml.sum_of: whole registers of p [n] are summed in float32, their sums in float64, in order."""
    total = 0.0
    for i in range(0, p.size // lanes * lanes, lanes):
        total += np.float64(hsum_lanes(load(f32x16, p, 4 * i)) if lanes == 16 else hsum(p[i : i + 8]))
    return total


@njit(cache=True)
def _soft_max(lanes, x, out, first, last):
    n, at_once = x.shape[1], value(lanes)
    for r in range(first, last):
        _exp_row(x[r], ONE, x[r].max(), at_once, out[r])
        total = sum_of(out[r], at_once)
        for i in range(n // at_once * at_once, n):
            total += np.float64(out[r, i])
        factor = np.float32(1.0 / total)
        for i in range(n):
            out[r, i] *= factor


def soft_max(x, lanes):
    """Twin of ops.ggml.soft_max over the last axis: x [R, n] -> [R, n] float32; lanes of a register, 8 or 16."""
    return _by_row(_started(_soft_max, (lanes,)), EXP, x)


@njit(cache=True)
def _rms_norm(x, eps, out, first, last):
    n = x.shape[1]
    for r in range(first, last):
        total = 0.0
        for i in range(n):
            total += np.float64(x[r, i] * x[r, i])
        factor = ONE / np.float32(np.sqrt(np.float32(total / n) + eps))
        for i in range(n):
            out[r, i] = x[r, i] * factor


def rms_norm(x, eps):
    """Twin of ops.ggml.rms_norm: x [R, n] -> [R, n], eps float32."""
    return _by_row(_started(_rms_norm, (), FLOAT), EXP, x, eps)


@njit(cache=True)
def _rope(x, pos, step, scale, factors, unscaled, magnitude, adjacent, at_once, out, first, last):
    """The tokens `first` to `last`."""
    (_, H, D), pairs = x.shape, factors.size
    for t in range(first, last):
        for h in range(H):
            for d in range(D):
                out[t, h, d] = x[t, h, d]
        theta = np.float32(pos[t])
        for i in range(pairs):
            whole = theta / factors[i]
            angle = fma(scale * whole, ONE - unscaled[i], whole * unscaled[i])
            c, s = cosf(angle) * magnitude, sinf(angle) * magnitude
            one, other = (2 * i, 2 * i + 1) if adjacent else (i, i + pairs)
            left_over = i >= pairs // at_once * at_once
            for h in range(H):
                a, b = x[t, h, one], x[t, h, other]
                out[t, h, one] = a * c - b * s if left_over else fma(a, c, -(b * s))
                out[t, h, other] = a * s + b * c if left_over else fma(a, s, b * c)
            theta *= step


@cache
def _rope_in_threads():
    positions = types.Array(NUMBER, 1, "C")
    return in_threads(_rope, (), CUBE, positions, FLOAT, FLOAT, FLAT, FLAT, FLOAT, TRUTH, NUMBER, CUBE)


def rope(x, pos, step, scale, factors, unscaled, magnitude, adjacent, at_once):
    """Twin of ops.ggml.rope: x [T, H, D] at positions pos [T] -> [T, H, D].

    step, scale, magnitude  float32: of one pair to the next, of positions, of sines and cosines
    factors, unscaled       [n_rot / 2] float32
    adjacent                whether a pair is 2i and 2i + 1, not i and i + n_rot / 2
    at_once                 pairs that llama.cpp rotates in one register; the pairs after the last whole register are rounded twice
    """
    out, cost = np.empty_like(x), 2 * LIBRARY * factors.size + PLAIN * x[:1].size
    given = (x, np.ascontiguousarray(pos, np.int64), step, scale, factors, unscaled, magnitude, adjacent, at_once)
    _rope_in_threads()(len(x), worth(cost), *given, out)
    return out


@njit(cache=True)
def _causal_conv1d(lanes, x, w, out, first, last):
    """The tokens `first` to `last`."""
    C, K = w.shape
    for t in range(first, last):
        for c in range(C):
            out[t, c] = added_as_compiled(x[t : t + K, c], w[c], 0, np.float32(0), value(lanes))


@cache
def _convolution_in_threads(lanes):
    return in_threads(_causal_conv1d, (lanes,), ROWS, ROWS, ROWS)


def causal_conv1d(x, w, lanes):
    """Twin of ops.ggml.causal_conv1d: x [K-1+T, C], w [C, K] -> [T, C] float32; lanes of a register, 8 or 16."""
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    out = np.empty((len(x) - w.shape[1] + 1, len(w)), np.float32)
    _convolution_in_threads(lanes)(len(out), worth(PLAIN * w.size), x, w, out)
    return out


@njit(cache=True)
def _gated_delta_rule(lanes, q, k, v, log_decay, beta, before, after, out, first, last):
    """The rows `first` to `last` of all states."""
    (T, _, Dv), Hk = v.shape, k.shape[1]
    for row in range(first, last):
        h, i = row // Dv, row % Dv
        S = after[h, i]
        for j in range(S.size):
            S[j] = before[h, i, j]
        for t in range(T):
            decay = expf(log_decay[t, h])
            for j in range(S.size):
                S[j] *= decay
            delta = beta[t, h] * (v[t, h, i] - dot_f32(S, k[t, h % Hk], value(lanes)))
            for j in range(S.size):
                S[j] = fma(k[t, h % Hk, j], delta, S[j])
            out[t, h, i] = dot_f32(S, q[t, h % Hk], value(lanes))


@cache
def _rule_in_threads(lanes):
    return in_threads(_gated_delta_rule, (lanes,), CUBE, CUBE, CUBE, ROWS, ROWS, CUBE, CUBE, CUBE)


def gated_delta_rule(q, k, v, log_decay, beta, before, after, lanes):
    """Twin of ops.ggml.gated_delta_rule, the rows of a state in threads. With 8 lanes, deltanet.py has the same sums, faster.

    q, k       [T, Hk, Dk]
    v          [T, Hv, Dv]
    log_decay, beta  [T, Hv]
    before, after    [Hv, Dv, Dk]  the states before and after; `after` is contiguous and overwritten

    Returns the outputs [T, Hv, Dv].
    """
    out, cost = np.empty(v.shape, np.float32), 4 * PLAIN * len(v) * k.shape[2]
    given = (np.ascontiguousarray(x) for x in (q, k, v, log_decay, beta, before))
    _rule_in_threads(lanes)(after.shape[0] * after.shape[1], worth(cost), *given, after, out)
    return out
