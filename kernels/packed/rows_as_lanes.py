"""A way for few tokens: a register of rows at once, whose words are turned so that rows are lanes. A block is taken apart in
registers and forgotten, once for each token. Has the paths of accumulate.py that add up a whole block."""

import numpy as np
from numba.extending import overload

from ..language.arithmetic import fold, repeat_every
from ..language.compile_time import INLINE, for_kernels, inline
from ..language.dots import FACTOR, dot2_i16, dots_onto, no_sums, scaled
from ..language.memory import fetch, load, load_repeated, store
from ..language.reshaping import bitcast, convert, splat, wide
from ..language.row_layout import REGISTER_OF_ROWS as LAYOUT
from ..language.row_layout import count_of, factors, in_pairs
from ..language.vectors import Vec, f32, i16
from ..types.contract import TYPES, codes, delta, flush_of, lower, offset_of, scales
from .accumulate import added

ROWS, STREAMS = count_of(LAYOUT), 7
SCRATCH = 64 * ROWS
i32s, f32s = Vec("i", 32, ROWS), Vec("f", 32, ROWS)


def together(kind):
    """How many tokens are interleaved: one."""
    return 1


@for_kernels
def sums_of_block(kind, rows, at, stride, q, sums, n, scratch):
    """The integer sums of one block of ROWS rows and one token, i32 lanes: Σ scale · Σ code · q, and Σ minimum · Σ q.

    q, sums  of all tokens, as in rounded_tokens.py; n is the place of this token's block in them
    scratch  bytes for the scales
    """


@overload(sums_of_block, jit_options=INLINE)
def _sums_of_block(kind, rows, at, stride, q, sums, n, scratch):
    of, offset = TYPES[kind.value], offset_of(kind)
    parts, minima, groups = of.PARTS, of.M >= 0, of.WEIGHTS // of.GROUP
    words = of.WEIGHTS // 4 // parts  # of one part
    runs, times = words // flush_of(kind), of.GROUP // 4 // flush_of(kind)  # of words that are added up; of these under one scale
    in_part, pairs, lanes = groups // parts, groups // 2, ROWS * FACTOR.lanes
    of_runs, of_scales, size, rows_in_part = ROWS * runs, ROWS * in_part, of.BLOCK, ROWS // parts

    @inline
    def of_part(kind, rows, at, stride, q, n, scratch, p):
        for k in range(rows_in_part * p, rows_in_part * (p + 1)):
            fetch(rows, at + k * stride, size)
        code = codes(kind, LAYOUT, rows, at, stride, p)
        dots = dots_onto(no_sums(of_runs), code, load_repeated(words, ROWS, q, 4 * words * (parts * n + p)), runs)
        scale = repeat_every(load(wide(FACTOR, of_scales), scratch, 4 * ROWS * in_part * p), lanes, times)
        return fold(i32s, scaled(dots, scale))

    def with_scales(kind, rows, at, stride, q, sums, n, scratch):
        scale, minimum = scales(kind, LAYOUT, rows, at, stride)
        store(scratch, 0, factors(LAYOUT, scale))
        below = splat(i32s, 0)
        if minima or offset:
            below = fold(i32s, dot2_i16(in_pairs(LAYOUT, minimum), bitcast(i16, load_repeated(pairs, ROWS, sums, 2 * groups * n))))
        dot = below * -offset
        dot += of_part(kind, rows, at, stride, q, n, scratch, np.int64(0))
        dot += of_part(kind, rows, at, stride, q, n, scratch, np.int64(1))
        if parts == 4:  # written out, so that a part's shifts are constants and what parts share is loaded once
            dot += of_part(kind, rows, at, stride, q, n, scratch, np.int64(2))
            dot += of_part(kind, rows, at, stride, q, n, scratch, np.int64(3))
        return dot, below

    def without(kind, rows, at, stride, q, sums, n, scratch):
        for k in range(4 * (n % 4), 4 * (n % 4) + 4):
            fetch(rows, at + k * stride, 4 * size)
        code, below = codes(kind, LAYOUT, rows, at, stride, 0), splat(i32s, sums[2 * n])
        dots = dots_onto(no_sums(of_runs), code, load_repeated(8, ROWS, q, 32 * n), runs)
        return fold(i32s, scaled(dots, splat(wide(FACTOR, of_runs), 1))) - below * offset, below

    return with_scales if groups > 1 else without


def driver(kind, path):
    """The function that product.py asks of a way, for a type and a path (names)."""
    size, minima = TYPES[kind].BLOCK, TYPES[kind].M >= 0

    def body(way, kind, path, rows, at, stride, tokens, scratch, result):
        q, d, sums, _ = tokens
        N, T = d.shape
        for t in range(T):
            total, under = splat(f32s, 0), splat(f32s, 0)
            for n in range(N):
                block = at + size * n
                dot, below = sums_of_block(kind, rows, block, stride, q, sums, n * T + t, scratch)
                high = delta(kind, LAYOUT, rows, block, stride)
                low = lower(kind, LAYOUT, rows, block, stride) if minima else splat(f32s, 0)
                total, under = added(path, convert(f32, dot), convert(f32, below), high, low, splat(f32s, d[n, t]), total, under)
            store(result, 4 * ROWS * t, total - under)

    return body
