"""Q4_0: d (f16), 16 bytes of 4-bit codes around 8. Twin of quants.q4_0."""

from ..language.compile_time import inline
from ..language.row_layout import beside, take

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 18, 32, 1, 32, 8
SIGNED, OFFSET, D, M, ADDED = False, 8, 0, -1, False


@inline
def codes(block, part):
    """32 weights of 4 bits: lower halves of the bytes, then upper ones."""
    both = take(block, 16, 2)
    return beside(block, both & 15, both >> 4)
