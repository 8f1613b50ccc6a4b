"""Packed rows for products with tokens that keep all their bits: weights become floats in registers, 32 at a time as four times
eight, and meet the tokens there or in a panel.

They come turned: the eight lanes of step b are the weights b, 4 + b, ... 28 + b, the b-th bytes of eight words. Two cheap
instructions make them numbers; eight neighbours would cost a slow one and a way through memory. So tokens are turned the same way,
once, and the running number of lane i sums up four neighbours of each 32.
"""

import numpy as np
from numba import njit
from numba.extending import overload

from .blocks import TYPES, codes, delta, lower, scales, the
from .lanes import numbers
from .layout import ROW, piece
from .simd import Vec, bitcast, concat, convert, f32, fma, i32, load, load_repeated, splat, store, u32
from .static import for_kernels

HEADER, MINIMA = 128, 64  # bytes: 16 scales, then 16 minima
ROWS = 8  # that take turns
SCRATCH = ROWS * HEADER
f32x1, f32x8 = Vec("f", 32, 1), Vec("f", 32, 8)


@njit(cache=True)
def turned(x):
    """Tokens [T, I] with every 32 numbers [8, 4] transposed, at an address that is a multiple of 64."""
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
def header(kind, rows, at, scratch, to):
    """The scales of a block's groups, and the minima below zero, as floats at the byte `to` of scratch."""


@overload(header, jit_options={"forceinline": True})
def _header(kind, rows, at, scratch, to):
    of = TYPES[kind.value]
    minima, many = of.M >= 0, of.WEIGHTS > of.GROUP

    def of_groups(kind, rows, at, scratch, to):
        scale, minimum = scales(kind, ROW, rows, at, 0)
        store(scratch, to, convert(f32, scale) * delta(kind, ROW, rows, at, 0)[0])
        if minima:
            store(scratch, to + MINIMA, convert(f32, minimum) * -lower(kind, ROW, rows, at, 0)[0])

    def of_block(kind, rows, at, scratch, to):
        store(scratch, to, delta(kind, ROW, rows, at, 0))
        if minima:
            store(scratch, to + MINIMA, splat(f32x1, -lower(kind, ROW, rows, at, 0)[0]))

    return of_groups if many else of_block


@for_kernels
def thirty_two(kind, code, scratch, at):
    """The floats of 32 codes whose scales stand at the byte `at` of scratch: four times eight."""


@overload(thirty_two, jit_options={"forceinline": True})
def _thirty_two(kind, code, scratch, at):
    of = TYPES[kind.value]
    minima, count, times = of.M >= 0, 32 // of.GROUP, of.GROUP // 4

    @njit(forceinline=True)
    def signed(word, b):
        return convert(f32, (bitcast(i32, word) << (24 - 8 * b)) >> 24)

    @njit(forceinline=True)
    def unsigned(word, b):
        return convert(f32, bitcast(i32, (word >> (8 * b)) & 255))

    byte = signed if of.SIGNED or of.OFFSET else unsigned

    @njit(forceinline=True)
    def below(code, scale, minimum):
        return fma(code, scale, minimum)

    @njit(forceinline=True)
    def alone(code, scale, minimum):
        return code * scale

    weight = below if minima else alone

    def body(kind, code, scratch, at):
        word = bitcast(u32, code)
        scale = bitcast(f32, load_repeated(count, times, scratch, at))
        minimum = bitcast(f32, load_repeated(count, times, scratch, at + MINIMA)) if minima else scale
        return (
            weight(byte(word, 0), scale, minimum),
            weight(byte(word, 1), scale, minimum),
            weight(byte(word, 2), scale, minimum),
            weight(byte(word, 3), scale, minimum),
        )

    return body


@for_kernels
def put(kind, code, n, scratch, panel, to, step):
    """Decode codes from the n-th 32 of a block on, to a panel: every eight weights `step` bytes after the last eight."""


@overload(put, jit_options={"forceinline": True})
def _put(kind, code, n, scratch, panel, to, step):
    groups, lane, half = 32 // TYPES[kind.value].GROUP, Vec("f", panel.dtype.bitwidth, 1), code.lanes // 64

    def of_32(kind, code, n, scratch, panel, to, step):
        a, b, c, d = thirty_two(kind, code, scratch, 4 * groups * n)
        at = to + 4 * step * n
        store(panel, at, convert(lane, a))
        store(panel, at + step, convert(lane, b))
        store(panel, at + 2 * step, convert(lane, c))
        store(panel, at + 3 * step, convert(lane, d))

    def of_halves(kind, code, n, scratch, panel, to, step):
        put(kind, piece(ROW, code, 2, 0), n, scratch, panel, to, step)
        put(kind, piece(ROW, code, 2, 1), n + half, scratch, panel, to, step)

    return of_halves if half else of_32


@njit(forceinline=True)
def block(kind, rows, at, scratch, panel, to, step):
    """Decode a block to a panel, see `put`."""
    header(kind, rows, at, scratch, 0)
    for p in range(the(kind, "PARTS")):
        n = the(kind, "WEIGHTS") // 32 // the(kind, "PARTS") * p
        put(kind, numbers(kind, codes(kind, ROW, rows, at, 0, p)), n, scratch, panel, to, step)


@for_kernels
def floats(kind, code, n, scratch, at):
    """The floats of codes from the n-th 32 of a block on: a tuple of eight at a time."""


@overload(floats, jit_options={"forceinline": True})
def _floats(kind, code, n, scratch, at):
    groups, half = 32 // TYPES[kind.value].GROUP, code.lanes // 64

    def of_32(kind, code, n, scratch, at):
        return thirty_two(kind, code, scratch, at + 4 * groups * n)

    def of_halves(kind, code, n, scratch, at):
        low = floats(kind, piece(ROW, code, 2, 0), n, scratch, at)
        return low + floats(kind, piece(ROW, code, 2, 1), n + half, scratch, at)

    return of_halves if half else of_32


@for_kernels
def further(weights, x, at, total):
    """The running numbers [8] after a tuple of floats, times the numbers of x at the byte `at` and on."""


@overload(further, jit_options={"forceinline": True})
def _further(weights, x, at, total):
    def four(weights, x, at, total):
        total = fma(weights[0], load(f32x8, x, at), total)
        total = fma(weights[1], load(f32x8, x, at + 32), total)
        total = fma(weights[2], load(f32x8, x, at + 64), total)
        return fma(weights[3], load(f32x8, x, at + 96), total)

    def more(weights, x, at, total):
        return further(weights[4:], x, at + 128, further(weights[:4], x, at, total))

    return four if len(weights) == 4 else more


@njit(forceinline=True)
def _part(kind, rows, at, p, scratch, to, x, x_at, total):
    """The running numbers of a row after a part of the block at rows[at:]."""
    n = the(kind, "WEIGHTS") // 32 // the(kind, "PARTS") * p
    code = numbers(kind, codes(kind, ROW, rows, at, 0, p))
    return further(floats(kind, code, n, scratch, to), x, x_at + 128 * n, total)


@njit
def one_token(kind, rows, at, x, blocks, scratch, sums):
    """The running numbers of eight rows, which start at the bytes at [8], with a turned token: sums [1, 8, 8]."""
    a, b, c, d = splat(f32x8, 0), splat(f32x8, 0), splat(f32x8, 0), splat(f32x8, 0)
    e, f, g, h = splat(f32x8, 0), splat(f32x8, 0), splat(f32x8, 0), splat(f32x8, 0)
    for n in range(blocks):
        x_at, first = 4 * the(kind, "WEIGHTS") * n, the(kind, "BLOCK") * n
        for k in range(ROWS):
            header(kind, rows, at[k] + first, scratch, HEADER * k)
        for p in range(the(kind, "PARTS")):  # rows take turns: one's additions fill the others' time to wait
            a = _part(kind, rows, at[0] + first, p, scratch, 0 * HEADER, x, x_at, a)
            b = _part(kind, rows, at[1] + first, p, scratch, 1 * HEADER, x, x_at, b)
            c = _part(kind, rows, at[2] + first, p, scratch, 2 * HEADER, x, x_at, c)
            d = _part(kind, rows, at[3] + first, p, scratch, 3 * HEADER, x, x_at, d)
            e = _part(kind, rows, at[4] + first, p, scratch, 4 * HEADER, x, x_at, e)
            f = _part(kind, rows, at[5] + first, p, scratch, 5 * HEADER, x, x_at, f)
            g = _part(kind, rows, at[6] + first, p, scratch, 6 * HEADER, x, x_at, g)
            h = _part(kind, rows, at[7] + first, p, scratch, 7 * HEADER, x, x_at, h)
    store(sums, 0, concat(concat(concat(a, b), concat(c, d)), concat(concat(e, f), concat(g, h))))
