"""Q4_1: 32 weights, a scale and a minimum, 4-bit codes. Source: dequantize_row_q4_1."""

import numpy as np

from ..arrays import Blocks
from .bits import nibbles
from .integers import Integers, shifted

BLOCK = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])
WEIGHTS = 32


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 32 weights, taken apart: d · code + m."""
    return shifted(blocks["d"], blocks["m"], nibbles(blocks["qs"]))
