"""Q5_1: d and m (f16), 4 bytes of fifth bits, 16 of codes; m is added, a negative minimum. Twin of quants.q5_1."""

from ..language.compile_time import inline
from ..language.row_layout import beside, take
from .q5_0 import fifth_bits

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 24, 32, 1, 32, 4
SIGNED, OFFSET, D, M, ADDED = False, 0, 0, 2, True


@inline
def codes(layout, rows, at, stride, part):
    """32 weights of 5 bits: the lower, then the upper halves of 16 bytes, and their fifth bits."""
    both = take(layout, 16, rows, at + 8, stride)
    return beside(layout, both & 15, both >> 4) | fifth_bits(layout, rows, at + 4, stride)
