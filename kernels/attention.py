"""Twin of ops.attention: float32, keys and values float32 or half floats.

Keys are taken in spans of 256, each with its own maximum and sums, which are put together in order. A span starts at a multiple of
256, so what a row adds up, and in which order, depends on its position alone. Spans of one token are work for several threads; of
many tokens, few spans at a time are kept, so that memory grows with S and never with T · S.
"""

from functools import cache

import numpy as np
from numba import njit, types

from .exponential import exp
from .language.arithmetic import fma, halves_added, hsum, pairwise
from .language.compile_time import inline, made, maker, within
from .language.memory import load, load_rows, store, store_rows
from .language.reshaping import convert, repeat, repeat_every, splat, tile, where_less
from .language.threads import NUMBER, in_threads, worth
from .language.vectors import Vec, f32, target_is

SPAN = 256  # keys
TOKENS = 8  # queries that one thread takes with a span, while the span is in its cache
ROOM = 256  # spans of queries that are put together at once
JOINED = 32  # that are worth another thread
NANOSECONDS = 0.1  # for a query's number and a key
LANES = 16
f32xL, LEAST = Vec("f", 32, LANES), np.float32(-np.inf)


@maker
def loading(half, lanes, rows):
    """The function (data, at, stride): load_rows of `rows` rows, f32 lanes all; half floats are the bits of an array of uint16."""
    vec = Vec("f", 16 if half else 32, lanes)

    @inline
    def floats(data, at, stride):
        return convert(f32, load_rows(vec, rows, data, at, stride))

    return floats


@maker
def scoring(R, K, half):
    """The function (q, q_at, k, k_at, stride, n, D, raw) for R rows of q, one behind the other, times n keys, `stride` bytes apart.

    raw  [R, SPAN]: overwritten; -inf up to whole lanes
    """
    keys_of, query_lanes, lanes = loading(half, K * LANES, K), Vec("f", 32, R * LANES), Vec("f", 32, R * K * LANES)

    @within
    def scores(q, q_at, k, k_at, stride, n, D, raw):
        s = 0
        while s < n:
            step = stride if s + K <= n else 0  # the last ones are taken one by one
            total = splat(lanes, 0)
            for d in range(0, 4 * D, 4 * LANES):
                keys = keys_of(k, k_at + s * stride + d // 4 * k.itemsize, step)
                query = load_rows(query_lanes, R, q, q_at + d, 4 * D)
                total = fma(repeat_every(query, LANES, K), tile(keys, R), total)
            store_rows(R, raw, 4 * s, 4 * (SPAN + LANES), pairwise(halves_added(total, 16)))
            s += K if step else 1
        for r in range(R):
            for i in range(n, n + LANES):
                raw[r, i] = LEAST

    return scores


@within
def _weighed(raw, n, scale, numbers):
    """One row of scores becomes e^(scale · (score - maximum)); numbers receives the maximum and the sum."""
    top = splat(f32xL, LEAST)
    for i in range(0, 4 * n, 4 * LANES):
        x = load(f32xL, raw, i)
        top = where_less(top, x, x, top)
    highest = top[0]
    for i in range(1, LANES):
        highest = max(highest, top[i])
    total = splat(f32xL, 0)
    for i in range(0, 4 * n, 4 * LANES):
        p = exp((load(f32xL, raw, i) - highest) * scale)
        store(raw, i, p)
        total = total + p
    numbers[0], numbers[1] = highest, hsum(total)


@maker
def summing(R, W, half):
    """The function (raw, v, v_at, stride, n, D, sums, sums_at, sums_stride): R rows of sums [D] = weights raw [R, n] · values."""
    value_of, rows, lanes = loading(half, W * LANES, 1), Vec("f", 32, R), Vec("f", 32, R * W * LANES)

    @within
    def values(raw, v, v_at, stride, n, D, sums, sums_at, sums_stride):
        for d in range(0, 4 * D, 4 * LANES * W):
            total = splat(lanes, 0)
            for s in range(n):
                weights = load_rows(rows, R, raw, 4 * s, 4 * (SPAN + LANES))
                value = value_of(v, v_at + s * stride + d // 4 * v.itemsize, 0)
                total = fma(repeat(repeat(weights, LANES), W), tile(value, R), total)
            store_rows(R, sums, sums_at + d, sums_stride, total)

    return values


def first_seen(seen, window):
    """Twin of ops.attention.first_seen: the first key that a query with `seen` keys attends to; window 0 is no window."""
    return max(0, seen - window) if window else 0


_first_seen = within(first_seen)


@maker
def spans_of_heads(R, K, W, half):
    """The function (span, g, tokens, given, sums, numbers, raw) for one span of key head g and the queries of some tokens.

    tokens         the first, and the one after the last
    given          as in `_units`
    sums, numbers  [T, H, spans, D] and [T, H, spans, 2]: of each span its sums, its maximum, and the sum of its weights
    """
    scores, values = scoring(R, K, half), summing(R, W, half)

    @within
    def of_span(span, g, tokens, given, sums, numbers):
        q, k, v, scale, start, window, kq, begin = given
        (_, H, D), some, spans, first = q.shape, q.shape[1] // k.shape[1], sums.shape[2], span * SPAN
        raw = np.empty((R, SPAN + LANES), np.float32)
        at, stride = first * k.strides[0] + g * k.strides[1], k.strides[0]
        for t in range(tokens[0], tokens[1]):
            seen = start + t + 1
            skipped = max(_first_seen(seen, window) - first, 0)
            n = min(SPAN, seen - first) - skipped
            for h in range(g * some, (g + 1) * some if n > 0 else 0, R):
                scores(q, 4 * (t * H + h) * D, k, at + skipped * stride, stride, n, D, raw)
                for r in range(R if kq.size else 0):
                    for i in range(n):  # a slice would bring code for its error message, which takes seconds to compile
                        kq[h + r, begin + t, first + skipped + i] = raw[r, i]
                for r in range(R):
                    _weighed(raw[r], n, scale, numbers[t, h + r, span])
                to = 4 * ((t * H + h) * spans + span) * D
                values(raw, v, at + skipped * stride, stride, n, D, sums, to, 4 * spans * D)

    return of_span


span_of_heads = made(spans_of_heads)


@njit(cache=True)
def _units(R, K, W, half, given, sums, numbers, first, last):
    """The units `first` to `last`: R query heads at a time of a few tokens, with one span of a key head.

    given  q, k, v, the factor of scores, the keys before the first token, the window, kq, and the first token's place in kq
    """
    (T, _, _), G, blocks = given[0].shape, given[1].shape[1], (len(given[0]) + TOKENS - 1) // TOKENS
    of_span = span_of_heads(R, K, W, half)
    for unit in range(first, last):
        span, g, block = unit // (G * blocks), unit // blocks % G, unit % blocks
        of_span(span, g, (block * TOKENS, min((block + 1) * TOKENS, T)), given, sums, numbers)


@within
def _together(sums, numbers, low, seen, scale, out):
    """The spans of one row that sees keys low to seen, in order: out [D]; numbers[0] receives the maximum and the sum of all."""
    out[:] = 0
    top, total = LEAST, np.float32(0)
    for span in range(low // SPAN, (seen + SPAN - 1) // SPAN):
        new = max(top, numbers[span, 0])
        fade = exp(splat(f32xL, (top - new) * scale))[0]
        weight = exp(splat(f32xL, (numbers[span, 0] - new) * scale))[0]
        for d in range(out.size):
            out[d] = out[d] * fade + sums[span, d] * weight
        top, total = new, total * fade + numbers[span, 1] * weight
    numbers[0, 0], numbers[0, 1] = top, total
    for d in range(out.size):
        out[d] /= total


@njit(cache=True)
def _rows(start, window, scale, sums, numbers, out, first, last):
    """Put the spans of the rows `first` to `last` together, [token, head] in one: out [T, H, D]."""
    H = out.shape[1]
    for row in range(first, last):
        t, h = row // H, row % H
        _together(sums[t, h], numbers[t, h], _first_seen(start + t + 1, window), start + t + 1, scale, out[t, h])


@cache
def _compiled(R, K, W, dtype):
    """The two steps, for a cache that lies in memory in any way, whose dtype has that name."""
    scale, cells = types.float32, types.Array(getattr(types, dtype), 3, "A")
    three, four = (types.Array(types.float32, ndim, "C") for ndim in (3, 4))
    given = types.Tuple([three, cells, cells, scale, NUMBER, NUMBER, three, NUMBER])
    joining = in_threads(_rows, (), NUMBER, NUMBER, scale, four, four, three)
    return in_threads(_units, (R, K, W, dtype == "uint16"), given, four, four), joining


def attention(q, k, v, scale, kq, kq_soft_max, window):
    """Twin of ops.attention.attention, in float32.

    q      [T, H, D]
    k, v   [S, G, D]      float32, or half floats; same strides for both, the numbers of a head contiguous
    scale  a factor of all scores
    kq, kq_soft_max  [H, T, S] float32: overwritten with scores and weights; empty if they are not wanted
    window  how many keys a query sees at most; 0: all

    Returns [T, H, D] float32.
    """
    (T, H, D), (S, G, _), factor = q.shape, k.shape, np.float32(scale)
    if D % LANES:  # zeros behind a head change no sum
        wider = [np.pad(x, ((0, 0), (0, 0), (0, -D % LANES))) for x in (q, k, v)]
        return np.ascontiguousarray(attention(*wider, scale, kq, kq_soft_max, window)[:, :, :D])
    assert kq.dtype == np.float32
    assert kq.flags.c_contiguous
    q = np.ascontiguousarray(q, np.float32)
    if k.dtype == np.float16:
        k, v = k.view(np.uint16), v.view(np.uint16)
    most, keys = (4, 4) if target_is("avx512f") else (2, 2)
    R = next(n for n in (4, 2, 1) if n <= most and H // G % n == 0)
    W = next(n for n in (most, 2, 1) if D % (LANES * n) == 0)
    out, spans, (run, join) = np.empty_like(q), -(-S // SPAN), _compiled(R, keys, W, k.dtype.name)
    step = max(1, ROOM // spans)
    for t in range(0, T, step):
        here = slice(t, min(t + step, T))
        rows, start = q[here], S - T + t
        sums, numbers = np.empty((len(rows), H, spans, D), np.float32), np.empty((len(rows), H, spans, 2), np.float32)
        many = worth(NANOSECONDS * min(len(rows), TOKENS) * (H // G) * min(S, SPAN) * D)
        run(spans * G * -(-len(rows) // TOKENS), many, (rows, k, v, factor, start, window, kq, t), sums, numbers)
        join(len(rows) * H, max(1, JOINED // spans), start, window, factor, sums, numbers, out[here])
        for i in range(len(rows) if kq.size else 0):
            seen = slice(first_seen(start + i + 1, window), start + i + 1)
            top, total = (numbers[i, :, 0, j, None] for j in (0, 1))
            kq_soft_max[:, t + i, seen] = np.exp(factor * (kq[:, t + i, seen] - top)) / total
    return out
