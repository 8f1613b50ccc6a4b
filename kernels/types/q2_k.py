"""Q2_K: 16 bytes of 4-bit scales and minima, 64 of codes, d and dmin (f16). Twin of quants.q2_k."""

from ..language.compile_time import inline
from ..language.row_layout import beside, take

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 84, 256, 2, 16, 4
SIGNED, OFFSET, D, M, ADDED = False, 0, 80, 82, False


@inline
def codes(layout, rows, at, stride, part):
    """128 weights: each two bits of 32 bytes."""
    four = take(layout, 32, rows, at + 16 + 32 * part, stride)
    two = beside(layout, four, four >> 2)
    return beside(layout, two & 3, (two >> 4) & 3)


@inline
def scales(layout, rows, at, stride):
    """Sixteen scales, then sixteen minima, of 4 bits."""
    both = take(layout, 16, rows, at, stride)
    return both & 15, both >> 4
