"""Q6_K: 128 bytes of low bits, 64 of high bits, 16 signed scales, d (f16). Twin of quants.q6_k."""

from ..language.compile_time import inline
from ..language.reshaping import bitcast
from ..language.row_layout import beside, take
from ..language.vectors import i8

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 210, 256, 2, 16, 2
SIGNED, OFFSET, D, M, ADDED = False, 32, 208, -1, False


@inline
def codes(block, part):
    """128 weights: halves of 64 bytes, and two bits of each of 32 bytes for each 32 weights."""
    both, high = take(block, 64, 64 * part), take(block, 32, 128 + 32 * part)
    upper = beside(block, high, high >> 2)
    return beside(block, (both & 15) | ((upper & 3) << 4), (both >> 4) | (upper & 48))


@inline
def scales(block):
    """Sixteen signed scales of 8 bits, given twice: the type has no minima."""
    both = bitcast(i8, take(block, 16, 192))
    return both, both
