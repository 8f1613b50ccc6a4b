"""A way in the order of llama.cpp's vec_dot functions: eight running numbers along each row, for four rows at once.

Twins: the functions of ops.ggml_product of the names of the paths. The drivers are for `count` tokens at a time, one or two.
Here for types of 256 weights a block: lanes [4 rows][count][8]; headers are read for four rows at once, codes row by row.
"""

import numpy as np

from ..language.arithmetic import fma, fold, hsums
from ..language.compile_time import inline, maker, within
from ..language.dots import dot2_i16, dot2_u8i8
from ..language.memory import fetch, load, load_repeated, store
from ..language.reshaping import bitcast, concat, convert, moves, repeat, repeat_every, splat, tile, wide
from ..language.row_layout import FOUR_ROWS, ROW, Block
from ..language.vectors import Vec, f32, i16
from ..types.contract import packed
from .rows_as_lanes import for_each
from .vec_dot_of_32 import DRIVERS, pairs_of

ROWS, STREAMS_UP_TO, SCRATCH, TOKENS = 4, 7, 256, 1
f32x32 = Vec("f", 32, 32)
by_token = moves(lambda v, count: v.reshape(4, count).T)  # a number of each row and token


def tokens_at_once(kind):
    """How many tokens are interleaved: one."""
    return 1


@inline
def lanes_of_q2_k(pairs, both, total, under):
    """The partial dot products and those of the minima, before the products of a block are added; returns both.

    pairs         minimum · Σ q of two neighbouring groups, of all groups: i32 lanes [4 rows][count][...]
    both          the scale of minima times the token's, negative: f32 lanes [4][count]
    total, under  partial dot products [4 rows][count][8], and those of the minima
    """
    return fma(repeat(both, 8), convert(f32, pairs), total), under


@inline
def lanes_of_q4_k(pairs, both, total, under):
    """The same; four running numbers of a row's minima are added at the end."""
    return total, fma(repeat(both, 4), convert(f32, pairs), under)


@maker
def lanes_of_q5_k(count):
    """The same; one number of a row's minima is added at the end."""
    each = 4 * count

    @inline
    def lanes(pairs, both, total, under):
        return total, fma(both, convert(f32, hsums(pairs, each)), under)

    return lanes


# path -> how many running numbers of a row's minima are added at the end
MINIMA = {"lanes_of_q2_k": 1, "lanes_of_q4_k": 4, "lanes_of_q5_k": 1}


def with_minima(path, count):
    """What a path does with the minima of a block."""
    return {"lanes_of_q2_k": lanes_of_q2_k, "lanes_of_q4_k": lanes_of_q4_k, "lanes_of_q5_k": lanes_of_q5_k(count)}.get(path)


@maker
def sums_of_row(kind, offset, count):
    """The function (rows, at, q, q_at, scratch, k) for Σ scale · code · q of row k's block at `at`: i32 lanes [count][8].

    offset   what is taken away later, from sums and not from codes; or 0
    scratch  has the scales of four rows, i16 twice
    """
    of, pairs = packed(kind), pairs_of(kind)
    codes, parts, size, words, groups = of.codes, of.parts, of.block, of.group // 4, of.groups
    width, in_part, i8s = of.weights // parts, groups // parts, Vec("i", 8, of.weights // parts)

    @inline
    def of_token(k, code, scale, q, q_at):
        numbers_of_q = load(i8s, q, q_at + 256 * k)
        products = dot2_u8i8(code, numbers_of_q) if offset else pairs(code, numbers_of_q)
        return fold(dot2_i16(products, scale), 8)

    of_tokens = for_each(count, of_token)

    @inline
    def of_part(rows, at, q, q_at, scratch, scale_at, p):
        scale = bitcast(i16, load_repeated(in_part, words, scratch, scale_at + 4 * in_part * p))
        return of_tokens(codes(Block(ROW, rows, at, np.int64(0)), p), scale, q, q_at + width * p)

    @inline
    def of_row(rows, at, q, q_at, scratch, k):
        scale_at = 4 * groups * k
        fetch(rows, at, size)
        dots = of_part(rows, at, q, q_at, scratch, scale_at, np.int64(0))
        dots += of_part(rows, at, q, q_at, scratch, scale_at, np.int64(1))
        if parts == 4:  # written out, so that a part's shifts are constants
            dots += of_part(rows, at, q, q_at, scratch, scale_at, np.int64(2))
            dots += of_part(rows, at, q, q_at, scratch, scale_at, np.int64(3))
        return dots

    return of_row


@maker
def of_large_block(kind, path, count):
    """The function for the partial dot products of four rows after one more block; it returns total and under.

    Its parameters are (block, q, d, sums, place, scratch, total, under):

    q, d, sums  of all tokens, as in rounded_tokens.py; place is the first token's block in them
    scratch     bytes for the scales
    """
    of, offset = packed(kind), packed(kind).offset if path == "lanes_of_q6_k" else 0
    scales, read_d, read_dmin, groups, minima = of.scales, of.read_d, of.read_dmin, of.groups, of.minima
    of_row, take_minima, i16s = sums_of_row(kind, offset, count), with_minima(path, count), Vec("i", 16, of.groups * count)

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
        factor = tile(load(wide(f32, count), d, 4 * place), 4)
        if minima or offset:
            of_each = repeat_every(convert(i16, minimum), groups, count)
            pairs = dot2_i16(of_each, tile(load(i16s, sums, 2 * groups * place), 4))
            if offset:
                dots -= pairs * offset
            if minima:
                total, under = take_minima(pairs, repeat(read_dmin(block), count) * (factor * np.float32(-1)), total, under)
        return fma(repeat(repeat(read_d(block), count) * factor, 8), convert(f32, dots), total), under

    return further


def super_blocks(kind, path, count):
    """The driver of the paths for types of 256 weights a block: lanes_of_q2_k to lanes_of_q6_k and lanes_of_iq4_xs."""
    further, size, each = of_large_block(kind, path, count), packed(kind).block, 4 * count
    minima = Vec("f", 32, each * MINIMA.get(path, 1))

    @within
    def some_rows(rows, at, stride, tokens, scratch, result):
        q, d, sums, _ = tokens
        N, T = d.shape
        for t in range(0, T, count):
            total, under = splat(wide(f32x32, count), 0), splat(minima, 0)
            for n in range(N):
                block = Block(FOUR_ROWS, rows, at + size * n, stride)
                total, under = further(block, q, d, sums, n * T + t, scratch, total, under)
            store(result, 16 * t, by_token(hsums(total, each) + hsums(under, each), count))

    return some_rows


@maker
def of_tokens(kind, path, count):
    """The driver for `count` tokens at a time, one or two."""
    return DRIVERS.get(path, super_blocks)(kind, path, count)


@maker
def driver(kind, path):
    """The function that product.py asks of a way, for a type and a path (names)."""
    return of_tokens(kind, path, 1)
