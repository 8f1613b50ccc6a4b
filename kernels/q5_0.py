"""Q5_0: d (f16), 4 bytes of fifth bits, 16 of codes around 16. Twin of quants.q5_0."""

from .layout import beside, spread_bits, take
from .simd import splat, where_less
from .static import inline

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 22, 32, 1, 32, 4
SIGNED, OFFSET, D, M, ADDED = False, 16, 0, -1, False


@inline
def fifth_bits(layout, rows, at, stride):
    """32 bits of each row, a byte for each, at place 4."""
    bits = spread_bits(layout, take(layout, 4, rows, at, stride))
    return where_less(splat(bits, 0), bits, splat(bits, 16), splat(bits, 0))


@inline
def codes(layout, rows, at, stride, part):
    both = take(layout, 16, rows, at + 6, stride)
    return beside(layout, both & 15, both >> 4) | fifth_bits(layout, rows, at + 2, stride)
