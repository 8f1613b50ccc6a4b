"""Packed rows for products with tokens that keep all their bits: weights become floats in registers, 32 at a time as four times
eight, and meet the tokens there or in a panel.

They come turned: the eight lanes of step b are the weights b, 4 + b, ... 28 + b, the b-th bytes of eight words. Two cheap
instructions make them numbers; eight neighbours would cost a slow one and a way through memory. So tokens are turned the same way,
once, and the running number of lane i sums up four neighbours of each 32.
"""

import numpy as np
from numba import njit
from numba.extending import overload

from ..language.arithmetic import fma
from ..language.compile_time import INLINE, for_kernels, inline, within
from ..language.memory import load, load_repeated, store
from ..language.reshaping import bitcast, chosen, concat, convert, repeat, splat, tile
from ..language.row_layout import FOUR_ROWS, ROW, TWO_ROWS, count_of, outermost, piece
from ..language.vectors import Vec, f32, i32, u32
from ..types.contract import TYPES, codes, delta, lower, numbers, scales, the

HEADER, MINIMA = 256, 64  # bytes of a row: 16 scales, then 16 minima; or 64 weights, the TABLES
TABLES = {"Q2_K"}  # types of four codes: the four weights that a group can have are computed once, and looked up
ROWS = 8  # that take turns
SCRATCH = ROWS * HEADER
f32x8, f32x16 = Vec("f", 32, 8), Vec("f", 32, 16)


@njit(cache=True)
def turned(x):
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


@for_kernels
def header(kind, layout, rows, at, stride, scratch, to):
    """Write the header of a block to scratch from the byte `to` on: its groups' scales as floats, then what is added; or TABLES.

    Every 32 weights have the numbers of each row in turn. What is added is minus the minimum, or the offset times the scale.
    """


@overload(header, jit_options=INLINE)
def _header(kind, layout, rows, at, stride, scratch, to):
    of, minima = TYPES[kind.value], MINIMA * count_of(layout)
    groups, runs, offset = of.WEIGHTS // of.GROUP, of.WEIGHTS // 32, np.float32(-of.OFFSET)
    of_rows = groups * count_of(layout)

    def with_minima(kind, layout, rows, at, stride, scratch, to):
        scale, minimum = scales(kind, layout, rows, at, stride)
        scale = convert(f32, scale) * repeat(delta(kind, layout, rows, at, stride), groups)
        minimum = convert(f32, minimum) * repeat(lower(kind, layout, rows, at, stride) * np.float32(-1), groups)
        store(scratch, to, outermost(layout, scale, runs))
        store(scratch, to + minima, outermost(layout, minimum, runs))

    def with_table(kind, layout, rows, at, stride, scratch, to):
        scale, minimum = scales(kind, layout, rows, at, stride)
        scale = outermost(layout, convert(f32, scale) * repeat(delta(kind, layout, rows, at, stride), groups), runs)
        minimum = convert(f32, minimum) * repeat(lower(kind, layout, rows, at, stride) * np.float32(-1), groups)
        minimum = outermost(layout, minimum, runs)
        low = concat(minimum, fma(splat(scale, 1), scale, minimum))
        high = concat(fma(splat(scale, 2), scale, minimum), fma(splat(scale, 3), scale, minimum))
        store(scratch, to, outermost(FOUR_ROWS, concat(low, high), of_rows))

    def with_scales(kind, layout, rows, at, stride, scratch, to):
        scale = convert(f32, scales(kind, layout, rows, at, stride)[0]) * repeat(delta(kind, layout, rows, at, stride), groups)
        store(scratch, to, outermost(layout, scale, runs))
        store(scratch, to + minima, outermost(layout, scale * offset, runs))

    def of_block_with_minimum(kind, layout, rows, at, stride, scratch, to):
        store(scratch, to, delta(kind, layout, rows, at, stride))
        store(scratch, to + minima, lower(kind, layout, rows, at, stride) * np.float32(-1))

    def of_block(kind, layout, rows, at, stride, scratch, to):
        scale = delta(kind, layout, rows, at, stride)
        store(scratch, to, scale)
        store(scratch, to + minima, scale * offset)

    if kind.value in TABLES:
        return with_table
    if groups == 1:
        return of_block if of.M < 0 else of_block_with_minimum
    return with_scales if of.M < 0 else with_minima


@for_kernels
def thirty_two(kind, layout, code, n, scratch, at):
    """The n-th 32 weights of each row's block, f32: four vectors of eight weights of each row. The header is at the byte `at`."""


@overload(thirty_two, jit_options=INLINE)
def _thirty_two(kind, layout, code, n, scratch, at):
    of, R = TYPES[kind.value], count_of(layout)
    count, times, minima, weights = R * 32 // of.GROUP, of.GROUP // 4, R * MINIMA, Vec("f", 32, 8 * R)

    @inline
    def signed(word, b):
        return convert(f32, (bitcast(i32, word) << (24 - 8 * b)) >> 24)

    @inline
    def unsigned(word, b):
        return convert(f32, bitcast(i32, (word >> (8 * b)) & 255))

    def of_table(kind, layout, code, n, scratch, at):
        word, table = bitcast(u32, code), load(weights, scratch, at + 16 * count * n)
        return chosen(table, word), chosen(table, word >> 8), chosen(table, word >> 16), chosen(table, word >> 24)

    def of_signed(kind, layout, code, n, scratch, at):
        word = bitcast(u32, numbers(kind, code))
        scale = bitcast(f32, load_repeated(count, times, scratch, at + 4 * count * n))
        return signed(word, 0) * scale, signed(word, 1) * scale, signed(word, 2) * scale, signed(word, 3) * scale

    def of_unsigned(kind, layout, code, n, scratch, at):
        word = bitcast(u32, code)
        scale = bitcast(f32, load_repeated(count, times, scratch, at + 4 * count * n))
        minimum = bitcast(f32, load_repeated(count, times, scratch, at + 4 * count * n + minima))
        return (
            fma(unsigned(word, 0), scale, minimum),
            fma(unsigned(word, 1), scale, minimum),
            fma(unsigned(word, 2), scale, minimum),
            fma(unsigned(word, 3), scale, minimum),
        )

    if kind.value in TABLES:
        return of_table
    return of_signed if of.SIGNED else of_unsigned


@for_kernels
def put(kind, code, n, scratch, panel, to, step):
    """Decode the n-th 32 codes of a block and the following ones to a panel; `step` bytes from every eight weights to the next."""


@overload(put, jit_options=INLINE)
def _put(kind, code, n, scratch, panel, to, step):
    lane, half = Vec("f", panel.dtype.bitwidth, 1), code.lanes // 64

    def of_32(kind, code, n, scratch, panel, to, step):
        a, b, c, d = thirty_two(kind, ROW, code, n, scratch, 0)
        at = to + 4 * step * n
        store(panel, at, convert(lane, a))
        store(panel, at + step, convert(lane, b))
        store(panel, at + 2 * step, convert(lane, c))
        store(panel, at + 3 * step, convert(lane, d))

    def of_halves(kind, code, n, scratch, panel, to, step):
        put(kind, piece(ROW, code, 2, 0), n, scratch, panel, to, step)
        put(kind, piece(ROW, code, 2, 1), n + half, scratch, panel, to, step)

    return of_halves if half else of_32


@inline
def block(kind, rows, at, scratch, panel, to, step):
    """Decode a block to a panel; `to` and `step` as in `put`."""
    header(kind, ROW, rows, at, 0, scratch, 0)
    for p in range(the(kind, "PARTS")):
        n = the(kind, "WEIGHTS") // 32 // the(kind, "PARTS") * p
        put(kind, codes(kind, ROW, rows, at, 0, p), n, scratch, panel, to, step)


@for_kernels
def floats(kind, code, n, scratch, at):
    """The weights of two rows from the n-th 32 codes of a block on: a tuple of vectors, each with eight weights of each row."""


@overload(floats, jit_options=INLINE)
def _floats(kind, code, n, scratch, at):
    half = code.lanes // 128

    def of_32(kind, code, n, scratch, at):
        return thirty_two(kind, TWO_ROWS, code, n, scratch, at)

    def of_halves(kind, code, n, scratch, at):
        low = floats(kind, piece(TWO_ROWS, code, 2, 0), n, scratch, at)
        return low + floats(kind, piece(TWO_ROWS, code, 2, 1), n + half, scratch, at)

    return of_halves if half else of_32


@for_kernels
def further(weights, x, at, total):
    """The partial dot products [2, 8] after a tuple of weights times the numbers of x from the byte `at` on."""


@overload(further, jit_options=INLINE)
def _further(weights, x, at, total):
    def four(weights, x, at, total):
        total = fma(weights[0], tile(load(f32x8, x, at), 2), total)
        total = fma(weights[1], tile(load(f32x8, x, at + 32), 2), total)
        total = fma(weights[2], tile(load(f32x8, x, at + 64), 2), total)
        return fma(weights[3], tile(load(f32x8, x, at + 96), 2), total)

    def more(weights, x, at, total):
        return further(weights[4:], x, at + 128, further(weights[:4], x, at, total))

    return four if len(weights) == 4 else more


@inline
def _part(kind, rows, at, k, first, p, scratch, x, x_at, total):
    """The running numbers of the rows k and k + 1 after a part of their block that begins `first` bytes after at."""
    n = the(kind, "WEIGHTS") // 32 // the(kind, "PARTS") * p
    code = codes(kind, TWO_ROWS, rows, at[k] + first, at[k + 1] - at[k], p)
    return further(floats(kind, code, n, scratch, HEADER * k), x, x_at + 128 * n, total)


@within
def one_token(kind, rows, at, x, blocks, scratch, sums):
    """The partial dot products of eight rows with one turned token: sums [1, 8, 8], overwritten.

    at      [8]  byte offset of each row
    x       the token, from `turned`
    blocks  how many blocks of weights are multiplied
    """
    a, b, c, d = splat(f32x16, 0), splat(f32x16, 0), splat(f32x16, 0), splat(f32x16, 0)
    for n in range(blocks):
        x_at, first = 4 * the(kind, "WEIGHTS") * n, the(kind, "BLOCK") * n
        for k in range(0, ROWS, 2):
            header(kind, TWO_ROWS, rows, at[k] + first, at[k + 1] - at[k], scratch, HEADER * k)
        for p in range(the(kind, "PARTS")):  # rows take turns: some's additions fill the others' time to wait
            a = _part(kind, rows, at, 0, first, p, scratch, x, x_at, a)
            b = _part(kind, rows, at, 2, first, p, scratch, x, x_at, b)
            c = _part(kind, rows, at, 4, first, p, scratch, x, x_at, c)
            d = _part(kind, rows, at, 6, first, p, scratch, x, x_at, d)
    store(sums, 0, concat(concat(a, b), concat(c, d)))
