"""A way in the order of llama.cpp's vec_dot functions: eight running numbers along each row, for four rows at once.

Twins: the functions of ops.ggml_product of the names of the paths.
"""

import numpy as np

from ..language.arithmetic import fma, fold, hsums
from ..language.compile_time import inline, maker, within
from ..language.dots import dot2_i8, dot2_i16, dot2_u8i8, dots_onto, no_sums
from ..language.memory import fetch, load, load_repeated, store
from ..language.reshaping import bitcast, concat, convert, repeat, splat, tile
from ..language.row_layout import FOUR_ROWS, ROW, Block
from ..language.vectors import DOT4, Vec, f32, i16
from ..types.contract import packed

ROWS, STREAMS_UP_TO, SCRATCH, TOKENS = 4, 7, 256, 1
u8x32, i8x32, i16x64 = Vec("u", 8, 32), Vec("i", 8, 32), Vec("i", 16, 64)
f32x4, f32x32 = Vec("f", 32, 4), Vec("f", 32, 32)


def tokens_at_once(kind):
    """How many tokens are interleaved: one."""
    return 1


@maker
def pairs_of(kind):
    """The function (code, q) for the sums of two neighbouring products, i16 lanes: (codes minus offset) times the i8 lanes q."""
    of = packed(kind)
    numbers, offset = of.numbers, of.offset

    @inline
    def pairs(code, q):
        return dot2_u8i8(code, q)

    @inline
    def pairs_of_signed(code, q):
        return dot2_i8(numbers(code), q)

    @inline
    def pairs_minus_offset(code, q):  # of four rows the same, so it is computed once
        return dot2_u8i8(code, q) - dot2_u8i8(splat(code, offset), q)

    return pairs_of_signed if of.signed else pairs_minus_offset if offset else pairs


@maker
def fours_of(kind):
    """The function (code, q) for the sums of four neighbouring products, i32 lanes.

    (codes minus offset) [4 rows][32] times the i8 lanes q [32].
    """
    offset, pairs = packed(kind).offset, pairs_of(kind)

    @inline
    def exactly(code, q):
        below = dots_onto(no_sums(8), splat(u8x32, offset), q, 1) * -1
        return dots_onto(tile(below, 4), code, tile(q, 4), 1)

    @inline
    def from_pairs(code, q):
        return dot2_i16(pairs(code, tile(q, 4)), splat(i16x64, 1))

    return exactly if DOT4 else from_pairs


# ---- types of 32 weights a block: lanes [4 rows][8]


@maker
def of_small_block(kind):
    """Two functions of block n of all tokens' blocks and of four rows' block.

    dots(block, q, n)                  the sums of four neighbours' products
    further(block, q, d, t, n, total)  the running numbers of token t after one more block
    """
    of, fours = packed(kind), fours_of(kind)
    codes, read_d = of.codes, of.read_d

    @inline
    def dots(block, q, n):
        return fours(codes(block, 0), load(i8x32, q, 32 * n))

    @inline
    def further(block, q, d, t, n, total):
        return fma(repeat(read_d(block) * d[n, t], 8), convert(f32, dots(block, q, n * d.shape[1] + t)), total)

    return dots, further


def eight_lanes(kind, path):
    """The driver of ops.ggml_product.eight_lanes, for types of 32 weights a block."""
    size, (_, further) = packed(kind).block, of_small_block(kind)

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        q, d, _, _ = tokens
        for t in range(d.shape[1]):
            total = splat(f32x32, 0)
            for n in range(len(d)):
                block = Block(FOUR_ROWS, rows, at + size * n, stride)
                if t == 0:
                    fetch(rows, block.at + n % 4 * stride, 4 * size)
                total = further(block, q, d, t, n, total)
            store(result, 16 * t, hsums(total, 4))

    return some_rows


def eight_lanes_and_minima(kind, path):
    """The driver of ops.ggml_product.eight_lanes_and_minima, for types of 32 weights a block with a minimum."""
    size, read_dmin, (_, further) = packed(kind).block, packed(kind).read_dmin, of_small_block(kind)

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        q, d, _, s = tokens
        for t in range(d.shape[1]):
            total, under = splat(f32x32, 0), splat(f32x4, 0)
            for n in range(len(d)):
                block = Block(FOUR_ROWS, rows, at + size * n, stride)
                if t == 0:
                    fetch(rows, block.at + n % 4 * stride, 4 * size)
                total = further(block, q, d, t, n, total)
                under = fma(read_dmin(block) * np.float32(-1), splat(f32x4, s[n, t]), under)
            store(result, 16 * t, hsums(total, 4) + under)

    return some_rows


def alternating_lanes(kind, path):
    """The driver of ops.ggml_product.alternating_lanes and alternating_lanes_rounded: even and odd blocks are added up apart."""
    size, read_d, fused, (dots, further) = (
        packed(kind).block,
        packed(kind).read_d,
        path == "alternating_lanes",
        of_small_block(kind),
    )

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        q, d, _, _ = tokens
        N, T = d.shape
        last = Block(FOUR_ROWS, rows, at + size * (N - 1), stride)
        for t in range(T):
            even, odd = splat(f32x32, 0), splat(f32x32, 0)
            for n in range(0, N - 1, 2):
                block = at + size * n
                if t == 0:
                    fetch(rows, block + n // 2 % 4 * stride, 8 * size)
                even = further(Block(FOUR_ROWS, rows, block, stride), q, d, t, n, even)
                odd = further(Block(FOUR_ROWS, rows, block + size, stride), q, d, t, n + 1, odd)
            total = hsums(even + odd, 4)
            if N % 2:
                both, sums = read_d(last) * d[N - 1, t], dots(last, q, (N - 1) * T + t)
                exact = convert(f32, hsums(sums, 4))
                total = fma(both, exact, total) if fused else both * exact + total
            store(result, 16 * t, total)

    return some_rows


# ---- types of 256 weights a block: lanes [4 rows][8]; headers for four rows at once, codes row by row


@inline
def lanes_of_q2_k(pairs, both, total, under):
    """The partial dot products and those of the minima, before the products of a block are added; returns both.

    pairs         minimum · Σ q of two neighbouring groups, of all groups: i32 lanes [4 rows][...]
    both          the scale of minima times the token's, negative: f32 lanes [4]
    total, under  partial dot products [4 rows][8], and those of the minima
    """
    return fma(repeat(both, 8), convert(f32, pairs), total), under


@inline
def lanes_of_q4_k(pairs, both, total, under):
    """The same; four running numbers of a row's minima are added at the end."""
    return total, fma(repeat(both, 4), convert(f32, pairs), under)


@inline
def lanes_of_q5_k(pairs, both, total, under):
    """The same; one number of a row's minima is added at the end."""
    return total, fma(both, convert(f32, hsums(pairs, 4)), under)


# path -> what is done with minima, and how many running numbers of a row's minima are added at the end
WITH_MINIMA = {"lanes_of_q2_k": (lanes_of_q2_k, 1), "lanes_of_q4_k": (lanes_of_q4_k, 4), "lanes_of_q5_k": (lanes_of_q5_k, 1)}


@maker
def sums_of_row(kind, offset):
    """The function (rows, at, q, q_at, scratch, k) for Σ scale · code · q of row k's block at `at`: i32 lanes [8].

    offset   what is taken away later, from sums and not from codes; or 0
    scratch  has the scales of four rows, i16 twice
    """
    of, pairs = packed(kind), pairs_of(kind)
    codes, parts, size, words, groups = of.codes, of.parts, of.block, of.group // 4, of.groups
    width, in_part, i8s = of.weights // parts, groups // parts, Vec("i", 8, of.weights // parts)

    @inline
    def of_part(rows, at, q, q_at, scratch, scale_at, p):
        code = codes(Block(ROW, rows, at, np.int64(0)), p)
        numbers_of_q = load(i8s, q, q_at + width * p)
        products = dot2_u8i8(code, numbers_of_q) if offset else pairs(code, numbers_of_q)
        return dot2_i16(products, bitcast(i16, load_repeated(in_part, words, scratch, scale_at + 4 * in_part * p)))

    @inline
    def of_row(rows, at, q, q_at, scratch, k):
        scale_at = 4 * groups * k
        fetch(rows, at, size)
        dots = of_part(rows, at, q, q_at, scratch, scale_at, np.int64(0))
        dots += of_part(rows, at, q, q_at, scratch, scale_at, np.int64(1))
        if parts == 4:  # written out, so that a part's shifts are constants
            dots += of_part(rows, at, q, q_at, scratch, scale_at, np.int64(2))
            dots += of_part(rows, at, q, q_at, scratch, scale_at, np.int64(3))
        return fold(dots, 8)

    return of_row


@maker
def of_large_block(kind, path):
    """The function for the partial dot products of four rows after one more block; it returns total and under.

    Its parameters are (block, q, d, sums, place, scratch, total, under):

    q, sums  of all tokens, as in rounded_tokens.py; place is this token's block in them, d its scale
    scratch  bytes for the scales
    """
    of, offset = packed(kind), packed(kind).offset if path == "lanes_of_q6_k" else 0
    scales, read_d, read_dmin, groups, minima = of.scales, of.read_d, of.read_dmin, of.groups, of.minima
    of_row, with_minima, i16s = sums_of_row(kind, offset), WITH_MINIMA.get(path, (None,))[0], Vec("i", 16, of.groups)

    @inline
    def further(block, q, d, sums, place, scratch, total, under):
        scale, minimum = scales(block)
        rows, at, stride = block.rows, block.at, block.stride
        store(scratch, 0, repeat(convert(i16, scale), 2))
        first = of_row(rows, at, q, 256 * place, scratch, np.int64(0))
        second = of_row(rows, at + stride, q, 256 * place, scratch, np.int64(1))
        third = of_row(rows, at + 2 * stride, q, 256 * place, scratch, np.int64(2))
        fourth = of_row(rows, at + 3 * stride, q, 256 * place, scratch, np.int64(3))
        dots = concat(concat(first, second), concat(third, fourth))
        if minima or offset:
            pairs = dot2_i16(convert(i16, minimum), tile(load(i16s, sums, 2 * groups * place), 4))
            if offset:
                dots -= pairs * offset
            if minima:
                total, under = with_minima(pairs, read_dmin(block) * -d, total, under)
        return fma(repeat(read_d(block) * d, 8), convert(f32, dots), total), under

    return further


def super_blocks(kind, path):
    """The driver of the paths for types of 256 weights a block: lanes_of_q2_k to lanes_of_q6_k and lanes_of_iq4_xs."""
    further, size, minima = of_large_block(kind, path), packed(kind).block, Vec("f", 32, 4 * WITH_MINIMA.get(path, (None, 1))[1])

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        q, d, sums, _ = tokens
        N, T = d.shape
        for t in range(T):
            total, under = splat(f32x32, 0), splat(minima, 0)
            for n in range(N):
                block = Block(FOUR_ROWS, rows, at + size * n, stride)
                total, under = further(block, q, d[n, t], sums, n * T + t, scratch, total, under)
            store(result, 16 * t, hsums(total, 4) + hsums(under, 4))

    return some_rows


DRIVERS = {
    "eight_lanes": eight_lanes,
    "eight_lanes_and_minima": eight_lanes_and_minima,
    "alternating_lanes": alternating_lanes,
    "alternating_lanes_rounded": alternating_lanes,
}


@maker
def driver(kind, path):
    """The function that product.py asks of a way, for a type and a path (names)."""
    return DRIVERS.get(path, super_blocks)(kind, path)
