"""Q5_0: d (f16), 4 bytes of fifth bits, 16 of codes around 16. Twin of quants.q5_0."""

from ..language.compile_time import inline
from ..language.reshaping import splat, where_less
from ..language.row_layout import beside, spread_bits, take

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 22, 32, 1, 32, 4
SIGNED, OFFSET, D, M, ADDED = False, 16, 0, -1, False


@inline
def fifth_bits(block, at):
    """The 32 fifth bits of each row, from the byte `at` of the block on, as bytes 0 or 16. Twin of quants.bits.fifth_bits."""
    bits = spread_bits(block, take(block, 4, at))
    return where_less(splat(bits, 0), bits, splat(bits, 16), splat(bits, 0))


@inline
def codes(block, part):
    """32 weights of 5 bits: the lower, then the upper halves of 16 bytes, and their fifth bits."""
    both = take(block, 16, 6)
    return beside(block, both & 15, both >> 4) | fifth_bits(block, 2)
