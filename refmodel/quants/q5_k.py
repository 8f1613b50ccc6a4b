"""Q5_K: Q4_K with a fifth bit for each weight. Source: dequantize_row_q5_K."""

import numpy as np

from ..arrays import Blocks
from .bits import f32, nibbles, scales_and_minima
from .integers import Integers

BLOCK = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])
WEIGHTS = 256


def integers(blocks: Blocks) -> Integers:
    """Blocks [...] of 256 weights in 8 groups, taken apart: (d · scale) · code − dmin · minimum."""
    scales, minima = scales_and_minima(blocks["scales"])
    low = nibbles(blocks["qs"].reshape(*blocks.shape, 4, 32)).reshape(*blocks.shape, 8, 32)
    fifth = blocks["qh"].reshape(*blocks.shape, 1, 32) >> np.arange(8, dtype=np.uint8)[:, None] & 1  # bit j for group j
    codes = (low | fifth.astype(np.int8) << 4).reshape(*blocks.shape, 256)
    return Integers(f32(blocks["d"]), codes, scales, f32(blocks["dmin"]), minima)
