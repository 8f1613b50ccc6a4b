"""Q5_1: d and m (f16), 4 bytes of fifth bits, 16 of codes; m is added, a negative minimum. Twin of quants.q5_1."""

from ..language.compile_time import inline
from ..language.row_layout import beside, take
from .q5_0 import fifth_bits

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 24, 32, 1, 32, 4
SIGNED, OFFSET, D, M, ADDED = False, 0, 0, 2, True


@inline
def codes(block, part):
    """32 weights of 5 bits: the lower, then the upper halves of 16 bytes, and their fifth bits."""
    both = take(block, 16, 8)
    return beside(block, both & 15, both >> 4) | fifth_bits(block, 4)
