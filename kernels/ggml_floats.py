"""Twins of ops.ggml_floats: the same roundings in the same order.

`lanes` are the floats of a register, 8 or 16, and known when a kernel runs: both orders are compiled, on any processor.
"""

from functools import cache

import numpy as np
from numba import njit, types

from .language.arithmetic import fma as fma_lanes
from .language.arithmetic import four_registers, halves_added, pairwise
from .language.arithmetic import hsum as hsum_lanes
from .language.compile_time import inline, maker, within
from .language.ieee import added_as_compiled
from .language.memory import load
from .language.reshaping import bitcast, cut, evens, odds, splat, where_less
from .language.threads import NUMBER, in_threads, worth
from .language.vectors import Vec, f32, u32

NANOSECONDS = 0.1  # for a weight times a number
u32x16, f32x16, f32x32 = Vec("u", 32, 16), Vec("f", 32, 16), Vec("f", 32, 32)


@within
def hsum(x):
    """The sum of 8 lanes: the upper half is added to the lower until one is left. Twin of ops.ggml_floats.hsum."""
    return ((x[7] + x[3]) + (x[5] + x[1])) + ((x[6] + x[2]) + (x[4] + x[0]))


@maker
def running(lanes):
    """The function (x, y, n) for the products of the first n numbers, a multiple of `lanes`, added up in that many lanes."""
    vec = Vec("f", 32, lanes)

    @inline
    def sums(x, y, n):
        acc = splat(vec, 0)
        for i in range(0, 4 * n, 4 * lanes):
            acc = fma_lanes(load(vec, x, i), load(vec, y, i), acc)
        return acc

    return sums


_in_8, _in_16, _in_32, _in_64 = map(running, (8, 16, 32, 64))


@inline
def _four_of_8(x, y):
    """8 lanes; the numbers of x and y [n] lie side by side."""
    return four_registers(_in_32(x, y, x.size // 32 * 32))


@within
def _main(x, y, lanes):
    """The sum of the whole steps of four registers."""
    if lanes == 16:
        return hsum_lanes(halves_added(halves_added(_in_64(x, y, x.size // 64 * 64), 64), 32))
    return pairwise(_four_of_8(x, y))[0]


@within
def _added_in_double(x, y, start, main):
    """`main`, float64, and the products from `start` on, which are rounded to float32."""
    for i in range(start, x.size):
        main += np.float64(x[i] * y[i])
    return np.float32(main)


@within
def dot_f32(x, y, lanes):
    """Twin of ops.ggml_floats.dot_f32: the dot product of x and y [n]."""
    return added_as_compiled(x, y, x.size // (4 * lanes) * 4 * lanes, _main(x, y, lanes), lanes)


@within
def dot_f16(x, y, lanes):
    """Twin of ops.ggml_floats.dot_f16: the dot product of x and y [n], float32 numbers that are half floats."""
    return _added_in_double(x, y, x.size // (4 * lanes) * 4 * lanes, np.float64(_main(x, y, lanes)))


@within
def dot_bf16(x, y, lanes):
    """Twin of ops.ggml_floats.dot_bf16: the dot product of x and y [n], float32 numbers that are bfloats."""
    start = x.size // 32 * 32
    if lanes == 8:
        return _added_in_double(x, y, start, np.float64(hsum_lanes(_four_of_8(x, y))))
    acc = _in_32(x, y, start)
    low, high = np.float64(hsum_lanes(cut(acc, 2, 0))), np.float64(hsum_lanes(cut(acc, 2, 1)))
    return _added_in_double(x, y, start, low + high)


@within
def dot_sgemm(x, y, lanes):
    """Twin of ops.ggml_floats.dot_sgemm: the dot product of x and y [n], n a multiple of lanes."""
    return hsum_lanes(_in_16(x, y, x.size)) if lanes == 16 else hsum_lanes(_in_8(x, y, x.size))


# ---- pairs of bfloats: x and y [n] are float32 whose lower halves are zeros


@inline
def _flushed(x):
    """16 lanes; zeros with their signs where they are subnormal."""
    bits = bitcast(u32, x)
    small = where_less(bits & 0x7FFFFFFF, splat(u32x16, 0x00800000), bits & 0x80000000, bits)
    return bitcast(f32, small)


@inline
def _pairs_onto(acc, x, y, i):
    """acc and the products of 32 numbers from i on: of the odd ones, then of the even ones."""
    a, b = load(f32x32, x, 4 * i), load(f32x32, y, 4 * i)
    acc = _flushed(fma_lanes(_flushed(odds(a)), _flushed(odds(b)), acc))
    return _flushed(fma_lanes(_flushed(evens(a)), _flushed(evens(b)), acc))


@within
def dot_bf16_pairs(x, y):
    """Twin of ops.ggml_floats.dot_bf16_pairs: the dot product of x and y [n], two bfloats at a time."""
    low, high, start = splat(f32x16, 0), splat(f32x16, 0), x.size // 64 * 64
    for i in range(0, start, 64):
        low = _pairs_onto(low, x, y, i)
        high = _pairs_onto(high, x, y, i + 32)
    return _added_in_double(x, y, start, np.float64(hsum_lanes(low)) + np.float64(hsum_lanes(high)))


@within
def dot_sgemm_pairs(x, y):
    """Twin of ops.ggml_floats.dot_sgemm_pairs: the dot product of x and y [n], two bfloats at a time; n is a multiple of 32."""
    acc = splat(f32x16, 0)
    for i in range(0, x.size, 32):
        acc = _pairs_onto(acc, x, y, i)
    return hsum_lanes(acc)


DOTS = {"dot_f32_16": 0, "dot_f16_16": 1, "dot_bf16_16": 2, "dot_sgemm_16": 3, "dot_bf16_pairs": 4, "dot_sgemm_pairs": 5}
DOTS |= {"dot_amx": DOTS["dot_sgemm_16"]}


@within
def _dot(which, x, y):
    if which == 0:
        return dot_f32(x, y, 16)
    if which == 1:
        return dot_f16(x, y, 16)
    if which == 2:
        return dot_bf16(x, y, 16)
    if which == 3:
        return dot_sgemm(x, y, 16)
    return dot_bf16_pairs(x, y) if which == 4 else dot_sgemm_pairs(x, y)


@njit(cache=True)
def _rows(which, w, x, out, first, last):
    for r in range(first, last):
        for t in range(len(x)):
            out[t, r] = _dot(which, w[r], x[t])


@cache
def _in_threads():
    rows, results = (types.Array(types.float32, 2, layout) for layout in "CA")
    return in_threads(_rows, (), NUMBER, rows, rows, results)


def product(order, w, x, out):
    """The product of packed rows that are floats with tokens, in the order of one function of ops.ggml_floats.

    order  its name, one of DOTS
    w      [O, I] float32
    x      [T, I] float32
    out    [T, O] float32: overwritten
    """
    _in_threads()(len(w), worth(NANOSECONDS * x.size), DOTS[order], np.ascontiguousarray(w), np.ascontiguousarray(x), out)
