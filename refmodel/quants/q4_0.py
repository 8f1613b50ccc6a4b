"""Q4_0: 32 weights, one scale, 4-bit codes around 8. Source: dequantize_row_q4_0."""

import numpy as np

from ..arrays import F32, Blocks
from .bits import f32, nibbles

BLOCK = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
WEIGHTS = 32


def dequantize(blocks: Blocks) -> F32:
    """d · (code − 8); blocks [...] -> [..., 32]."""
    return f32(blocks["d"]) * (nibbles(blocks["qs"]) - 8).astype(np.float32)
