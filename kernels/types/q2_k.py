"""Q2_K: 16 bytes of 4-bit scales and minima, 64 of codes, d and dmin (f16). Twin of quants.q2_k."""

from ..language.compile_time import inline
from ..language.row_layout import beside, take

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 84, 256, 2, 16, 4
SIGNED, OFFSET, D, M, ADDED = False, 0, 80, 82, False


@inline
def codes(block, part):
    """128 weights: each two bits of 32 bytes."""
    four = take(block, 32, 16 + 32 * part)
    two = beside(block, four, four >> 2)
    return beside(block, two & 3, (two >> 4) & 3)


@inline
def scales(block):
    """Sixteen scales, then sixteen minima, of 4 bits."""
    both = take(block, 16, 0)
    return both & 15, both >> 4
