"""`vec_dot` for types of 32 weights a block: lanes [count tokens][4 rows][8]."""

import numpy as np

from ..language.arithmetic import fma, hsums
from ..language.compile_time import inline, maker, within
from ..language.dots import dot2_i8, dot2_i16, dot2_u8i8, dots_onto, no_sums
from ..language.memory import fetch, load, store
from ..language.reshaping import convert, repeat, splat, tile, wide
from ..language.row_layout import FOUR_ROWS, Block
from ..language.vectors import DOT4, Vec, f32
from ..types.contract import packed
from .rows_as_lanes import for_each

u8x32, i8x32, i16x64 = Vec("u", 8, 32), Vec("i", 8, 32), Vec("i", 16, 64)
f32x4, f32x32 = Vec("f", 32, 4), Vec("f", 32, 32)


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


@maker
def of_small_block(kind, count):
    """Three functions of four rows' block, and of block n of the tokens t ... t + count.

    dots(block, q, place)              the sums of four neighbours' products; place is the first token's block in all
    both_scales(block, d, t, n)        the products of the scales [count][4]
    further(block, q, d, t, n, total)  the running numbers after one more block
    """
    of, fours = packed(kind), fours_of(kind)
    codes, read_d = of.codes, of.read_d

    @inline
    def of_token(k, code, q, place):
        return fours(code, load(i8x32, q, 32 * (place + k)))

    of_tokens = for_each(count, of_token)

    @inline
    def dots(block, q, place):
        return of_tokens(codes(block, 0), q, place)

    @inline
    def both_scales(block, d, t, n):
        return tile(read_d(block), count) * repeat(load(wide(f32, count), d, 4 * (n * d.shape[1] + t)), 4)

    @inline
    def further(block, q, d, t, n, total):
        return fma(repeat(both_scales(block, d, t, n), 8), convert(f32, dots(block, q, n * d.shape[1] + t)), total)

    return dots, both_scales, further


def eight_lanes(kind, path, count):
    """The driver of ops.ggml_product.eight_lanes, for types of 32 weights a block."""
    size, each, (_, _, further) = packed(kind).block, 4 * count, of_small_block(kind, count)

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        q, d, _, _ = tokens
        for t in range(0, d.shape[1], count):
            total = splat(wide(f32x32, count), 0)
            for n in range(len(d)):
                block = Block(FOUR_ROWS, rows, at + size * n, stride)
                if t == 0:
                    fetch(rows, block.at + n % 4 * stride, 4 * size)
                total = further(block, q, d, t, n, total)
            store(result, 16 * t, hsums(total, each))

    return some_rows


def eight_lanes_and_minima(kind, path, count):
    """The driver of ops.ggml_product.eight_lanes_and_minima, for types of 32 weights a block with a minimum."""
    of, each, (_, _, further) = packed(kind), 4 * count, of_small_block(kind, count)
    size, read_dmin = of.block, of.read_dmin

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        q, d, _, s = tokens
        for t in range(0, d.shape[1], count):
            total, under = splat(wide(f32x32, count), 0), splat(wide(f32x4, count), 0)
            for n in range(len(d)):
                block = Block(FOUR_ROWS, rows, at + size * n, stride)
                if t == 0:
                    fetch(rows, block.at + n % 4 * stride, 4 * size)
                total = further(block, q, d, t, n, total)
                sums = repeat(load(wide(f32, count), s, 4 * (n * d.shape[1] + t)), 4)
                under = fma(tile(read_dmin(block), count) * np.float32(-1), sums, under)
            store(result, 16 * t, hsums(total, each) + under)

    return some_rows


def alternating_lanes(kind, path, count):
    """The driver of ops.ggml_product.alternating_lanes and alternating_lanes_rounded: even and odd blocks are added up apart."""
    size, each, fused = packed(kind).block, 4 * count, path == "alternating_lanes"
    dots, both_scales, further = of_small_block(kind, count)

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        q, d, _, _ = tokens
        N, T = d.shape
        last = Block(FOUR_ROWS, rows, at + size * (N - 1), stride)
        for t in range(0, T, count):
            even, odd = splat(wide(f32x32, count), 0), splat(wide(f32x32, count), 0)
            for n in range(0, N - 1, 2):
                block = at + size * n
                if t == 0:
                    fetch(rows, block + n // 2 % 4 * stride, 8 * size)
                even = further(Block(FOUR_ROWS, rows, block, stride), q, d, t, n, even)
                odd = further(Block(FOUR_ROWS, rows, block + size, stride), q, d, t, n + 1, odd)
            total = hsums(even + odd, each)
            if N % 2:
                both, sums = both_scales(last, d, t, N - 1), dots(last, q, (N - 1) * T + t)
                exact = convert(f32, hsums(sums, each))
                total = fma(both, exact, total) if fused else both * exact + total
            store(result, 16 * t, total)

    return some_rows


DRIVERS = {
    "eight_lanes": eight_lanes,
    "eight_lanes_and_minima": eight_lanes_and_minima,
    "alternating_lanes": alternating_lanes,
    "alternating_lanes_rounded": alternating_lanes,
}
