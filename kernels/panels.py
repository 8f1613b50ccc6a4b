"""A way for many tokens: a block of 16 rows is unpacked into a panel once, and a panel multiplied by a few tokens at a time.

A panel holds eight rows as lanes; 16 rows are two panels. Has all paths of paths.py.
"""

import numpy as np
from numba import njit
from numba.extending import overload

from .blocks import TYPES, as_codes, codes, delta, lower, scales, the
from .layout import COLUMNS, each_twice, in_pairs
from .paths import APART, STRETCH, added
from .simd import (
    Vec,
    bitcast,
    convert,
    dot2_i8,
    dot2_i16,
    f32,
    i16,
    load,
    load_repeated,
    load_rows,
    repeat,
    splat,
    store,
    tile,
)
from .static import for_kernels

# a panel, in bytes
SCALES = 64 * 32  # after codes [64 words][8 rows][4]
MINIMA = SCALES + 16 * 32  # after scales i16 [16 groups][8 rows][twice]
DELTA = MINIMA + 8 * 32  # after minima i16 [8 pairs of groups][8 rows][2]
LOWER = DELTA + 32
PANEL = LOWER + 32

ROWS, SCRATCH = 16, 2 * PANEL
u8x64, i16x32, f32x16 = Vec("u", 8, 64), Vec("i", 16, 32), Vec("f", 32, 16)


def together(kind):
    """Tokens that are multiplied at once: as many as registers allow."""
    return 3 if TYPES[kind].SIGNED else 4


def prepared(kind, a_codes, a_d, a_sums):
    """The tokens as `some_rows` reads them: in groups, what is read at once side by side; zeros fill the last group."""
    (T, N), count = a_d.shape, together(kind)
    groups = a_codes.reshape(T, N, -1, TYPES[kind].GROUP).sum(axis=-1, dtype=np.int16)
    sums = np.pad(groups, ((0, 0), (0, 0), (0, groups.shape[2] % 2)))
    fill = ((0, -T % count), (0, 0))
    grouped = lambda x, width: np.ascontiguousarray(
        np.pad(x, (*fill, (0, 0))).reshape(-1, count, N, x.shape[2] // width, width).transpose(2, 0, 3, 1, 4)
    )
    return grouped(a_codes, 4), np.ascontiguousarray(np.pad(a_d, fill).T), grouped(sums, 2)


@njit
def unpack(kind, rows, at, stride, panel, to):
    """A block of eight rows -> a panel at the byte `to`."""
    part_bytes = 8 * the(kind, "WEIGHTS") // the(kind, "PARTS")
    for p in range(the(kind, "PARTS")):
        store(panel, to + part_bytes * p, codes(kind, COLUMNS, rows, at, stride, p))
    scale, minimum = scales(kind, COLUMNS, rows, at, stride)
    store(panel, to + SCALES, each_twice(scale))
    store(panel, to + DELTA, delta(kind, COLUMNS, rows, at, stride))
    if the(kind, "M") >= 0:
        store(panel, to + MINIMA, in_pairs(minimum))
        store(panel, to + LOWER, lower(kind, COLUMNS, rows, at, stride))
    if the(kind, "OFFSET") > 0:
        store(panel, to + MINIMA, in_pairs(minimum) * the(kind, "OFFSET"))


@for_kernels
def multiply(kind, path, panel, tokens, n, t, totals, unders):
    """Add block n of 16 rows times the t-th few tokens: lanes [tokens][2 panels][8 rows]."""


@overload(multiply)
def _multiply(kind, path, panel, tokens, n, t, totals, unders):
    of, count, apart = TYPES[kind.value], together(kind.value), path.value in APART
    groups, words, flush, minima, offset = of.WEIGHTS // of.GROUP, of.GROUP // 4, of.FLUSH, of.M >= 0, of.OFFSET > 0
    stretch, pairs = STRETCH.get(path.value, groups), (groups + 1) // 2
    factors, i32s, f32s = Vec("f", 32, count), Vec("i", 32, 16 * count), Vec("f", 32, 16 * count)

    @njit(forceinline=True)
    def of_rows(panel, place):
        return tile(load_rows(f32x16, 2, panel, place, PANEL), count)

    @njit(forceinline=True)
    def scaled(kind, panel, q, at, first):
        """Σ scale · Σ code · code of some groups."""
        dot = splat(i32s, 0)
        for g in range(first, first + stretch):
            scale = tile(load_rows(i16x32, 2, panel, SCALES + 32 * g, PANEL), count)
            for k in range(g * words, g * words + words, flush):
                products = dot2_i8(codes_at(kind, panel, k), load_repeated(count, 16, q, at + 4 * count * k))
                for i in range(k + 1, k + flush):
                    products += dot2_i8(codes_at(kind, panel, i), load_repeated(count, 16, q, at + 4 * count * i))
                dot += dot2_i16(products, scale)
        return dot

    @njit(forceinline=True)
    def codes_at(kind, panel, word):
        return tile(as_codes(kind, load_rows(u8x64, 2, panel, 32 * word, PANEL)), count)

    @njit(forceinline=True)
    def scaled_minima(panel, sums, at, first):
        """Σ minimum · Σ code of some groups."""
        below = splat(i32s, 0)
        for p in range(first // 2, (first + stretch + 1) // 2):
            minimum = tile(load_rows(i16x32, 2, panel, MINIMA + 32 * p, PANEL), count)
            below += dot2_i16(minimum, bitcast(i16, load_repeated(count, 16, sums, at + 4 * count * p)))
        return below

    def body(kind, path, panel, tokens, n, t, totals, unders):
        q, d, sums = tokens
        place = n * q.shape[1] + t
        factor = repeat(load(factors, d, 4 * count * place), 16)
        total = load(f32s, totals, 64 * count * t)
        under = load(f32s, unders, 64 * count * t) if apart else splat(f32s, 0)
        for first in range(0, groups, stretch):
            dot, below = scaled(kind, panel, q, 4 * count * groups * words * place, first), splat(i32s, 0)
            if offset:
                dot -= scaled_minima(panel, sums, 4 * count * pairs * place, first)
            if minima:
                below = scaled_minima(panel, sums, 4 * count * pairs * place, first)
            low = of_rows(panel, LOWER) if minima else splat(f32s, 0)
            total, under = added(path, convert(f32, dot), convert(f32, below), of_rows(panel, DELTA), low, factor, total, under)
        store(totals, 64 * count * t, total)
        if apart:
            store(unders, 64 * count * t, under)

    return body


@njit
def some_rows(kind, path, rows, at, stride, tokens, scratch, result):
    """q [N, T' / count, W / 4, count, 4] int8, d [N, T'] float32, sums [N, T' / count, pairs of groups, count, 2] int16."""
    q, unders = tokens[0], np.zeros_like(result)
    result[:] = 0
    for n in range(q.shape[0]):
        block = at + the(kind, "BLOCK") * n
        unpack(kind, rows, block, stride, scratch, 0)
        unpack(kind, rows, block + 8 * stride, stride, scratch, PANEL)
        for t in range(q.shape[1]):
            multiply(kind, path, scratch, tokens, n, t, result, unders)
    result -= unders
