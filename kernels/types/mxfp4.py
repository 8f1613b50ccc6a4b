"""MXFP4: a power of two (E8M0), 16 bytes of codes into a table. Twin of quants.mxfp4."""

from ..language.compile_time import inline
from ..language.reshaping import bitcast, convert, lookup
from ..language.row_layout import beside, number, take
from ..language.vectors import f32, u8, u32

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 17, 32, 1, 32, 4
SIGNED, OFFSET, D, M, ADDED = False, 12, 0, -1, False
VALUES = (12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0)  # from 12 on: bytes without a sign are multiplied faster


@inline
def codes(block, part):
    """32 weights: 4-bit codes looked up in VALUES, which has twice the weight + 12."""
    both = take(block, 16, 1)
    return bitcast(u8, lookup(beside(block, both & 15, both >> 4), VALUES))


@inline
def read_d(block):
    """The block's scale 2^(e - 128), f32. It may be subnormal, so it is the product of two powers of two that are not."""
    total = convert(u32, number(block, u8, 0)) + 126
    half = total >> 1
    return bitcast(f32, half << 23) * bitcast(f32, (total - half) << 23)
