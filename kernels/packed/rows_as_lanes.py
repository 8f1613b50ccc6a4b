"""A way for one token: a register of rows at once, whose words are transposed so that rows are lanes. A block is taken apart in
registers, multiplied, and forgotten. Has the paths of accumulate.py that add up a whole block.

`pairs_as_lanes.py` multiplies a block by two tokens before it is forgotten.
"""

import numpy as np

from ..language.arithmetic import fold
from ..language.compile_time import inline, maker, within
from ..language.dots import FACTOR, dot2_i16, dots_onto, no_sums, scaled
from ..language.memory import load, load_repeated, store
from ..language.reshaping import bitcast, concat, convert, repeat, repeat_every, splat, tile, wide
from ..language.row_layout import REGISTER_OF_ROWS as LAYOUT
from ..language.row_layout import Block, count_of, factors, fetch_rows, in_pairs
from ..language.vectors import Vec, f32, i16
from ..types.contract import packed
from .accumulate import ADDED, FLOAT_SUMS

ROWS, STREAMS_UP_TO, TOKENS = count_of(LAYOUT), 7, 1
SCRATCH = 64 * ROWS
i32s = Vec("i", 32, ROWS)


def tokens_at_once(kind):
    """How many tokens are interleaved: one."""
    return 1


@maker
def sums_of_block(kind, count):
    """The function (block, q, sums, n, scratch) for the integer sums of one block of ROWS rows and `count` tokens.

    q, sums  of all tokens, as in rounded_tokens.py; n is the place of the first token's block in them, and the others follow
    scratch  bytes for the scales

    It returns Σ scale · Σ code · q, and Σ minimum · Σ q: i32 lanes [count][ROWS].
    """
    of = packed(kind)
    return sums_of_groups(of, count) if of.groups > 1 else sums_of_one_group(of, count)


def for_each(count, of_token):
    """The function for the lanes of one token, or of two one after the other: of_token(k, *given) for each number k."""

    def of_one(*given):
        return of_token(np.int64(0), *given)

    def of_two(*given):
        return concat(of_token(np.int64(0), *given), of_token(np.int64(1), *given))

    both = of_one if count == 1 else of_two
    both.__qualname__ += of_token.py_func.__name__  # a maker may use several
    return inline(both)


def sums_of_part(of, count):
    """Of one part of a block: Σ scale · Σ code · q; its scales are in scratch."""
    codes, size, parts = of.codes, of.block, of.parts
    words, in_part = of.weights // 4 // parts, of.groups // parts
    runs, times = words // of.flush, of.group // 4 // of.flush  # of words that are added up; of these under one scale
    of_runs, of_scales, rows_in_part, lanes = ROWS * runs, ROWS * in_part, ROWS // parts, ROWS * FACTOR.lanes

    @inline
    def of_token(k, code, scale, q, n, p):
        dots = dots_onto(no_sums(of_runs), code, load_repeated(words, ROWS, q, 4 * words * (parts * (n + k) + p)), runs)
        return fold(scaled(dots, scale), ROWS)

    of_tokens = for_each(count, of_token)

    @inline
    def of_part(block, q, n, scratch, p):
        fetch_rows(block, rows_in_part * p, rows_in_part, size)
        scale = repeat_every(load(wide(FACTOR, of_scales), scratch, 4 * ROWS * in_part * p), lanes, times)
        return of_tokens(codes(block, p), scale, q, n, p)

    return of_part


def sums_of_groups(of, count):
    """sums_of_block of a type whose blocks have groups."""
    scales, parts, groups, pairs, offset = of.scales, of.parts, of.groups, of.groups // 2, of.offset
    of_part, below_too, lanes = sums_of_part(of, count), of.minima or of.offset, Vec("i", 32, ROWS * count)

    @inline
    def below_of_token(k, minimum, sums, n):
        return fold(dot2_i16(minimum, bitcast(i16, load_repeated(pairs, ROWS, sums, 2 * groups * (n + k)))), ROWS)

    below_of = for_each(count, below_of_token)

    @inline
    def of_block(block, q, sums, n, scratch):
        scale, minimum = scales(block)
        store(scratch, 0, factors(block, scale))
        below = splat(lanes, 0)
        if below_too:
            below = below_of(in_pairs(block, minimum), sums, n)
        dot = below * -offset
        dot += of_part(block, q, n, scratch, np.int64(0))
        dot += of_part(block, q, n, scratch, np.int64(1))
        if parts == 4:  # written out, so that a part's shifts are constants and what parts share is loaded once
            dot += of_part(block, q, n, scratch, np.int64(2))
            dot += of_part(block, q, n, scratch, np.int64(3))
        return dot, below

    return of_block


def sums_of_one_group(of, count):
    """sums_of_block of a type with one scale for 32 weights."""
    codes, four_blocks, offset, runs = of.codes, 4 * of.block, of.offset, 8 // of.flush
    of_runs = ROWS * runs

    @inline
    def of_token(k, code, q, n):
        dots = dots_onto(no_sums(of_runs), code, load_repeated(8, ROWS, q, 32 * (n + k)), runs)
        return fold(scaled(dots, splat(wide(FACTOR, of_runs), 1)), ROWS)

    @inline
    def below_of_token(k, sums, n):
        return splat(i32s, sums[2 * (n + k)])

    of_tokens, below_of = for_each(count, of_token), for_each(count, below_of_token)

    @inline
    def of_block(block, q, sums, n, scratch):
        fetch_rows(block, 4 * (n % 4), 4, four_blocks)
        below = below_of(sums, n)
        return of_tokens(codes(block, 0), q, n) - below * offset, below

    return of_block


@maker
def of_tokens(kind, path, count):
    """The driver for `count` tokens at a time, one or two."""
    of, sums_of, added, float_sums = packed(kind), sums_of_block(kind, count), ADDED[path], path in FLOAT_SUMS
    size, minima, read_d, read_dmin = of.block, of.minima, of.read_d, of.read_dmin
    deltas, f32s = Vec("f", 32, count), Vec("f", 32, ROWS * count)

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        q, d, sums, s = tokens
        N, T = d.shape
        for t in range(0, T, count):
            total, under = splat(f32s, 0), splat(f32s, 0)
            for n in range(N):
                block = Block(LAYOUT, rows, at + size * n, stride)
                dot, below = sums_of(block, q, sums, n * T + t, scratch)
                high = tile(read_d(block), count)
                low = tile(read_dmin(block), count) if minima else splat(f32s, 0)
                place = 4 * (n * T + t)
                factor, lower = repeat(load(deltas, d, place), ROWS), convert(f32, below)
                if float_sums:
                    lower = repeat(load(deltas, s, place), ROWS)
                total, under = added(convert(f32, dot), lower, high, low, factor, total, under)
            store(result, 4 * ROWS * t, total - under)

    return some_rows


@maker
def driver(kind, path):
    """The function that product.py asks of a way, for a type and a path (names)."""
    return of_tokens(kind, path, 1)
