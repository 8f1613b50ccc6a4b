"""Twins of ops.deltanet. The convolution is summed tap by tap; the rule has the bits of ops.ggml.gated_delta_rule."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit, types

from .language.arithmetic import fma as fma_lanes
from .language.arithmetic import four_registers, pairwise
from .language.compile_time import entry, inline, made, maker, within
from .language.ieee import added_as_compiled, expf, fma
from .language.memory import load, load_rows, store, store_rows
from .language.reshaping import repeat, splat, tile
from .language.threads import in_threads, worth
from .language.vectors import Vec, target_is

SLAB = 32  # rows of a state [Dv, Dk] that go through CHUNK tokens one by one: they stay in a core's first cache
CHUNK = 64  # tokens whose keys, queries and values are first brought together for one head
LANES = 32  # of a row, summed side by side, as ggml_vec_dot_f32 sums them
f32xN = Vec("f", 32, LANES)
ONE = np.float32(1)
NANOSECONDS = 0.3  # for a number of a state and a token
TABLE, CUBE = (types.Array(types.float32, ndim, "C") for ndim in (2, 3))
CHANNELS, f32x16 = 64, Vec("f", 32, 16)
FEW = 4  # tokens for which taps are not transposed first


@njit(cache=True)
def _channels(x, w, out, first, last):
    """At most 64 channels, from the first token to the last; their taps are transposed once, so that channels are lanes."""
    (C, K), T = w.shape, len(out)
    whole, taps = (last - first) // 16 * 16, np.empty((K, CHANNELS), np.float32)
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


@njit(cache=True)
def _four_taps(x, w, out):
    """The usual number of taps, written out: so the compiler makes vectors of channels, which is worth it for few tokens."""
    for t in range(len(out)):
        for c in range(len(w)):
            out[t, c] = (
                ((np.float32(0) + x[t, c] * w[c, 0]) + x[t + 1, c] * w[c, 1]) + x[t + 2, c] * w[c, 2] + x[t + 3, c] * w[c, 3]
            )


@cache
def _convolution():
    return in_threads(_channels, (), TABLE, TABLE, TABLE)


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
        _convolution()(C, CHANNELS, x, w, out)
    return out


class Scratch(NamedTuple):
    """What a thread keeps of a head: CHUNK tokens and one more, and what its rows are about to learn."""

    keys: object  # [CHUNK + 1, Dk]
    queries: object
    values: object  # [CHUNK + 1, Dv]
    answers: object
    numbers: object  # [CHUNK + 1, 2]: decay and beta
    delta: object  # [Dv]: β (v − S · k) of the next token
    seen: object  # [Dv]: S · k


@inline
def _copy(given, wanted):
    for i in range(wanted.size):
        wanted[i] = given[i]


@within
def _aligned(n):
    """Room for CHUNK + 1 rows [n] from the start of a cache line on."""
    room = np.empty((CHUNK + 1) * n + 16, np.float32)
    skip = -(room.ctypes.data // 4) % 16
    return room[skip : skip + (CHUNK + 1) * n].reshape((CHUNK + 1, n))


@maker
def fading(R, n):
    """The function (before, after, row, decay, k, seen): after = before · decay, seen = after · k, of R rows [n] from `row` on."""
    lanes, whole = Vec("f", 32, LANES * R), n // LANES * LANES

    @inline
    def faded(before, after, row, decay, k, seen):
        total = splat(lanes, 0)
        for j in range(0, whole, LANES):
            S = load_rows(lanes, R, before, 4 * (row * n + j), 4 * n) * decay
            store_rows(R, after, 4 * (row * n + j), 4 * n, S)
            total = fma_lanes(S, tile(load(f32xN, k, 4 * j), R), total)
        store(seen, 4 * row, pairwise(four_registers(total)))
        for i in range(row, row + R):
            for j in range(whole, n):
                after[i, j] = before[i, j] * decay
            seen[i] = added_as_compiled(after[i], k, whole, seen[i], 8)

    return faded


@maker
def learning_rest(R, n):
    """The function of `learning` for the numbers of a row after its whole lanes: sums, after whole ones in scratch."""
    whole = n // LANES * LANES

    @inline
    def rest(S, row, t, scratch):
        keys, queries, _, answers, decays, delta, seen = scratch
        for i in range(row, row + R):
            for j in range(whole, n):
                S[i, j] = fma(keys[t, j], delta[i], S[i, j])
            answers[t, i] = added_as_compiled(S[i], queries[t], whole, answers[t, i], 8)
            for j in range(whole, n):
                S[i, j] *= decays[t + 1, 0]
            seen[i] = added_as_compiled(S[i], keys[t + 1], whole, seen[i], 8)

    return rest


@maker
def learning(R, n):
    """The function (S, row, t, scratch) for R rows [n] of a state from `row` on, and token t: S += delta kᵀ, answer = S · q.

    And for the next token: S · decay, and delta = β (v − S · k).
    """
    lanes, numbers, whole = Vec("f", 32, LANES * R), Vec("f", 32, R), n // LANES * LANES
    rest = learning_rest(R, n)

    @inline
    def learned(S, row, t, scratch):
        keys, queries, values, answers, decays, delta, seen = scratch
        decay, beta, Dv = decays[t + 1, 0], decays[t + 1, 1], len(S)
        total, result, by = splat(lanes, 0), splat(lanes, 0), repeat(load(numbers, delta, 4 * row), LANES)
        for j in range(0, whole, LANES):
            s = load_rows(lanes, R, S, 4 * (row * n + j), 4 * n)
            s = fma_lanes(tile(load(f32xN, keys, 4 * (t * n + j)), R), by, s)
            result = fma_lanes(s, tile(load(f32xN, queries, 4 * (t * n + j)), R), result)
            s = s * decay
            store_rows(R, S, 4 * (row * n + j), 4 * n, s)
            total = fma_lanes(s, tile(load(f32xN, keys, 4 * (t * n + n + j)), R), total)
        known, found = pairwise(four_registers(total)), pairwise(four_registers(result))
        if n % LANES:
            store(seen, 4 * row, known)
            store(answers, 4 * (t * Dv + row), found)
            rest(S, row, t, scratch)
            known, found = load(numbers, seen, 4 * row), load(numbers, answers, 4 * (t * Dv + row))
        store(answers, 4 * (t * Dv + row), found)
        store(delta, 4 * row, (load(numbers, values, 4 * (t * Dv + Dv + row)) - known) * beta)

    return learned


@inline
def _gather(h, begin, count, given, scratch):
    """Bring `count` tokens of a head together, from `begin` on, and the one after them."""
    q, k, v, log_decay, beta = given
    T, key = len(q), h % k.shape[1]
    for t in range(count + 1):
        at = min(begin + t, T - 1)  # what stands behind the last token does not matter, but it may not decay
        _copy(k[at, key], scratch.keys[t])
        _copy(q[at, key], scratch.queries[t])
        _copy(v[at, h], scratch.values[t])
        scratch.numbers[t, 0], scratch.numbers[t, 1] = expf(log_decay[at, h]) if begin + t < T else ONE, beta[at, h]


@maker
def heads(R, Dk):
    """The function (h, given, before, after, out, scratch) for one head, from its first token to the last.

    given  q, k, v, log_decay and beta
    """
    faded, learned = fading(R, Dk), learning(R, Dk)

    @inline
    def head(h, given, before, after, out, scratch):
        for begin in range(0, len(out), CHUNK):
            count = min(CHUNK, len(out) - begin)
            _gather(h, begin, count, given, scratch)
            for first in range(0, len(after), SLAB):
                last = min(first + SLAB, len(after))
                if begin == 0:
                    for row in range(first, last, R):
                        faded(before, after, row, scratch.numbers[0, 0], scratch.keys[0], scratch.seen)
                    for i in range(first, last):
                        scratch.delta[i] = (scratch.values[0, i] - scratch.seen[i]) * scratch.numbers[0, 1]
                for t in range(count):
                    for row in range(first, last, R):
                        learned(after, row, t, scratch)
            for t in range(count):
                _copy(scratch.answers[t], out[begin + t, h])

    return head


one_head = made(heads)


@njit(cache=True)
def _heads(R, Dk, given, before, after, out, first, last):
    """The heads `first` to `last`."""
    head, (_, Dv, n) = one_head(R, Dk), before.shape
    numbers, delta, seen = np.empty((CHUNK + 1, 2), np.float32), np.empty(Dv, np.float32), np.empty(Dv, np.float32)
    scratch = Scratch(_aligned(n), _aligned(n), _aligned(Dv), _aligned(Dv), numbers, delta, seen)
    for h in range(first, last):
        head(h, given, before[h], after[h], out, scratch)


GIVEN = types.Tuple([CUBE, CUBE, CUBE, TABLE, TABLE])


@cache
def _in_threads(R, Dk):
    return in_threads(_heads, (R, Dk), GIVEN, CUBE, CUBE, CUBE)


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
    given = tuple(np.ascontiguousarray(x, np.float32) for x in (q, k, v, log_decay, beta))
    out, R = np.empty(v.shape, np.float32), 2 if target_is("avx512f") and v.shape[2] % 2 == 0 else 1
    many = worth(NANOSECONDS * len(v) * after[0].size)
    _in_threads(R, k.shape[2])(len(after), many, given, np.ascontiguousarray(before, np.float32), after, out)
    return out
