"""Q5_0: 32 weights, one scale, 5-bit codes around 16. Source: dequantize_row_q5_0."""

import numpy as np

from ..arrays import Blocks
from .bits import fifth_bits, nibbles
from .integers import Integers, plain

BLOCK = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
WEIGHTS = 32


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 32 weights, taken apart: d · (code − 16)."""
    return plain(blocks["d"], (nibbles(blocks["qs"]) | fifth_bits(blocks["qh"])) - 16)
