"""Q4_1: 32 weights, a scale and a minimum, 4-bit codes. Source: dequantize_row_q4_1."""

import numpy as np

from ..arrays import F32, Blocks
from .bits import f32, nibbles

BLOCK = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])
WEIGHTS = 32


def dequantize(blocks: Blocks) -> F32:
    """d · code + m; blocks [...] -> [..., 32]."""
    return f32(blocks["d"]) * nibbles(blocks["qs"]).astype(np.float32) + f32(blocks["m"])
