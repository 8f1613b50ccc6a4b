"""Q8_0: d (f16), 32 signed codes. Twin of quants.q8_0."""

from ..language.compile_time import inline
from ..language.reshaping import bitcast
from ..language.row_layout import take
from ..language.vectors import i8

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 34, 32, 1, 32, 1
SIGNED, OFFSET, D, M, ADDED = True, 0, 0, -1, False


@inline
def codes(block, part):
    """32 weights of 8 bits, signed."""
    return bitcast(i8, take(block, 32, 2))
