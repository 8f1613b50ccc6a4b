"""The packed types: what the module of one says, and what drivers make of it.

A module of a type says
  BLOCK, WEIGHTS   bytes and weights of a block
  PARTS            calls of `codes` that give a whole block
  GROUP            weights under one scale
  SIGNED           whether codes are signed bytes; otherwise unsigned ones
  OFFSET           what is taken from a code
  D, M             the byte of the block's scale (f16), and of the scale of its minima; -1: there are none
  ADDED            whether a minimum is added and not taken away
  FLUSH            words of 4 codes whose products with 8-bit numbers may be added up in 16 bits
and has `codes(block, part)`, `scales(block)` where blocks have groups, and
`read_d(block)` where the scale is no f16. Their lanes lie as the layout says.
"""

import numpy as np

from ..language.compile_time import inline, maker
from ..language.reshaping import bitcast, convert
from ..language.row_layout import every_row, number
from ..language.vectors import DOT4, f16, f32, i8, u8, u32
from . import iq4_nl, iq4_xs, mxfp4, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0

TYPES = {
    "Q4_0": q4_0,
    "Q4_1": q4_1,
    "Q5_0": q5_0,
    "Q5_1": q5_1,
    "Q8_0": q8_0,
    "Q2_K": q2_k,
    "Q3_K": q3_k,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
    "IQ4_NL": iq4_nl,
    "IQ4_XS": iq4_xs,
    "MXFP4": mxfp4,
}


def _moved_up(codes):
    """Signed codes as unsigned bytes, 128 more; of the type for which `packed` is called."""

    @inline
    def moved_up(block, part):
        return bitcast(u8, codes(block, part)) ^ 128

    return moved_up


@maker
def _minus(offset):
    @inline
    def minus(v):
        return bitcast(i8, v - offset)

    return minus


@inline
def _as_they_are(v):
    return v


@inline
def _ones(block):
    """Four ones for each row, twice: of a block without groups."""
    ones = bitcast(i8, every_row(block, u32, 0x01010101))
    return ones, ones


@maker
def _half_float(place, sign):
    """The function that reads a half float of each block, f32: one lane for each row."""

    @inline
    def half_float(block):
        return convert(f32, number(block, f16, place))

    @inline
    def negative(block):
        return half_float(block) * np.float32(-1)

    return half_float if sign > 0 else negative


class PackedType:
    """A packed type as drivers see it.

    block, weights, parts, group   as the module says
    groups    of a block
    minima    whether blocks have minima
    signed    whether codes are signed in a file
    subtracted, offset  what is to be taken from a file's codes, and from what `codes` gives
    flush     words of 4 codes whose products are added up before the scale multiplies the sum
    code      the lane type of what `codes` gives: unsigned bytes where the target has dot products of four

    and the functions, which kernels call:

    codes(block, part)  weights / parts codes of each row as 8-bit lanes in the block's layout
    numbers(codes)      codes minus their offset; signed if there is one
    scales(block)       the scales of a block's groups and their minima, two vectors of 8-bit lanes in its layout; without minima
                        the scales twice, without groups four ones
    read_d(block)       the scale of a block, f32: one lane for each row
    read_dmin(block)    the scale of its minima, f32; only for types that have them

    A block is a row_layout.Block: one block of each of a few rows.
    """

    def __init__(self, of):
        moved = of.SIGNED and DOT4
        self.block, self.weights, self.parts, self.group = of.BLOCK, of.WEIGHTS, of.PARTS, of.GROUP
        self.groups, self.minima = of.WEIGHTS // of.GROUP, of.M >= 0
        self.signed, self.subtracted, self.offset = of.SIGNED, of.OFFSET, 128 if moved else of.OFFSET
        self.flush = of.GROUP // 4 if DOT4 else of.FLUSH
        self.code = i8 if of.SIGNED and not DOT4 else u8
        self.codes = _moved_up(of.codes) if moved else of.codes
        self.numbers = _minus(self.offset) if self.offset else _as_they_are
        self.scales = getattr(of, "scales", _ones)
        self.read_d = getattr(of, "read_d", None) or _half_float(of.D, 1)
        self.read_dmin = _half_float(of.M, -1 if of.ADDED else 1)


@maker
def packed(kind):
    """The PackedType of a name in TYPES."""
    return PackedType(TYPES[kind])
