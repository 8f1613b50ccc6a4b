"""Q4_K: 256 weights in 8 groups of 32, each with a 6-bit scale and a 6-bit minimum. Source: dequantize_row_q4_K."""

import numpy as np

from ..arrays import F32, Blocks
from .bits import f32, nibbles, scales_and_minima

BLOCK = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
WEIGHTS = 256


def dequantize(blocks: Blocks) -> F32:
    """(d · scale) · code − dmin · minimum, every product rounded; blocks [...] -> [..., 256]."""
    scales, minima = scales_and_minima(blocks["scales"])
    scale = f32(blocks["d"]) * scales.astype(np.float32)
    minimum = f32(blocks["dmin"]) * minima.astype(np.float32)
    codes = nibbles(blocks["qs"].reshape(*blocks.shape, 4, 32))  # 32 low halves, then the 32 high halves of the same bytes
    codes = codes.reshape(*blocks.shape, 8, 32).astype(np.float32)
    return (scale[..., None] * codes - minimum[..., None]).reshape(*blocks.shape, 256)
