"""Twin of ops.attention: float32, keys and values float32 or half floats.

Keys are taken in parts of 256, each with its own maximum and sums, which are put together in order. A part starts at a multiple of
256, so what a row adds up, and in which order, depends on its position alone. Parts of one token are work for several threads; of
many tokens, few parts at a time are kept, so that memory grows with S and never with T · S.
"""

from functools import cache

import numba
import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from .exponential import exp
from .language.arithmetic import fma, halves_added, hsum, neighbours_added, repeat_every
from .language.compile_time import INLINE, Static, address, call, entry, for_kernels, within
from .language.memory import fetch_add, load, load_rows, store, store_rows
from .language.reshaping import convert, repeat, splat, tile, where_less, wide
from .language.vectors import Vec, f32, target_is

PART = 256  # keys
TOKENS = 8  # queries that one thread takes with a part, while the part is in its cache
ROOM = 256  # parts of queries that are put together at once
LANES = 16
f32xL, f16xL, NUMBER = Vec("f", 32, LANES), Vec("f", 16, LANES), Vec("f", 32, 1)
LEAST, ONE = np.float32(-np.inf), Static(1)


@for_kernels
def _floats(whole, half, rows, data, at, apart):
    """load_rows of float32, or of half floats whose bits are an array of uint16."""


@overload(_floats, jit_options=INLINE)
def _floats_of(whole, half, rows, data, at, apart):
    if data.dtype == types.uint16:
        return lambda whole, half, rows, data, at, apart: convert(f32, load_rows(half, rows, data, at, apart))
    return lambda whole, half, rows, data, at, apart: load_rows(whole, rows, data, at, apart)


@within
def _scores(R, K, q, q_at, k, k_at, apart, n, D, raw):
    """raw [R, PART]: R rows of q, one behind the other, times n keys that lie `apart` bytes apart; -inf up to whole lanes."""
    s = 0
    while s < n:
        step = apart if s + K.value <= n else 0  # the last ones are taken one by one
        total = splat(wide(wide(f32xL, K), R), 0)
        for d in range(0, 4 * D, 4 * LANES):
            keys = _floats(wide(f32xL, K), wide(f16xL, K), K, k, k_at + s * apart + d // 4 * k.itemsize, step)
            query = load_rows(wide(f32xL, R), R, q, q_at + d, 4 * D)
            total = fma(repeat_every(query, LANES, K), tile(keys, R), total)
        four = halves_added(halves_added(total, 16), 8)
        store_rows(R, raw, 4 * s, 4 * (PART + LANES), neighbours_added(neighbours_added(four)))
        s += K.value if step else 1
    for r in range(R.value):
        for i in range(n, n + LANES):
            raw[r, i] = LEAST


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


@within
def _values(R, W, raw, v, v_at, apart, n, D, sums, sums_at, sums_apart):
    """R rows of sums [D] = the weights raw [R, n] times the values."""
    for d in range(0, 4 * D, 4 * LANES * W.value):
        total = splat(wide(wide(f32xL, W), R), 0)
        for s in range(n):
            weights = load_rows(wide(NUMBER, R), R, raw, 4 * s, 4 * (PART + LANES))
            value = _floats(wide(f32xL, W), wide(f16xL, W), ONE, v, v_at + s * apart + d // 4 * v.itemsize, 0)
            total = fma(repeat(repeat(weights, LANES), W), tile(value, R), total)
        store_rows(R, sums, sums_at + d, sums_apart, total)


@within
def first_seen(seen, window):
    """Twin of ops.attention.first_seen: the first key that a query with `seen` keys attends to; window 0 is no window."""
    return max(0, seen - window) if window else 0


@njit(cache=True)
def _share(R, K, W, q, k, v, scale, start, window, kq, begin, sums, numbers, claimed):
    """One thread's work, until nothing is left: R query heads at a time of a few tokens, with one part of a key head."""
    (T, H, D), G, parts = q.shape, k.shape[1], sums.shape[2]
    blocks, some, raw = (T + TOKENS - 1) // TOKENS, H // G, np.empty((R.value, PART + LANES), np.float32)
    while True:
        unit = fetch_add(claimed, 1)
        if unit >= parts * G * blocks:
            break
        part, g, block = unit // (G * blocks), unit // blocks % G, unit % blocks
        first = part * PART
        at, apart = first * k.strides[0] + g * k.strides[1], k.strides[0]
        for t in range(block * TOKENS, min((block + 1) * TOKENS, T)):
            seen = start + t + 1
            skipped = max(first_seen(seen, window) - first, 0)
            n = min(PART, seen - first) - skipped
            for h in range(g * some, (g + 1) * some if n > 0 else 0, R.value):
                _scores(R, K, q, 4 * (t * H + h) * D, k, at + skipped * apart, apart, n, D, raw)
                for r in range(R.value if kq.size else 0):
                    for i in range(n):  # a slice would bring code for its error message, which takes seconds to compile
                        kq[h + r, begin + t, first + skipped + i] = raw[r, i]
                for r in range(R.value):
                    _weighed(raw[r], n, scale, numbers[t, h + r, part])
                to = 4 * ((t * H + h) * parts + part) * D
                _values(R, W, raw, v, at + skipped * apart, apart, n, D, sums, to, 4 * parts * D)


@njit(cache=True)
def _together(sums, numbers, low, seen, scale, out):
    """The parts of one row that sees keys low to seen, in order: out [D]; numbers[0] receives the maximum and the sum of all."""
    out[:] = 0
    top, total = LEAST, np.float32(0)
    for part in range(low // PART, (seen + PART - 1) // PART):
        new = max(top, numbers[part, 0])
        fade = exp(splat(f32xL, (top - new) * scale))[0]
        weight = exp(splat(f32xL, (numbers[part, 0] - new) * scale))[0]
        for d in range(out.size):
            out[d] = out[d] * fade + sums[part, d] * weight
        top, total = new, total * fade + numbers[part, 1] * weight
    numbers[0, 0], numbers[0, 1] = top, total
    for d in range(out.size):
        out[d] /= total


@njit(parallel=True, cache=True)
def _attention(sharing, joining, threads, q, k, v, scale, start, window, kq, begin, sums, numbers, claimed, out):
    for _ in prange(threads):
        call(sharing, (None, None, None, q, k, v, scale, start, window, kq, begin, sums, numbers, claimed))
    for unit in prange(q.shape[0] * q.shape[1]):
        t, h = divmod(np.int64(unit), q.shape[1])
        call(joining, (sums[t, h], numbers[t, h], first_seen(start + t + 1, window), start + t + 1, scale, out[t, h]))


@cache
def _compiled(R, K, W, dtype):
    """For a cache that lies in memory in any way, whose dtype has that name: the kernel, and the addresses of its two parts."""
    number, scale, cells = types.int64, types.float32, types.Array(getattr(types, dtype), 3, "A")
    _, one, two, three, four = (types.Array(types.float32, ndim, "C") for ndim in range(5))
    first = three, cells, cells, scale, number, number, three, number, four, four, types.Array(number, 1, "C")
    joining = address(_together, (), two, two, number, number, scale, one)
    return entry(_attention, (), number, number, number, *first, three), address(_share, (R, K, W), *first), joining


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
    out, threads, parts = np.empty_like(q), numba.get_num_threads(), -(-S // PART)
    step = max(1, ROOM // parts)
    for t in range(0, T, step):
        here = slice(t, min(t + step, T))
        rows, start = q[here], S - T + t
        sums, numbers = np.empty((len(rows), H, parts, D), np.float32), np.empty((len(rows), H, parts, 2), np.float32)
        claimed = np.zeros(1, np.int64)
        result = out[here]
        run, sharing, joining = _compiled(R, keys, W, k.dtype.name)
        run(sharing, joining, threads, rows, k, v, factor, start, window, kq, t, sums, numbers, claimed, result)
        for i in range(len(rows) if kq.size else 0):
            seen = slice(first_seen(start + i + 1, window), start + i + 1)
            top, total = (numbers[i, :, 0, j, None] for j in (0, 1))
            kq_soft_max[:, t + i, seen] = np.exp(factor * (kq[:, t + i, seen] - top)) / total
    return out
