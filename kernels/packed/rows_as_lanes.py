"""A way for few tokens: a register of rows at once, whose words are transposed so that rows are lanes. A block is taken apart in
registers and forgotten, once for each token. Has the paths of accumulate.py that add up a whole block."""

import numpy as np

from ..language.arithmetic import fold
from ..language.compile_time import inline, maker, within
from ..language.dots import FACTOR, dot2_i16, dots_onto, no_sums, scaled
from ..language.memory import load, load_repeated, store
from ..language.reshaping import bitcast, convert, repeat_every, splat, wide
from ..language.row_layout import REGISTER_OF_ROWS as LAYOUT
from ..language.row_layout import Block, count_of, factors, fetch_rows, in_pairs
from ..language.vectors import Vec, f32, i16
from ..types.contract import packed
from .accumulate import ADDED, FLOAT_SUMS

ROWS, STREAMS_UP_TO, TOKENS = count_of(LAYOUT), 7, 1
SCRATCH = 64 * ROWS
i32s, f32s = Vec("i", 32, ROWS), Vec("f", 32, ROWS)


def tokens_at_once(kind):
    """How many tokens are interleaved: one."""
    return 1


@maker
def sums_of_block(kind):
    """The function (block, q, sums, n, scratch) for the integer sums of one block of ROWS rows and one token.

    q, sums  of all tokens, as in rounded_tokens.py; n is the place of this token's block in them
    scratch  bytes for the scales

    It returns Σ scale · Σ code · q, and Σ minimum · Σ q: i32 lanes.
    """
    return sums_of_groups(packed(kind)) if packed(kind).groups > 1 else sums_of_one_group(packed(kind))


def sums_of_part(of):
    """Of one part of a block: Σ scale · Σ code · q; its scales are in scratch."""
    codes, size, parts = of.codes, of.block, of.parts
    words, in_part = of.weights // 4 // parts, of.groups // parts
    runs, times = words // of.flush, of.group // 4 // of.flush  # of words that are added up; of these under one scale
    of_runs, of_scales, rows_in_part, lanes = ROWS * runs, ROWS * in_part, ROWS // parts, ROWS * FACTOR.lanes

    @inline
    def of_part(block, q, n, scratch, p):
        fetch_rows(block, rows_in_part * p, rows_in_part, size)
        code = codes(block, p)
        dots = dots_onto(no_sums(of_runs), code, load_repeated(words, ROWS, q, 4 * words * (parts * n + p)), runs)
        scale = repeat_every(load(wide(FACTOR, of_scales), scratch, 4 * ROWS * in_part * p), lanes, times)
        return fold(scaled(dots, scale), ROWS)

    return of_part


def sums_of_groups(of):
    """sums_of_block of a type whose blocks have groups."""
    scales, parts, groups, pairs, offset = of.scales, of.parts, of.groups, of.groups // 2, of.offset
    of_part, below_too = sums_of_part(of), of.minima or of.offset

    @inline
    def of_block(block, q, sums, n, scratch):
        scale, minimum = scales(block)
        store(scratch, 0, factors(block, scale))
        below = splat(i32s, 0)
        if below_too:
            below = fold(dot2_i16(in_pairs(block, minimum), bitcast(i16, load_repeated(pairs, ROWS, sums, 2 * groups * n))), ROWS)
        dot = below * -offset
        dot += of_part(block, q, n, scratch, np.int64(0))
        dot += of_part(block, q, n, scratch, np.int64(1))
        if parts == 4:  # written out, so that a part's shifts are constants and what parts share is loaded once
            dot += of_part(block, q, n, scratch, np.int64(2))
            dot += of_part(block, q, n, scratch, np.int64(3))
        return dot, below

    return of_block


def sums_of_one_group(of):
    """sums_of_block of a type with one scale for 32 weights."""
    codes, four_blocks, offset, runs = of.codes, 4 * of.block, of.offset, 8 // of.flush
    of_runs = ROWS * runs

    @inline
    def of_block(block, q, sums, n, scratch):
        fetch_rows(block, 4 * (n % 4), 4, four_blocks)
        code, below = codes(block, 0), splat(i32s, sums[2 * n])
        dots = dots_onto(no_sums(of_runs), code, load_repeated(8, ROWS, q, 32 * n), runs)
        return fold(scaled(dots, splat(wide(FACTOR, of_runs), 1)), ROWS) - below * offset, below

    return of_block


@maker
def driver(kind, path):
    """The function that product.py asks of a way, for a type and a path (names)."""
    of, sums_of, added, float_sums = packed(kind), sums_of_block(kind), ADDED[path], path in FLOAT_SUMS
    size, minima, read_d, read_dmin = of.block, of.minima, of.read_d, of.read_dmin

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        q, d, sums, s = tokens
        N, T = d.shape
        for t in range(T):
            total, under = splat(f32s, 0), splat(f32s, 0)
            for n in range(N):
                block = Block(LAYOUT, rows, at + size * n, stride)
                dot, below = sums_of(block, q, sums, n * T + t, scratch)
                low = read_dmin(block) if minima else splat(f32s, 0)
                factor, lower = splat(f32s, d[n, t]), splat(f32s, s[n, t]) if float_sums else convert(f32, below)
                total, under = added(convert(f32, dot), lower, read_d(block), low, factor, total, under)
            store(result, 4 * ROWS * t, total - under)

    return some_rows
