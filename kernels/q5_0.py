"""Q5_0: d (f16), 4 bytes of fifth bits, 16 of codes around 16. Twin of quants.q5_0."""

from numba import njit

from .layout import beside, number, ramp, spread, take
from .simd import bitcast, u8, u32

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 22, 32, 1, 32, 4
SIGNED, OFFSET, D, M, ADDED = False, 16, 0, -1, False


@njit(forceinline=True)
def fifth_bits(layout, rows, at, stride):
    """32 bits of each row, a byte for each, at place 4: a word takes four of them, 7 places apart, then a byte apart."""
    four = (spread(layout, number(layout, u32, rows, at, stride), 8) >> ramp(layout, 8, 4)) & 15
    return bitcast(u8, ((four | (four << 7) | (four << 14) | (four << 21)) & 0x01010101) << 4)


@njit(forceinline=True)
def codes(layout, rows, at, stride, part):
    both = take(layout, 16, rows, at + 6, stride)
    return beside(layout, both & 15, both >> 4) | fifth_bits(layout, rows, at + 2, stride)
