"""IQ4_XS: d (f16), 2 bytes of high and 4 of low scale bits, 128 of codes into a table. Twin of quants.iq4_xs."""

from ..language.compile_time import inline
from ..language.reshaping import bitcast, lookup
from ..language.row_layout import beside, number, piece, take
from ..language.vectors import i8, u8, u32
from .iq4_nl import VALUES

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 136, 256, 4, 32, 1
SIGNED, OFFSET, D, M, ADDED = True, 0, 0, -1, False


@inline
def codes(block, part):
    """64 weights: 16 bytes hold 32, the first half in their lower bits."""
    both = take(block, 32, 8 + 32 * part)
    low, high = both & 15, both >> 4
    first = beside(block, piece(block, low, 2, 0), piece(block, high, 2, 0))
    second = beside(block, piece(block, low, 2, 1), piece(block, high, 2, 1))
    return lookup(beside(block, first, second), VALUES)


@inline
def _halves_in_order(two):
    """The four halves of the two lower bytes of each word, a byte for each."""
    pairs = (two | (two << 8)) & 0x00FF00FF
    return (pairs | (pairs << 4)) & 0x0F0F0F0F


@inline
def _pairs_in_order(byte):
    """The four pairs of bits of the lowest byte of each word, a byte for each."""
    return (byte | (byte << 6) | (byte << 12) | (byte << 18)) & 0x03030303


@inline
def scales(block):
    """Eight scales of 6 bits around 32."""
    high, low = number(block, u32, 0), number(block, u32, 4)
    first = _halves_in_order(low & 0xFFFF) | (_pairs_in_order((high >> 16) & 0xFF) << 4)
    second = _halves_in_order(low >> 16) | (_pairs_in_order(high >> 24) << 4)
    both = bitcast(i8, beside(block, bitcast(u8, first), bitcast(u8, second)) - 32)
    return both, both
