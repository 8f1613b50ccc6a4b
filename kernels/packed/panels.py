"""A way for many tokens: a block of 16 rows is unpacked into a panel once, and a panel multiplied by a few tokens at a time.

A panel holds rows as lanes. Has all paths of accumulate.py.
"""

import numpy as np
from numba.extending import overload

from ..language.compile_time import WITHIN, for_kernels, inline
from ..language.dots import FACTOR, dot2_i16, dots_onto, no_sums, scaled
from ..language.memory import load, load_repeated, store
from ..language.reshaping import bitcast, convert, repeat, splat, tile, wide
from ..language.row_layout import SIXTEEN_ROWS as LAYOUT
from ..language.row_layout import count_of, factors, in_pairs
from ..language.vectors import DOT4, Vec, f32, i16
from ..types.contract import TYPES, as_codes, codes, delta, flush_of, lower, offset_of, scales
from .accumulate import APART, STRETCH, added

ROWS, STREAMS = count_of(LAYOUT), 0
u8x4, i16x2 = Vec("u", 8, 4), Vec("i", 16, 2)
WORD = 4 * ROWS  # bytes of 4 codes of each row; also of a float, of a scale

# a panel, in bytes
SCALES = 64 * WORD  # after codes [64 words][16 rows][4]
MINIMA = SCALES + 16 * WORD  # after scales [16 groups][16 rows]
DELTA = MINIMA + 8 * WORD  # after minima i16 [8 pairs of groups][16 rows][2]
LOWER = DELTA + WORD
SCRATCH = LOWER + WORD


def together(kind):
    """How many tokens are interleaved: as many as registers allow. A power of two: LLVM shuffles lanes for other numbers."""
    return 8 if DOT4 else 2 if TYPES[kind].SIGNED else 4


@for_kernels
def unpack(kind, rows, at, stride, panel):
    """Fill the panel with one block of each of 16 rows: codes, scales and minima, as they are multiplied."""


@overload(unpack, jit_options=WITHIN)
def _unpack(kind, rows, at, stride, panel):
    of, offset, minima = TYPES[kind.value], offset_of(kind), TYPES[kind.value].M >= 0
    parts, part_bytes, groups = of.PARTS, of.WEIGHTS // of.PARTS * ROWS, of.WEIGHTS // of.GROUP

    def body(kind, rows, at, stride, panel):
        for p in range(parts):
            store(panel, part_bytes * p, codes(kind, LAYOUT, rows, at, stride, p))
        scale, minimum = scales(kind, LAYOUT, rows, at, stride)
        if groups > 1:
            store(panel, SCALES, factors(LAYOUT, scale))
        store(panel, DELTA, delta(kind, LAYOUT, rows, at, stride))
        if minima:
            store(panel, MINIMA, in_pairs(LAYOUT, minimum))
            store(panel, LOWER, lower(kind, LAYOUT, rows, at, stride))
        if offset:
            store(panel, MINIMA, in_pairs(LAYOUT, minimum) * offset)

    return body


@for_kernels
def multiply(kind, path, panel, tokens, n, t, totals, unders):
    """Add the products of block n of 16 rows with the t-th group of tokens to totals and unders, f32 lanes [tokens][16 rows]."""


@overload(multiply, jit_options=WITHIN)
def _multiply(kind, path, panel, tokens, n, t, totals, unders):
    of, count, apart, offset = TYPES[kind.value], together(kind.value), path.value in APART, offset_of(kind)
    groups, words, flush, minima = of.WEIGHTS // of.GROUP, of.GROUP // 4, flush_of(kind), of.M >= 0
    stretch, pairs, lanes = STRETCH.get(path.value, groups), (groups + 1) // 2, ROWS * count
    deltas, i32s, f32s = Vec("f", 32, count), Vec("i", 32, ROWS * count), Vec("f", 32, ROWS * count)

    @inline
    def of_rows(vec, panel, place):
        return tile(load(wide(vec, ROWS), panel, place), count)

    @inline
    def products(kind, panel, q, at, first):
        """Σ scale · Σ code · code of some groups."""
        dot = splat(i32s, 0)
        for g in range(first, first + stretch):
            scale = of_rows(FACTOR, panel, SCALES + WORD * g) if groups > 1 else splat(wide(FACTOR, lanes), 1)
            for k in range(g * words, g * words + words, flush):
                dots = no_sums(lanes)
                for i in range(k, k + flush):
                    code = as_codes(kind, of_rows(u8x4, panel, WORD * i))
                    dots = dots_onto(dots, code, load_repeated(count, ROWS, q, at + 4 * count * i), 1)
                dot += scaled(dots, scale)
        return dot

    @inline
    def scaled_minima(panel, sums, at, first):
        """Σ minimum · Σ code of some groups."""
        below = splat(i32s, 0)
        for p in range(first // 2, (first + stretch + 1) // 2):
            minimum = of_rows(i16x2, panel, MINIMA + WORD * p)
            below += dot2_i16(minimum, bitcast(i16, load_repeated(count, ROWS, sums, at + 4 * count * p)))
        return below

    def body(kind, path, panel, tokens, n, t, totals, unders):
        q, d, sums, _ = tokens
        place = n * (d.shape[1] // count) + t
        factor = repeat(load(deltas, d, 4 * count * place), ROWS)
        total = load(f32s, totals, WORD * count * t)
        under = load(f32s, unders, WORD * count * t) if apart else splat(f32s, 0)
        for first in range(0, groups, stretch):
            dot, below = products(kind, panel, q, 4 * count * groups * words * place, first), splat(i32s, 0)
            if offset:
                dot -= scaled_minima(panel, sums, 4 * count * pairs * place, first)
            if minima:
                below = scaled_minima(panel, sums, 4 * count * pairs * place, first)
            low = of_rows(f32, panel, LOWER) if minima else splat(f32s, 0)
            high = of_rows(f32, panel, DELTA)
            total, under = added(path, convert(f32, dot), convert(f32, below), high, low, factor, total, under)
        store(totals, WORD * count * t, total)
        if apart:
            store(unders, WORD * count * t, under)

    return body


def driver(kind, path):
    """The function that product.py asks of a way, for a type and a path (names)."""
    count, block = together(kind), TYPES[kind].BLOCK

    def body(way, kind, path, rows, at, stride, tokens, scratch, result):
        unders = np.zeros_like(result)
        result[:] = 0
        for n in range(tokens[1].shape[0]):
            unpack(kind, rows, at + block * n, stride, scratch)
            for t in range(tokens[1].shape[1] // count):
                multiply(kind, path, scratch, tokens, n, t, result, unders)
        result -= unders

    return body
