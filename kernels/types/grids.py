"""Decoding of the packed types that no product takes apart: those with grids, with three values a weight, and NVFP4, Q1_0, Q2_0.

Twin of quants.dequantize, bit for bit: scale · scale of the group · code is exact in all of them. A function a type decodes one
block. Its tables are given by the caller, who has them from `quants`:

  grid   [entries, 8] or [entries, 4] float32: the numbers that an index stands for; of IQ1 types eight times them
         [5, 256] of TQ1_0: what a byte holds as its first digit, its second ...; [1, 16] of NVFP4: the values of codes
  signs  [entries, 8] float32, 1 and -1: by seven bits, or by eight
"""

import numpy as np
from numba import njit, types

from ..language.compile_time import made, within
from ..language.ieee import float_of
from ..language.threads import in_threads

CHUNK = 1 << 14  # weights that a thread takes at once


@within
def word(rows, at):
    """Two bytes from the byte `at` on, as a number."""
    return np.uint32(rows[at]) | np.uint32(rows[at + 1]) << np.uint32(8)


@within
def half(bits):
    """The bits of a half float as a float32."""
    sign, magnitude = (bits & np.uint32(0x8000)) << np.uint32(16), bits & np.uint32(0x7FFF)
    if magnitude < np.uint32(0x400):
        return np.float32(magnitude) * np.float32(2.0**-24) * (np.float32(-1) if sign else np.float32(1))
    upper = np.uint32(0x38000000) if magnitude < np.uint32(0x7C00) else np.uint32(0x70000000)
    return float_of(sign | (magnitude << np.uint32(13)) + upper)


@within
def eight(out, to, scale, grid, index, signs, which):
    """Write 8 weights to out[to:]: scale · an entry of a grid of eights · an entry of signs."""
    for j in range(8):
        out[to + j] = scale * grid[index, j] * signs[which, j]


@within
def fours(out, to, scale, grid, first, second, signs, which):
    """Write 8 weights to out[to:]: scale · two entries of a grid of fours · an entry of signs."""
    for j in range(4):
        out[to + j] = scale * grid[first, j] * signs[which, j]
        out[to + 4 + j] = scale * grid[second, j] * signs[which, 4 + j]


@within
def odd(d, scale):
    """d · (2 scale + 1): the scale of a group. Twin of quants.grids.odd."""
    return d * np.float32(2 * np.int32(scale) + 1)


@within
def q1_0(rows, at, grid, signs, out, to):
    """Decode the block of 128 weights at rows[at:] to out[to:]: d or -d by each bit. Twin of quants.q1_0."""
    d = -half(word(rows, at))
    for n in range(16):
        for j in range(8):
            out[to + 8 * n + j] = d * signs[rows[at + 2 + n], j]


@within
def q2_0(rows, at, grid, signs, out, to):
    """Decode the block of 64 weights at rows[at:] to out[to:]: d · (code − 1), codes of two bits. Twin of quants.q2_0."""
    d = half(word(rows, at))
    for n in range(16):
        for j in range(4):
            out[to + 4 * n + j] = d * np.float32(np.int32(rows[at + 2 + n] >> (2 * j) & 3) - 1)


@within
def nvfp4(rows, at, grid, signs, out, to):
    """Decode the block of 64 weights at rows[at:] to out[to:]: 4-bit floats in groups of 16. Twin of quants.nvfp4."""
    for s in range(4):
        x = np.int32(rows[at + s])
        m, e = x & 7, x >> 3 & 15
        d = np.float32(2.0**-11) * np.float32(0 if x == 0x7F else (8 + m) << e if e else 2 * m)
        for j in range(8):
            code = rows[at + 4 + 8 * s + j]
            out[to + 16 * s + j] = d * grid[0, code & 15]
            out[to + 16 * s + 8 + j] = d * grid[0, code >> 4]


@within
def tq1_0(rows, at, grid, signs, out, to):
    """Decode the block of 256 weights at rows[at:] to out[to:]: five digits of base 3 in a byte. Twin of quants.tq1_0."""
    d = half(word(rows, at + 52))
    for n in range(5):
        for j in range(32):
            out[to + 32 * n + j] = d * grid[n, rows[at + j]]
        for j in range(16):
            out[to + 160 + 16 * n + j] = d * grid[n, rows[at + 32 + j]]
    for n in range(4):
        for j in range(4):
            out[to + 240 + 4 * n + j] = d * grid[n, rows[at + 48 + j]]


@within
def tq2_0(rows, at, grid, signs, out, to):
    """Decode the block of 256 weights at rows[at:] to out[to:]: d · (code − 1), codes of two bits. Twin of quants.tq2_0."""
    d = half(word(rows, at + 64))
    for n in range(2):
        for j in range(32):
            code, first = np.int32(rows[at + 32 * n + j]), to + 128 * n + j
            for s in range(4):
                out[first + 32 * s] = d * np.float32((code >> np.int32(2 * s) & np.int32(3)) - np.int32(1))


@within
def iq2_xxs(rows, at, grid, signs, out, to):
    """Decode the block of 256 weights at rows[at:] to out[to:]. Twin of quants.iq2_xxs."""
    d = half(word(rows, at)) * np.float32(0.125)
    for n in range(8):
        qs = at + 2 + 8 * n
        rest = word(rows, qs + 4) | word(rows, qs + 6) << np.uint32(16)
        scale = odd(d, rest >> np.uint32(28))
        for k in range(4):
            eight(out, to + 32 * n + 8 * k, scale, grid, rows[qs + k], signs, rest >> np.uint32(7 * k) & np.uint32(127))


@within
def iq2_xs(rows, at, grid, signs, out, to):
    """Decode the block of 256 weights at rows[at:] to out[to:]. Twin of quants.iq2_xs."""
    d = half(word(rows, at)) * np.float32(0.125)
    for n in range(32):
        qs, s = word(rows, at + 2 + 2 * n), rows[at + 66 + n // 4]
        scale = odd(d, s >> 4 if n & 2 else s & 15)
        eight(out, to + 8 * n, scale, grid, qs & np.uint32(511), signs, qs >> np.uint32(9))


@within
def iq2_s(rows, at, grid, signs, out, to):
    """Decode the block of 256 weights at rows[at:] to out[to:]. Twin of quants.iq2_s."""
    d = half(word(rows, at)) * np.float32(0.125)
    for n in range(32):
        high, s = np.uint32(rows[at + 66 + n // 4]) >> np.uint32(2 * (n & 3)) & np.uint32(3), rows[at + 74 + n // 4]
        scale = odd(d, s >> 4 if n & 2 else s & 15)
        eight(out, to + 8 * n, scale, grid, rows[at + 2 + n] | high << np.uint32(8), signs, rows[at + 34 + n])


@within
def iq3_xxs(rows, at, grid, signs, out, to):
    """Decode the block of 256 weights at rows[at:] to out[to:]. Twin of quants.iq3_xxs."""
    d = half(word(rows, at)) * np.float32(0.25)
    for n in range(8):
        rest = word(rows, at + 66 + 4 * n) | word(rows, at + 68 + 4 * n) << np.uint32(16)
        scale, qs = odd(d, rest >> np.uint32(28)), at + 2 + 8 * n
        for k in range(4):
            which = rest >> np.uint32(7 * k) & np.uint32(127)
            fours(out, to + 32 * n + 8 * k, scale, grid, rows[qs + 2 * k], rows[qs + 2 * k + 1], signs, which)


@within
def iq3_s(rows, at, grid, signs, out, to):
    """Decode the block of 256 weights at rows[at:] to out[to:]. Twin of quants.iq3_s."""
    d = half(word(rows, at))
    for n in range(32):
        ninth, s = np.uint32(rows[at + 66 + n // 4]) >> np.uint32(2 * (n & 3)), rows[at + 106 + n // 8]
        scale = odd(d, s >> 4 if n & 4 else s & 15)
        first = rows[at + 2 + 2 * n] | (ninth & np.uint32(1)) << np.uint32(8)
        second = rows[at + 3 + 2 * n] | (ninth & np.uint32(2)) << np.uint32(7)
        fours(out, to + 8 * n, scale, grid, first, second, signs, rows[at + 74 + n])


@within
def moved(out, to, scale, grid, index, move):
    """Write 8 weights to out[to:]: scale · (an entry of a grid of eights, eight times as large, + move)."""
    for j in range(8):
        out[to + j] = scale * (grid[index, j] + move)


@within
def iq1_s(rows, at, grid, signs, out, to):
    """Decode the block of 256 weights at rows[at:] to out[to:]. Twin of quants.iq1_s."""
    d = half(word(rows, at)) * np.float32(0.125)
    for n in range(8):
        qh = word(rows, at + 34 + 2 * n)
        scale, move = odd(d, qh >> np.uint32(12) & np.uint32(7)), np.float32(-1 if qh & np.uint32(0x8000) else 1)
        for k in range(4):
            high = (qh >> np.uint32(3 * k) & np.uint32(7)) << np.uint32(8)
            moved(out, to + 32 * n + 8 * k, scale, grid, rows[at + 2 + 4 * n + k] | high, move)


@within
def iq1_m(rows, at, grid, signs, out, to):
    """Decode the block of 256 weights at rows[at:] to out[to:]. Twin of quants.iq1_m."""
    bits = np.uint32(0)
    for n in range(4):
        bits |= (word(rows, at + 48 + 2 * n) >> np.uint32(12)) << np.uint32(4 * n)
    d = half(bits) * np.float32(0.125)
    for n in range(32):
        packed, high = word(rows, at + 48 + 2 * (n // 8)), rows[at + 32 + n // 2] >> (4 * (n & 1)) & 15
        scale = odd(d, packed >> np.uint32(3 * (n // 2 & 3)) & np.uint32(7))
        moved(out, to + 8 * n, scale, grid, rows[at + n] | np.uint32(high & 7) << np.uint32(8), np.float32(-1 if high & 8 else 1))


BLOCKS = {  # type -> weights, bytes, what decodes a block
    "Q1_0": (128, 18, q1_0),
    "Q2_0": (64, 18, q2_0),
    "NVFP4": (64, 36, nvfp4),
    "TQ1_0": (256, 54, tq1_0),
    "TQ2_0": (256, 66, tq2_0),
    "IQ2_XXS": (256, 66, iq2_xxs),
    "IQ2_XS": (256, 74, iq2_xs),
    "IQ2_S": (256, 82, iq2_s),
    "IQ3_XXS": (256, 98, iq3_xxs),
    "IQ3_S": (256, 110, iq3_s),
    "IQ1_S": (256, 50, iq1_s),
    "IQ1_M": (256, 56, iq1_m),
}


decoding = made(lambda kind: BLOCKS[kind][2])


@njit(cache=True)
def _blocks(kind, weights, size, rows, grid, signs, out, first, last):
    """Decode the blocks `first` to `last` of rows [bytes], of `weights` weights and `size` bytes each, to out [weights]."""
    decode = decoding(kind)
    for n in range(first, last):
        decode(rows, size * n, grid, signs, out, weights * n)


TABLE, ROWS = types.Array(types.float32, 2, "C"), types.Array(types.uint8, 1, "C", readonly=True)
GIVEN = types.int64, types.int64, ROWS, TABLE, TABLE, types.Array(types.float32, 1, "C")


def dequantize(kind, rows, grid, signs, out):
    """Decode packed rows [O, bytes] of a type in BLOCKS into out [O, I] float32, contiguous. Twin of quants.dequantize.

    grid, signs  the type's tables, as at the top of this file
    """
    rows, out, (weights, size, _) = np.ascontiguousarray(rows).reshape(-1).view(), out.reshape(-1), BLOCKS[kind]
    rows.setflags(write=False)
    run = in_threads(_blocks, (kind,), *GIVEN)
    run(out.size // weights, CHUNK // weights, weights, size, rows, grid, signs, out)
