"""Twins of ops.ggml_product: rows in parallel, blocks in order.

A matrix comes taken apart, as in quants.integers: d, dmin [O, N] float32, codes [O, N, W] int8, scales, minima [O, N, G] int16;
dmin and minima have no rows where the type has no minimum. Tokens come as a_d [T, N], a_codes [T, N, W], a_sums.
"""

import numpy as np
from numba import njit, prange

from .ggml import hsum
from .ieee import fma

ZERO = np.float32(0)


@njit(inline="always")
def _four(w, a, i):
    """The products of four neighbours."""
    return (
        np.int32(w[i]) * np.int32(a[i])
        + np.int32(w[i + 1]) * np.int32(a[i + 1])
        + np.int32(w[i + 2]) * np.int32(a[i + 2])
        + np.int32(w[i + 3]) * np.int32(a[i + 3])
    )


@njit(inline="always")
def _sum(w, a, first, last):
    total = 0
    for i in range(first, last):
        total += np.int32(w[i]) * np.int32(a[i])
    return total


# ---- types of 32 weights a block


@njit
def _lanes(d, codes, a_d, a_codes, acc, first, last, step):
    """Blocks first, first + step ... before last of one row and one token into the 8 lanes of acc."""
    for n in range(first, last, step):
        both = d[n] * a_d[n]
        for i in range(8):
            acc[i] = fma(both, np.float32(_four(codes[n], a_codes[n], 4 * i)), acc[i])


@njit(parallel=True, cache=True)
def eight_lanes(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    for o in prange(d.shape[0]):
        acc = np.empty(8, np.float32)
        for t in range(a_d.shape[0]):
            acc[:] = 0
            _lanes(d[o], codes[o], a_d[t], a_codes[t], acc, 0, d.shape[1], 1)
            out[t, o] = hsum(acc)


@njit(parallel=True, cache=True)
def alternating_lanes(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    last = d.shape[1] - 1
    for o in prange(d.shape[0]):
        even, odd = np.empty(8, np.float32), np.empty(8, np.float32)
        for t in range(a_d.shape[0]):
            even[:], odd[:] = 0, 0
            _lanes(d[o], codes[o], a_d[t], a_codes[t], even, 0, last, 2)
            _lanes(d[o], codes[o], a_d[t], a_codes[t], odd, 1, last + 1, 2)
            total = hsum(even + odd)
            if last % 2 == 0:
                total = fma(d[o, last] * a_d[t, last], np.float32(_sum(codes[o, last], a_codes[t, last], 0, 32)), total)
            out[t, o] = total


@njit(parallel=True, cache=True)
def eight_lanes_and_minima(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    for o in prange(d.shape[0]):
        acc = np.empty(8, np.float32)
        for t in range(a_d.shape[0]):
            acc[:] = 0
            _lanes(d[o], codes[o], a_d[t], a_codes[t], acc, 0, d.shape[1], 1)
            total = ZERO
            for n in range(d.shape[1]):
                total = fma(-dmin[o, n], a_sums[t, n], total)
            out[t, o] = hsum(acc) + total


@njit(parallel=True, cache=True)
def whole_blocks(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    for o in prange(d.shape[0]):
        for t in range(a_d.shape[0]):
            acc = ZERO
            for n in range(d.shape[1]):
                acc = fma(np.float32(_sum(codes[o, n], a_codes[t, n], 0, 32)), d[o, n] * a_d[t, n], acc)
            out[t, o] = acc


# ---- types of 256 weights a block


@njit(inline="always")
def _scaled(codes, scales, a_codes, first, last):
    """scale · Σ code · code over the groups first to last."""
    width, total = 256 // scales.size, 0
    for g in range(first, last):
        total += np.int32(scales[g]) * _sum(codes, a_codes, width * g, width * (g + 1))
    return total


@njit(inline="always")
def _below(minima, a_sums, first, last):
    """minimum · Σ code of the activations over the groups first to last."""
    each, total = 16 // minima.size, 0
    for g in range(first, last):
        sums = 0
        for i in range(each * g, each * (g + 1)):
            sums += a_sums[i]
        total += np.int32(minima[g]) * sums
    return total


@njit(parallel=True, cache=True)
def super_blocks(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    G = scales.shape[2]
    for o in prange(d.shape[0]):
        for t in range(a_d.shape[0]):
            acc = ZERO
            for n in range(d.shape[1]):
                value = d[o, n] * np.float32(_scaled(codes[o, n], scales[o, n], a_codes[t, n], 0, G))
                if dmin.size:
                    value = fma(-dmin[o, n], np.float32(_below(minima[o, n], a_sums[t, n], 0, G)), value)
                acc = fma(value, a_d[t, n], acc)
            out[t, o] = acc


@njit(parallel=True, cache=True)
def whole_super_blocks(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    G = scales.shape[2]
    for o in prange(d.shape[0]):
        for t in range(a_d.shape[0]):
            acc = ZERO
            for n in range(d.shape[1]):
                acc = fma(np.float32(_scaled(codes[o, n], scales[o, n], a_codes[t, n], 0, G)), d[o, n] * a_d[t, n], acc)
            out[t, o] = acc


@njit
def _in_parts(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, groups):
    acc, under = ZERO, ZERO
    for n in range(d.size):
        both, both_min = d[n] * a_d[n], dmin[n] * a_d[n]
        for g in range(0, 8, groups):
            acc = fma(np.float32(_scaled(codes[n], scales[n], a_codes[n], g, g + groups)), both, acc)
            under = fma(np.float32(_below(minima[n], a_sums[n], g, g + groups)), both_min, under)
    return acc - under


@njit(parallel=True, cache=True)
def sums_of_q4_k(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    for o in prange(d.shape[0]):
        for t in range(a_d.shape[0]):
            out[t, o] = _in_parts(d[o], codes[o], scales[o], dmin[o], minima[o], a_d[t], a_codes[t], a_sums[t], 8)


@njit(parallel=True, cache=True)
def pairs_of_q4_k(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    for o in prange(d.shape[0]):
        for t in range(a_d.shape[0]):
            out[t, o] = _in_parts(d[o], codes[o], scales[o], dmin[o], minima[o], a_d[t], a_codes[t], a_sums[t], 2)


@njit
def _lanes_of_32(codes, scales, a_codes, lanes):
    """Lane i is elements 4i to 4i+3 of all eight groups of 32, each times its scale."""
    lanes[:] = 0
    for g in range(8):
        for i in range(8):
            lanes[i] += np.int32(scales[g]) * _four(codes, a_codes, 32 * g + 4 * i)


@njit
def _lanes_of_16(codes, scales, a_codes, lanes):
    """Lanes 0 to 3 are the fours of even groups of 16, lanes 4 to 7 of odd ones."""
    lanes[:] = 0
    for g in range(16):
        for i in range(4):
            lanes[4 * (g % 2) + i] += np.int32(scales[g]) * _four(codes, a_codes, 16 * g + 4 * i)


@njit(inline="always")
def _add(acc, factor, lanes):
    for i in range(8):
        acc[i] = fma(factor, np.float32(lanes[i]), acc[i])


@njit(parallel=True, cache=True)
def lanes_of_iq4_xs(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    for o in prange(d.shape[0]):
        acc, lanes = np.empty(8, np.float32), np.empty(8, np.int64)
        for t in range(a_d.shape[0]):
            acc[:] = 0
            for n in range(d.shape[1]):
                _lanes_of_32(codes[o, n], scales[o, n], a_codes[t, n], lanes)
                _add(acc, d[o, n] * a_d[t, n], lanes)
            out[t, o] = hsum(acc)


@njit(parallel=True, cache=True)
def lanes_of_q4_k(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    for o in prange(d.shape[0]):
        acc, lanes, under = np.empty(8, np.float32), np.empty(8, np.int64), np.empty(4, np.float32)
        for t in range(a_d.shape[0]):
            acc[:], under[:] = 0, 0
            for n in range(d.shape[1]):
                _lanes_of_32(codes[o, n], scales[o, n], a_codes[t, n], lanes)
                _add(acc, d[o, n] * a_d[t, n], lanes)
                for i in range(4):
                    pair = np.float32(_below(minima[o, n], a_sums[t, n], 2 * i, 2 * i + 2))
                    under[i] = fma(-(a_d[t, n] * dmin[o, n]), pair, under[i])
            out[t, o] = hsum(acc) + ((under[0] + under[2]) + (under[1] + under[3]))


@njit(parallel=True, cache=True)
def lanes_of_q5_k(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    for o in prange(d.shape[0]):
        acc, lanes = np.empty(8, np.float32), np.empty(8, np.int64)
        for t in range(a_d.shape[0]):
            acc[:], under = 0, ZERO
            for n in range(d.shape[1]):
                _lanes_of_32(codes[o, n], scales[o, n], a_codes[t, n], lanes)
                _add(acc, d[o, n] * a_d[t, n], lanes)
                under = fma(-(a_d[t, n] * dmin[o, n]), np.float32(_below(minima[o, n], a_sums[t, n], 0, 8)), under)
            out[t, o] = hsum(acc) + under


@njit(parallel=True, cache=True)
def lanes_of_q2_k(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    for o in prange(d.shape[0]):
        acc, lanes, pairs = np.empty(8, np.float32), np.empty(8, np.int64), np.empty(8, np.int64)
        for t in range(a_d.shape[0]):
            acc[:] = 0
            for n in range(d.shape[1]):
                for i in range(8):
                    pairs[i] = _below(minima[o, n], a_sums[t, n], 2 * i, 2 * i + 2)
                _lanes_of_16(codes[o, n], scales[o, n], a_codes[t, n], lanes)
                _add(acc, -(a_d[t, n] * dmin[o, n]), pairs)
                _add(acc, d[o, n] * a_d[t, n], lanes)
            out[t, o] = hsum(acc)


@njit(parallel=True, cache=True)
def lanes_of_q3_k(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    for o in prange(d.shape[0]):
        acc, lanes = np.empty(8, np.float32), np.empty(8, np.int64)
        for t in range(a_d.shape[0]):
            acc[:] = 0
            for n in range(d.shape[1]):
                _lanes_of_16(codes[o, n], scales[o, n], a_codes[t, n], lanes)
                _add(acc, d[o, n] * a_d[t, n], lanes)
            out[t, o] = hsum(acc)


@njit(parallel=True, cache=True)
def lanes_of_q6_k(d, codes, scales, dmin, minima, a_d, a_codes, a_sums, out):
    for o in prange(d.shape[0]):
        acc, lanes, codes_from_0 = np.empty(8, np.float32), np.empty(8, np.int64), np.empty(256, np.int8)
        for t in range(a_d.shape[0]):
            acc[:] = 0
            for n in range(d.shape[1]):
                for i in range(256):
                    codes_from_0[i] = codes[o, n, i] + 32
                _lanes_of_16(codes_from_0, scales[o, n], a_codes[t, n], lanes)
                for g in range(16):
                    lanes[g // 2] -= 32 * np.int32(scales[o, n, g]) * a_sums[t, n, g]
                _add(acc, d[o, n] * a_d[t, n], lanes)
            out[t, o] = hsum(acc)
