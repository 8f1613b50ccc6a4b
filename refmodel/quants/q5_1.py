"""Q5_1: 32 weights, a scale and a minimum, 5-bit codes. Source: dequantize_row_q5_1."""

import numpy as np

from ..arrays import Blocks
from .bits import fifth_bits, nibbles
from .integers import Integers, shifted

BLOCK = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
WEIGHTS = 32


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 32 weights, taken apart: d · code + m."""
    return shifted(blocks["d"], blocks["m"], nibbles(blocks["qs"]) | fifth_bits(blocks["qh"]))
