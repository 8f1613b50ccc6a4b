"""Q4_K: d and dmin (f16), 12 bytes of packed scales and minima, 128 of codes. Twin of quants.q4_k."""

from ..language.compile_time import inline
from ..language.row_layout import beside, piece, take, two_fields

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 144, 256, 4, 32, 8
SIGNED, OFFSET, D, M, ADDED = False, 0, 0, 2, False


@inline
def codes(block, part):
    """64 weights: the lower and the upper halves of 32 bytes."""
    return two_fields(block, take(block, 32, 16 + 32 * part), 0, 4, 15)


@inline
def scales(block):
    """Eight scales and eight minima of 6 bits. Twin of quants.bits.scales_and_minima."""
    header = take(block, 16, 0)
    first, second, third = piece(block, header, 4, 1), piece(block, header, 4, 2), piece(block, header, 4, 3)
    return (
        beside(block, first & 63, (third & 15) | (first >> 6 << 4)),
        beside(block, second & 63, (third >> 4) | (second >> 6 << 4)),
    )
