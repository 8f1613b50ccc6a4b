"""The packed types, and how a driver that knows a type only when it is compiled asks for its numbers and functions.

A module of a type says
  BLOCK, WEIGHTS   bytes and weights of a block
  PARTS            calls of `codes` that give a whole block
  GROUP            weights under one scale
  SIGNED           whether codes are signed bytes; otherwise unsigned ones
  OFFSET           what is taken from a code
  D, M             the byte of the block's scale (f16), and of the scale of its minima; -1: there are none
  ADDED            whether a minimum is added and not taken away
  FLUSH            words of 4 codes whose products with 8-bit numbers may be added up in 16 bits
and has `codes(layout, rows, at, stride, part)`, `scales(layout, rows, at, stride)` where blocks have groups, and
`delta(layout, rows, at, stride)` where the scale is no f16. Their lanes lie as the layout says.
"""

import numpy as np
from numba.extending import overload

from ..language.compile_time import INLINE, WITHIN, for_kernels
from ..language.reshaping import bitcast, convert, splat
from ..language.row_layout import count_of, number
from ..language.vectors import DOT4, Vec, f16, f32, i8, u8
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


def is_signed(kind):
    """Whether `codes` gives signed bytes (`kind` is a Static). Where the target has dot products of four bytes, it never does."""
    return TYPES[kind.value].SIGNED and not DOT4


def offset_of(kind):
    """The number to subtract from what `codes` gives (`kind` is a Static)."""
    return 128 if TYPES[kind.value].SIGNED and DOT4 else TYPES[kind.value].OFFSET


def flush_of(kind):
    """How many words of 4 codes times 8-bit numbers are added up before the scale multiplies the sum (`kind` is a Static)."""
    return TYPES[kind.value].GROUP // 4 if DOT4 else TYPES[kind.value].FLUSH


@for_kernels
def the(kind, name):
    """A constant of the type's module: its name is a literal, such as "BLOCK"."""


@for_kernels
def codes(kind, layout, rows, at, stride, part):
    """Part `part` of a block of each row: WEIGHTS / PARTS codes as 8-bit lanes in the layout, before scale and offset.

    rows    uint8, contiguous; the first row's block starts at the byte `at`, the next row's `stride` bytes later
    """


@for_kernels
def as_codes(kind, v):
    """Bytes that were stored, as lanes of the type that `codes` gives."""


@for_kernels
def scales(kind, layout, rows, at, stride):
    """The scales of a block's groups and their minima, for each row: two vectors of 8-bit lanes in the layout.

    A type without minima gives the scales twice; one without scales of its own gives four ones.
    """


@for_kernels
def delta(kind, layout, rows, at, stride):
    """The scale of a block, f32: one lane for each row."""


@for_kernels
def lower(kind, layout, rows, at, stride):
    """The scale of a block's minima, f32: one lane for each row. Only for types that have minima."""


@overload(the, prefer_literal=True, jit_options=WITHIN)
def _the(kind, name):
    value = getattr(TYPES[kind.value], name.literal_value)
    return lambda kind, name: value


@overload(codes, jit_options=INLINE)
def _codes(kind, layout, rows, at, stride, part):
    of_kind = TYPES[kind.value].codes
    if TYPES[kind.value].SIGNED and DOT4:
        return lambda kind, layout, rows, at, stride, part: bitcast(u8, of_kind(layout, rows, at, stride, part)) ^ 128
    return lambda kind, layout, rows, at, stride, part: of_kind(layout, rows, at, stride, part)


@overload(as_codes, jit_options=INLINE)
def _as_codes(kind, v):
    lane = i8 if is_signed(kind) else u8
    return lambda kind, v: bitcast(lane, v)


@overload(scales, jit_options=INLINE)
def _scales(kind, layout, rows, at, stride):
    of_kind, ones = getattr(TYPES[kind.value], "scales", None), Vec("i", 8, 4 * count_of(layout))
    if of_kind is None:
        return lambda kind, layout, rows, at, stride: (splat(ones, 1), splat(ones, 1))
    return lambda kind, layout, rows, at, stride: of_kind(layout, rows, at, stride)


@overload(delta, jit_options=INLINE)
def _delta(kind, layout, rows, at, stride):
    if of_kind := getattr(TYPES[kind.value], "delta", None):
        return lambda kind, layout, rows, at, stride: of_kind(layout, rows, at, stride)
    place = TYPES[kind.value].D
    return lambda kind, layout, rows, at, stride: convert(f32, number(layout, f16, rows, at + place, stride))


@overload(lower, jit_options=INLINE)
def _lower(kind, layout, rows, at, stride):
    place, sign = TYPES[kind.value].M, np.float32(-1 if TYPES[kind.value].ADDED else 1)
    return lambda kind, layout, rows, at, stride: convert(f32, number(layout, f16, rows, at + place, stride)) * sign


@for_kernels
def numbers(kind, v):
    """Codes minus their offset; signed if there is one."""


@overload(numbers, jit_options=INLINE)
def _numbers(kind, v):
    if offset := offset_of(kind):
        return lambda kind, v: bitcast(i8, v - offset)
    return lambda kind, v: v
