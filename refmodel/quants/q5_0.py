"""Q5_0: 32 weights, one scale, 5-bit codes around 16. Source: dequantize_row_q5_0."""

import numpy as np

from ..arrays import F32, Blocks
from .bits import f32, fifth_bits, nibbles

BLOCK = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
WEIGHTS = 32


def dequantize(blocks: Blocks) -> F32:
    """d · (code − 16); blocks [...] -> [..., 32]."""
    codes = nibbles(blocks["qs"]) | fifth_bits(blocks["qh"])
    return f32(blocks["d"]) * (codes - 16).astype(np.float32)
