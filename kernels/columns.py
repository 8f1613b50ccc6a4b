"""A way for few tokens: eight rows at once, whose words are turned so that rows are lanes. A block is taken apart in registers
and forgotten, once for each token. Has the paths of paths.py that add up a whole block."""

import numpy as np
from numba import njit
from numba.extending import overload

from .blocks import TYPES, codes, delta, lower, scales, the
from .layout import COLUMNS, each_twice, in_pairs
from .paths import added
from .simd import (
    Vec,
    bitcast,
    convert,
    dot2_i8,
    dot2_i16,
    f32,
    fold,
    fold_every,
    i16,
    load,
    load_repeated,
    repeat_every,
    splat,
    store,
    wide,
)
from .static import for_kernels

ROWS, SCRATCH = 8, 512
i16x16, i32x8, f32x8 = Vec("i", 16, 16), Vec("i", 32, 8), Vec("f", 32, 8)


def prepared(kind, a_codes, a_d, a_sums):
    """The tokens as `some_rows` reads them."""
    groups = a_codes.reshape(len(a_d), -1, TYPES[kind].GROUP)
    return a_codes.reshape(len(a_d), -1), a_d, groups.sum(axis=-1, dtype=np.int16).reshape(-1)


@for_kernels
def sums_of_block(kind, rows, at, stride, q, sums, n, scratch):
    """Of eight rows and block n of all tokens' blocks: Σ scale · Σ code · code, and Σ minimum · Σ code, two i32x8."""


@overload(sums_of_block, jit_options={"forceinline": True})
def _sums_of_block(kind, rows, at, stride, q, sums, n, scratch):
    of = TYPES[kind.value]
    parts, flush, offset, minima, groups = of.PARTS, of.FLUSH, of.OFFSET, of.M >= 0, of.WEIGHTS // of.GROUP
    words, twice = of.WEIGHTS // 4 // parts, of.GROUP // 4 // of.FLUSH  # of one part; registers under one scale
    registers, pairs = groups // parts, groups // 2

    @njit(forceinline=True)
    def of_part(kind, rows, at, stride, q, n, scratch, p):
        code = codes(kind, COLUMNS, rows, at, stride, p)
        products = dot2_i8(code, load_repeated(words, 8, q, 4 * words * (parts * n + p)))
        scale = repeat_every(load(wide(i16x16, registers), scratch, 32 * registers * p), 16, twice)
        return fold(i32x8, dot2_i16(fold_every(products, 16, flush), scale))

    def with_scales(kind, rows, at, stride, q, sums, n, scratch):
        scale, minimum = scales(kind, COLUMNS, rows, at, stride)
        store(scratch, 0, each_twice(scale))
        below = splat(i32x8, 0)
        if minima or offset:
            below = fold(i32x8, dot2_i16(in_pairs(minimum), bitcast(i16, load_repeated(pairs, 8, sums, 2 * groups * n))))
        dot = below * -offset
        dot += of_part(kind, rows, at, stride, q, n, scratch, 0)
        dot += of_part(kind, rows, at, stride, q, n, scratch, 1)
        if parts == 4:  # written out, so that a part's shifts are constants and what parts share is loaded once
            dot += of_part(kind, rows, at, stride, q, n, scratch, 2)
            dot += of_part(kind, rows, at, stride, q, n, scratch, 3)
        return dot, below

    def without(kind, rows, at, stride, q, sums, n, scratch):
        products = dot2_i8(codes(kind, COLUMNS, rows, at, stride, 0), load_repeated(8, 8, q, 32 * n))
        products = fold_every(products, 16, flush)
        below = splat(i32x8, sums[n])
        return fold(i32x8, dot2_i16(products, splat(wide(i16x16, twice), 1))) - below * offset, below

    return with_scales if groups > 1 else without


@njit
def some_rows(kind, path, rows, at, stride, tokens, scratch, result):
    """q [T, I] int8, d [T, N] float32, sums [T · N · groups] int16 of the codes under one scale."""
    q, d, sums = tokens
    for t in range(len(d)):
        total, under = splat(f32x8, 0), splat(f32x8, 0)
        for n in range(d.shape[1]):
            block = at + the(kind, "BLOCK") * n
            dot, below = sums_of_block(kind, rows, block, stride, q, sums, t * d.shape[1] + n, scratch)
            high = delta(kind, COLUMNS, rows, block, stride)
            low = lower(kind, COLUMNS, rows, block, stride) if the(kind, "M") >= 0 else splat(f32x8, 0)
            total, under = added(path, convert(f32, dot), convert(f32, below), high, low, splat(f32x8, d[t, n]), total, under)
        store(result, 32 * t, total - under)
