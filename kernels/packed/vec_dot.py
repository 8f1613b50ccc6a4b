"""A way in the order of llama.cpp's vec_dot functions: eight running numbers along each row, for four rows at once.

Twins: the functions of ops.ggml_product of the names of the paths.
"""

import numpy as np
from numba.extending import overload

from ..language.arithmetic import fma, fold, hsums
from ..language.compile_time import INLINE, for_kernels, inline
from ..language.dots import dot2_i8, dot2_i16, dot2_u8i8, dots_onto, no_sums
from ..language.memory import fetch, load, load_repeated, store
from ..language.reshaping import bitcast, concat, convert, repeat, splat, tile
from ..language.row_layout import FOUR_ROWS, ROW
from ..language.vectors import DOT4, Vec, f32, i16
from ..types.contract import TYPES, codes, delta, lower, numbers, offset_of, scales

ROWS, STREAMS, SCRATCH = 4, 7, 256
u8x32, i8x32, i16x64, i32x8 = Vec("u", 8, 32), Vec("i", 8, 32), Vec("i", 16, 64), Vec("i", 32, 8)
f32x4, f32x32 = Vec("f", 32, 4), Vec("f", 32, 32)


def together(kind):
    """How many tokens are interleaved: one."""
    return 1


@for_kernels
def pairs(kind, code, q):
    """Sums of two neighbouring products, i16 lanes: (codes minus offset) times the i8 lanes q."""


@overload(pairs, jit_options=INLINE)
def _pairs(kind, code, q):
    if TYPES[kind.value].SIGNED:
        return lambda kind, code, q: dot2_i8(numbers(kind, code), q)
    if offset := TYPES[kind.value].OFFSET:  # of four rows the same, so it is computed once
        return lambda kind, code, q: dot2_u8i8(code, q) - dot2_u8i8(splat(code, offset), q)
    return lambda kind, code, q: dot2_u8i8(code, q)


@for_kernels
def fours(kind, code, q):
    """Sums of four neighbouring products, i32 lanes: (codes minus offset) [4 rows][32] times the i8 lanes q [32]."""


@overload(fours, jit_options=INLINE)
def _fours(kind, code, q):
    offset = offset_of(kind)

    def exactly(kind, code, q):
        below = dots_onto(no_sums(8), splat(u8x32, offset), q, 1) * -1
        return dots_onto(tile(below, 4), code, tile(q, 4), 1)

    def from_pairs(kind, code, q):
        return dot2_i16(pairs(kind, code, tile(q, 4)), splat(i16x64, 1))

    return exactly if DOT4 else from_pairs


# ---- types of 32 weights a block: lanes [4 rows][8]


@inline
def _dots(kind, rows, at, stride, q, n):
    """Of four rows' block and block n of all tokens' blocks the sums of four neighbours' products."""
    return fours(kind, codes(kind, FOUR_ROWS, rows, at, stride, 0), load(i8x32, q, 32 * n))


@inline
def _further(kind, rows, at, stride, q, d, t, n, total):
    """The running numbers after one more block."""
    both = delta(kind, FOUR_ROWS, rows, at, stride) * d[n, t]
    return fma(repeat(both, 8), convert(f32, _dots(kind, rows, at, stride, q, n * d.shape[1] + t)), total)


def eight_lanes(kind, path):
    """The driver of ops.ggml_product.eight_lanes, for types of 32 weights a block."""
    size = TYPES[kind].BLOCK

    def body(way, kind, path, rows, at, stride, tokens, scratch, result):
        q, d, _, _ = tokens
        for t in range(d.shape[1]):
            total = splat(f32x32, 0)
            for n in range(len(d)):
                block = at + size * n
                if t == 0:
                    fetch(rows, block + n % 4 * stride, 4 * size)
                total = _further(kind, rows, block, stride, q, d, t, n, total)
            store(result, 16 * t, hsums(total, 4))

    return body


def eight_lanes_and_minima(kind, path):
    """The driver of ops.ggml_product.eight_lanes_and_minima, for types of 32 weights a block with a minimum."""
    size = TYPES[kind].BLOCK

    def body(way, kind, path, rows, at, stride, tokens, scratch, result):
        q, d, _, s = tokens
        for t in range(d.shape[1]):
            total, under = splat(f32x32, 0), splat(f32x4, 0)
            for n in range(len(d)):
                block = at + size * n
                if t == 0:
                    fetch(rows, block + n % 4 * stride, 4 * size)
                total = _further(kind, rows, block, stride, q, d, t, n, total)
                under = fma(lower(kind, FOUR_ROWS, rows, block, stride) * np.float32(-1), splat(f32x4, s[n, t]), under)
            store(result, 16 * t, hsums(total, 4) + under)

    return body


def alternating_lanes(kind, path):
    """The driver of ops.ggml_product.alternating_lanes and alternating_lanes_rounded: even and odd blocks are added up apart."""
    size, fused = TYPES[kind].BLOCK, path == "alternating_lanes"

    def body(way, kind, path, rows, at, stride, tokens, scratch, result):
        q, d, _, _ = tokens
        N, T = d.shape
        last = at + size * (N - 1)
        for t in range(T):
            even, odd = splat(f32x32, 0), splat(f32x32, 0)
            for n in range(0, N - 1, 2):
                block = at + size * n
                if t == 0:
                    fetch(rows, block + n // 2 % 4 * stride, 8 * size)
                even = _further(kind, rows, block, stride, q, d, t, n, even)
                odd = _further(kind, rows, block + size, stride, q, d, t, n + 1, odd)
            total = hsums(even + odd, 4)
            if N % 2:
                dots = hsums(_dots(kind, rows, last, stride, q, (N - 1) * T + t), 4)
                both, sums = delta(kind, FOUR_ROWS, rows, last, stride) * d[N - 1, t], convert(f32, dots)
                total = fma(both, sums, total) if fused else both * sums + total
            store(result, 16 * t, total)

    return body


# ---- types of 256 weights a block: lanes [4 rows][8]; headers for four rows at once, codes row by row

MINIMA = {"lanes_of_q4_k": 4, "lanes_of_q5_k": 1}  # running numbers of a row's minima that are added at the end


@for_kernels
def with_minima(path, pairs, both, total, under):
    """The partial dot products and those of the minima, before the products of a block are added; returns both.

    pairs         minimum · Σ q of two neighbouring groups, of all groups: i32 lanes [4 rows][...]
    both          the scale of minima times the token's, negative: f32 lanes [4]
    total, under  partial dot products [4 rows][8], and those of the minima
    """


@overload(with_minima, jit_options=INLINE)
def _with_minima(path, pairs, both, total, under):
    def lanes_of_q2_k(path, pairs, both, total, under):
        return fma(repeat(both, 8), convert(f32, pairs), total), under

    def lanes_of_q4_k(path, pairs, both, total, under):
        return total, fma(repeat(both, 4), convert(f32, pairs), under)

    def lanes_of_q5_k(path, pairs, both, total, under):
        return total, fma(both, convert(f32, hsums(pairs, 4)), under)

    paths = {"lanes_of_q2_k": lanes_of_q2_k, "lanes_of_q4_k": lanes_of_q4_k, "lanes_of_q5_k": lanes_of_q5_k}
    return paths[path.value]


@for_kernels
def further(kind, path, rows, at, stride, q, d, sums, place, scratch, total, under):
    """The partial dot products of four rows after one more block; returns total and under.

    rows, at, stride  packed rows; the first row's block is at the byte `at`, the next row's `stride` bytes later
    q, sums           of all tokens, as in rounded_tokens.py; place is this token's block in them, d its scale
    scratch           bytes for the scales
    """


@overload(further, jit_options=INLINE)
def _further_in_block(kind, path, rows, at, stride, q, d, sums, place, scratch, total, under):
    of = TYPES[kind.value]
    groups, words, minima = of.WEIGHTS // of.GROUP, of.GROUP // 4, of.M >= 0
    i8s, i16s = Vec("i", 8, of.WEIGHTS // of.PARTS), Vec("i", 16, groups)
    parts, width, in_part, size = of.PARTS, of.WEIGHTS // of.PARTS, groups // of.PARTS, of.BLOCK
    offset = of.OFFSET if path.value == "lanes_of_q6_k" else 0  # taken away from sums and not from codes

    @inline
    def of_part(kind, rows, at, q, q_at, scratch, scale_at, p):
        code = codes(kind, ROW, rows, at, 0, p)
        numbers_of_q = load(i8s, q, q_at + width * p)
        products = dot2_u8i8(code, numbers_of_q) if offset else pairs(kind, code, numbers_of_q)
        return dot2_i16(products, bitcast(i16, load_repeated(in_part, words, scratch, scale_at + 4 * in_part * p)))

    @inline
    def of_row(kind, rows, at, q, q_at, scratch, k):
        scale_at = 4 * groups * k
        fetch(rows, at, size)
        dots = of_part(kind, rows, at, q, q_at, scratch, scale_at, np.int64(0))
        dots += of_part(kind, rows, at, q, q_at, scratch, scale_at, np.int64(1))
        if parts == 4:  # written out, so that a part's shifts are constants
            dots += of_part(kind, rows, at, q, q_at, scratch, scale_at, np.int64(2))
            dots += of_part(kind, rows, at, q, q_at, scratch, scale_at, np.int64(3))
        return fold(i32x8, dots)

    def body(kind, path, rows, at, stride, q, d, sums, place, scratch, total, under):
        scale, minimum = scales(kind, FOUR_ROWS, rows, at, stride)
        store(scratch, 0, repeat(convert(i16, scale), 2))
        dots = concat(
            concat(
                of_row(kind, rows, at, q, 256 * place, scratch, np.int64(0)),
                of_row(kind, rows, at + stride, q, 256 * place, scratch, np.int64(1)),
            ),
            concat(
                of_row(kind, rows, at + 2 * stride, q, 256 * place, scratch, np.int64(2)),
                of_row(kind, rows, at + 3 * stride, q, 256 * place, scratch, np.int64(3)),
            ),
        )
        if minima or offset:
            pairs = dot2_i16(convert(i16, minimum), tile(load(i16s, sums, 2 * groups * place), 4))
            if offset:
                dots -= pairs * offset
            if minima:
                both = lower(kind, FOUR_ROWS, rows, at, stride) * -d
                total, under = with_minima(path, pairs, both, total, under)
        return fma(repeat(delta(kind, FOUR_ROWS, rows, at, stride) * d, 8), convert(f32, dots), total), under

    return body


def super_blocks(kind, path):
    """The driver of the paths for types of 256 weights a block: lanes_of_q2_k to lanes_of_q6_k and lanes_of_iq4_xs."""
    minima, size = Vec("f", 32, 4 * MINIMA.get(path, 1)), TYPES[kind].BLOCK

    def body(way, kind, path, rows, at, stride, tokens, scratch, result):
        q, d, sums, _ = tokens
        N, T = d.shape
        for t in range(T):
            total, under = splat(f32x32, 0), splat(minima, 0)
            for n in range(N):
                place = n * T + t
                total, under = further(kind, path, rows, at + size * n, stride, q, d[n, t], sums, place, scratch, total, under)
            store(result, 16 * t, hsums(total, 4) + hsums(under, 4))

    return body


DRIVERS = {
    "eight_lanes": eight_lanes,
    "eight_lanes_and_minima": eight_lanes_and_minima,
    "alternating_lanes": alternating_lanes,
    "alternating_lanes_rounded": alternating_lanes,
}


def driver(kind, path):
    """The function that product.py asks of a way, for a type and a path (names)."""
    return DRIVERS.get(path, super_blocks)(kind, path)
