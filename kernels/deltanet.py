"""Twins of ops.deltanet. The convolution is summed tap by tap; the rule has the bits of ops.ggml.gated_delta_rule."""

from functools import cache

import numba
import numpy as np
from numba import njit, prange, types

from .language.arithmetic import fma as fma_lanes
from .language.arithmetic import halves_added, neighbours_added
from .language.compile_time import address, call, entry, inline, within
from .language.ieee import expf, fma
from .language.memory import fetch_add, load, load_rows, store, store_rows
from .language.reshaping import repeat, splat, tile, wide
from .language.vectors import Vec, target_is

SLAB = 32  # rows of a state [Dv, Dk] that go through CHUNK tokens one by one: they stay in a core's first cache
CHUNK = 64  # tokens whose keys, queries and values are first brought together for one head
LANES = 32  # of a row, summed side by side, as ggml_vec_dot_f32 sums them
f32xN, NUMBER = Vec("f", 32, LANES), Vec("f", 32, 1)
ONE = np.float32(1)
TABLE, CUBE = (types.Array(types.float32, ndim, "C") for ndim in (2, 3))
COUNTER = types.Array(types.int64, 1, "C")
CHANNELS, f32x16 = 64, Vec("f", 32, 16)
FEW = 4  # tokens for which taps are not turned first


@njit(cache=True)
def _channels(x, w, first, out):
    """At most 64 channels, from the first token to the last; their taps are turned once, so that channels are lanes."""
    (C, K), T = w.shape, len(out)
    last, taps = min(first + CHANNELS, C), np.empty((K, CHANNELS), np.float32)
    whole = (last - first) // 16 * 16
    for c in range(first, last):
        for j in range(K):
            taps[j, c - first] = w[c, j]
    for t in range(T):
        for c in range(0, whole, 16):
            total = splat(f32x16, 0)
            for j in range(K):
                total = total + load(f32x16, x, 4 * ((t + j) * C + first + c)) * load(f32x16, taps, 4 * (j * CHANNELS + c))
            store(out, 4 * (t * C + first + c), total)
        for c in range(first + whole, last):
            alone = np.float32(0)
            for j in range(K):
                alone += x[t + j, c] * w[c, j]
            out[t, c] = alone


@njit(cache=True, nogil=True)
def _four_taps(x, w, out):
    """The usual number of taps, written out: so the compiler makes vectors of channels, which is worth it for few tokens."""
    for t in range(len(out)):
        for c in range(len(w)):
            out[t, c] = (
                ((np.float32(0) + x[t, c] * w[c, 0]) + x[t + 1, c] * w[c, 1]) + x[t + 2, c] * w[c, 2] + x[t + 3, c] * w[c, 3]
            )


@njit(parallel=True, cache=True)
def _convolved(channels, x, w, out):
    for i in prange((len(w) + CHANNELS - 1) // CHANNELS):
        call(channels, (x, w, np.int64(i) * CHANNELS, out))


@cache
def _convolution():
    """The kernel, and the address of what each thread does in it."""
    return entry(_convolved, (), types.int64, TABLE, TABLE, TABLE), address(_channels, (), TABLE, TABLE, types.int64, TABLE)


@cache
def _convolution_of_few():
    return entry(_four_taps, (), TABLE, TABLE, TABLE)


def causal_conv1d(x, w):
    """Twin of ops.deltanet.causal_conv1d, in float32: x [K-1+T, C], w [C, K] -> [T, C].

    Taps are added in order and without fused multiply-adds, as llama.cpp adds four of them.
    """
    x, w = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(w, np.float32)
    C, K = w.shape
    out = np.empty((len(x) - K + 1, C), np.float32)
    if K == 4 and len(out) <= FEW:
        _convolution_of_few()(x, w, out)
    else:
        run, channels = _convolution()
        run(channels, x, w, out)
    return out


@inline
def _sums(lanes):
    """[rows][32] -> [rows], in the order of ops.ggml.pairwise."""
    four = halves_added(halves_added(halves_added(lanes, 32), 16), 8)
    return neighbours_added(neighbours_added(four))


@inline
def _plus(total, x, y, j, n):
    """One more product behind the whole lanes: ops.ggml.added_as_compiled."""
    return total + x * y if j < n // 4 * 4 else fma(x, y, total)


@inline
def _faded(R, Dk, before, after, row, decay, k, seen):
    """R rows from `row` on, before the first token: after = before · decay, seen = after · k."""
    n = Dk.value
    total = splat(wide(f32xN, R), 0)
    for j in range(0, n // LANES * LANES, LANES):
        S = load_rows(wide(f32xN, R), R, before, 4 * (row * n + j), 4 * n) * decay
        store_rows(R, after, 4 * (row * n + j), 4 * n, S)
        total = fma_lanes(S, tile(load(f32xN, k, 4 * j), R), total)
    store(seen, 4 * row, _sums(total))
    for i in range(row, row + R.value):
        for j in range(n // LANES * LANES, n):
            after[i, j] = before[i, j] * decay
            seen[i] = _plus(seen[i], after[i, j], k[j], j, n)


@inline
def _learned(R, Dk, S, row, t, decay, beta, keys, queries, values, answers, delta, seen):
    """R rows from `row` on, token t: S += delta kᵀ, answer = S · q; and of the next one: S · decay, and delta = β (v − S · k)."""
    n, Dv = Dk.value, len(S)
    total, result = splat(wide(f32xN, R), 0), splat(wide(f32xN, R), 0)
    by = repeat(load(wide(NUMBER, R), delta, 4 * row), LANES)
    for j in range(0, n // LANES * LANES, LANES):
        s = load_rows(wide(f32xN, R), R, S, 4 * (row * n + j), 4 * n)
        s = fma_lanes(tile(load(f32xN, keys, 4 * (t * n + j)), R), by, s)
        result = fma_lanes(s, tile(load(f32xN, queries, 4 * (t * n + j)), R), result)
        s = s * decay
        store_rows(R, S, 4 * (row * n + j), 4 * n, s)
        total = fma_lanes(s, tile(load(f32xN, keys, 4 * (t * n + n + j)), R), total)
    known, found = _sums(total), _sums(result)
    if n % LANES:
        store(seen, 4 * row, known)
        store(answers, 4 * (t * Dv + row), found)
        for i in range(row, row + R.value):
            for j in range(n // LANES * LANES, n):
                S[i, j] = fma(keys[t, j], delta[i], S[i, j])
                answers[t, i] = _plus(answers[t, i], S[i, j], queries[t, j], j, n)
                S[i, j] *= decay
                seen[i] = _plus(seen[i], S[i, j], keys[t + 1, j], j, n)
        known, found = load(wide(NUMBER, R), seen, 4 * row), load(wide(NUMBER, R), answers, 4 * (t * Dv + row))
    store(answers, 4 * (t * Dv + row), found)
    store(delta, 4 * row, (load(wide(NUMBER, R), values, 4 * (t * Dv + Dv + row)) - known) * beta)


@inline
def _copy(given, wanted):
    for i in range(wanted.size):
        wanted[i] = given[i]


@inline
def _head(R, Dk, h, q, k, v, log_decay, beta, before, after, out, keys, queries, values, answers, numbers, delta, seen):
    """One head, from its first token to the last. Scratch: keys, queries, values, answers [CHUNK + 1, ...]."""
    T, key = len(q), h % k.shape[1]
    for begin in range(0, T, CHUNK):
        count = min(CHUNK, T - begin)
        for t in range(count + 1):
            at = min(begin + t, T - 1)  # what stands behind the last token does not matter, but it may not decay
            _copy(k[at, key], keys[t])
            _copy(q[at, key], queries[t])
            _copy(v[at, h], values[t])
            numbers[t, 0], numbers[t, 1] = expf(log_decay[at, h]) if begin + t < T else ONE, beta[at, h]
        for first in range(0, len(after), SLAB):
            last = min(first + SLAB, len(after))
            if begin == 0:
                for row in range(first, last, R.value):
                    _faded(R, Dk, before, after, row, numbers[0, 0], keys[0], seen)
                for i in range(first, last):
                    delta[i] = (values[0, i] - seen[i]) * numbers[0, 1]
            for t in range(count):
                decay, rate = numbers[t + 1, 0], numbers[t + 1, 1]
                for row in range(first, last, R.value):
                    _learned(R, Dk, after, row, t, decay, rate, keys, queries, values, answers, delta, seen)
        for t in range(count):
            _copy(answers[t], out[begin + t, h])


@within
def _aligned(n):
    """Room for CHUNK + 1 rows [n] from the start of a cache line on."""
    room = np.empty((CHUNK + 1) * n + 16, np.float32)
    skip = -(room.ctypes.data // 4) % 16
    return room[skip : skip + (CHUNK + 1) * n].reshape((CHUNK + 1, n))


@njit(cache=True)
def _share(R, Dk, q, k, v, log_decay, beta, before, after, out, claimed):
    """One thread's work, until no heads are left."""
    Dv, n, numbers = before.shape[1], Dk.value, np.empty((CHUNK + 1, 2), np.float32)
    keys, queries, values, answers = _aligned(n), _aligned(n), _aligned(Dv), _aligned(Dv)
    delta, seen = np.empty(Dv, np.float32), np.empty(Dv, np.float32)
    while True:
        h = fetch_add(claimed, 1)
        if h >= len(before):
            break
        scratch = keys, queries, values, answers, numbers, delta, seen
        _head(R, Dk, h, q, k, v, log_decay, beta, before[h], after[h], out, *scratch)


@njit(parallel=True, cache=True)
def _heads(sharing, threads, q, k, v, log_decay, beta, before, after, out, claimed):
    for _ in prange(threads):
        call(sharing, (None, None, q, k, v, log_decay, beta, before, after, out, claimed))


@cache
def _compiled(R, Dk):
    """The kernel, and the address of what each thread does in it."""
    arrays = *[CUBE] * 3, *[TABLE] * 2, *[CUBE] * 3, COUNTER
    return entry(_heads, (), types.int64, types.int64, *arrays), address(_share, (R, Dk), *arrays)


def gated_delta_rule(q, k, v, log_decay, beta, before, after):
    """Twin of ops.deltanet.gated_delta_rule, in float32.

    q, k       [T, Hk, Dk]
    v          [T, Hv, Dv]
    log_decay, beta  [T, Hv]
    before     [Hv, Dv, Dk]  the state before the first token
    after      [Hv, Dv, Dk]  float32, contiguous: overwritten with the state after the last token; may be `before` itself

    Returns the outputs [T, Hv, Dv].
    """
    assert after.dtype == np.float32
    assert after.flags.c_contiguous
    heads = [np.ascontiguousarray(x, np.float32) for x in (q, k, v)]
    numbers = [np.ascontiguousarray(x, np.float32) for x in (log_decay, beta)]
    out, R = np.empty(v.shape, np.float32), 2 if target_is("avx512f") and v.shape[2] % 2 == 0 else 1
    states = np.ascontiguousarray(before, np.float32), after
    run, sharing = _compiled(R, k.shape[2])
    run(sharing, numba.get_num_threads(), *heads, *numbers, *states, out, np.zeros(1, np.int64))
    return out
