"""Q3_K: 32 bytes of third bits, 64 of two lower bits, 12 of 6-bit scales, d (f16). Twin of quants.q3_k."""

from ..language.compile_time import inline
from ..language.reshaping import bitcast
from ..language.row_layout import beside, piece, take
from ..language.vectors import i8

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 110, 256, 2, 16, 4
SIGNED, OFFSET, D, M, ADDED = False, 4, 108, -1, False


@inline
def codes(block, part):
    """128 weights: each two bits of 32 bytes, and four bits of each third byte."""
    low, third = take(block, 32, 32 + 32 * part), take(block, 32, 0)
    two, upper = beside(block, low, low >> 2), beside(block, third, third >> 1) >> 4 * part
    return beside(block, (two & 3) | ((upper & 1) << 2), ((two >> 4) & 3) | (upper & 4))


@inline
def scales(block):
    """Sixteen scales of 6 bits around 32: halves of eight bytes, and two bits of each of four."""
    packed = take(block, 12, 96)
    a, b, high = piece(block, packed, 3, 0), piece(block, packed, 3, 1), piece(block, packed, 3, 2)
    first = beside(block, (a & 15) | ((high & 3) << 4), (b & 15) | ((high & 12) << 2))
    second = beside(block, (a >> 4) | (high & 48), (b >> 4) | ((high >> 6) << 4))
    both = bitcast(i8, beside(block, first, second) - 32)
    return both, both
