"""Q5_K: Q4_K with a fifth bit for each weight. Source: dequantize_row_q5_K."""

import numpy as np

from ..arrays import F32, Blocks
from .bits import f32, nibbles, scales_and_minima

BLOCK = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])
WEIGHTS = 256


def dequantize(blocks: Blocks) -> F32:
    """(d · scale) · code − dmin · minimum, every product rounded; blocks [...] -> [..., 256]."""
    scales, minima = scales_and_minima(blocks["scales"])
    scale = f32(blocks["d"]) * scales.astype(np.float32)
    minimum = f32(blocks["dmin"]) * minima.astype(np.float32)
    low = nibbles(blocks["qs"].reshape(*blocks.shape, 4, 32)).reshape(*blocks.shape, 8, 32)
    fifth = blocks["qh"].reshape(*blocks.shape, 1, 32) >> np.arange(8, dtype=np.uint8)[:, None] & 1  # bit j for group j
    codes = (low + 16 * fifth.astype(np.int8)).astype(np.float32)
    return (scale[..., None] * codes - minimum[..., None]).reshape(*blocks.shape, 256)
