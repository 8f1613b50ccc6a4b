"""IQ4_NL: d (f16), 16 bytes of codes into a table. Twin of quants.iq4_nl."""

from ..language.compile_time import inline
from ..language.reshaping import lookup
from ..language.row_layout import beside, take

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 18, 32, 1, 32, 1
SIGNED, OFFSET, D, M, ADDED = True, 0, 0, -1, False
VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@inline
def codes(block, part):
    """32 weights: 4-bit codes looked up in VALUES."""
    both = take(block, 16, 2)
    return lookup(beside(block, both & 15, both >> 4), VALUES)
