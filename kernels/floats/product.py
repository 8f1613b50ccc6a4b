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
from numba import njit, prange, types
from numba.extending import overload

from ..language.arithmetic import fma, hsum
from ..language.compile_time import WITHIN, Static, address, call, entry, for_kernels, inline
from ..language.ieee import fma as fma_of_numbers
from ..language.memory import fetch, fetch_add, load, store
from ..language.reshaping import part, tile
from ..language.vectors import Vec, target_is
from . import dequantize, float_rows, packed_rows
from .dequantize import KINDS
from .float_rows import FLOATS

ROWS = packed_rows.ROWS  # of a panel
assert float_rows.ROWS == ROWS
WIDTH = 512  # weights of each, at most
CHUNK = 512  # rows that a thread claims at once, at most
TOKENS = 1 << 20  # bytes of those that every row meets at once: half of a common second cache keeps them
PANEL = ROWS * WIDTH + 64  # numbers, of which the first 64 bytes are for alignment
SCRATCH = max(dequantize.SCRATCH, packed_rows.SCRATCH)
LANES = {"dot_sgemm": 8, "dot_f32": 32, "dot_f16": 32, "dot_bf16": 32}
f32x4, f32x8 = Vec("f", 32, 4), Vec("f", 32, 8)


@for_kernels
def multiply(order, panel, at, steps, x, column, sums):
    """Add `steps` steps of a panel, from the byte `at` on, times the columns of all tokens to sums [T, ROWS, lanes]."""


@overload(multiply, jit_options=WITHIN)
def _multiply(order, panel, at, steps, x, column, sums):
    lanes, item = LANES[order.value], x.dtype.bitwidth // 8
    step = ROWS * lanes * item  # bytes, of a panel and of one token's sums
    # running numbers in registers: of one token eight registers of 256 bits; of two 16 of 32, or eight of 16
    single, each = 256, 256 if target_is("avx512f") else 128
    lane, one, two = (Vec("f", 8 * item, n) for n in (lanes, single // item, each // item))
    in_one, in_two, token_lanes = one.lanes // lanes, two.lanes // lanes, lanes * item

    @inline
    def times_one(panel, at, steps, x, x_at, sums, to):
        a = load(one, sums, to)
        for _ in range(steps):
            a = fma(load(one, panel, at), tile(load(lane, x, x_at), in_one), a)
            at += step
            x_at += token_lanes
        store(sums, to, a)

    @inline
    def times_two(panel, at, steps, x, x_at, stride, sums, to):
        a, b = load(two, sums, to), load(two, sums, to + step)
        for _ in range(steps):
            w = load(two, panel, at)
            a = fma(w, tile(load(lane, x, x_at), in_two), a)
            b = fma(w, tile(load(lane, x, x_at + stride), in_two), b)
            at += step
            x_at += token_lanes
        store(sums, to, a)
        store(sums, to + step, b)

    def body(order, panel, at, steps, x, column, sums):
        T, width = x.shape
        pairs = T // 2 * 2 if lanes == 8 else 0
        for t in range(0, pairs, 2):
            for row in range(0, step, each):
                times_two(panel, at + row, steps, x, item * (t * width + column), item * width, sums, t * step + row)
        for t in range(pairs, T):
            for row in range(0, step, single):
                times_one(panel, at + row, steps, x, item * (t * width + column), sums, t * step + row)

    return body


@for_kernels
def total(order, sums, w, x, rest):
    """One dot product: the partial sums of `order`, and the last `rest` weights and numbers, which are not in them."""


@overload(total, jit_options=WITHIN)
def _total(order, sums, w, x, rest):
    lane = Vec("f", x.dtype.bitwidth, 8)

    @inline
    def four_registers(sums):
        a, b, c, d = load(f32x8, sums, 0), load(f32x8, sums, 32), load(f32x8, sums, 64), load(f32x8, sums, 96)
        return (a + c) + (b + d)

    @inline
    def pairwise(lanes):
        four = part(lanes, 2, 0) + part(lanes, 2, 1)
        return (four[0] + four[1]) + (four[2] + four[3])

    @inline
    def added_in_double(main, w, x, rest):
        result = np.float64(main)
        for i in range(rest):
            result += np.float64(w[i] * x[i])
        return np.float32(result)

    def dot_sgemm(order, sums, w, x, rest):
        return hsum(load(lane, sums, 0))

    def dot_f32(order, sums, w, x, rest):
        result = pairwise(four_registers(sums))
        for i in range(rest):
            result = result + w[i] * x[i] if i < rest // 4 * 4 else fma_of_numbers(w[i], x[i], result)
        return result

    def dot_f16(order, sums, w, x, rest):
        return added_in_double(pairwise(four_registers(sums)), w, x, rest)

    def dot_bf16(order, sums, w, x, rest):
        return added_in_double(hsum(four_registers(sums)), w, x, rest)

    return {"dot_sgemm": dot_sgemm, "dot_f32": dot_f32, "dot_f16": dot_f16, "dot_bf16": dot_bf16}[order.value]


@for_kernels
def fill(kind, lanes, rows, at, width, scratch, panel, to):
    """Decode the next weights of a row into a panel, `width` of them in a step."""


@overload(fill, jit_options=WITHIN)
def _fill(kind, lanes, rows, at, width, scratch, panel, to):
    of, step = KINDS[kind.value], ROWS * lanes.value * panel.dtype.bitwidth // 8
    size, weights, pace = of.BLOCK, of.WEIGHTS, of.WEIGHTS // lanes.value * step

    def packed(kind, lanes, rows, at, width, scratch, panel, to):
        for n in range(width // weights):
            packed_rows.block(kind, rows, at + size * n, scratch, panel, to + pace * n, step)

    def of_floats(kind, lanes, rows, at, width, scratch, panel, to):
        whole = width // weights
        for n in range(whole):
            fetch(rows, at + size * n, size)
            dequantize.block(kind, lanes, rows, at + size * n, scratch, panel, to + pace * n, step)
        if width % weights:  # the last ones are filled up with zeros
            scratch[:] = 0
            for i in range(size // weights * (width % weights)):
                scratch[i] = rows[at + size * whole + i]
            dequantize.block(kind, lanes, scratch, 0, scratch, panel, to + pace * whole, step)

    return of_floats if kind.value in FLOATS else packed


@for_kernels
def sums_of_rows(way, kind, order, rows, at, x, inner, panel, scratch, sums):
    """The partial dot products of ROWS rows with all tokens: sums [T, ROWS, lanes], overwritten.

    at  [ROWS]  byte offset of each row

    Returns where in the panel the first row's weights begin that are not in the sums.
    """


@overload(sums_of_rows, jit_options=WITHIN)
def _sums_of_rows(way, kind, order, rows, at, x, inner, panel, scratch, sums):
    of, lanes, item = KINDS[kind.value], LANES[order.value], x.dtype.bitwidth // 8
    size, weights, step = of.BLOCK, of.WEIGHTS, ROWS * lanes * item
    layout, up = Static(lanes), 7 if lanes == 8 else 0  # orders of 32 lanes leave out a last step of fewer weights

    def panels(way, kind, order, rows, at, x, inner, panel, scratch, sums):
        sums[:] = 0
        aligned, steps = -panel.ctypes.data % 64, 0
        for start in range(0, inner, WIDTH):
            width = min(WIDTH, inner - start)
            for k in range(ROWS):
                fill(kind, layout, rows, at[k] + start // weights * size, width, scratch, panel, aligned + lanes * item * k)
            steps = (width + up) // lanes
            multiply(order, panel, aligned, steps, x, start, sums)
        return (aligned + step * steps) // item

    def one_token(way, kind, order, rows, at, x, inner, panel, scratch, sums):
        packed_rows.one_token(kind, rows, at, x, inner // weights, scratch, sums)
        return 0

    def one_token_and_floats(way, kind, order, rows, at, x, inner, panel, scratch, sums):
        float_rows.one_token(kind, layout, rows, at, x, inner // weights, sums)
        return 0

    if way.value == "panels":
        return panels
    return one_token_and_floats if kind.value in FLOATS else one_token


@njit(cache=True)
def _share(way, kind, order, claimed, many, rows, row_bytes, x, inner, sums, out):
    """One thread's work, until no rows are left. Where rows are missing, the last one stands in."""
    n, panel, scratch, at = out.shape[1], np.empty(PANEL, x.dtype), np.empty(SCRATCH, np.uint8), np.empty(ROWS, np.int64)
    while True:
        first = fetch_add(claimed, many)
        if first >= n:
            break
        last = min(first + many, n) - 1
        apart = (last - first + ROWS) // ROWS
        for r in range(first, first + apart):
            for k in range(ROWS):
                at[k] = min(r + k * apart, last) * row_bytes
            end = sums_of_rows(way, kind, order, rows, at, x, inner, panel, scratch, sums)
            for t in range(len(x)):
                for k in range(ROWS):
                    w = panel[end + sums.shape[2] * k :]
                    out[t, min(r + k * apart, last)] = total(order, sums[t, k], w, x[t, inner - inner % 32 :], inner % 32)


@njit(parallel=True, cache=True)
def _product(sharing, claimed, many, rows, row_bytes, x, inner, sums, out):
    for i in prange(len(sums)):
        call(sharing, (None, None, None, claimed, many, rows, row_bytes, x, inner, sums[i], out))


@cache
def _compiled(way, kind, order, dtype):
    """The kernel for tokens whose dtype has that name, and the address of what each thread does in it."""
    number, of = types.int64, getattr(types, dtype)
    counter, rows = types.Array(number, 1, "C"), types.Array(types.uint8, 1, "C", readonly=True)
    two, three, four = (types.Array(of, ndim, "C") for ndim in (2, 3, 4))
    first = counter, number, rows, number, two, number
    return entry(_product, (), number, *first, four, two), address(_share, (way, kind, order), *first, three, two)


def product(kind, order, rows, x, out):
    """out [T, O] = packed rows [O, bytes] times the tokens x [T, I], weights decoded, everything in the dtype of x.

    kind   a name in KINDS
    order  a name in LANES: the order of sums; all but dot_sgemm are for float32 tokens
    out    of the dtype of x: overwritten

    Twin of ops.linear.linear and, in the order that the name says, of ops.ggml_floats.
    """
    assert out.flags.c_contiguous
    assert out.dtype == x.dtype
    (O, row_bytes), (T, I), threads = rows.shape, x.shape, numba.get_num_threads()
    rows = np.ascontiguousarray(rows).reshape(-1).view()
    rows.setflags(write=False)  # as a mapped file is: otherwise the kernel is compiled a second time
    if kind not in FLOATS:
        x = packed_rows.turned(x)
    elif order == "dot_sgemm" and I % 8:
        x = np.pad(x, ((0, 0), (0, -I % 8)))
    many = min(CHUNK, max(O // (4 * threads * ROWS), 1) * ROWS)
    one = T == 1 and I % KINDS[kind].WEIGHTS == 0 and x.dtype == np.float32
    run, sharing = _compiled("one_token" if one else "panels", kind, order, x.dtype.name)
    x = np.ascontiguousarray(x)
    parts = max(-(-x.nbytes // TOKENS), 1)
    each = -(-T // (2 * parts)) * 2  # in pairs
    for start in range(0, T, each):
        tokens, result = x[start : start + each], out[start : start + each]
        sums = np.empty((threads, len(tokens), ROWS, LANES[order]), x.dtype)
        run(sharing, np.zeros(1, np.int64), many, rows, row_bytes, tokens, I, sums, result)
