"""Q5_1: 32 weights, a scale and a minimum, 5-bit codes. Source: dequantize_row_q5_1."""

import numpy as np

from ..arrays import F32, Blocks
from .bits import f32, fifth_bits, nibbles

BLOCK = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
WEIGHTS = 32


def dequantize(blocks: Blocks) -> F32:
    """d · code + m; blocks [...] -> [..., 32]."""
    codes = nibbles(blocks["qs"]) | fifth_bits(blocks["qh"])
    return f32(blocks["d"]) * codes.astype(np.float32) + f32(blocks["m"])
