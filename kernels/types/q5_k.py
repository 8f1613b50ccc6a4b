"""Q5_K: Q4_K with 32 bytes of fifth bits before the codes. Twin of quants.q5_k."""

from ..language.compile_time import inline
from ..language.row_layout import take, two_fields
from . import q4_k

BLOCK, WEIGHTS, PARTS, GROUP, FLUSH = 176, 256, 4, 32, 4
SIGNED, OFFSET, D, M, ADDED = False, 0, 0, 2, False
scales = q4_k.scales


@inline
def codes(block, part):
    """64 weights: halves of 32 bytes, and two bits of each fifth byte."""
    both, fifth = take(block, 32, 48 + 32 * part), take(block, 32, 16)
    return two_fields(block, both, 0, 4, 15) | two_fields(block, fifth, 2 * part - 4, 2 * part - 3, 16)
