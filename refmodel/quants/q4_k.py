"""Q4_K: 256 weights in 8 groups of 32, each with a 6-bit scale and a 6-bit minimum. Source: dequantize_row_q4_K."""

import numpy as np

from ..arrays import Blocks
from .bits import f32, nibbles, scales_and_minima
from .integers import Integers

BLOCK = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 8 groups, taken apart: (d · scale) · code − dmin · minimum."""
    scales, minima = scales_and_minima(blocks["scales"])
    codes = nibbles(blocks["qs"].reshape(*blocks.shape, 4, 32))  # 32 low halves, then the 32 high halves of the same bytes
    return Integers(f32(blocks["d"]), codes.reshape(*blocks.shape, 256), scales, f32(blocks["dmin"]), minima)
