"""A way for many tokens: a block of 16 rows is unpacked into a panel once, and a panel multiplied by a few tokens at a time.

A panel holds rows as lanes. Has all paths of accumulate.py.
"""

import numpy as np

from ..language.compile_time import inline, maker, within
from ..language.dots import FACTOR, dot2_i16, dots_onto, no_sums, scaled
from ..language.memory import load, load_repeated, store
from ..language.reshaping import bitcast, convert, repeat, splat, tile, wide
from ..language.row_layout import SIXTEEN_ROWS as LAYOUT
from ..language.row_layout import Block, count_of, factors, in_pairs
from ..language.vectors import DOT4, Vec, f32, i16
from ..types.contract import TYPES, packed
from .accumulate import ADDED, FLOAT_SUMS, GROUPS_AT_ONCE, MINIMA_ALONE

ROWS, STREAMS_UP_TO, TOKENS = count_of(LAYOUT), 0, 1
u8x4, i16x2 = Vec("u", 8, 4), Vec("i", 16, 2)
WORD = 4 * ROWS  # bytes of 4 codes of each row; also of a float, of a scale

# a panel, in bytes
SCALES = 64 * WORD  # after codes [64 words][16 rows][4]
MINIMA = SCALES + 16 * WORD  # after scales [16 groups][16 rows]
DELTA = MINIMA + 8 * WORD  # after minima i16 [8 pairs of groups][16 rows][2]
LOWER = DELTA + WORD
SCRATCH = LOWER + WORD


def tokens_at_once(kind):
    """How many tokens are interleaved: as many as registers allow. A power of two: LLVM shuffles lanes for other numbers."""
    return 8 if DOT4 else 2 if TYPES[kind].SIGNED else 4


@maker
def unpacking(kind):
    """The function (block, panel) that fills a panel with one block of each of 16 rows, as it is multiplied."""
    of = packed(kind)
    codes, scales, read_d, read_dmin = of.codes, of.scales, of.read_d, of.read_dmin
    parts, part_bytes, groups, minima, offset = of.parts, of.weights // of.parts * ROWS, of.groups, of.minima, of.offset

    @within
    def unpack(block, panel):
        for p in range(parts):
            store(panel, part_bytes * p, codes(block, p))
        scale, minimum = scales(block)
        if groups > 1:
            store(panel, SCALES, factors(block, scale))
        store(panel, DELTA, read_d(block))
        if minima:
            store(panel, MINIMA, in_pairs(block, minimum))
            store(panel, LOWER, read_dmin(block))
        if offset:
            store(panel, MINIMA, in_pairs(block, minimum) * offset)

    return unpack


@maker
def sums_of_groups(kind, groups_at_once):
    """Two functions of (panel, numbers of tokens, the byte in them, the first group): what `groups_at_once` groups add up to.

    The first gives Σ scale · Σ code · q, from the tokens' codes; the second Σ minimum · Σ q, from the sums of codes.
    """
    of, count = packed(kind), tokens_at_once(kind)
    groups, words, flush, code = of.groups, of.group // 4, of.flush, of.code
    lanes, i32s = ROWS * count, Vec("i", 32, ROWS * count)

    @inline
    def of_rows(vec, panel, place):
        return tile(load(wide(vec, ROWS), panel, place), count)

    @inline
    def products(panel, q, at, first):
        dot = splat(i32s, 0)
        for g in range(first, first + groups_at_once):
            scale = of_rows(FACTOR, panel, SCALES + WORD * g) if groups > 1 else splat(wide(FACTOR, lanes), 1)
            for k in range(g * words, g * words + words, flush):
                dots = no_sums(lanes)
                for i in range(k, k + flush):
                    codes = bitcast(code, of_rows(u8x4, panel, WORD * i))
                    dots = dots_onto(dots, codes, load_repeated(count, ROWS, q, at + 4 * count * i), 1)
                dot += scaled(dots, scale)
        return dot

    @inline
    def scaled_minima(panel, sums, at, first):
        below = splat(i32s, 0)
        for p in range(first // 2, (first + groups_at_once + 1) // 2):
            minimum = of_rows(i16x2, panel, MINIMA + WORD * p)
            below += dot2_i16(minimum, bitcast(i16, load_repeated(count, ROWS, sums, at + 4 * count * p)))
        return below

    return products, scaled_minima


@maker
def multiplying(kind, path):
    """The function (panel, tokens, n, t, totals, unders) that adds the products of block n of 16 rows with group t of tokens.

    It adds to totals and unders, f32 lanes [tokens][16 rows].
    """
    of, count, added, alone = packed(kind), tokens_at_once(kind), ADDED[path], path in MINIMA_ALONE
    groups, words, minima, offset, groups_at_once = (
        of.groups,
        of.group // 4,
        of.minima,
        of.offset,
        GROUPS_AT_ONCE.get(path, of.groups),
    )
    products, scaled_minima = sums_of_groups(kind, groups_at_once)
    float_sums = path in FLOAT_SUMS
    pairs, deltas, i32s, f32s = (groups + 1) // 2, Vec("f", 32, count), Vec("i", 32, ROWS * count), Vec("f", 32, ROWS * count)

    @within
    def multiply(panel, tokens, n, t, totals, unders):
        q, d, sums, s = tokens
        place = n * (d.shape[1] // count) + t
        factor = repeat(load(deltas, d, 4 * count * place), ROWS)
        total = load(f32s, totals, WORD * count * t)
        under = load(f32s, unders, WORD * count * t) if alone else splat(f32s, 0)
        for first in range(0, groups, groups_at_once):
            dot, below = products(panel, q, 4 * count * groups * words * place, first), splat(i32s, 0)
            if offset:
                dot -= scaled_minima(panel, sums, 4 * count * pairs * place, first)
            if minima:
                below = scaled_minima(panel, sums, 4 * count * pairs * place, first)
            low = tile(load(wide(f32, ROWS), panel, LOWER), count) if minima else splat(f32s, 0)
            high = tile(load(wide(f32, ROWS), panel, DELTA), count)
            lower = repeat(load(deltas, s, 4 * count * place), ROWS) if float_sums else convert(f32, below)
            total, under = added(convert(f32, dot), lower, high, low, factor, total, under)
        store(totals, WORD * count * t, total)
        if alone:
            store(unders, WORD * count * t, under)

    return multiply


@maker
def driver(kind, path):
    """The function that product.py asks of a way, for a type and a path (names)."""
    count, size, unpack, multiply = tokens_at_once(kind), TYPES[kind].BLOCK, unpacking(kind), multiplying(kind, path)

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        unders = np.zeros_like(result)
        result[:] = 0
        for n in range(tokens[1].shape[0]):
            unpack(Block(LAYOUT, rows, at + size * n, stride), scratch)
            for t in range(tokens[1].shape[1] // count):
                multiply(scratch, tokens, n, t, result, unders)
        result -= unders

    return some_rows
