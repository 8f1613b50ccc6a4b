"""Q6_K: 128 bytes of low bits, 64 of high bits, 16 signed scales, d (f16). Twin of quants.q6_k."""

from numba import njit

from .layout import beside, take
from .simd import bitcast, i8

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 210, 256, 2, 16, 2
SIGNED, OFFSET, D, M, ADDED = False, 32, 208, -1, False


@njit(forceinline=True)
def codes(layout, rows, at, stride, part):
    """128 weights: halves of 64 bytes, and two bits of each of 32 bytes for each 32 weights."""
    a, b = take(layout, 32, rows, at + 64 * part, stride), take(layout, 32, rows, at + 64 * part + 32, stride)
    high = take(layout, 32, rows, at + 128 + 32 * part, stride)
    return beside(
        layout,
        beside(layout, (a & 15) | ((high & 3) << 4), (b & 15) | ((high & 12) << 2)),
        beside(layout, (a >> 4) | (high & 48), (b >> 4) | ((high >> 6) << 4)),
    )


@njit(forceinline=True)
def scales(layout, rows, at, stride):
    both = bitcast(i8, take(layout, 16, rows, at + 192, stride))
    return both, both
