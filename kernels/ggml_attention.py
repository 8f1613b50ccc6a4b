"""Twins of ops.ggml_attention: heads and tokens in threads."""

from functools import cache

import numpy as np
from numba import njit, types

from .exponential import exp, exp_of_16
from .ggml import sum_of
from .ggml_floats import dot_f16, dot_f32, dot_sgemm
from .language.arithmetic import fma as fma_lanes
from .language.arithmetic import fma_of_halves, rounded_to_half
from .language.compile_time import made, value, within
from .language.ieee import expf, fma, to_half
from .language.memory import load, store
from .language.reshaping import splat
from .language.threads import NUMBER, in_threads, worth
from .language.vectors import Vec

PAGE, TILE, HALVES, SPLIT = 256, 64, 128, 512
ZERO, ONE, LEAST = np.float32(0), np.float32(1), np.float32(-np.inf)
SGEMM, HALF, FLOAT = 0, 1, 2  # which dot
NANOSECONDS = 0.2  # for a number of a key, or of a value
CUBE, CACHE = types.Array(types.float32, 3, "C"), types.Array(types.float32, 3, "A")
f32x8, f32x16, f32xT = Vec("f", 32, 8), Vec("f", 32, 16), Vec("f", 32, TILE)


one_dot = made({SGEMM: dot_sgemm, HALF: dot_f16, FLOAT: dot_f32}.get)


@within
def _halves_to(x, out):
    """x [n], rounded to half floats; what is behind whole lanes one by one."""
    whole = x.size // 8 * 8
    for i in range(0, whole, 8):
        store(out, 4 * i, rounded_to_half(load(f32x8, x, 4 * i)))
    for i in range(whole, x.size):
        out[i] = to_half(x[i])


@within
def _halves(x):
    out = np.empty(x.size, np.float32)
    _halves_to(x, out)
    return out


@within
def _faded(acc, fade, begin):
    """acc · fade, kept as half floats; the numbers before `begin` with a factor that is a half float."""
    whole, factor = acc.size // 8 * 8, to_half(fade)
    for d in range(0, begin, 8):
        store(acc, 4 * d, rounded_to_half(load(f32x8, acc, 4 * d) * factor))
    for d in range(begin, whole, 8):
        store(acc, 4 * d, rounded_to_half(load(f32x8, acc, 4 * d) * fade))
    for d in range(whole, acc.size):
        acc[d] = to_half(acc[d] * fade)


@within
def _with(acc, v, weight, begin):
    """acc + v · weight, kept as half floats; the numbers before `begin` with a weight that is one, and rounded once."""
    whole, factor = acc.size // 8 * 8, splat(f32x8, to_half(weight))
    for d in range(0, begin, 8):
        store(acc, 4 * d, fma_of_halves(load(f32x8, v, 4 * d), factor, load(f32x8, acc, 4 * d)))
    for d in range(begin, whole, 8):
        store(acc, 4 * d, rounded_to_half(fma_lanes(load(f32x8, v, 4 * d), splat(f32x8, weight), load(f32x8, acc, 4 * d))))
    for d in range(whole, acc.size):
        acc[d] = to_half(fma(v[d], weight, acc[d]))


@within
def _soft_max(x, weights, lanes):
    """e^(x − max) / Σ into weights, whose length is a multiple of 16; zeros behind x."""
    top = LEAST
    for i in range(x.size):
        top = max(top, x[i])
        weights[i] = x[i]
    for i in range(x.size, weights.size):
        weights[i] = LEAST
    for i in range(0, 4 * weights.size, 64):
        below = load(f32x16, weights, i) - top
        store(weights, i, exp_of_16(below) if lanes == 16 else exp(below))
    factor = np.float32(1.0 / sum_of(weights, lanes))
    for i in range(x.size):
        weights[i] *= factor


@njit(cache=True)
def _turned(v, values, first, last):
    """The numbers of the key heads `first` to `last`: v [S, G, D] -> values [G, D, S], the keys of a dimension side by side."""
    S, _, D = v.shape
    for g in range(first, last):
        for s in range(S):
            for d in range(D):
                values[g, d, s] = v[s, g, d]


@njit(cache=True)
def _without_flash(lanes, scores_dot, values_dot, half_cache, q, k, values, factor, kq, kq_soft_max, window, out, first, last):
    """The units `first` to `last`, a head of a token each, whose keys and values are multiplied by two of the dots."""
    (T, H, D), (S, G, _), key, of_values = q.shape, k.shape, one_dot(scores_dot), one_dot(values_dot)
    for unit in range(first, last):
        t, h = unit // H, unit % H
        g, seen = h // (H // G), S - T + t + 1
        begin = max(0, seen - window) if window else 0
        query = _halves(q[t, h]) if half_cache else q[t, h].copy()
        raw, scaled, weights = np.empty(seen, np.float32), np.empty(seen, np.float32), np.empty(values.shape[2], np.float32)
        for s in range(seen):
            raw[s] = key(k[s, g], query, value(lanes))
            scaled[s] = raw[s] * factor if s >= begin else LEAST
        _soft_max(scaled, weights, value(lanes))
        for s in range(begin, seen if kq.size else 0):
            kq[h, t, s], kq_soft_max[h, t, s] = raw[s], weights[s]
        if half_cache:
            weights = _halves(weights)
        for d in range(D):
            out[t, h, d] = of_values(values[g, d], weights, value(lanes))


@cache
def _turned_in_threads():
    return in_threads(_turned, (), CACHE, CUBE)


@cache
def _without_flash_in_threads(*known):
    given = (types.boolean, CUBE, CACHE, CUBE, types.float32, CUBE, CUBE, NUMBER)
    return in_threads(_without_flash, known, *given, CUBE)


def without_flash(q, k, v, scale, kq, kq_soft_max, window, half_cache, lanes):
    """Twin of ops.ggml_attention.without_flash: q [T, H, D], k and v [S, G, D] -> [T, H, D], float32 all.

    kq, kq_soft_max  [H, T, S]: overwritten with scores and weights; empty if they are not wanted
    window           how many keys a query sees at most; 0: all
    half_cache       whether q and the weights are rounded to half floats
    lanes            of a register, 8 or 16
    """
    assert q.dtype == k.dtype == v.dtype == kq.dtype == kq_soft_max.dtype == np.float32
    assert kq.flags.c_contiguous
    assert kq_soft_max.flags.c_contiguous
    (T, H, D), (S, G, _) = q.shape, k.shape
    alone = HALF if half_cache else FLOAT
    scores_dot = SGEMM if T > 1 and D % lanes == 0 and (half_cache or H == 1) else alone
    values_dot = SGEMM if T > 1 and D % 4 == 0 else alone
    out, values = np.empty(q.shape, np.float32), np.zeros((G, D, -(-S // PAGE) * PAGE), np.float32)
    _turned_in_threads()(G, worth(NANOSECONDS * S * D), v, values)
    given = (np.ascontiguousarray(q), k, values, np.float32(scale), kq, kq_soft_max, window)
    cost = 2 * NANOSECONDS * values[0].size
    _without_flash_in_threads(lanes, scores_dot, values_dot)(T * H, worth(cost), half_cache, *given, out)
    return out


@within
def _one_row(q, k, v, first, last, factor, fused_sum, halves, lanes, acc):
    """Keys first to last for one query; leaves the sum of values in acc and returns the largest score and the sum of weights."""
    top, total, begin = LEAST, ZERO, acc.size // HALVES * HALVES if halves else 0
    acc[:] = 0
    for s in range(first, last):
        score = dot_f16(k[s], q, lanes) * factor
        fade, weight = ONE, ONE
        if score > top:
            fade = expf(top - score)
            top = score
            _faded(acc, fade, begin)
        else:
            weight = expf(score - top)
        _with(acc, v[s], weight, begin)
        total = fma(total, fade, weight) if fused_sum else total * fade + weight
    return top, total


@within
def _row(q, k, v, begin, seen, step, factor, fused_sum, halves, lanes, out):
    """One query [D] over the keys that it sees, `begin` to `seen`, in parts of `step` keys that are merged in order."""
    query, part, top, total = _halves(q), np.empty_like(out), LEAST, ZERO
    out[:] = 0
    for first in range(begin // step * step, seen, step):
        last = min(first + step, seen)
        part_top, part_total = _one_row(query, k, v, max(first, begin), last, factor, fused_sum, halves, lanes, part)
        new = max(top, part_top)
        fade, weight = expf(top - new), expf(part_top - new)
        for d in range(out.size):
            out[d] = fma(out[d], fade, part[d] * weight)
        total = fma(total, fade, part_total * weight)
        top = new
    inverse = ONE / total
    for d in range(out.size):
        out[d] *= inverse


@within
def _in_tiles(q, transposed, v, begin, seen, factor, lanes, out):
    """One query [D] over the keys that it sees, 64 at a time, in float32; transposed [D, keys], so that keys are lanes."""
    D, top, total = q.size, LEAST, ZERO
    p = np.empty(TILE, np.float32)
    out[:] = 0
    for first in range(begin // TILE * TILE, seen, TILE):
        n, highest = min(TILE, seen - first), LEAST
        hidden, scores = max(0, begin - first), splat(f32xT, 0)
        for d in range(D):
            scores = fma_lanes(splat(f32xT, q[d]), load(f32xT, transposed, 4 * (d * transposed.shape[1] + first)), scores)
        store(p, 0, scores * factor)
        p[:hidden] = LEAST
        for s in range(hidden, n):
            highest = max(highest, p[s])
        if highest > top:
            fade = expf(top - highest)
            for d in range(D):
                out[d] *= fade
            total *= fade
            top = highest
        for i in range(0, 4 * TILE, 64):
            below = load(f32x16, p, i) - top
            store(p, i, exp_of_16(below) if lanes == 16 else exp(below))
        p[n:] = 0
        total = np.float32(np.float64(total) + sum_of(p, lanes))
        for s in range(n):
            for d in range(D):
                out[d] = fma(p[s], v[first + s, d], out[d])
    inverse = ONE / total
    for d in range(D):
        out[d] *= inverse


@njit(cache=True)
def _halved(k, v, keys, values, transposed, first, last):
    """The keys and values `first` to `last`, rounded to half floats: [S, G, D] -> [G, S, D], and [G, D, cells] where wanted."""
    for s in range(first, last):
        for g in range(k.shape[1]):
            _halves_to(k[s, g], keys[g, s])
            _halves_to(v[s, g], values[g, s])
            for d in range(k.shape[2] if transposed.size else 0):
                transposed[g, d, s] = keys[g, s, d]


@njit(cache=True)
def _by_tiles(lanes, q, transposed, values, window, factor, out, first, last):
    """The units `first` to `last`, a head of a token each."""
    (T, H, _), (G, S, _) = q.shape, values.shape
    for unit in range(first, last):
        t, h = unit // H, unit % H
        g, seen = h // (H // G), S - T + t + 1
        begin = max(0, seen - window) if window else 0
        _in_tiles(q[t, h], transposed[g], values[g], begin, seen, factor, value(lanes), out[t, h])


@njit(cache=True)
def _by_rows(lanes, q, keys, values, window, factor, step, fused_sum, halves, out, first, last):
    """The same, a key at a time."""
    (T, H, _), (G, S, _) = q.shape, values.shape
    for unit in range(first, last):
        t, h = unit // H, unit % H
        g, seen = h // (H // G), S - T + t + 1
        begin = max(0, seen - window) if window else 0
        _row(q[t, h], keys[g], values[g], begin, seen, step, factor, fused_sum, halves, value(lanes), out[t, h])


@cache
def _halved_in_threads():
    return in_threads(_halved, (), CACHE, CACHE, CUBE, CUBE, CUBE)


@cache
def _flash_in_threads(kernel, lanes, *others):
    return in_threads(kernel, (lanes,), CUBE, CUBE, CUBE, NUMBER, types.float32, *others, CUBE)


def flash(q, k, v, scale, kq, kq_soft_max, window, threads, fused_sum, tiles_any_head, halves, lanes):
    """Twin of ops.ggml_attention.flash: q [T, H, D], k and v [S, G, D] -> [T, H, D], float32 all.

    kq, kq_soft_max  left alone: scores and weights are never whole
    window           how many keys a query sees at most; 0: all
    threads          of llama.cpp, which split the keys of a single token
    fused_sum, tiles_any_head  as in builds.Build
    halves           as in builds.Instructions
    lanes            of a register, 8 or 16
    """
    assert q.dtype == k.dtype == v.dtype == np.float32
    (T, H, D), (S, G, _) = q.shape, k.shape
    tiles, cells = T >= TILE and (tiles_any_head or D % lanes == 0), -(-S // PAGE) * PAGE
    step = -(-cells // threads) if T == 1 and cells >= SPLIT else cells
    out, keys, values = np.empty(q.shape, np.float32), np.empty((G, S, D), np.float32), np.empty((G, S, D), np.float32)
    transposed = np.zeros((G, D, cells if tiles else 0), np.float32)
    _halved_in_threads()(S, worth(2 * NANOSECONDS * G * D), k, v, keys, values, transposed)
    q, factor, many = np.ascontiguousarray(q), np.float32(scale), worth(2 * NANOSECONDS * S * D)
    if tiles:
        _flash_in_threads(_by_tiles, lanes)(T * H, many, q, transposed, values, window, factor, out)
    else:
        run = _flash_in_threads(_by_rows, lanes, NUMBER, types.boolean, types.boolean)
        run(T * H, many, q, keys, values, window, factor, step, fused_sum, halves, out)
    return out
