"""Packed rows for products with tokens that keep all their bits: weights become floats in registers, 32 at a time as four times
eight, and meet the tokens there or in a panel.

They come transposed: the eight lanes of step b are the weights b, 4 + b, ... 28 + b, the b-th bytes of eight words. Two cheap
instructions make them numbers; eight neighbours would cost a slow one and a way through memory. So tokens are transposed the same
way, once, and the running number of lane i sums up four neighbours of each 32.
"""

import numpy as np
from numba import njit

from ..language.arithmetic import fma
from ..language.compile_time import inline, maker, within
from ..language.memory import load, load_repeated, store
from ..language.reshaping import bitcast, chosen, concat, convert, repeat, splat, tile
from ..language.row_layout import FOUR_ROWS, ROW, TWO_ROWS, Block, outermost, piece
from ..language.vectors import Vec, f32, i32, u32
from ..types.contract import packed

HEADER, MINIMA = 256, 64  # bytes of a row: 16 scales, then 16 minima; or 64 weights, the TABLES
TABLES = {"Q2_K"}  # types of four codes: the four weights that a group can have are computed once, and looked up
ROWS = 8  # that take turns
SCRATCH = ROWS * HEADER
f32x8, f32x16 = Vec("f", 32, 8), Vec("f", 32, 16)


@njit(cache=True)
def transposed(x):
    """Tokens [T, I] with every 32 numbers [8, 4] transposed; a copy whose address is a multiple of 64."""
    T, I = x.shape
    space = np.empty(T * I + 16, x.dtype)
    out = space[(-space.ctypes.data % 64) // x.itemsize :][: T * I].reshape(T, I)
    for t in range(T):
        for start in range(0, I, 32):
            for b in range(4):
                for i in range(8):
                    out[t, start + 8 * b + i] = x[t, start + 4 * i + b]
    return out


@maker
def header(kind, R):
    """The function (block, scratch, to) that writes the header of a block of R rows to scratch from the byte `to` on.

    It is its groups' scales as floats, then what is added: minus the minimum, or the offset times the scale; or TABLES. Every 32
    weights have the numbers of each row in turn.
    """
    of = packed(kind)
    if of.groups == 1:
        return header_of_group(of, R)
    scales, read_d, read_dmin, minima, offset = of.scales, of.read_d, of.read_dmin, MINIMA * R, np.float32(-of.subtracted)
    groups, runs, of_rows, has_minima = of.groups, of.weights // 32, of.groups * R, of.minima

    @inline
    def both(block):
        scale, minimum = scales(block)
        scale = convert(f32, scale) * repeat(read_d(block), groups)
        if has_minima:
            minimum = convert(f32, minimum) * repeat(read_dmin(block) * np.float32(-1), groups)
            return outermost(block, scale, runs), outermost(block, minimum, runs)
        return outermost(block, scale, runs), outermost(block, scale * offset, runs)

    @inline
    def with_table(block, scratch, to):
        scale, minimum = both(block)
        low = concat(minimum, fma(splat(scale, 1), scale, minimum))
        high = concat(fma(splat(scale, 2), scale, minimum), fma(splat(scale, 3), scale, minimum))
        store(scratch, to, outermost(FOUR_ROWS, concat(low, high), of_rows))

    @inline
    def of_groups(block, scratch, to):
        scale, added = both(block)
        store(scratch, to, scale)
        store(scratch, to + minima, added)

    return with_table if kind in TABLES else of_groups


def header_of_group(of, R):
    """`header` of a type whose blocks are one group."""
    read_d, read_dmin, minima, offset = of.read_d, of.read_dmin, MINIMA * R, np.float32(-of.subtracted)

    @inline
    def with_minimum(block, scratch, to):
        store(scratch, to, read_d(block))
        store(scratch, to + minima, read_dmin(block) * np.float32(-1))

    @inline
    def with_offset(block, scratch, to):
        scale = read_d(block)
        store(scratch, to, scale)
        store(scratch, to + minima, scale * offset)

    return with_minimum if of.minima else with_offset


@inline
def signed_byte(word, b):
    """The b-th bytes of words as numbers with sign."""
    return convert(f32, (bitcast(i32, word) << (24 - 8 * b)) >> 24)


@inline
def unsigned_byte(word, b):
    """The b-th bytes of words as numbers without sign."""
    return convert(f32, bitcast(i32, (word >> (8 * b)) & 255))


@maker
def thirty_two(kind, R):
    """The function (code, n, scratch, at) for the n-th 32 weights of R rows' block: four vectors of eight weights of each row.

    The header is at the byte `at` of scratch.
    """
    of = packed(kind)
    numbers, count, times, minima, weights = of.numbers, R * 32 // of.group, of.group // 4, R * MINIMA, Vec("f", 32, 8 * R)

    @inline
    def of_table(code, n, scratch, at):
        word, table = bitcast(u32, code), load(weights, scratch, at + 16 * count * n)
        return chosen(table, word), chosen(table, word >> 8), chosen(table, word >> 16), chosen(table, word >> 24)

    @inline
    def of_signed(code, n, scratch, at):
        word = bitcast(u32, numbers(code))
        scale = bitcast(f32, load_repeated(count, times, scratch, at + 4 * count * n))
        a, b = signed_byte(word, np.int64(0)) * scale, signed_byte(word, np.int64(1)) * scale
        return a, b, signed_byte(word, np.int64(2)) * scale, signed_byte(word, np.int64(3)) * scale

    @inline
    def of_unsigned(code, n, scratch, at):
        word = bitcast(u32, code)
        scale = bitcast(f32, load_repeated(count, times, scratch, at + 4 * count * n))
        minimum = bitcast(f32, load_repeated(count, times, scratch, at + 4 * count * n + minima))
        return (
            fma(unsigned_byte(word, np.int64(0)), scale, minimum),
            fma(unsigned_byte(word, np.int64(1)), scale, minimum),
            fma(unsigned_byte(word, np.int64(2)), scale, minimum),
            fma(unsigned_byte(word, np.int64(3)), scale, minimum),
        )

    return of_table if kind in TABLES else of_signed if of.signed else of_unsigned


@maker
def putting(kind, codes, bits):
    """The function (code, n, scratch, panel, to, step) that decodes the n-th 32 codes of a block and the following to a panel.

    codes  how many there are
    bits   of a number of the panel
    to, step  the byte in the panel, and how many bytes from every eight weights to the next
    """
    lane = Vec("f", bits, 1)
    if codes == 32:
        weights = thirty_two(kind, 1)

        @inline
        def put(code, n, scratch, panel, to, step):
            a, b, c, d = weights(code, n, scratch, 0)
            at = to + 4 * step * n
            store(panel, at, convert(lane, a))
            store(panel, at + step, convert(lane, b))
            store(panel, at + 2 * step, convert(lane, c))
            store(panel, at + 3 * step, convert(lane, d))

        return put

    half, put_half = codes // 64, putting(kind, codes // 2, bits)

    @inline
    def put_halves(code, n, scratch, panel, to, step):
        put_half(piece(ROW, code, 2, 0), n, scratch, panel, to, step)
        put_half(piece(ROW, code, 2, 1), n + half, scratch, panel, to, step)

    return put_halves


@maker
def block(kind, bits):
    """The function (rows, at, scratch, panel, to, step) that decodes a block to a panel; `to` and `step` as in `putting`."""
    of, write_header = packed(kind), header(kind, 1)
    codes, parts, runs, put = of.codes, of.parts, of.weights // 32 // of.parts, putting(kind, of.weights // of.parts, bits)

    @inline
    def to_panel(rows, at, scratch, panel, to, step):
        block = Block(ROW, rows, at, np.int64(0))
        write_header(block, scratch, 0)
        for p in range(parts):
            put(codes(block, p), runs * p, scratch, panel, to, step)

    return to_panel


@maker
def floats(kind, codes):
    """The function (code, n, scratch, at) for the weights of two rows from the n-th 32 codes of a block on, `codes` of each row.

    It returns a tuple of vectors, each with eight weights of each row.
    """
    if codes == 32:
        return thirty_two(kind, 2)
    half, of_half = codes // 64, floats(kind, codes // 2)

    @inline
    def of_halves(code, n, scratch, at):
        return of_half(piece(TWO_ROWS, code, 2, 0), n, scratch, at) + of_half(piece(TWO_ROWS, code, 2, 1), n + half, scratch, at)

    return of_halves


@maker
def further(codes):
    """The function (weights, x, at, total) for the partial dot products [2, 8] after a tuple of weights, `codes` of each row.

    They meet the numbers of x from the byte `at` on.
    """

    @inline
    def four(weights, x, at, total):
        total = fma(weights[0], tile(load(f32x8, x, at), 2), total)
        total = fma(weights[1], tile(load(f32x8, x, at + 32), 2), total)
        total = fma(weights[2], tile(load(f32x8, x, at + 64), 2), total)
        return fma(weights[3], tile(load(f32x8, x, at + 96), 2), total)

    if codes == 32:
        return four
    rest = further(codes - 32)

    @inline
    def more(weights, x, at, total):
        return rest(weights[4:], x, at + 128, four(weights[:4], x, at, total))

    return more


@maker
def one_token(kind):
    """The function (rows, at, x, blocks, scratch, sums) for the partial dot products of eight rows with one transposed token.

    at      [8]  byte offset of each row
    x       the token, from `transposed`
    blocks  how many blocks of weights are multiplied
    sums    [1, 8, 8], overwritten
    """
    of, write_header = packed(kind), header(kind, 2)
    codes, parts, size, width, runs = of.codes, of.parts, of.block, 4 * of.weights, of.weights // 32 // of.parts
    weights, add = floats(kind, of.weights // of.parts), further(of.weights // of.parts)

    @inline
    def two(rows, at, k, first):
        """The block of the rows k and k + 1 that begins `first` bytes after theirs."""
        return Block(TWO_ROWS, rows, at[k] + first, at[k + 1] - at[k])

    @inline
    def part(block, k, p, scratch, x, x_at, total):
        """The running numbers of the rows k and k + 1 after a part of their block."""
        return add(weights(codes(block, p), runs * p, scratch, HEADER * k), x, x_at + 128 * runs * p, total)

    @within
    def all_blocks(rows, at, x, blocks, scratch, sums):
        a, b, c, d = splat(f32x16, 0), splat(f32x16, 0), splat(f32x16, 0), splat(f32x16, 0)
        for n in range(blocks):
            x_at, first = width * n, size * n
            for k in range(0, ROWS, 2):
                write_header(two(rows, at, k, first), scratch, HEADER * k)
            for p in range(parts):  # rows take turns: some's additions fill the others' time to wait
                a = part(two(rows, at, np.int64(0), first), np.int64(0), p, scratch, x, x_at, a)
                b = part(two(rows, at, np.int64(2), first), np.int64(2), p, scratch, x, x_at, b)
                c = part(two(rows, at, np.int64(4), first), np.int64(4), p, scratch, x, x_at, c)
                d = part(two(rows, at, np.int64(6), first), np.int64(6), p, scratch, x, x_at, d)
        store(sums, 0, concat(concat(a, b), concat(c, d)))

    return all_blocks
