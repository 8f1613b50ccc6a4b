"""MXFP4: a power of two (E8M0), 16 bytes of codes into a table. Twin of quants.mxfp4."""

from numba import njit

from .layout import beside, number, take
from .simd import bitcast, convert, f32, lookup, u8, u32

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 17, 32, 1, 32, 8
SIGNED, OFFSET, D, M, ADDED = True, 0, 0, -1, False
VALUES = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


@njit(forceinline=True)
def codes(layout, rows, at, stride, part):
    both = take(layout, 16, rows, at + 1, stride)
    return lookup(beside(layout, both & 15, both >> 4), VALUES)


@njit(forceinline=True)
def delta(layout, rows, at, stride):
    """2^(e - 128), which may be subnormal: as the product of two powers that are not."""
    total = convert(u32, number(layout, u8, rows, at, stride)) + 126
    half = total >> 1
    return bitcast(f32, half << 23) * bitcast(f32, (total - half) << 23)
