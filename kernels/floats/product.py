"""Products with tokens that keep all their bits, float32 or float64, in one of llama.cpp's orders of sums for floats.

The orders are those of ops.ggml: dot_sgemm has eight running numbers along a row; dot_f32, dot_f16 and dot_bf16 have 32. Eight are
one register, so many rows and tokens fit into registers at once; and neighbours in a row stay neighbours, as files hold them. So
one order serves one token and many, packed rows (`packed_rows`) and floats; it is llama.cpp's own for matrices of floats.

There are two ways, of the same bits:
  one_token   whole blocks of weights meet the token in the registers in which they become floats (`packed_rows`, `float_rows`)
  panels      rows are decoded a few hundred weights at a time to a panel in the first cache, and multiplied by pairs of tokens;
              a panel holds, step by step, 8 or 32 weights of each row: what is multiplied next is what is read next
Running numbers wait in memory for the next weights. Rows that are multiplied together lie far apart: several streams of memory are
faster than one.
"""

from functools import cache

import numba
import numpy as np
from numba import njit, types

from ..language.arithmetic import fma, four_registers, hsum, pairwise
from ..language.compile_time import inline, made, maker, within
from ..language.ieee import added_as_compiled
from ..language.memory import fetch, load, store
from ..language.reshaping import tile
from ..language.threads import NUMBER, in_threads, worth
from ..language.vectors import Vec, target_is
from . import dequantize, float_rows, packed_rows
from .dequantize import KINDS
from .float_rows import FLOATS

ROWS = packed_rows.ROWS  # of a panel
assert float_rows.ROWS == ROWS
WIDTH = 512  # weights of each, at most
CHUNK = 512  # rows that a thread takes at once, at most
NANOSECONDS = 0.1  # for a weight times a number
TOKENS = 1 << 20  # bytes of those that every row meets at once: half of a common second cache keeps them
PANEL = ROWS * WIDTH + 64  # numbers, of which the first 64 bytes are for alignment
SCRATCH = max(dequantize.SCRATCH, packed_rows.SCRATCH)
LANES = {"dot_sgemm": 8, "dot_f32": 32, "dot_f16": 32, "dot_bf16": 32}
f32x32 = Vec("f", 32, 32)


@maker
def tokens_times_steps(lanes, bits, tokens, numbers):
    """The function (panel, at, steps, x, x_at, stride, sums, to): `steps` steps of a panel from the byte `at` on, times tokens.

    tokens   one or two; the numbers of the first are at the byte x_at of x, of the second `stride` bytes later
    numbers  running ones of each in registers; they are added to those in sums, from the byte `to` on
    """
    step, token_lanes = ROWS * lanes * bits // 8, lanes * bits // 8  # bytes, of a panel and of one token's sums; of one token
    lane, register, rows = Vec("f", bits, lanes), Vec("f", bits, numbers), numbers // lanes

    @inline
    def one(panel, at, steps, x, x_at, stride, sums, to):
        a = load(register, sums, to)
        for _ in range(steps):
            a = fma(load(register, panel, at), tile(load(lane, x, x_at), rows), a)
            at += step
            x_at += token_lanes
        store(sums, to, a)

    @inline
    def two(panel, at, steps, x, x_at, stride, sums, to):
        a, b = load(register, sums, to), load(register, sums, to + step)
        for _ in range(steps):
            w = load(register, panel, at)
            a = fma(w, tile(load(lane, x, x_at), rows), a)
            b = fma(w, tile(load(lane, x, x_at + stride), rows), b)
            at += step
            x_at += token_lanes
        store(sums, to, a)
        store(sums, to + step, b)

    return one if tokens == 1 else two


@maker
def multiplying(lanes, bits):
    """The function (panel, at, steps, x, column, sums) that multiplies a panel with the columns of all tokens.

    It adds `steps` steps of the panel, from the byte `at` on, times the tokens' numbers from `column` on to sums [T, ROWS, lanes].
    """
    item, step = bits // 8, ROWS * lanes * bits // 8  # bytes, of a number and of one token's sums
    # running numbers in registers: of one token eight registers of 256 bits; of two 16 of 32, or eight of 16
    single, each = 256, 256 if target_is("avx512f") else 128
    times_one = tokens_times_steps(lanes, bits, 1, single // item)
    times_two = tokens_times_steps(lanes, bits, 2, each // item)

    @within
    def multiply(panel, at, steps, x, column, sums):
        T, width = x.shape
        pairs = T // 2 * 2 if lanes == 8 else 0
        for t in range(0, pairs, 2):
            for row in range(0, step, each):
                times_two(panel, at + row, steps, x, item * (t * width + column), item * width, sums, t * step + row)
        for t in range(pairs, T):
            for row in range(0, step, single):
                times_one(panel, at + row, steps, x, item * (t * width + column), item * width, sums, t * step + row)

    return multiply


@inline
def _added_in_double(main, w, x, rest):
    result = np.float64(main)
    for i in range(rest):
        result += np.float64(w[i] * x[i])
    return np.float32(result)


@within
def dot_f32(sums, w, x, rest):
    """One dot product: the partial sums of an order, and the last `rest` weights and numbers, which are not in them."""
    return added_as_compiled(w[:rest], x, 0, pairwise(four_registers(load(f32x32, sums, 0)))[0], 8)


@within
def dot_f16(sums, w, x, rest):
    """The same in another order."""
    return _added_in_double(pairwise(four_registers(load(f32x32, sums, 0)))[0], w, x, rest)


@within
def dot_bf16(sums, w, x, rest):
    """The same in another order."""
    return _added_in_double(hsum(four_registers(load(f32x32, sums, 0))), w, x, rest)


@maker
def total(order, bits):
    """The function (sums, w, x, rest) for one dot product in an order."""
    lane = Vec("f", bits, 8)

    @within
    def dot_sgemm(sums, w, x, rest):
        return hsum(load(lane, sums, 0))

    return {"dot_sgemm": dot_sgemm, "dot_f32": dot_f32, "dot_f16": dot_f16, "dot_bf16": dot_bf16}[order]


@maker
def filling(kind, lanes, bits):
    """The function (rows, at, width, scratch, panel, to) that decodes the next `width` weights of a row into a panel."""
    size, weights, step = KINDS[kind].BLOCK, KINDS[kind].WEIGHTS, ROWS * lanes * bits // 8
    pace, floats = weights // lanes * step, kind in FLOATS
    block = dequantize.block(kind, lanes, bits) if floats else packed_rows.block(kind, bits)

    @within
    def of_packed(rows, at, width, scratch, panel, to):
        for n in range(width // weights):
            block(rows, at + size * n, scratch, panel, to + pace * n, step)

    @within
    def of_floats(rows, at, width, scratch, panel, to):
        whole = width // weights
        for n in range(whole):
            fetch(rows, at + size * n, size)
            block(rows, at + size * n, scratch, panel, to + pace * n, step)
        if width % weights:  # the last ones are filled up with zeros
            scratch[:] = 0
            for i in range(size // weights * (width % weights)):
                scratch[i] = rows[at + size * whole + i]
            block(scratch, 0, scratch, panel, to + pace * whole, step)

    return of_floats if floats else of_packed


@maker
def sums_of_rows(way, kind, order, bits):
    """The function (rows, at, x, inner, panel, scratch, sums) for the partial dot products of ROWS rows with all tokens.

    at    [ROWS]  byte offset of each row
    sums  [T, ROWS, lanes]  overwritten

    It returns where in the panel the first row's weights begin that are not in the sums.
    """
    return sums_by_panels(kind, LANES[order], bits) if way == "panels" else sums_of_one_token(kind, LANES[order])


def sums_by_panels(kind, lanes, bits):
    """sums_of_rows of the way `panels`."""
    size, weights, item = KINDS[kind].BLOCK, KINDS[kind].WEIGHTS, bits // 8
    fill, multiply, up = filling(kind, lanes, bits), multiplying(lanes, bits), 7 if lanes == 8 else 0
    # orders of 32 lanes leave out a last step of fewer weights

    @within
    def panels(rows, at, x, inner, panel, scratch, sums):
        sums[:] = 0
        aligned, steps = -panel.ctypes.data % 64, 0
        for start in range(0, inner, WIDTH):
            width = min(WIDTH, inner - start)
            for k in range(ROWS):
                fill(rows, at[k] + start // weights * size, width, scratch, panel, aligned + lanes * item * k)
            steps = (width + up) // lanes
            multiply(panel, aligned, steps, x, start, sums)
        return (aligned + ROWS * lanes * item * steps) // item

    return panels


def sums_of_one_token(kind, lanes):
    """sums_of_rows of the way `one_token`."""
    weights, floats = KINDS[kind].WEIGHTS, kind in FLOATS
    of_floats = float_rows.one_token(kind, lanes) if floats else None
    of_packed = None if floats else packed_rows.one_token(kind)

    @within
    def one_token(rows, at, x, inner, panel, scratch, sums):
        if floats:
            of_floats(rows, at, x, inner // weights, sums)
        else:
            of_packed(rows, at, x, inner // weights, scratch, sums)
        return 0

    return one_token


@maker
def rows_between(way, kind, order, bits):
    """The function (rows, x, inner, out, first, last) that multiplies the rows `first` to `last` with all tokens.

    Where rows are missing, the last one stands in.
    """
    of_rows, dot, lanes = sums_of_rows(way, kind, order, bits), total(order, bits), LANES[order]
    number = np.float32 if bits == 32 else np.float64

    @within
    def multiply(rows, x, inner, out, first, last):
        row_bytes, flat = rows.shape[1], rows.reshape(-1)
        panel, scratch, at = np.empty(PANEL, number), np.empty(SCRATCH, np.uint8), np.empty(ROWS, np.int64)
        sums, length = np.empty((len(x), ROWS, lanes), number), (last - first + ROWS - 1) // ROWS
        for r in range(first, first + length):
            for k in range(ROWS):
                at[k] = min(r + k * length, last - 1) * row_bytes
            end = of_rows(flat, at, x, inner, panel, scratch, sums)
            for t in range(len(x)):
                for k in range(ROWS):
                    w = panel[end + lanes * k :]
                    out[t, min(r + k * length, last - 1)] = dot(sums[t, k], w, x[t, inner - inner % 32 :], inner % 32)

    return multiply


multiply = made(rows_between)


@njit(cache=True)
def _rows(way, kind, order, bits, rows, x, inner, out, first, last):
    multiply(way, kind, order, bits)(rows, x, inner, out, first, last)


@cache
def _compiled(way, kind, order, bits):
    """The product of tokens whose numbers have so many bits, in threads."""
    tokens = types.Array(getattr(types, f"float{bits}"), 2, "C")
    rows = types.Array(types.uint8, 2, "C", readonly=True)
    return in_threads(_rows, (way, kind, order, bits), rows, tokens, NUMBER, tokens)


def product(kind, order, rows, x, out):
    """out [T, O] = packed rows [O, bytes] times the tokens x [T, I], weights decoded, everything in the dtype of x.

    kind   a name in KINDS
    order  a name in LANES: the order of sums; all but dot_sgemm are for float32 tokens
    out    of the dtype of x: overwritten

    Twin of ops.linear.linear and, in the order that the name says, of ops.ggml_floats.
    """
    assert out.flags.c_contiguous
    assert out.dtype == x.dtype
    O, (T, I), threads = len(rows), x.shape, numba.get_num_threads()
    rows = np.ascontiguousarray(rows).view()
    rows.setflags(write=False)  # as a mapped file is: otherwise the kernel is compiled a second time
    if kind not in FLOATS:
        x = packed_rows.transposed(x)
    elif order == "dot_sgemm" and I % 8:
        x = np.pad(x, ((0, 0), (0, -I % 8)))
    many = max(min(CHUNK, O // (4 * threads)), worth(NANOSECONDS * x.size), ROWS) // ROWS * ROWS
    one = T == 1 and I % KINDS[kind].WEIGHTS == 0 and x.dtype == np.float32
    run, x = _compiled("one_token" if one else "panels", kind, order, 8 * x.itemsize), np.ascontiguousarray(x)
    each = -(-T // (2 * max(-(-x.nbytes // TOKENS), 1))) * 2  # tokens at once, in pairs
    for start in range(0, T, each):
        run(O, many, rows, x[start : start + each], I, out[start : start + each])
