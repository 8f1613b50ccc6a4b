"""IQ4_NL: 32 weights, one scale, codes that look up a fixed, uneven table. Source: dequantize_row_iq4_nl."""

import numpy as np

from ..arrays import F32, Blocks
from .bits import f32, nibbles

BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
WEIGHTS = 32
VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)


def dequantize(blocks: Blocks) -> F32:
    """d · VALUES[code]; blocks [...] -> [..., 32]."""
    return f32(blocks["d"]) * VALUES[nibbles(blocks["qs"])]
