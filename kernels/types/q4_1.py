"""Q4_1: d and m (f16), 16 bytes of 4-bit codes; m is added, a negative minimum. Twin of quants.q4_1."""

from ..language.compile_time import inline
from ..language.row_layout import beside, take

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 20, 32, 1, 32, 8
SIGNED, OFFSET, D, M, ADDED = False, 0, 0, 2, True


@inline
def codes(block, part):
    """32 weights of 4 bits: lower halves of the bytes, then upper ones."""
    both = take(block, 16, 4)
    return beside(block, both & 15, both >> 4)
