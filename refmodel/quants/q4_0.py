"""Q4_0: 32 weights, one scale, 4-bit codes around 8. Source: dequantize_row_q4_0."""

import numpy as np

from ..arrays import Blocks
from .bits import nibbles
from .integers import Integers, plain

BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
WEIGHTS = 32


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 32 weights, taken apart: d · (code − 8)."""
    return plain(blocks["d"], nibbles(blocks["qs"]) - 8)
